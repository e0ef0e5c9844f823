"""A state into a module, whole or not at all."""

import re
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

from torch import Tensor, nn

from steadydescent.weight_averaging.comparing import differences, refuse_unready
from steadydescent.weight_averaging.named_tensors import Held, held, placed_like
from steadydescent.weight_averaging.snapshots import Snapshot


def load_whole(
    module: nn.Module, state: Mapping[str, Any], places: tuple[str, str], load: Callable[[Any], Any] | None = None
) -> Any:
    """`load_named`, but when the loader refuses, everything is put back."""
    kept = Snapshot(module, extra=True)
    try:
        return load_named(module, state, places, load)
    except BaseException:
        kept.restore()
        raise


def load_named(
    module: nn.Module, state: Mapping[str, Any], places: tuple[str, str], load: Callable[[Any], Any] | None = None
) -> Any:
    """Load a state by the module's own loader, or by `load`.

    Which names fit is the loader's to say: its hooks may rename them, add them, or let them go. Values are spread over
    processes as the module's are. What is refused may be half loaded.

    Raises:
        ValueError: naming the tensor that does not fit; `places` says in words where state and module are.
    """
    try:
        return (load or module.load_state_dict)(_spread(state, held(module)))
    except (RuntimeError, ValueError) as error:
        refuse_mentioned(str(error), state, module.state_dict(), places)
        raise


def refuse_unfit(module: nn.Module, state: Mapping[str, Any], places: tuple[str, str]) -> None:
    """Refuse what torch's loader would take without a word: another dtype, and a module without memory.

    Raises:
        ValueError: naming the tensor.
    """
    here, there = places
    found = held(module)
    refuse_unready({name: tensor for name, tensor in found.state.items() if tensor.is_meta}, there)
    for name, tensor in found.state.items():
        value = state.get(name)
        if isinstance(value, Tensor) and value.dtype != tensor.dtype:
            raise ValueError(f"{name!r} is {value.dtype} in {here} but {tensor.dtype} in {there}")


def refuse_mentioned(text: str, state: Mapping[str, Any], ours: Mapping[str, Any], places: tuple[str, str]) -> None:
    """Say in our words which tensor a loader's error is about, if it is one that differs."""
    for name, sentence in differences(state, ours, places):
        if re.search(rf"""["']{re.escape(name)}["']|for {re.escape(name)}:""", text):
            raise ValueError(sentence)


def _spread(state: Mapping[str, Any], found: Held) -> Mapping[str, Any]:
    """The state with whole tensors as shards where the module holds shards; itself if it holds none."""
    tensors = {name: found.state[first] for name, first in found.ties.items() if first in found.state} | found.state
    spread = {name: placed_like(value, tensors.get(name)) for name, value in state.items()}
    if all(spread[name] is value for name, value in state.items()):
        return state
    changed = copy(state)  # an OrderedDict's own method would lose its `_metadata`
    changed.update(spread)  # type: ignore[attr-defined]
    return changed
