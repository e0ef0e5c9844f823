"""Checkpoints: all that a run needs to go on, in one safetensors file.

Weights, buffers, optimiser slots, the step, and whatever else is given. A file's tensors have
dotted names that say what they are: `weights.0.bias`, `slots.0.bias.exp_avg`, `parts.average.…`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import nn
from torch.optim import Optimizer

from steadydescent.checks import check_count
from steadydescent.weight_averaging.checkpoint_files import CheckpointFile, opened, write
from steadydescent.weight_averaging.comparing import check_alike, refuse_unready
from steadydescent.weight_averaging.loading import load_named, refuse_unfit
from steadydescent.weight_averaging.named_slots import (
    NAMED,
    class_name,
    is_numbered,
    load_slots,
    named_state,
    numbered_state,
    owner_of,
    same_class,
)
from steadydescent.weight_averaging.named_tensors import held, sharing
from steadydescent.weight_averaging.snapshots import Snapshot


class Stateful(Protocol):
    """What has a state to keep: an `EMA`, a `Shadow`, any module, torch's rate schedulers."""

    def state_dict(self) -> Any:
        """The state: tensors, arrays, numbers, texts, and containers of them (`packing`)."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Take a state over."""


def save_checkpoint(
    path: Path | str,
    model: nn.Module,
    optimizer: Optimizer | None = None,
    step: int | None = None,
    **parts: Stateful | torch.Generator,
) -> None:
    """Write weights, buffers, optimiser slots and the step to one file, whole or not at all.

    Args:
        path: where to; `.safetensors` is the ending that `last_checkpoints` looks for. Folders are
            made. A file that is there is replaced in one go: readers find the old or the new one. A
            process killed while it writes leaves a hidden `.<name>.….partial`, and perhaps a
            `.tmp…` of safetensors: no reader takes them for checkpoints, and they may be deleted
            when no process is saving.
        model: its `state_dict` is kept.
        optimizer: any whose state is tensors, numbers, texts, and lists, tuples or dicts of them;
            all of its parameters must be the model's. None keeps weights alone.
        step: how many updates have been made; it must be given.
        **parts: what else a run needs to continue bitwise, each under a name of its own: an average
            of the weights, another optimiser (kept as `optimizer` is, if its parameters are the
            model's or another part's), a scheduler, the `torch.Generator` that shuffles,
            `EpochBatches`. Dropout draws from `torch.default_generator`, a part like others; the
            `DataLoader` needs `generator=torch.Generator()` beside it: without one it draws a seed
            from there at the start of an epoch, once more when the run is resumed. With workers the
            loader runs ahead of the loop: what must be kept is `EpochBatches.state_dict(done=…)`.

    Saved inside `EMA.swapped` or `Shadow.applied`, the file holds the averaged weights, as
    opennmt-tf's checkpoints do. To continue a run, save its own weights and give the average as a
    part.

    Raises:
        ValueError: for a step that is no whole number of at least 0, a part that is neither a
            generator nor has `state_dict` and `load_state_dict`, or a parameter of the optimiser
            that is none of the model's.
        TypeError: for a state that holds something else, by its dotted name.

    >>> import tempfile
    >>> model = nn.Linear(3, 2)
    >>> optimizer = torch.optim.Adam(model.parameters())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/7.safetensors", model, optimizer, step=7)
    ...     load_checkpoint(f"{folder}/7.safetensors", model, optimizer)
    7
    """
    _check_parts(parts)
    modules = model, *parts.values()
    step, weights = check_count(step, "step", least=0), model.state_dict()
    refuse_unready(weights, "the model")
    content = {
        "step": step,
        "weights": weights,
        **_with_mean(model, weights),
        **({} if optimizer is None else named_state(optimizer, model)),
        "classes": {name: class_name(part) for name, part in parts.items()},
        **{f"parts.{name}": _saved(part, modules) for name, part in parts.items()},
    }
    write(Path(path), content)


def load_checkpoint(
    path: Path | str,
    model: nn.Module,
    optimizer: Optimizer | None = None,
    **parts: Stateful | torch.Generator,
) -> int:
    """Put a checkpoint back into model, optimiser and the named parts; returns the step.

    The file is read and verified, and compared with model, optimiser and parts, before any of them
    is changed; should one still refuse its state, all get back what they had. Without an optimiser,
    or without a part that the file holds, that one is left in the file. Tensors go to the device of
    what takes them.

    A class is the same if its module and its name are; of one that the running script itself
    defines, its name.

    >>> import tempfile
    >>> trained, fresh = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/a.safetensors", trained, None, step=7)
    ...     load_checkpoint(f"{folder}/a.safetensors", fresh)
    7
    >>> torch.equal(trained.weight, fresh.weight)
    True

    Raises:
        FileNotFoundError: for no file.
        DamagedCheckpoint: for a file that is no whole checkpoint.
        ValueError: for names, shapes or dtypes that differ, another class of optimiser or part,
            other parameters in the optimiser, or a part that the file does not hold; each by name.
    """
    _check_parts(parts)
    with opened(path := Path(path)) as file:
        step, weights, places = file.step, file.mapping("weights"), (str(path), "the model")
        refuse_unfit(model, weights, places)
        try:
            ends = str(path), "the optimizer"
            slots = None if optimizer is None else numbered_state(file, optimizer, model, ends)
        except ValueError:  # parameters of other names are another model's: say that first
            if any(name not in weights for name, _ in model.named_parameters()):
                check_alike(weights, model.state_dict(), places)
            raise
        modules = model, *parts.values()
        states = {name: _part(file, name, part, modules) for name, part in parts.items()}
    with ExitStack() as undo:
        undo.callback(Snapshot(model, extra=True).restore)
        load_named(model, weights, places)
        if optimizer is not None and slots is not None:
            undo.callback(load_slots, optimizer, deepcopy(optimizer.state_dict()))
            load_slots(optimizer, slots)
        for name, part in parts.items():
            undo.callback(_putting_back(part))
            _load_into(part, states[name], (str(path), f"the part {name!r}"))
        undo.pop_all()  # all went well: nothing is undone
    return step


def _with_mean(model: nn.Module, weights: Mapping[str, Any]) -> dict[str, list[str]]:
    """Which of the weights are parameters, and which statistics.

    `average_checkpoints` has names alone to go by.
    """
    contents = held(model)
    first_names = {**{name: name for name in contents.state}, **contents.ties}
    averaged = contents.statistics & contents.buffers.keys()
    # renamed by a hook of the model's, or buffers in the memory of others
    parameters = sharing(weights, contents.parameters) | {
        name for name, first in first_names.items() if first in contents.parameters
    }
    statistics = contents.statistics | sharing(
        weights, {name: contents.buffers[name] for name in averaged}
    )
    return {
        "parameters": [name for name in weights if name in parameters],
        "statistics": [name for name in weights if name in statistics],
    }


def _check_parts(parts: Mapping[str, Any]) -> None:
    for name, part in parts.items():
        methods = ("state_dict", "load_state_dict")
        stateful = not isinstance(part, type) and all(hasattr(part, name) for name in methods)
        if not stateful and not isinstance(part, torch.Generator):
            raise ValueError(
                f"part {name!r} must have state_dict and load_state_dict, got {part!r}"
            )


def _part(
    file: CheckpointFile, name: str, part: Stateful | torch.Generator, modules: Sequence[Any]
) -> Any:
    """A part's state, if the file holds it and it is for this part."""
    if f"parts.{name}" not in file.keys:
        prefix = "parts."
        names = sorted(key.removeprefix(prefix) for key in file.keys if key.startswith(prefix))
        raise ValueError(f"{file.path} holds no part {name!r}; it holds {names}")
    state = file[f"parts.{name}"]
    if isinstance(part, Optimizer) and isinstance(state, dict) and state.keys() >= NAMED:
        places = f"part {name!r} in {file.path}", f"the part {name!r}"
        owner = owner_of(part, modules)
        return numbered_state(state, part, modules[0] if owner is None else owner, places)
    if not same_class(saved := file["classes"][name], class_name(part)):
        raise ValueError(
            f"part {name!r} in {file.path} was written with {saved}, not {class_name(part)}"
        )
    if isinstance(part, nn.Module):
        refuse_unfit(part, state, (str(file.path), f"the part {name!r}"))
    return state


def _saved(part: Stateful | torch.Generator, modules: Sequence[Any]) -> Any:
    """A part's state; an optimiser's by names of the first of `modules` that has its parameters."""
    state = _state_of(part)
    owner = owner_of(part, modules) if isinstance(part, Optimizer) and is_numbered(state) else None
    return state if owner is None else named_state(cast("Optimizer", part), owner)


def _state_of(part: Stateful | torch.Generator) -> Any:
    return part.get_state() if isinstance(part, torch.Generator) else part.state_dict()


def _load_into(part: Stateful | torch.Generator, state: Any, places: tuple[str, str]) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, nn.Module):
        load_named(part, state, places)
    elif isinstance(part, Optimizer) and is_numbered(state):
        load_slots(part, state)
    else:
        part.load_state_dict(state)


def _putting_back(part: Stateful | torch.Generator) -> Callable[[], None]:
    """A function that puts a part's state of now back."""
    restore: Callable[[], Any]
    if isinstance(part, nn.Module):
        restore = Snapshot(part, extra=True).restore
    else:
        places = "what it was", "the part"
        restore = partial(_load_into, part, deepcopy(_state_of(part)), places)

    def back() -> None:
        with suppress(Exception):  # a part that refuses even its own state has not taken another
            restore()

    return back
