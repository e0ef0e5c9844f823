"""MNIST-1D: signals of 40 points in 10 classes, made on the spot.

By Greydanus and Kobak, ICML 2024, arXiv:2011.14439. A seed's training set is 4 000 examples drawn
afresh; one validation set of 4 000 and one test set of 20 000 serve all seeds (on the usual 1 000
test examples half of the spread over seeds would be test sampling). Examples are drawn as the
package's ``make_dataset`` draws them, but kept raw: that function centres and scales training and
test set together, and we standardise with training data alone. What was drawn is kept on disk and
verified whenever it is read.
"""

import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save

from steadydescent import verified
from steadydescent.dataset_shift.covariate import shifted_signals
from steadydescent.dataset_shift.mnist1d_signals import ARGUMENTS, POINTS, draw
from steadydescent.dataset_shift.shifted import Shifted
from steadydescent.engine.data.task_data import SEED_LIMIT, Report, TaskData, checksum
from steadydescent.engine.source_code import Code, Unit, sources
from steadydescent.files import DamagedFile, sha256, write_atomically

COUNTS = {"train": 4_000, "validation": 4_000, "test": 20_000}
VALIDATION_SEED, TEST_SEED = SEED_LIMIT, SEED_LIMIT + 1  # no training seed reaches them
PROCESSES_FROM = 4  # missing sets; fewer take less time than starting processes does

DRAW = Unit("dataset_shift.mnist1d_signals", "draw")
DRAW_SHIFTED = Unit("dataset_shift.covariate", "shifted_signals")


@dataclass(frozen=True)
class Part:
    """One set on disk: its name (``train-7``), its seed, how many examples, and its file.

    A shifted one turns a knob of `shifted_signals`.
    """

    name: str
    seed: int
    count: int
    path: Path
    knob: str = ""
    severity: int = 0


def identity() -> str:
    """SHA-256 of all that decides the data, known without drawing any of it."""
    description = {
        "source": "mnist1d",
        "generator": f"mnist1d {_generator_version()}",
        "arguments": ARGUMENTS,
        "stored": "raw float32",
        "counts": COUNTS,
        "seeds": {"train": "the run's seed", "validation": VALIDATION_SEED, "test": TEST_SEED},
    }
    return sha256(json.dumps(description, sort_keys=True).encode())


@cache  # looking it up takes a millisecond, and every run asks
def _generator_version() -> str:
    return version("mnist1d")


@cache
def _code(drawing: Unit = DRAW) -> str:
    """SHA-256 of the code that draws."""
    return Code(sources(), [drawing], [], []).digest(drawing)


def load(seeds: Sequence[int], root: Path, report: Report) -> TaskData:
    """The sets of these seeds, those that are missing drawn first.

    ``seeds`` must have been checked. The pool holds validation set, test set, then one training set
    a seed; a seed's examples are the same bytes whichever seeds it is loaded with. mean and std
    have shape [S, 40].
    """
    parts = list_parts(seeds, root)
    draw_missing(parts, report)
    signals, labels = zip(*(read(part) for part in parts), strict=True)
    rows = torch.arange(sum(part.count for part in parts)).split([part.count for part in parts])
    train = torch.stack(rows[2:])
    means = [x.mean(0, dtype=np.float64) for x in signals[2:]]
    stds = [x.std(0, dtype=np.float64) for x in signals[2:]]
    mean, std = (torch.from_numpy(np.stack(m).astype(np.float32)) for m in (means, stds))
    fields = {
        "pool": torch.from_numpy(np.concatenate(signals)),
        "labels": torch.from_numpy(np.concatenate(labels)),
        "train": train,
        "validation": rows[0].repeat(len(seeds), 1),
        "test": rows[1].clone(),
    }
    return TaskData(**fields, mean=mean, std=std, checksum=checksum(**fields))


def fetch(root: Path, report: Report) -> Path:
    """Draw validation and test set unless they are there; training sets come when a seed asks."""
    validation, test = parts = list_parts([], root)
    origin = "found and verified"
    if draw_missing(parts, report):
        origin = f"drawn with the package mnist1d {version('mnist1d')}; no download"
    report(
        f"MNIST-1D: {validation.count} validation and {test.count} test examples "
        f"in {test.path.parent}, {origin}."
    )
    return test.path.parent


def shifted_test_set(knob: str, severity: int, root: Path, report: Report) -> Shifted:
    """The test set with one knob of its generator turned (`shifted_signals`), drawn if missing."""
    folder = _folder(root) / f"shifted-{_code(DRAW_SHIFTED)[:8]}"
    name = f"{knob}-{severity}"
    path = folder / f"{name}.safetensors"
    part = Part(name, TEST_SEED, COUNTS["test"], path, knob, severity)
    draw_missing([part], report)
    x, y = map(torch.from_numpy, read(part))
    return Shifted(x, y, torch.arange(len(x)))


def _folder(root: Path) -> Path:
    """Where sets lie; another generator, rule or code never meets files of this one."""
    return root / "mnist1d" / f"{identity()[:16]}-{_code()[:8]}"


def list_parts(seeds: Sequence[int], root: Path) -> list[Part]:
    """The validation, the test, and each seed's training set, on disk or not."""
    folder = _folder(root)

    def part(kind: str, name: str, seed: int) -> Part:
        return Part(name, seed, COUNTS[kind], folder / f"{name}.safetensors")

    return [
        part("validation", "validation", VALIDATION_SEED),
        part("test", "test", TEST_SEED),
        *(part("train", f"train-{seed}", seed) for seed in seeds),
    ]


def draw_missing(parts: Sequence[Part], report: Report) -> list[Part]:
    """Draw every part that has no sound file, in several processes if many; return those drawn.

    A damaged file is named in a report, then replaced. Order and number of processes do not change
    the bytes.
    """
    missing = [part for part in parts if not _is_sound(part, report)]
    processes = min(os.cpu_count() or 1, len(missing))
    alone = processes < 2 or len(missing) < PROCESSES_FROM
    alone = alone or multiprocessing.current_process().daemon
    if missing:
        how = "one by one" if alone else f"in {processes} processes"
        examples = sum(part.count for part in missing)
        report(f"MNIST-1D: drawing {len(missing)} missing sets, {examples} examples, {how}.")
    if not alone:
        _draw_in_processes(sorted(missing, key=lambda part: -part.count), processes, report)
    else:
        for part in missing:
            draw_to_file(part)
    return missing


def draw_to_file(part: Part) -> None:
    """Draw one set and write it: ``x`` float32 [count, 40], ``y`` int64 [count], their digest."""
    if part.knob:
        shifted = shifted_signals(part.knob, part.severity, seed=part.seed, count=part.count)
        signals, labels = shifted.x.numpy(), shifted.y.numpy()
    else:
        signals, labels = draw(part.seed, part.count)
    arrays: dict[str, NDArray[Any]] = {
        "x": signals.astype(np.float32),
        "y": labels.astype(np.int64),
    }
    write_atomically(part.path, save(arrays, {"sha256": _digest(part, arrays)}))


def read(part: Part) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Signals and labels of one set.

    Raises FileNotFoundError, or DamagedFile if the content is not what was drawn.
    """
    content = verified.read(part.path)
    length = 8 + int.from_bytes(content[:8], "little")  # of the header: JSON behind its size
    try:
        header = verified.parsed(content[8:length], part.path)
        expected = header["__metadata__"]["sha256"]
        arrays = {name: array for name, array in load_arrays(content).items() if name in ("x", "y")}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedFile(
            f"{part.path} is refused: truncated or altered, cannot be parsed ({error})."
        ) from error
    shapes = {name: (str(array.dtype), array.shape) for name, array in arrays.items()}
    if shapes != {"x": ("float32", (part.count, POINTS)), "y": ("int64", (part.count,))}:
        raise DamagedFile(
            f"{part.path} is refused: it holds {shapes}, not {part.count} signals and their labels."
        )
    digest = _digest(part, arrays)
    if digest != expected:
        raise DamagedFile(
            f"{part.path} is refused: truncated or altered, "
            f"SHA-256 found {digest}, expected {expected}."
        )
    return arrays["x"], arrays["y"]


def _is_sound(part: Part, report: Report) -> bool:
    try:
        read(part)
    except FileNotFoundError:
        return False
    except DamagedFile as error:
        report(f"{error} It is drawn again.")
        return False
    return True


def _digest(part: Part, arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of arrays, name, seed, count and generator: a file in another's place is refused."""
    contents = [arrays[name].tobytes() for name in ("x", "y")]
    shapes = [(str(arrays[name].dtype), arrays[name].shape) for name in ("x", "y")]
    origin = f"{part.path.parent.name} {part.name} {part.seed} {part.count}"
    return sha256(f"{origin} {shapes}\n".encode() + b"".join(contents))


def _draw_in_processes(parts: Sequence[Part], processes: int, report: Report) -> None:
    # a forked child could inherit locks held by torch's threads
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, mp_context=context) as executor:
            for _ in executor.map(draw_to_file, parts):
                pass
    except BrokenProcessPool:
        report(
            "MNIST-1D: the helper processes stopped "
            "(a script that loads data needs `if __name__ == '__main__':`); drawing one by one."
        )
        for part in parts:
            if not _is_sound(part, report):
                draw_to_file(part)
