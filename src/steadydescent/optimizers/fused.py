"""The rules through torch's fused kernels, which read and write each number once.

`rules` says what is computed, and takes a pass over memory for each of its operations. torch's two kernels compute the
same to rounding, in place, for a list of parameters at once: every rule is SGD or Adam with the arguments given here.
Half precision they round once an update, a rule after every operation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from steadydescent.averages import debias
from steadydescent.optimizers import rules

Tensors = list[Tensor]
Arguments = Callable[..., dict[str, Any]]
DEVICES = ("cpu", "cuda")
GRAIN = 32_768
"""Numbers of a tensor from which torch shares an elementwise operation out among threads."""


def is_fused(update: Callable[..., Any], lr: float | Tensor, hyper: Mapping[str, Any]) -> bool:
    """Whether a kernel does what a rule's `update` does with this rate and these hyper-parameters.

    Not for a memory of 0: torch's SGD then leaves the velocity as it was, and the rule's is the gradient. Nor for a
    rate on a GPU, which would have to be waited for.
    """
    if 0 in (hyper.get("mu"), hyper.get("beta")) or (isinstance(lr, Tensor) and lr.is_cuda):
        return False
    return update in _SGD or update in _ADAM


def fit(*columns: Tensors) -> bool:
    """Whether the kernels may be given these: they read all in the order of memory, as numbers of one dtype."""
    tensors = [*chain.from_iterable(columns)]
    return (
        tensors[0].device.type in DEVICES
        and all(map(Tensor.is_contiguous, tensors))
        and len(set(map(attrgetter("dtype"), tensors))) == 1
        and len(set(map(attrgetter("device"), tensors))) == 1
    )


def update_in_place(
    update: Callable[..., Any],
    params: Tensors,
    grads: Tensors,
    state: Sequence[Tensors],
    step: int,
    lr: float | Tensor,
    weight_decay: float,
    **hyper: float,
) -> None:
    """A rule's `update` of many parameters of one dtype and device, for each of them update number `step`.

    `params`, `grads` and each list of `state`, one for every tensor of the rule's state, are equally long.
    """
    if update in _SGD:
        _sgd(params, grads, state, weight_decay=weight_decay, **_SGD[update](step, float(lr), **hyper))
    else:
        kernel = torch._fused_adamw_ if update is rules.adamw else torch._fused_adam_
        _adam(kernel, params, grads, state, weight_decay=weight_decay, **_ADAM[update](step, float(lr), **hyper))
    torch.autograd.graph.increment_version(params)  # the kernels do not, and autograd would not see the change


def _sgd(params: Tensors, grads: Tensors, state: Sequence[Tensors], **arguments: Any) -> None:
    velocities = state[0] if state else []
    if wakes_threads_for_little(params):
        _sgd_by_operation(params, grads, velocities, **arguments)
        return
    fixed = {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "maximize": False, "is_first_step": False}
    torch._fused_sgd_(params, grads, velocities, **fixed | arguments)


def wakes_threads_for_little(params: Tensors) -> bool:
    """Whether torch's fused SGD would wake its threads for every tensor and have too little for them to do.

    On a CPU with several threads that costs ten times the update itself; measured on a Transformer of 88 tensors.
    """
    numbers = sum(map(Tensor.numel, params))
    return params[0].device.type == "cpu" and torch.get_num_threads() > 1 and numbers < GRAIN * len(params)


def _sgd_by_operation(
    params: Tensors,
    grads: Tensors,
    velocities: Tensors,
    lr: float,
    weight_decay: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
) -> None:
    """torch's fused SGD in an operation at a time, each for all tensors."""
    if weight_decay:
        grads = list(torch._foreach_add(grads, params, alpha=weight_decay))
    if velocities:
        torch._foreach_mul_(velocities, momentum)
        torch._foreach_add_(velocities, grads, alpha=1 - dampening)
        grads = list(torch._foreach_add(grads, velocities, alpha=momentum)) if nesterov else velocities
    torch._foreach_add_(params, grads, alpha=-lr)


def _adam(
    kernel: Callable[..., None],
    params: Tensors,
    grads: Tensors,
    state: Sequence[Tensors],
    step: float,
    **arguments: Any,
) -> None:
    *means, squares = state
    mean = means[0] if means else [torch.zeros_like(grad) for grad in grads]
    steps = [torch.full((), step, dtype=torch.float32, device=params[0].device)] * len(params)  # read as such unasked
    kernel(params, grads, mean, squares, [], steps, amsgrad=False, maximize=False, **arguments)


_SGD: Mapping[Callable[..., Any], Arguments] = {
    rules.sgd: lambda step, lr: {"lr": lr},
    rules.momentum: lambda step, lr, mu: {"lr": lr, "momentum": mu},
    rules.nesterov: lambda step, lr, mu: {"lr": lr, "momentum": mu, "nesterov": True},
    rules.averaged_momentum: lambda step, lr, beta: {"lr": lr, "momentum": beta, "dampening": beta},
    rules.corrected_momentum: lambda step, lr, beta: {
        "lr": debias(torch.tensor(lr, dtype=torch.float64), beta, step).item(), "momentum": beta, "dampening": beta,
    },
}  # fmt: skip
_ADAM: Mapping[Callable[..., Any], Arguments] = {
    # no memory of the mean, and no correction: 1 − β^∞ = 1
    rules.rmsprop: lambda step, lr, beta, eps: {"step": math.inf, "lr": lr, "beta1": 0.0, "beta2": beta, "eps": eps},
    rules.adam: lambda step, lr, **hyper: {"step": step, "lr": lr, **hyper},
    rules.adamw: lambda step, lr, **hyper: {"step": step, "lr": lr, **hyper},
}
"""Rule → the arguments with which torch's kernel is it."""
