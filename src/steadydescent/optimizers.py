"""Optimisers as pure, elementwise update rules.

    rule.init(theta) -> state
    rule.update(theta, grad, state, step, lr) -> theta, state

`theta`, `grad` and each tensor of `state` have the same shape, `[P]` for one model or `[R, P]` for a
stack of R replicas; `lr` broadcasts against them (`[R, 1]` gives each replica its own rate); `step`
is the 1-based number of the update.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from steadydescent.averages import debias, ewa

State = tuple[Tensor, ...]


class Rule(NamedTuple):
    """An optimiser: how its state starts and how one update changes weights and state."""

    init: Callable[[Tensor], State]
    update: Callable[[Tensor, Tensor, State, Tensor, Tensor], tuple[Tensor, State]]


def sgd(theta: Tensor, grad: Tensor, state: State, step: Tensor, lr: Tensor) -> tuple[Tensor, State]:
    """Stochastic gradient descent, θ ← θ − α·g (uit-slides)."""
    return theta - lr * grad, state


def momentum(
    theta: Tensor, grad: Tensor, state: State, step: Tensor, lr: Tensor, mu: float = 0.9
) -> tuple[Tensor, State]:
    """Heavy-ball momentum as torch has it, u ← μ·u + g, θ ← θ − α·u (Polyak 1964).

    Two conventions are in use: (a) this one; (b) the averaged gradient v ← μ·v + (1−μ)·g of uit-slides.
    With u₀ = v₀ = 0 they give the same weights when (b) takes the rate α/(1−μ), here 10·α.
    """
    (velocity,) = state
    velocity = mu * velocity + grad
    return theta - lr * velocity, (velocity,)


def adam(
    theta: Tensor,
    grad: Tensor,
    state: State,
    step: Tensor,
    lr: Tensor,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> tuple[Tensor, State]:
    """Adam (Kingma & Ba 2015, Algorithm 1).

    ε: (a) outside the root (Kingma & Ba; torch), (b) inside (uit-slides). We use (a); they differ
    where the root of the mean squared gradient is near ε.
    """
    mean, square = state
    mean = ewa(mean, grad, beta1)
    square = ewa(square, grad * grad, beta2)
    theta = theta - lr * debias(mean, beta1, step) / (debias(square, beta2, step).sqrt() + eps)
    return theta, (mean, square)


def _zeros(count: int) -> Callable[[Tensor], State]:
    return lambda theta: tuple(torch.zeros_like(theta) for _ in range(count))


RULES = {"sgd": Rule(_zeros(0), sgd), "momentum": Rule(_zeros(1), momentum), "adam": Rule(_zeros(2), adam)}
