"""Checkpoints: weights, buffers, optimiser slots and step in one safetensors file; the mean of several (opennmt-tf).

A file's tensors have dotted names that say what they are: `weights.0.bias`, `slots.0.bias.exp_avg`, `parts.average.…`.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from steadydescent.checks import check_count
from steadydescent.weight_averaging.checkpoint_files import CheckpointFile, opened, write
from steadydescent.weight_averaging.named_slots import class_name, load_slots, named_state, numbered_state, same_class
from steadydescent.weight_averaging.named_tensors import Tensors, check_alike, has_mean


class Stateful(Protocol):
    """What has a state to keep: an `EMA`, a `Shadow`, any module, a learning-rate scheduler of torch."""

    def state_dict(self) -> Any:
        """The state as tensors, numbers, and texts in dicts, lists and tuples."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Take a state over."""


def save_checkpoint(
    path: Path | str,
    model: nn.Module,
    optimizer: Optimizer | None = None,
    step: int | None = None,
    **parts: Stateful | torch.Generator,
) -> None:
    """Write weights, buffers, optimiser slots and the number of steps done to one file, whole or not at all.

    Args:
        path: where to; `.safetensors` is the ending that `last_checkpoints` looks for. Folders are made. A file that
            is there is replaced in one go: readers find the old or the new one. A process killed while it writes
            leaves a hidden `.<name>.….partial`, and perhaps a `.tmp…` of safetensors: no reader takes them for
            checkpoints, and they may be deleted when no process is saving.
        model: its `state_dict` is kept.
        optimizer: any whose state is tensors, numbers, texts, and lists, tuples or dicts of them; all of its
            parameters must be the model's. None keeps weights alone.
        step: how many updates have been made; it must be given.
        **parts: what else a run needs to continue bitwise, each under a name of its own: an average of the
            weights, a scheduler, the `torch.Generator` that shuffles, `EpochBatches`. Dropout draws from
            `torch.default_generator`, a part like others; the `DataLoader` needs `generator=torch.Generator()` beside
            it: without one it draws a seed from there at the start of an epoch, once more when the run is resumed.
            With workers the loader runs ahead of the loop: what must be kept is `EpochBatches.state_dict(done=…)`.

    Saved inside `EMA.swapped` or `Shadow.applied`, the file holds the averaged weights, as opennmt-tf's checkpoints
    do. To continue a run, save its own weights and give the average as a part.

    Raises:
        ValueError: for a step that is no whole number of at least 0, a part that is neither a generator nor has
            `state_dict` and `load_state_dict`, or a parameter of the optimiser that is none of the model's.
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
    content = {
        "step": check_count(step, "step", least=0),
        "weights": model.state_dict(),
        **({} if optimizer is None else named_state(optimizer, model)),
        "classes": {name: class_name(part) for name, part in parts.items()},
        **{f"parts.{name}": _state_of(part) for name, part in parts.items()},
    }
    write(Path(path), content)


def load_checkpoint(
    path: Path | str, model: nn.Module, optimizer: Optimizer | None = None, **parts: Stateful | torch.Generator
) -> int:
    """Put a checkpoint back into model, optimiser and the named parts; returns the number of steps done.

    The file is read and verified, and compared with model, optimiser and parts, before any of them is changed; should
    one still refuse its state, all get back what they had. Without an optimiser, or without a part that the file holds,
    that one is left in the file. Tensors go to the device of what takes them.

    A class is the same if its module and its name are; of one that the running script itself defines, its name.

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
        ValueError: for names, shapes or dtypes that differ, another class of optimiser or part, other parameters
            in the optimiser, or a part that the file does not hold; each by name.
    """
    _check_parts(parts)
    with opened(path := Path(path)) as file:
        step, weights = file["step"], file["weights"]
        check_alike(weights, model.state_dict(), (str(path), "the model"), dtypes=True)
        slots = None if optimizer is None else numbered_state(file, optimizer, model)
        states = {name: _part(file, name, part) for name, part in parts.items()}
    with ExitStack() as undo:
        for name, part in parts.items():
            undo.callback(_put_back, part, deepcopy(_state_of(part)))
            _load_into(part, states[name])
        if optimizer is not None and slots is not None:
            undo.callback(load_slots, optimizer, deepcopy(optimizer.state_dict()))
            load_slots(optimizer, slots)
        undo.callback(model.load_state_dict, deepcopy(model.state_dict()))
        model.load_state_dict(weights)
        undo.pop_all()  # all went well: nothing is undone
    return int(step)


def average_checkpoints(paths: Iterable[Path | str]) -> Tensors:
    """The mean of checkpoints' weights, Σ θ_i/n, for `model.load_state_dict` (opennmt-tf).

    Floating-point weights and buffers are summed in float64 from zeros, each divided by their number n, and cast back.
    Integer and boolean buffers are those of the newest file by step, of several such the last given. Optimiser
    slots are not averaged and not read. One file is in memory at a time, beside the sums.

    >>> import tempfile
    >>> layer = nn.Linear(1, 1, bias=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for step, weight in enumerate([1.0, 2.0, 4.0], start=1):
    ...         _ = nn.init.constant_(layer.weight, weight)
    ...         save_checkpoint(f"{folder}/{step}.safetensors", layer, None, step)
    ...     average_checkpoints(last_checkpoints(folder, 2))["weight"].item()
    3.0

    Raises:
        FileNotFoundError: for a path without a file.
        DamagedCheckpoint: for a file that is no whole checkpoint.
        ValueError: for no path, for one path instead of several, for one given twice, and for files whose names, shapes
            or dtypes differ, by name.
    """
    if isinstance(paths, str | Path):
        raise ValueError(f"paths must be several, in a list, got the one path {str(paths)!r}")
    files = [Path(path) for path in paths]
    _refuse_repeated(files)
    like: Tensors = {}
    means: Tensors = {}
    newest = 0
    for path in files:
        with opened(path) as file:
            step, weights = file["step"], file["weights"]
        if not like:
            like = {name: value.to("meta") for name, value in weights.items()}
            means = {name: torch.zeros_like(value, dtype=_sum_dtype(value)) for name, value in weights.items()}
        check_alike(like, weights, (str(files[0]), str(path)), dtypes=True)
        for name, value in weights.items():
            if has_mean(value):
                means[name] += value.to(means[name].dtype) / len(files)
            elif step >= newest:
                means[name] = value
        newest = max(newest, step)
    return {name: mean.to(like[name].dtype) for name, mean in means.items()}


def last_checkpoints(folder: Path | str, count: int, pattern: str = "*.safetensors") -> list[Path]:
    """The `count` checkpoints of a folder with the most steps, oldest first; only headers are read.

    All files that match the pattern must be checkpoints; temporary files of `save_checkpoint` never match it.

    >>> import tempfile
    >>> layer = nn.Linear(1, 1, bias=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for step, weight in enumerate([1.0, 2.0, 4.0], start=1):
    ...         _ = nn.init.constant_(layer.weight, weight)
    ...         save_checkpoint(f"{folder}/{step}.safetensors", layer, None, step)
    ...     [path.name for path in last_checkpoints(folder, 2)]
    ['2.safetensors', '3.safetensors']

    Raises:
        FileNotFoundError: for no folder.
        DamagedCheckpoint: for a file that is no checkpoint.
        ValueError: for a count below 1, for fewer files than that, and for two files of the same step.
    """
    check_count(count, "count")
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no folder at {folder}")
    steps: dict[int, Path] = {}
    for path in sorted(Path(folder).glob(pattern)):
        with opened(path) as file:
            step = file["step"]
        if step in steps:
            raise ValueError(f"{steps[step]} and {path} are both of step {step}; which is the later is not known")
        steps[step] = path
    if len(steps) < count:
        raise ValueError(f"{folder} holds {len(steps)} checkpoints, fewer than the {count} asked for")
    return [steps[step] for step in sorted(steps)[-count:]]


def _refuse_repeated(paths: Sequence[Path]) -> None:
    if not paths:
        raise ValueError("paths must name at least one checkpoint, got none")
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise ValueError(f"{path} is given twice and would count twice")
        seen.add(path.resolve())


def _sum_dtype(value: Tensor) -> torch.dtype:
    return torch.promote_types(value.dtype, torch.float64) if has_mean(value) else value.dtype


def _check_parts(parts: Mapping[str, Any]) -> None:
    for name, part in parts.items():
        stateful = not isinstance(part, type) and hasattr(part, "state_dict") and hasattr(part, "load_state_dict")
        if not stateful and not isinstance(part, torch.Generator):
            raise ValueError(f"part {name!r} must have state_dict and load_state_dict, got {part!r}")


def _part(file: CheckpointFile, name: str, part: Stateful | torch.Generator) -> Any:
    """A part's state, if the file holds it and it is for this part."""
    if f"parts.{name}" not in file.keys:
        held = sorted(key.removeprefix("parts.") for key in file.keys if key.startswith("parts."))
        raise ValueError(f"{file.path} holds no part {name!r}; it holds {held}")
    state = file[f"parts.{name}"]
    if not same_class(saved := file["classes"][name], class_name(part)):
        raise ValueError(f"part {name!r} in {file.path} was written with {saved}, not {class_name(part)}")
    if isinstance(part, nn.Module):
        check_alike(state, part.state_dict(), (str(file.path), f"the part {name!r}"), dtypes=True)
    return state


def _state_of(part: Stateful | torch.Generator) -> Any:
    return part.get_state() if isinstance(part, torch.Generator) else part.state_dict()


def _load_into(part: Stateful | torch.Generator, state: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state)
    else:
        part.load_state_dict(state)


def _put_back(part: Stateful | torch.Generator, state: Any) -> None:
    with suppress(Exception):  # a part that refuses even its own state has not taken another
        _load_into(part, state)
