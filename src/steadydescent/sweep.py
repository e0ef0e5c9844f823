"""From runs to stored results: which runs make a stack, what that costs, and training what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

import torch
import yaml

from steadydescent.paths import DATA
from steadydescent.progress import Journal
from steadydescent.provenance import receipt
from steadydescent.results import Store, Tables
from steadydescent.runs import Run
from steadydescent.tasks import base


@dataclass(frozen=True)
class StackPlan:
    """How a task's runs are stacked on a kind of device, and what that was measured to reach.

    The step is compiled for runs of at least `compile_from` updates. `rate` is replica-steps/s with the study's
    readouts, `evaluation` examples × readouts a second, `memory` GiB at this width.
    """

    width: int
    threads: int
    compile_from: int
    rate: float
    evaluation: float
    memory: float


@cache
def stack_plans() -> dict[str, dict[str, StackPlan]]:
    """Device kind → task → plan, from the measured table `stack_plans.yml`."""
    table = yaml.safe_load((Path(__file__).parent / "stack_plans.yml").read_text())
    return {kind: {task: StackPlan(**row) for task, row in rows.items()} for kind, rows in table.items()}


def pick_device(name: str = "auto") -> str:
    """`auto` → `cuda` where there is one, else `cpu`; a device that is not there is refused."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for, but torch finds no GPU; use DEVICE=cpu or DEVICE=auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def stacks(runs: Sequence[Run], device: str) -> list[list[Run]]:
    """Runs grouped by shape and cut into stacks of the planned width.

    The cut depends on the list of runs and the device kind alone, so a sweep that was interrupted is
    cut the same way when it goes on.
    """
    cut = []
    for shape, group in groupby(sorted(runs, key=lambda run: repr(run.shape)), key=lambda run: run.shape):
        members, size = list(group), stack_plans()[device][base(shape[0])].width
        cut += [members[i : i + size] for i in range(0, len(members), size)]
    return cut


def train(runs: Sequence[Run], store: Store, device: str, journal: Journal, title: str = "training") -> None:
    """Train what the store does not hold yet, stack by stack; what is finished stays finished.

    Two processes may work on the same list: each stack is locked while it is trained.
    """
    have, todo = store.keys(), stacks(runs, device)
    left = [stack for stack in todo if any(run.key not in have for run in stack)]
    count = lambda part: sum(run.steps for stack in part for run in stack)
    journal.tell(start=title, total=count(todo), initial=count(todo) - count(left))
    for stack in left:
        with store.lock([run.key for run in stack]):
            have = store.keys()  # another process may have trained it meanwhile
            missing = [run for run in stack if run.key not in have]
            journal.tell(done=sum(run.steps for run in stack) - sum(run.steps for run in missing))
            if missing:
                _train_stack(missing, store, device, journal)
    journal.tell(end=title)


def _train_stack(runs: list[Run], store: Store, device: str, journal: Journal) -> None:
    from steadydescent.engine import Stack
    from steadydescent.stepping import can_compile, numerics

    plan = stack_plans()[device][base(runs[0].task)]
    wanted = runs[0].steps >= plan.compile_from
    if wanted and (obstacle := can_compile(device)):
        journal.tell(note=f"{obstacle}: the engine runs eager, which is slower; install g++ and Python's headers")
    compiled = wanted and obstacle is None
    with numerics(plan.threads):
        stack = Stack(runs, DATA, device, compiled, width=plan.width if compiled else 0)
        history = stack.train(tick=lambda steps: journal.tell(done=steps))
        note = receipt(device, seconds=history.seconds, width=len(runs), compiled=compiled, data=stack.data.checksum)
    tables = (history.runs, history.finals, history.curves, history.measures, history.predictions)
    store.save(Tables(*tables), note)


def summary(receipts: Sequence[dict], device: str) -> dict:
    """One receipt for many stacks: this command and machine, the seconds of all training, the devices that did it."""
    kinds = sorted({r["device"] for r in receipts})
    seconds = round(sum(r["seconds"] for r in receipts), 1)
    return receipt(device, seconds=seconds, stacks=len(receipts), trained_on=kinds)
