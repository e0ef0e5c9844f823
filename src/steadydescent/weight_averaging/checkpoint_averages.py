"""The mean of several checkpoints, and which are the last ones (opennmt-tf)."""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steadydescent.checks import check_count
from steadydescent.weight_averaging.checkpoint_files import CheckpointFile, opened
from steadydescent.weight_averaging.comparing import check_alike
from steadydescent.weight_averaging.named_tensors import has_mean, named_buffers


def average_checkpoints(
    paths: Iterable[Path | str], *, average_buffers: bool | Collection[str] = True
) -> dict[str, Any]:
    """The mean of checkpoints' weights, Σ θ_i/n, for `model.load_state_dict` (opennmt-tf).

    Parameters are summed in float64 from zeros, each divided by their number n, and cast back. So
    are the running means and variances of batch norms, unless `average_buffers` is False, and
    buffers of floating point that it names (names or patterns, as for `EMA`). A file says which of
    its weights these are. All others, integers, unit vectors of spectral norms, masks and extra
    state, are those of the newest file by step, of several such the last given. A buffer in the
    memory of a weight, and of its kind of numbers, is averaged as the weight is. Optimiser slots
    are not averaged and not read. One file is in memory at a time, beside the sums.

    Files of format 1 (before version 0.2) do not say which weights are parameters: all of floating
    point are averaged, with a warning.

    >>> import tempfile
    >>> from torch import nn
    >>> from steadydescent.weight_averaging import save_checkpoint
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
        ValueError: for no path, for one path instead of several, for one given twice, for files
            whose names, shapes or dtypes differ, by name, and for a name in `average_buffers` that
            no such buffer has.
    """
    if isinstance(paths, str | Path):
        raise ValueError(f"paths must be several, in a list, got the one path {str(paths)!r}")
    files = [Path(path) for path in paths]
    _refuse_repeated(files)
    like: dict[str, Any] = {}
    newest: dict[str, Any] = {}
    sums: dict[str, Tensor] = {}
    latest = 0
    for path in files:
        with opened(path) as file:
            step, weights = file.step, file.mapping("weights")
            averaged = _averaged(file, weights, average_buffers)
        if not like:
            like = _without_values(weights)
            sums = {name: _zero_sum(weights[name]) for name in averaged}
        check_alike(like, weights, (str(files[0]), str(path)), dtypes=True)
        if averaged != sums.keys():
            raise ValueError(
                f"{path} and {files[0]} differ in which weights have a mean: "
                f"{sorted(averaged ^ sums.keys())}"
            )
        for name in averaged:
            sums[name] += weights[name].to(sums[name].dtype) / len(files)
        if step >= latest:
            newest, latest = {**weights}, step
        del weights
    return {
        name: sums[name].to(like[name].dtype) if name in sums else value
        for name, value in newest.items()
    }


def last_checkpoints(folder: Path | str, count: int, pattern: str = "*.safetensors") -> list[Path]:
    """The `count` checkpoints of a folder with the most steps, oldest first; only headers are read.

    All files that match the pattern must be checkpoints; temporary files of `save_checkpoint` never
    match it.

    >>> import tempfile
    >>> from torch import nn
    >>> from steadydescent.weight_averaging import save_checkpoint
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
        ValueError: for a count below 1, for fewer files than that, and for two files of the same
            step.
    """
    check_count(count, "count")
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"no folder at {folder}")
    steps: dict[int, Path] = {}
    for path in sorted(Path(folder).glob(pattern)):
        with opened(path) as file:
            step = file.step
        if step in steps:
            raise ValueError(
                f"{steps[step]} and {path} are both of step {step}; which is the later is not known"
            )
        steps[step] = path
    if len(steps) < count:
        raise ValueError(
            f"{folder} holds {len(steps)} checkpoints, fewer than the {count} asked for"
        )
    return [steps[step] for step in sorted(steps)[-count:]]


def _refuse_repeated(paths: Sequence[Path]) -> None:
    if not paths:
        raise ValueError("paths must name at least one checkpoint, got none")
    earlier: set[Path] = set()
    for path in paths:
        if path.resolve() in earlier:
            raise ValueError(f"{path} is given twice and would count twice")
        earlier.add(path.resolve())


def _averaged(
    file: CheckpointFile, weights: Mapping[str, Any], average_buffers: bool | Collection[str]
) -> set[str]:
    """Names of what is averaged of a file's weights."""
    candidates = {name for name, value in weights.items() if has_mean(value)}
    if "parameters" not in file.keys:
        warnings.warn(
            f"{file.path} does not say which of its weights are parameters: all of floating point "
            "are averaged, also buffers that have no mean; save it again to say it",
            stacklevel=3,
        )
        return candidates
    averaged = parameters = candidates & set(file["parameters"])
    if average_buffers is not False:
        averaged = averaged | candidates & set(file["statistics"])
    if not isinstance(average_buffers, bool):
        averaged = averaged | named_buffers(average_buffers, candidates - parameters)
    return averaged


def _without_values(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The weights' names, shapes and dtypes, in no memory."""
    return {
        name: value.to("meta") if isinstance(value, Tensor) else None
        for name, value in weights.items()
    }


def _zero_sum(value: Tensor) -> Tensor:
    """Where values like this one are added up, in double precision."""
    dtype = torch.complex128 if value.is_complex() else torch.float64
    return torch.zeros_like(value, dtype=dtype)
