"""How runs are stacked on a kind of device, and what that was measured to reach."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from steadydescent.engine.averaging import accumulators
from steadydescent.engine.runs import Run
from steadydescent.engine.tasks import TASKS, base, find
from steadydescent.study import yaml_files
from steadydescent.weight_averaging import Readout

ROWS = "STEADY_STACKINGS"
"""The variable that names a file with rows measured on this machine, as `make gpu` writes it; they
take the place of the table's.
"""
NORMED = 1.5
"""A normalised network's update against that of one without."""
OWN_GIB = 3.0
"""Memory that the command and the kernels of two notebooks take beside the processes that train."""


@dataclass(frozen=True)
class Stacking:
    """How a task's runs are stacked on a kind of device, and what that was measured to reach.

    The step is compiled where a sweep's stacks that share its program make at least `compile_from`
    updates on 100 examples together. A compiled step takes so many `lanes` of a stack at once (0:
    all), that their weights stay in the cache; a traced one, whose every call costs, takes all,
    unless one by one is faster anyway. `rate` is replica-steps/s with the study's readouts,
    `evaluation` examples × readouts a second, `probe` the seconds of a costly probe's look at one
    replica, `memory` GiB at this width.
    On a GPU updates are replayed from a CUDA `graph`.
    """

    width: int
    threads: int
    compile_from: int
    rate: float
    evaluation: float
    memory: float
    probe: float = 0.0
    graph: bool = True
    lanes: int = 0

    def together(self, runs: int, compiled: bool) -> int:
        """How many replicas of a stack of so many runs go through a step at once."""
        return (self.lanes or self.width) if compiled or self.lanes == 1 else runs

    def fills(self, runs: int) -> bool:
        """Whether so many runs fill more than half of what a compiled step takes at once. Fewer,
        filled up, take longer than traced as they are.
        """
        return 2 * runs > self.together(runs, compiled=True)


def stackings(device: str) -> dict[str, Stacking]:
    """Task → how it is stacked on a kind of device, from the measured table `stackings.yml`.

    Rows of the file that `STEADY_STACKINGS` names go before those of the table.

    Raises:
        ValueError: for a file without rows of known tasks, or with a row that is none.
    """
    return _stackings(device, os.environ.get(ROWS, ""))


@cache
def _stackings(device: str, own: str) -> dict[str, Stacking]:
    table = yaml_files.read(Path(__file__).parent / "stackings.yml").content[device]
    if own:
        rows = yaml_files.read(Path(own)).content
        rows = rows.get(device, {}) if isinstance(rows, dict) else None
        if not isinstance(rows, dict) or not rows.keys() <= table.keys():
            raise ValueError(f"{ROWS}={own} must hold rows of {', '.join(table)} under {device!r}")
        table = table | rows
    try:
        return {task: Stacking(**row) for task, row in table.items()}
    except TypeError as error:
        raise ValueError(f"{ROWS}={own} has a row that is none: {error}") from None


def stacking(task: str, device: str) -> Stacking:
    """How a task is stacked on a kind of device, whatever its options."""
    return stackings(device)[base(task)]


def narrower(width: int) -> Iterator[int]:
    """The widths that a stack falls back to when it does not fit: the powers of two below its own.

    >>> list(narrower(12))
    [8, 4, 2, 1]
    """
    below = 1 << (max(1, width) - 1).bit_length()
    while (below := below // 2) >= 1:
        yield below


def stacks(runs: Sequence[Run], device: str) -> list[list[Run]]:
    """Runs grouped by shape and cut into stacks of the measured width.

    The cut depends on the list of runs and the device kind alone, so a sweep that was interrupted
    is cut the same way when it goes on.
    """
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.shape, []).append(run)
    cut = []
    for _, alike in sorted(groups.items(), key=lambda group: repr(group[0])):
        width = stacking(alike[0].task, device).width
        cut += [alike[i : i + width] for i in range(0, len(alike), width)]
    return cut


def worth_compiling(todo: list[list[Run]], device: str) -> set[tuple]:
    """The shapes whose step is compiled: where all stacks that share its program and fill it
    together make enough updates, each counted by its effort, for compiling it to pay.

    That depends on the list alone, as the cut does: not on what is done already, nor on the number
    of workers.
    """
    programs = {stack[0].shape: _program(stack[0]) for stack in todo}
    updates: dict[tuple, float] = defaultdict(float)
    for first, *others in todo:
        if stacking(first.task, device).fills(1 + len(others)):
            updates[programs[first.shape]] += first.steps * effort(first)
    least = {first.shape: stacking(first.task, device).compile_from for first, *_ in todo}
    return {shape for shape in programs if updates[programs[shape]] >= least[shape]}


def effort(run: Run) -> float:
    """An update's time against one of a plain network on 100 examples, as measured (1 to 512)."""
    normed = find(run.task).norm != TASKS[base(run.task)].norm
    return (0.4 + 0.6 * run.batch_size / 100) * (NORMED if normed else 1)


def _program(run: Run) -> tuple:
    """What a compiled step depends on: shapes that differ in their length or in what is looked at
    share one.
    """
    readouts = [Readout.parse(text) for text in run.readouts]
    moving = [name for name in accumulators(readouts, run.steps) if not name.sparse]
    return run.task, run.optimizer, run.batch_size, len(moving)
