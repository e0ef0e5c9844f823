"""What a step asks of weights, gradients, their state and the rate, before anything moves."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from steadydescent.checks import check_count, check_size
from steadydescent.optimizers.torch_forms import FULL, HALF
from steadydescent.optimizers.updates import overlaps

DTYPES = FULL | HALF
ROUNDED = -1e-7
"""How far below 0 a rate may be: `LinearLR`, lowering it to 0, ends at -3e-17 by rounding."""


def can_be_updated(params: Sequence[Tensor], grads: Sequence[Tensor | None]) -> bool:
    """Whether weights and gradients are of a kind that the updates in place are right for."""
    return (
        {*map(attrgetter("dtype"), params), *map(attrgetter("dtype"), grads)} <= DTYPES
        and set(map(attrgetter("layout"), grads)) <= {torch.strided}
        and not any(map(attrgetter("is_nested"), grads))
        and (all(map(Tensor.is_contiguous, params)) or not any(map(overlaps, params)))
        and not any(map(Tensor.is_neg, params))
    )


def fit(
    params: Sequence[Tensor], grads: Sequence[Any], states: Sequence[Any], names: Sequence[str]
) -> bool:
    """Whether weights, gradients and states are of one shape each.

    False also where a state is yet to start. torch's kernels do not ask: they would read and write
    beyond the end of the smaller one's memory.
    """
    shapes = [param.shape for param in params]
    try:
        return (
            shapes == [grad.shape for grad in grads]
            and None not in [state["step"] for state in states]
            and all(shapes == [state[name].shape for state in states] for name in names)
        )
    except (KeyError, TypeError, AttributeError):
        return False


def refuse_unfit(
    name: str, who: str, param: Tensor, state: Mapping[str, Any] | None, names: Sequence[str]
) -> None:
    """Raise a ValueError that says why the optimiser `name` cannot update a parameter, if so.

    `who` it is goes into the sentence; `state` is None before it starts, and `names` are the
    tensors that it must have.
    """
    grad = param.grad
    if grad is None:
        return
    if not can_be_updated([param], [grad]):
        _refuse_kind(name, who, param, grad)
    if grad.shape != param.shape:
        raise ValueError(
            f"{who} has the shape {[*param.shape]}, its gradient {[*grad.shape]}: "
            "clear the gradient after a resize, then compute it anew"
        )
    if state is None:
        return
    drop = "delete its entry in optimizer.state, which starts anew then, or build a new optimizer"
    if missing := [key for key in ("step", *names) if state.get(key) is None]:
        raise ValueError(f"the state of {who} has no {', '.join(missing)}: {drop}")
    for key in names:
        value = state[key]
        if not isinstance(value, Tensor):
            raise ValueError(f"{key} of {who} must be a tensor, got {type(value).__name__}: {drop}")
        if value.shape != param.shape:
            raise ValueError(
                f"{who} has the shape {[*param.shape]}, its {key} {[*value.shape]}: "
                f"after a resize give the state the new shape, or {drop}"
            )


def _refuse_kind(name: str, who: str, param: Tensor, grad: Tensor) -> None:
    known = sorted(str(dtype).removeprefix("torch.") for dtype in DTYPES)
    if grad.is_complex() or grad.layout != torch.strided or grad.is_nested:
        raise ValueError(f"{name} needs dense real gradients; that of {who} is {_kind(grad)}")
    if {param.dtype, grad.dtype} - DTYPES:
        dtypes = f"{param.dtype}, its gradient {grad.dtype}".replace("torch.", "")
        raise ValueError(
            f"{name} updates weights of {', '.join(known)}; {who} is {dtypes}: "
            "cast it, or freeze it"
        )
    if param.is_neg():
        raise ValueError(
            f"{name} updates in place, and {who} is negated lazily: "
            "give it the tensor's resolve_neg()"
        )
    raise ValueError(f"{name} updates in place, and numbers of {who} share memory: give it a clone")


def _kind(grad: Tensor) -> str:
    """What a gradient is in place of a dense tensor of real numbers."""
    layout = str(grad.layout).removeprefix("torch.")
    if layout.startswith("sparse"):
        return "sparse"
    if grad.is_complex():
        return "complex"
    return "nested" if grad.is_nested else layout.replace("_", " ")


def checked_rate(lr: float | Tensor) -> float | Tensor:
    """A number; or a 0-dim tensor as it is, so that to change it in place changes the rate."""
    if not isinstance(lr, Tensor):
        check_size(0 if _is_rounded(lr) else lr, "lr")
        return float(lr)
    if lr.ndim:
        raise ValueError(
            f"lr must be a number or a tensor without axes, got one of shape {[*lr.shape]}"
        )
    if not lr.is_floating_point():
        dtype = str(lr.dtype).removeprefix("torch.")
        raise ValueError(
            f"lr must be a number or a floating-point tensor, got one of {dtype}, "
            "which cannot hold 0.5"
        )
    check_size(0 if _is_rounded(lr.item()) else lr.item(), "lr")
    return lr


def _is_rounded(lr: Any) -> bool:
    return isinstance(lr, float) and ROUNDED < lr < 0


def checked_step(step: Any) -> int:
    """The number of updates as an int; torch's optimisers keep a tensor."""
    number = step.item() if isinstance(step, Tensor) and step.numel() == 1 else step
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    return check_count(number, "step", least=0)
