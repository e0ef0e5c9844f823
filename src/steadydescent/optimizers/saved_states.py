"""States of parameters as they were saved, by this package or by torch, taken over."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from steadydescent.optimizers.step_checks import checked_step

FORMER_NAMES = {
    "momentum_buffer": "velocity",
    "square_avg": "square",
    "exp_avg": "mean",
    "exp_avg_sq": "square",
}
"""Names of state tensors → what states saved before they had torch's names call them."""


def is_new(state: Mapping[str, Any] | None, names: Sequence[str]) -> bool:
    """Whether a state holds nothing of an optimiser with tensors of these names.

    What else is there is the user's own.
    """
    own = {"step", *names, *FORMER_NAMES, *FORMER_NAMES.values()}
    return not state or state.keys().isdisjoint(own)


def state_for(param: Any, saved: Any, owner: str, names: Sequence[str], counted: bool) -> Any:
    """A parameter's state with copies of its tensors, which no other optimiser shares.

    The copies lie in memory as the parameter does. `owner` is the optimiser's name in messages,
    `names` are its state's tensors; where updates were not `counted`, as by torch's SGD, the count
    starts at 0.

    Raises:
        ValueError: for what is no state of this parameter and optimiser.
    """
    if not isinstance(param, Tensor):
        return saved  # torch lets other entries through
    if not isinstance(saved, dict):
        raise ValueError(f"state of a parameter must be a dict, got {type(saved).__name__}")
    # torch's SGD had None for no momentum
    state = {key: value for key, value in saved.items() if value is not None}
    if is_new(state, names):
        return state
    for name in names:
        if name not in state and FORMER_NAMES.get(name) in state:
            state[name] = state.pop(FORMER_NAMES[name])
    if not counted:
        state.setdefault("step", 0)
    _check(state, param, owner, names)
    copies = {name: _copy_like(param, state[name]) for name in names}
    return {**state, "step": checked_step(state["step"]), **copies}


def _check(state: Mapping[str, Any], param: Tensor, owner: str, names: Sequence[str]) -> None:
    if missing := {"step", *names} - set(state):
        raise ValueError(f"state of {owner} must have {sorted(missing)}, got {sorted(state)}")
    if is_lazy(param):
        raise ValueError(
            "state of a lazy module's parameter: run the module once, then load the state"
        )
    for name in names:
        value = state[name]
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} must be a tensor, got {type(value).__name__}")
        if value.shape != param.shape:
            raise ValueError(f"{name} must have the shape {[*param.shape]}, got {[*value.shape]}")


def _copy_like(param: Tensor, value: Tensor) -> Tensor:
    """A copy that lies in memory as the parameter does, in the value's own dtype and device."""
    return torch.empty_like(param, dtype=value.dtype, device=value.device).copy_(value)
