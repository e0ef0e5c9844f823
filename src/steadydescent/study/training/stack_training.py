"""One stack trained as its task is stacked, and stacks one after another in this process."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from steadydescent.checks import check_choice
from steadydescent.engine.runs import Run
from steadydescent.study.paths import DATA
from steadydescent.study.planning.stacks import stacking
from steadydescent.study.results import fingerprints as numerics
from steadydescent.study.results.provenance import receipt
from steadydescent.study.results.store import Store, Tables
from steadydescent.study.training.progress import Journal
from steadydescent.study.training.stored_runs import finished


def pick_device(name: str = "auto") -> str:
    """`auto` → `cuda` where there is one, else `cpu`; a device that is not there is refused."""
    check_choice(name, ("auto", "cpu", "cuda"), "device")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device 'cuda' was asked for, but torch finds no GPU; use DEVICE=cpu or DEVICE=auto"
        )
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def updates_of(todo: Iterable[Sequence[Run]]) -> int:
    """Updates that all runs of these stacks make together."""
    return sum(run.steps for stack in todo for run in stack)


def train_here(
    todo: list[list[Run]], store: Store, device: str, journal: Journal, compiled: set[tuple]
) -> None:
    """Train stacks in this process, one after another, and store each."""
    for stack in todo:
        with store.lock([run.key for run in stack]):
            if missing := still_missing(stack, store, device, journal):
                worth_it = stack[0].shape in compiled
                store.save(*train_stack(missing, device, journal.tell, worth_it))


def still_missing(stack: list[Run], store: Store, device: str, journal: Journal) -> list[Run]:
    """Runs of a locked stack that are to be trained; another process may have done so meanwhile."""
    have = finished(stack, store, device)
    missing = [run for run in stack if run.key not in have]
    journal.tell(done=updates_of([stack]) - updates_of([missing]))
    return missing


def train_stack(
    runs: list[Run],
    device: str,
    tell: Callable[..., None],
    compiled: bool,
    threads: int | None = None,
) -> tuple[Tables, dict[str, Any]]:
    """Train one stack as its task is stacked, on a CPU with at most so many threads.

    Returns its tables and its receipt.
    """
    from steadydescent.engine.stack import Stack
    from steadydescent.engine.stepping import can_compile
    from steadydescent.engine.stepping import numerics as arithmetic

    usual = stacking(runs[0].task, device)
    if compiled and (obstacle := can_compile(device)):
        tell(
            note=f"{obstacle}: training steps are not compiled, which is slower; "
            "install g++ and Python's headers"
        )
        compiled = False
    with arithmetic(min(usual.threads, threads or usual.threads)):
        stack = Stack(runs, DATA, device, compiled, usual.together(len(runs), compiled))
        history = stack.train(tick=lambda steps: tell(done=steps))
        made = {
            "seconds": history.seconds,
            "evaluation": history.evaluation,
            "width": len(runs),
            "compiled": compiled,
            "data": stack.data.checksum,
        }
        note = receipt(device, **made, code=numerics.made_with(runs, device))
    tables = (history.runs, history.finals, history.curves, history.measures, history.predictions)
    return Tables(*tables), note
