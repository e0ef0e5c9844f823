"""The rules as torch's update functions: which function, with which arguments.

`torch.optim.sgd.sgd`, `adam.adam` and `rmsprop.rmsprop` change many parameters in place at once.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from steadydescent.averages import debias
from steadydescent.optimizers import rules

Update = Callable[..., Any]

FULL = {torch.float32, torch.float64}
HALF = {torch.float16, torch.bfloat16}
GRAIN = 32_768
"""Numbers of a tensor from which torch shares an elementwise operation out among threads."""


class Form(NamedTuple):
    """A rule as a function of torch."""

    function: Callable[..., None]
    arguments: Callable[..., dict[str, Any]]
    """From the step, the rate and the rule's hyper-parameters to the function's arguments."""
    fused: AbstractSet[torch.dtype]
    """The dtypes for which the function's fused kernel is taken."""


def sgd_form(
    params: list[Tensor],
    grads: list[Tensor],
    velocities: list[Tensor] | None = None,
    *,
    lr: float,
    weight_decay: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    **way: Any,
) -> None:
    """`torch.optim.sgd.sgd`, which all four momentums are but for their factors."""
    if velocities:
        # without a memory torch leaves the velocity as it was, and the rule's is the gradient
        momentum = momentum or math.ulp(0.0)
    if way.get("foreach"):
        _sgd_by_operation(
            params, grads, velocities, lr, weight_decay, momentum, dampening, nesterov
        )
        return
    if nesterov and not params[0].is_cpu:
        grads = [grad.clone() for grad in grads]  # torch's way there writes the step into them
    sgd(
        params,
        grads,
        [*(velocities or [])],
        lr=lr,
        weight_decay=weight_decay,
        momentum=momentum,
        dampening=dampening,
        nesterov=nesterov,
        maximize=False,
        **way,
    )


def _sgd_by_operation(
    params: list[Tensor],
    grads: list[Tensor],
    velocities: list[Tensor] | None,
    lr: float,
    weight_decay: float,
    momentum: float,
    dampening: float,
    nesterov: bool,
) -> None:
    """torch's SGD in an operation at a time, each for all tensors.

    Its own takes as long again to group them.
    """
    if weight_decay:
        grads = [*torch._foreach_add(grads, params, alpha=weight_decay)]
    if velocities:
        # a number would be rounded to half precision first
        memory = torch.tensor(momentum, dtype=torch.float64, device="cpu")
        torch._foreach_mul_(velocities, memory)
        torch._foreach_add_(velocities, grads, alpha=1 - dampening)
        grads = [*torch._foreach_add(grads, velocities, alpha=momentum)] if nesterov else velocities
    torch._foreach_add_(params, grads, alpha=-lr)


def _rmsprop_form(
    params: list[Tensor],
    grads: list[Tensor],
    squares: list[Tensor],
    alpha: float,
    fused: bool = False,
    **arguments: Any,
) -> None:
    if not fused:
        steps = [torch.zeros((), device="cpu")] * len(params)  # counted, never read
        plain: dict[str, Any] = {"alpha": alpha, "momentum": 0.0, "centered": False}
        rmsprop(params, grads, squares, [], [], steps, **plain, **arguments)
        return
    # as Adam's: no memory of the mean, and no correction, since 1 − β^∞ = 1
    of_adam = {"step": math.inf, "beta1": 0.0, "beta2": alpha, "fused": True}
    for part in _portions(params):
        means = [torch.zeros_like(param) for param in params[part]]
        _adam_form(params[part], grads[part], means, squares[part], **of_adam, **arguments)


def _portions(tensors: Sequence[Tensor]) -> Iterator[slice]:
    """Parts whose copies stay small: many little tensors, or a large one."""
    start = numbers = 0
    for stop, tensor in enumerate(tensors, start=1):
        numbers += tensor.numel()
        if numbers >= 8 * GRAIN or stop == len(tensors):
            yield slice(start, stop)
            start, numbers = stop, 0


def _adam_form(
    params: list[Tensor],
    grads: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    step: float,
    **arguments: Any,
) -> None:
    before = step - 1  # torch adds one
    steps = [*torch.full((len(params),), before, dtype=torch.float32, device="cpu").unbind()]
    adam(params, grads, means, squares, [], steps, amsgrad=False, maximize=False, **arguments)


def _as_averaged_momentum(step: int, lr: float, beta: float) -> dict[str, Any]:
    return {"lr": lr, "momentum": beta, "dampening": beta}


def _as_corrected_momentum(step: int, lr: float, beta: float) -> dict[str, Any]:
    rate = torch.tensor(lr, dtype=torch.float64, device="cpu")
    return _as_averaged_momentum(step, debias(rate, beta, step).item(), beta)


def _as_adam(step: int, lr: float, **hyper: Any) -> dict[str, Any]:
    return {"step": step, "lr": lr, **hyper}


def _as_adamw(step: int, lr: float, **hyper: Any) -> dict[str, Any]:
    return {"step": step, "lr": lr, "decoupled_weight_decay": True, **hyper}


def _as_rmsprop(step: int, lr: float, beta: float, eps: float) -> dict[str, Any]:
    return {"lr": lr, "alpha": beta, "eps": eps}


def _as_nesterov(step: int, lr: float, mu: float) -> dict[str, Any]:
    return {"lr": lr, "momentum": mu, "nesterov": True}


FORMS: Mapping[Update, Form] = {
    rules.sgd: Form(sgd_form, lambda step, lr: {"lr": lr}, set()),
    rules.momentum: Form(sgd_form, lambda step, lr, mu: {"lr": lr, "momentum": mu}, FULL),
    rules.nesterov: Form(sgd_form, _as_nesterov, FULL),
    rules.averaged_momentum: Form(sgd_form, _as_averaged_momentum, FULL),
    rules.corrected_momentum: Form(sgd_form, _as_corrected_momentum, FULL),
    rules.rmsprop: Form(_rmsprop_form, _as_rmsprop, FULL | HALF),
    rules.adam: Form(_adam_form, _as_adam, FULL | HALF),
    rules.adamw: Form(_adam_form, _as_adamw, FULL | HALF),
}
"""A rule's update → its form."""
