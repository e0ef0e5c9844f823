"""Checkpoints: weights, buffers, optimiser slots and step in one safetensors file; the mean of several (opennmt-tf).

A file's tensors have dotted names that say what they are: `weights.0.bias`, `slots.0.bias.exp_avg`, `parts.average.…`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from steadydescent.weight_averaging.checkpoint_files import CheckpointFile, opened, write
from steadydescent.weight_averaging.named_tensors import Tensors, check_alike, has_mean


class Stateful(Protocol):
    """What has a state to keep: an `EMA`, a `Shadow`, any module, a learning-rate scheduler of torch."""

    def state_dict(self) -> Any:
        """The state as tensors, numbers, and texts in dicts, lists and tuples."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Take a state over."""


def save_checkpoint(
    path: Path | str, model: nn.Module, optimizer: Optimizer | None, step: int, **parts: Stateful | torch.Generator
) -> None:
    """Write weights, buffers, optimiser slots and the number of steps done to one file, whole or not at all.

    Args:
        path: where to; `.safetensors` is the ending that `last_checkpoints` looks for. Folders are made. A file that
            is there is replaced in one go: readers find the old or the new one.
        model: its `state_dict` is kept.
        optimizer: any whose state is tensors, numbers, texts, and lists, tuples or dicts of them; all of its
            parameters must be the model's. None keeps weights alone.
        step: how many updates have been made.
        **parts: what else a run needs to continue bitwise, each under a name of its own: an average of the
            weights, a scheduler, the `torch.Generator` that shuffles.

    Saved inside `EMA.swapped` or `Shadow.applied`, the file holds the averaged weights, as opennmt-tf's checkpoints
    do. To continue a run, save its own weights and give the average as a part.

    Raises:
        ValueError: for a negative step, or a parameter of the optimiser that is none of the model's.
        TypeError: for a state that holds something else, by its dotted name.

    >>> import tempfile
    >>> model = nn.Linear(3, 2)
    >>> optimizer = torch.optim.Adam(model.parameters())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/7.safetensors", model, optimizer, step=7)
    ...     load_checkpoint(f"{folder}/7.safetensors", model, optimizer)
    7
    """
    if step < 0:
        raise ValueError(f"step must be at least 0, got {step}")
    content = {
        "step": step,
        "weights": model.state_dict(),
        **({} if optimizer is None else _named_state(optimizer, model)),
        **{f"parts.{name}": _state_of(part) for name, part in parts.items()},
    }
    write(Path(path), content)


def load_checkpoint(
    path: Path | str, model: nn.Module, optimizer: Optimizer | None = None, **parts: Stateful | torch.Generator
) -> int:
    """Put a checkpoint back into model, optimiser and the named parts; returns the number of steps done.

    The file is read and verified, and compared with model, optimiser and those parts that are modules, before any of
    them is changed. Without an optimiser, or without a part that the file holds, that one is left in the file. Tensors
    go to the device of what takes them.

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
        ValueError: for names, shapes or dtypes that differ, another class of optimiser, other parameters in
            it, or a part that the file does not hold; each by name.
    """
    path = Path(path)
    with opened(path) as file:
        step, weights = file["step"], file["weights"]
        slots = None if optimizer is None else _numbered_state(file, optimizer, model)
        states = {name: _part(file, name) for name in parts}
    check_alike(weights, model.state_dict(), (str(path), "the model"), dtypes=True)
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            check_alike(states[name], part.state_dict(), (str(path), f"the part {name!r}"), dtypes=True)
    for name, part in parts.items():  # first: a part that refuses its state leaves model and optimiser alone
        _load_into(part, states[name])
    if optimizer is not None and slots is not None:
        _load_slots(optimizer, slots)
    model.load_state_dict(weights)
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
        ValueError: for no path, for one given twice, and for files whose names, shapes or dtypes differ, by name.
    """
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
        DamagedCheckpoint: for a file that is no checkpoint.
        ValueError: for a count below 1, for fewer files than that, and for two files of the same step.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
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


def _parameter_names(optimizer: Optimizer, model: nn.Module) -> list[list[str]]:
    """Names of the parameters in each of the optimiser's groups."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    for number, group in enumerate(optimizer.param_groups):
        for position, parameter in enumerate(group["params"]):
            if parameter not in names:
                raise ValueError(f"parameter {position} of the optimizer's group {number} is none of the model's")
    return [[names[parameter] for parameter in group["params"]] for group in optimizer.param_groups]


def _named_state(optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """The optimiser's state with parameters by name instead of torch's running number."""
    groups, state = _parameter_names(optimizer, model), optimizer.state_dict()
    names = dict(enumerate(name for group in groups for name in group))
    return {
        "optimizer": type(optimizer).__name__,
        "slots": {names.get(key, key): slots for key, slots in state["state"].items()},
        "groups": [{**group, "params": names} for group, names in zip(state["param_groups"], groups, strict=True)],
    }


def _numbered_state(file: CheckpointFile, optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """The reverse of `_named_state`; refuses a state that is not for this optimiser."""
    if "optimizer" not in file.keys:
        raise ValueError(f"{file.path} was written without an optimizer")
    if file["optimizer"] != type(optimizer).__name__:
        raise ValueError(f"{file.path} was written with {file['optimizer']}, not {type(optimizer).__name__}")
    ours, groups = _parameter_names(optimizer, model), file["groups"]
    theirs = [group["params"] for group in groups]
    if ours != theirs:
        raise ValueError(f"the optimizer's groups hold the parameters {ours}, those in {file.path} hold {theirs}")
    numbers = {name: number for number, name in enumerate(name for group in ours for name in group)}
    return {
        "state": {numbers.get(key, key): slots for key, slots in file["slots"].items()},
        "param_groups": [{**group, "params": [numbers[name] for name in group["params"]]} for group in groups],
    }


def _load_slots(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """torch's `load_state_dict`, but slots keep the dtype they were saved in; torch casts them to their parameter's."""
    optimizer.load_state_dict(state)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(parameters):
        if number in state["state"]:
            optimizer.state[parameter] = _as_saved(optimizer.state[parameter], state["state"][number])


def _as_saved(loaded: Any, saved: Any) -> Any:
    """The saved tensors, on the devices that torch has chosen for them."""
    if isinstance(loaded, Tensor):
        return saved.to(loaded.device)
    if isinstance(loaded, dict):
        return {key: _as_saved(value, saved.get(key, value)) for key, value in loaded.items()}
    if isinstance(loaded, list | tuple):
        return type(loaded)(_as_saved(value, of) for value, of in zip(loaded, saved, strict=True))
    return loaded


def _part(file: CheckpointFile, name: str) -> Any:
    if f"parts.{name}" not in file.keys:
        held = sorted(key.removeprefix("parts.") for key in file.keys if key.startswith("parts."))
        raise ValueError(f"{file.path} holds no part {name!r}; it holds {held}")
    return file[f"parts.{name}"]


def _state_of(part: Stateful | torch.Generator) -> Any:
    return part.get_state() if isinstance(part, torch.Generator) else part.state_dict()


def _load_into(part: Stateful | torch.Generator, state: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state)
    else:
        part.load_state_dict(state)
