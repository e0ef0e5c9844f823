"""How runs are stacked on a kind of device, and what that was measured to reach."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from steadydescent.engine.runs import Run
from steadydescent.engine.tasks import base
from steadydescent.study import yaml_files

OWN_GIB = 3.0
"""Memory that the command and the kernels of two notebooks take beside the processes that train."""


@dataclass(frozen=True)
class StackPlan:
    """How a task's runs are stacked on a kind of device, and what that was measured to reach.

    The step is compiled where a sweep's stacks of one shape make at least `compile_from` updates
    together. `rate` is replica-steps/s with the study's readouts, `evaluation` examples × readouts
    a second, `probe` the seconds of a costly probe's look at one replica, `memory` GiB at this
    width.
    """

    width: int
    threads: int
    compile_from: int
    rate: float
    evaluation: float
    memory: float
    probe: float = 0.0


@cache
def stack_plans() -> dict[str, dict[str, StackPlan]]:
    """Device kind → task → plan, from the measured table `stack_plans.yml`."""
    file = yaml_files.read(Path(__file__).parent / "stack_plans.yml")
    return {
        kind: {task: StackPlan(**row) for task, row in rows.items()}
        for kind, rows in file.content.items()
    }


def stacks(runs: Sequence[Run], device: str) -> list[list[Run]]:
    """Runs grouped by shape and cut into stacks of the planned width.

    The cut depends on the list of runs and the device kind alone, so a sweep that was interrupted
    is cut the same way when it goes on.
    """
    cut = []
    for shape, group in groupby(
        sorted(runs, key=lambda run: repr(run.shape)), key=lambda run: run.shape
    ):
        members, size = list(group), stack_plans()[device][base(shape[0])].width
        cut += [members[i : i + size] for i in range(0, len(members), size)]
    return cut


def worth_compiling(todo: list[list[Run]], device: str) -> set[tuple]:
    """Shapes of which these stacks make so many updates that compiling the step pays.

    It depends on the list alone, as the cut does: not on what is done already, nor on the number of
    workers.
    """
    updates = Counter[tuple]()
    for stack in todo:
        updates[stack[0].shape] += stack[0].steps
    return {
        shape
        for shape, made in updates.items()
        if made >= stack_plans()[device][base(shape[0])].compile_from
    }
