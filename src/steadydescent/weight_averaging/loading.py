"""A state into a module, whole or not at all."""

import re
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from steadydescent.weight_averaging.comparing import differences, refuse_unready
from steadydescent.weight_averaging.named_tensors import (
    Held,
    has_mean,
    held,
    local,
    mesh_of,
    placed_like,
)
from steadydescent.weight_averaging.snapshots import Snapshot


def load_whole(
    module: nn.Module,
    state: Mapping[str, Any],
    places: tuple[str, str],
    load: Callable[[Any], Any] | None = None,
) -> Any:
    """`load_named`, but when the loader refuses, everything is put back."""
    before = Snapshot(module, extra=True)
    try:
        return load_named(module, state, places, load)
    except BaseException:
        before.restore()
        raise


def load_named(
    module: nn.Module,
    state: Mapping[str, Any],
    places: tuple[str, str],
    load: Callable[[Any], Any] | None = None,
) -> Any:
    """Load a state by the module's own loader, or by `load`.

    Which names fit is the loader's to say: its hooks may rename them, add them, or let them go.
    Values are spread over processes as the module's are. What is refused may be half loaded.

    Raises:
        ValueError: naming the tensor that does not fit, or two that are tied in the module and
            differ in the state; `places` says in words where state and module are.
    """
    contents = held(module)
    _refuse_untied(contents, state, places)
    try:
        return (load or module.load_state_dict)(_spread(state, contents))
    except (RuntimeError, ValueError) as error:
        refuse_mentioned(str(error), state, module.state_dict(), places)
        raise


def refuse_unfit(module: nn.Module, state: Mapping[str, Any], places: tuple[str, str]) -> None:
    """Refuse what torch's loader takes without a word: another dtype, a module without memory.

    Raises:
        ValueError: naming the tensor.
    """
    here, there = places
    contents = held(module)
    refuse_unready(
        {name: tensor for name, tensor in contents.state.items() if tensor.is_meta}, there
    )
    for name, tensor in contents.state.items():
        value = state.get(name)
        if isinstance(value, Tensor) and value.dtype != tensor.dtype:
            raise ValueError(f"{name!r} is {value.dtype} in {here} but {tensor.dtype} in {there}")


def _refuse_untied(contents: Held, state: Mapping[str, Any], places: tuple[str, str]) -> None:
    for name, first in contents.ties.items():
        one, other = state.get(name), state.get(first)
        if isinstance(one, Tensor) and isinstance(other, Tensor) and not _same_values(one, other):
            raise ValueError(
                f"{name!r} is tied to {first!r} in {places[1]} "
                f"but has other values in {places[0]}, "
                "of which one would be lost; untie them before it is loaded"
            )


def _same_values(one: Tensor, other: Tensor) -> bool:
    """Bit for bit, so that what is not a number is itself; of a `DTensor` the shard held here."""
    if (one.shape, one.dtype, mesh_of(one)) != (other.shape, other.dtype, mesh_of(other)):
        return False
    if one.is_meta or other.is_meta:
        return one.is_meta == other.is_meta
    ours, theirs = (local(tensor).cpu() for tensor in (one, other))
    if has_mean(ours):
        ours, theirs = (_bytes_of(tensor) for tensor in (ours, theirs))
    return torch.equal(ours, theirs)


def _bytes_of(tensor: Tensor) -> Tensor:
    return tensor.resolve_conj().reshape(-1).view(torch.uint8)


def refuse_mentioned(
    text: str, state: Mapping[str, Any], ours: Mapping[str, Any], places: tuple[str, str]
) -> None:
    """Say in our words which tensor a loader's error is about, if it is one that differs."""
    for name, sentence in differences(state, ours, places):
        if re.search(rf"""["']{re.escape(name)}["']|for {re.escape(name)}:""", text):
            raise ValueError(sentence)


def _spread(state: Mapping[str, Any], contents: Held) -> Mapping[str, Any]:
    """The state with whole tensors as shards where the module has shards; itself where none."""
    tensors = contents.state
    tied = {name: tensors[first] for name, first in contents.ties.items() if first in tensors}
    tensors = tied | tensors
    spread = {name: placed_like(value, tensors.get(name)) for name, value in state.items()}
    if all(spread[name] is value for name, value in state.items()):
        return state
    changed = copy(state)  # an OrderedDict's own method would lose its `_metadata`
    changed.update(spread)  # type: ignore[attr-defined]
    return changed
