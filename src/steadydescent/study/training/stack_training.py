"""One stack trained as its task is stacked, and stacks one after another in this process."""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from steadydescent.checks import check_choice
from steadydescent.engine.memory import is_out_of_memory
from steadydescent.engine.runs import Run
from steadydescent.engine.tasks import base
from steadydescent.study.paths import DATA
from steadydescent.study.planning.stacks import narrower, stacking
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
                for finished_stack in train_fitting(missing, device, journal.tell, worth_it):
                    store.save(*finished_stack)


def still_missing(stack: list[Run], store: Store, device: str, journal: Journal) -> list[Run]:
    """Runs of a locked stack that are to be trained; another process may have done so meanwhile."""
    have = finished(stack, store, device)
    missing = [run for run in stack if run.key not in have]
    journal.tell(done=updates_of([stack]) - updates_of([missing]))
    return missing


FITTING: dict[tuple[str, str], int] = {}
"""(Task, device) → the width that has turned out to fit in this process, where the planned one did
not.
"""


def train_fitting(
    runs: list[Run],
    device: str,
    tell: Callable[..., None],
    compiled: bool,
    **limits: int,
) -> Iterator[tuple[Tables, dict[str, Any]]]:
    """Train a stack, in narrower ones where memory does not suffice; tables and receipt of each.

    The next width is tried (`steadydescent.study.planning.stacks.narrower`), and the one that fits
    is kept for what comes later of this task. What was trained before stays. One network that does
    not fit is an error. `limits` are those of `train_stack`.
    """
    left = list(runs)
    while left:
        now = left[: fitting_width(runs[0].task, device)]
        try:
            done = train_stack(now, device, tell, compiled, **limits)
        except (RuntimeError, MemoryError) as error:
            if len(now) == 1 or not is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0].partition(". ")[0] or "no memory"
            done = None
        if done:  # outside of the handler, whose error holds on to the tensors of the failed stack
            yield done
            left = left[len(now) :]
            continue
        next_width = FITTING[base(runs[0].task), device] = next(narrower(len(now)))
        tell(
            note=f"a stack of {len(now)} networks of {runs[0].task} does not fit ({reason}): "
            f"from here on they are trained {next_width} at a time"
        )
        free_memory()


def fitting_width(task: str, device: str) -> int:
    """The planned width of a task's stacks, or the narrower one that has turned out to fit."""
    return FITTING.get((base(task), device), stacking(task, device).width)


def free_memory() -> None:
    """Give back what a failed stack held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
    compiled = compiled and usual.fills(len(runs))
    if compiled and (obstacle := can_compile(device)):
        tell(
            note=f"{obstacle}: training steps are not compiled, which is slower; "
            "install g++ and Python's headers"
        )
        compiled = False
    with arithmetic(min(usual.threads, threads or usual.threads)):
        together = min(usual.together(len(runs), compiled), fitting_width(runs[0].task, device))
        stack = Stack(runs, DATA, device, compiled, together, usual.graph)
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
