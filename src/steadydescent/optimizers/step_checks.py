"""What a step asks of weights, gradients, their state and the rate, before anything moves."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from steadydescent.checks import check_count, check_size
from steadydescent.optimizers.updates import FULL, HALF, overlaps

DTYPES = FULL | HALF
ROUNDED = -1e-7
"""How far below 0 a rate may be: schedulers that lower it to 0 end there but for rounding
(`LinearLR` at -3e-17).
"""


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
    """Whether weights, gradients and states are of one shape each; False also where a state is yet
    to start.

    torch's kernels do not ask: they would read and write beyond the end of the smaller one's
    memory.
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
    name: str, who: str, param: Tensor, kept: Mapping[str, Any] | None, names: Sequence[str]
) -> None:
    """Raise a ValueError that says why the optimiser `name` cannot update a parameter, if it
    cannot.

    `who` it is goes into the sentence; `kept` is its state, None before that starts, and `names`
    what is to be there.
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
    if kept is None:
        return
    drop = "delete its entry in optimizer.state, which starts anew then, or build a new optimizer"
    if missing := [key for key in ("step", *names) if kept.get(key) is None]:
        raise ValueError(f"the state of {who} has no {', '.join(missing)}: {drop}")
    for key in names:
        if not isinstance(kept[key], Tensor):
            raise ValueError(
                f"{key} of {who} must be a tensor, got {type(kept[key]).__name__}: {drop}"
            )
        if kept[key].shape != param.shape:
            raise ValueError(
                f"{who} has the shape {[*param.shape]}, its {key} {[*kept[key].shape]}: after a resize "
                f"give the state the new shape, or {drop}"
            )


def _refuse_kind(name: str, who: str, param: Tensor, grad: Tensor) -> None:
    known = sorted(str(dtype).removeprefix("torch.") for dtype in DTYPES)
    if grad.is_complex() or grad.layout != torch.strided or grad.is_nested:
        layout = str(grad.layout).removeprefix("torch.")
        kind = (
            "complex"
            if grad.is_complex()
            else "nested"
            if grad.is_nested
            else layout.replace("_", " ")
        )
        kind = "sparse" if layout.startswith("sparse") else kind
        raise ValueError(f"{name} needs dense real gradients; that of {who} is {kind}")
    if {param.dtype, grad.dtype} - DTYPES:
        dtypes = f"{param.dtype}, its gradient {grad.dtype}".replace("torch.", "")
        raise ValueError(
            f"{name} updates weights of {', '.join(known)}; {who} is {dtypes}: cast it, or freeze it"
        )
    if param.is_neg():
        raise ValueError(
            f"{name} updates in place, and {who} is negated lazily: give it the tensor's resolve_neg()"
        )
    raise ValueError(f"{name} updates in place, and numbers of {who} share memory: give it a clone")


def checked_rate(lr: float | Tensor) -> float | Tensor:
    """A number, or a 0-dim tensor as it is, so that whoever changes it in place changes the rate."""
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
            f"lr must be a number or a floating-point tensor, got one of {dtype}, which cannot hold 0.5"
        )
    check_size(0 if _is_rounded(lr.item()) else lr.item(), "lr")
    return lr


def _is_rounded(lr: Any) -> bool:
    return isinstance(lr, float) and ROUNDED < lr < 0


def checked_step(step: Any) -> int:
    """The number of updates as an int; torch's optimisers keep a tensor."""
    number = step.item() if isinstance(step, Tensor) and step.numel() == 1 else step
    return check_count(
        int(number) if isinstance(number, float) and number.is_integer() else number,
        "step",
        least=0,
    )
