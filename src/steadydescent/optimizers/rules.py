"""Optimisers as pure, elementwise update rules::

    rule.init(theta) -> state
    rule.update(theta, grad, state, step, lr, **hyper) -> theta, state

`theta` θ, `grad` g and each tensor of `state` have the same shape, `[P]` for one model or `[R, P]`
for a stack of R replicas; the rate `lr` α broadcasts against them (`[R, 1]` gives each replica its
own) and so do the hyper-parameters, numbers or tensors; `step` is the 1-based number t of the
update. Nothing is changed in place, and nothing is checked here: `Rule.checked` does that, once,
before the first update.

Every rule takes `weight_decay` λ: the cost gains λ/2·‖θ‖², the gradient λ·θ (AdamW shrinks the
weights instead).
"""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steadydescent.averages import debias, ewa
from steadydescent.checks import check_share, check_size

State = tuple[Tensor, ...]
Hyper = float | Tensor
Step = int | Tensor


class Rule(NamedTuple):
    """An optimiser: how its state starts, how an update changes all, its default constants."""

    init: Callable[[Tensor], State]
    update: Callable[..., tuple[Tensor, State]]
    hyper: Mapping[str, float]

    def checked(self, **hyper: Any) -> dict[str, float]:
        """All hyper-parameters, these in place of their defaults.

        >>> RULES["adam"].checked(beta2=0.99)
        {'beta1': 0.9, 'beta2': 0.99, 'eps': 1e-08, 'weight_decay': 0.0}

        Raises:
            ValueError: for one that the rule does not have, one that is no number, or a value
                outside its range: β and μ in [0, 1), ε and λ at least 0 and finite.
        """
        for name, value in hyper.items():
            if name not in self.hyper:
                raise ValueError(
                    f"unknown hyper-parameter {name!r} = {value}; "
                    f"this rule has {sorted(self.hyper)}"
                )
            check = check_share if name.startswith(("beta", "mu")) else check_size
            hyper[name] = check(value, name)
        return {**self.hyper, **hyper}


def sgd(
    theta: Tensor, grad: Tensor, state: State, step: Step, lr: Hyper, weight_decay: Hyper = 0.0
) -> tuple[Tensor, State]:
    """Stochastic gradient descent, θ ← θ − α·g (uit-slides).

    With all m examples in each batch it is gradient descent.

    >>> theta, _ = sgd(torch.tensor([1.0, 2.0]), torch.tensor([0.5, -3.0]), (), step=1, lr=0.1)
    >>> theta
    tensor([0.9500, 2.3000])
    """
    return theta - lr * _with_l2(grad, theta, weight_decay), state


def momentum(
    theta: Tensor,
    grad: Tensor,
    state: State,
    step: Step,
    lr: Hyper,
    mu: Hyper = 0.9,
    weight_decay: Hyper = 0.0,
) -> tuple[Tensor, State]:
    """Heavy-ball momentum as torch has it, u ← μ·u + g, θ ← θ − α·u (polyak1964some).

    Two conventions are in use: (a) this one; (b) the averaged gradient v ← μ·v + (1−μ)·g of
    uit-slides, here `averaged_momentum`. With u₀ = v₀ = 0 they give the same weights when (b) takes
    the rate α/(1−μ), here 10·α.

    >>> theta, grad = torch.zeros(1), torch.ones(1)
    >>> theta, state = momentum(theta, grad, (torch.zeros(1),), step=1, lr=0.1)
    >>> theta, state = momentum(theta, grad, state, step=2, lr=0.1)
    >>> theta, state
    (tensor([-0.2900]), (tensor([1.9000]),))
    """
    (velocity,) = state
    velocity = mu * velocity + _with_l2(grad, theta, weight_decay)
    return theta - lr * velocity, (velocity,)


def nesterov(
    theta: Tensor,
    grad: Tensor,
    state: State,
    step: Step,
    lr: Hyper,
    mu: Hyper = 0.9,
    weight_decay: Hyper = 0.0,
) -> tuple[Tensor, State]:
    """Nesterov's momentum as torch has it, u ← μ·u + g, θ ← θ − α·(g + μ·u).

    From sutskever2013importance. Two forms are in use: (a) this one, whose weights are those that
    the gradient was taken at; (b) the look-ahead form, gradient at θ + μ·v. They are the same
    iteration seen at different points.

    >>> nesterov(torch.zeros(1), torch.ones(1), (torch.zeros(1),), step=1, lr=0.1)
    (tensor([-0.1900]), (tensor([1.]),))
    """
    (velocity,) = state
    grad = _with_l2(grad, theta, weight_decay)
    velocity = mu * velocity + grad
    return theta - lr * (grad + mu * velocity), (velocity,)


def averaged_momentum(
    theta: Tensor,
    grad: Tensor,
    state: State,
    step: Step,
    lr: Hyper,
    beta: Hyper = 0.9,
    weight_decay: Hyper = 0.0,
) -> tuple[Tensor, State]:
    """Momentum as an average of gradients, v ← β·v + (1−β)·g, θ ← θ − α·v (uit-slides).

    torch's `SGD(momentum=β, dampening=β)` starts otherwise, from v₁ = g₁, not (1−β)·g₁: on the same
    gradients its average is ahead of this one by β^t·g₁.

    >>> averaged_momentum(torch.zeros(1), torch.ones(1), (torch.zeros(1),), step=1, lr=1.0)
    (tensor([-0.1000]), (tensor([0.1000]),))
    """
    (velocity,) = state
    velocity = ewa(velocity, _with_l2(grad, theta, weight_decay), beta)
    return theta - lr * velocity, (velocity,)


def corrected_momentum(
    theta: Tensor,
    grad: Tensor,
    state: State,
    step: Step,
    lr: Hyper,
    beta: Hyper = 0.9,
    weight_decay: Hyper = 0.0,
) -> tuple[Tensor, State]:
    """Momentum with bias correction, θ ← θ − α·v/(1 − β^t) (uit-slides, which print β²).

    >>> corrected_momentum(torch.zeros(1), torch.ones(1), (torch.zeros(1),), step=1, lr=1.0)
    (tensor([-1.]), (tensor([0.1000]),))
    """
    (velocity,) = state
    velocity = ewa(velocity, _with_l2(grad, theta, weight_decay), beta)
    return theta - lr * debias(velocity, beta, step), (velocity,)


def rmsprop(
    theta: Tensor,
    grad: Tensor,
    state: State,
    step: Step,
    lr: Hyper,
    beta: Hyper = 0.99,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
) -> tuple[Tensor, State]:
    """RMSProp, s ← β·s + (1−β)·g², θ ← θ − α·g/(√s + ε) (tieleman2012lecture; uit-slides).

    β and ε are torch's by default. ε: (a) outside the root (torch), (b) inside, (c) none
    (uit-slides). We use (a); with (c) a gradient that has always been zero divides zero by zero. s
    starts from zero and is not corrected, so the first step is α/√(1−β), here 10·α.

    >>> zeros = torch.zeros(3)
    >>> theta, _ = rmsprop(zeros, torch.tensor([1e-3, -40.0, 0.0]), (zeros,), step=1, lr=0.01)
    >>> theta
    tensor([-0.1000,  0.1000,  0.0000])
    """
    (square,) = state
    grad = _with_l2(grad, theta, weight_decay)
    square = ewa(square, grad * grad, beta)
    return theta - lr * grad / (square.sqrt() + eps), (square,)


def adam(
    theta: Tensor,
    grad: Tensor,
    state: State,
    step: Step,
    lr: Hyper,
    beta1: Hyper = 0.9,
    beta2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
) -> tuple[Tensor, State]:
    """Adam, θ ← θ − α·m̂/(√ŝ + ε) (kingma2015adam, Algorithm 1).

    m̂ and ŝ are the corrected averages of g and g². ε: (a) outside the root (Kingma & Ba; torch),
    (b) inside (uit-slides). We use (a). At ε = 1e-8 it is felt by gradients near ε with (a), and by
    those near √ε = 1e-4 already with (b).

    >>> zeros = torch.zeros(3)
    >>> theta, _ = adam(zeros, torch.tensor([1e-3, -40.0, 0.0]), (zeros, zeros), step=1, lr=0.01)
    >>> theta
    tensor([-0.0100,  0.0100,  0.0000])
    """
    mean, square = state
    grad = _with_l2(grad, theta, weight_decay)
    mean = ewa(mean, grad, beta1)
    square = ewa(square, grad * grad, beta2)
    theta = theta - lr * debias(mean, beta1, step) / (debias(square, beta2, step).sqrt() + eps)
    return theta, (mean, square)


def adamw(
    theta: Tensor,
    grad: Tensor,
    state: State,
    step: Step,
    lr: Hyper,
    beta1: Hyper = 0.9,
    beta2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.01,
) -> tuple[Tensor, State]:
    """Adam with decoupled weight decay, θ ← θ − α·λ·θ, then Adam's update.

    From loshchilov2019decoupled. Two readings are in use: (a) the decay is multiplied by the rate α
    (torch); (b) by the schedule's factor alone (Loshchilov & Hutter, Algorithm 2). We use (a); (b)
    is (a) with λ divided by the peak rate.

    >>> zeros = torch.zeros(1)
    >>> adamw(torch.ones(1), zeros, (zeros, zeros), step=1, lr=0.1, weight_decay=0.5)
    (tensor([0.9500]), (tensor([0.]), tensor([0.])))
    """
    return adam(theta - lr * weight_decay * theta, grad, state, step, lr, beta1, beta2, eps)


def _with_l2(grad: Tensor, theta: Tensor, weight_decay: Hyper) -> Tensor:
    """The gradient of the cost with its L2 term λ/2·‖θ‖²."""
    if isinstance(weight_decay, float | int) and weight_decay == 0:
        return grad
    return grad + weight_decay * theta


def _zeros(count: int) -> Callable[[Tensor], State]:
    return lambda theta: tuple(torch.zeros_like(theta) for _ in range(count))


def _rule(update: Callable[..., tuple[Tensor, State]], tensors: int) -> Rule:
    """The rule of an update with so many tensors of state; its hyper-parameters and their defaults
    are those of the update's signature, all that comes after the rate.
    """
    own = list(signature(update).parameters.values())[len(_GIVEN) :]
    return Rule(_zeros(tensors), update, {option.name: option.default for option in own})


_GIVEN = ("theta", "grad", "state", "step", "lr")
"""What every update is given; what else it takes are hyper-parameters."""
RULES = {
    "sgd": _rule(sgd, tensors=0),
    "momentum": _rule(momentum, tensors=1),
    "nesterov": _rule(nesterov, tensors=1),
    "averaged-momentum": _rule(averaged_momentum, tensors=1),
    "corrected-momentum": _rule(corrected_momentum, tensors=1),
    "rmsprop": _rule(rmsprop, tensors=1),
    "adam": _rule(adam, tensors=2),
    "adamw": _rule(adamw, tensors=2),
}
"""Every rule by name.

Momentum comes in four: heavy-ball, Nesterov's, and the slides' average without and with correction,
whose rates are 1/(1−β) times as large as heavy-ball's.
"""
