"""From runs to stored results: what a list of runs lacks is trained, here or on workers."""

import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any, Protocol

import torch

from steadydescent.checks import check_choice
from steadydescent.engine.runs import Run
from steadydescent.study.paths import DATA
from steadydescent.study.planning.stacks import stacking, stackings, stacks, worth_compiling
from steadydescent.study.results import fingerprints as numerics
from steadydescent.study.results.provenance import receipt
from steadydescent.study.results.store import Fits, Store, Tables
from steadydescent.study.training.progress import Journal


class TrainStacks(Protocol):
    """Trains stacks and stores each: `one_by_one` here, or `cluster.hand_out` on workers."""

    def __call__(
        self,
        todo: list[list[Run]],
        store: Store,
        device: str,
        journal: Journal,
        compiled: set[tuple],
    ) -> None: ...


def pick_device(name: str = "auto") -> str:
    """`auto` → `cuda` where there is one, else `cpu`; a device that is not there is refused."""
    check_choice(name, ("auto", "cpu", "cuda"), "device")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device 'cuda' was asked for, but torch finds no GPU; use DEVICE=cpu or DEVICE=auto"
        )
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def train(
    runs: Sequence[Run], store: Store, device: str, journal: Journal, title: str = "training"
) -> None:
    """Train what the store does not hold yet, stack by stack; what is finished stays finished.

    What other code, another torch, device or number of threads has trained is trained again
    (`steadydescent.study.results.fingerprints`). Here, one stack after another, or on the workers
    that `WORKERS` or `DASK_SCHEDULER_ADDRESS` name. Two processes may work on the same list: each
    stack is locked while it is trained.
    """
    have, todo = finished(runs, store, device), stacks(runs, device)
    left = [stack for stack in todo if any(run.key not in have for run in stack)]
    _tell_what_is_old(runs, have, store, device, journal)
    total = _updates(todo)
    journal.tell(start=title, total=total, initial=total - _updates(left))
    compiled = worth_compiling(todo, device)
    with workers(device) if left else nullcontext() as address:
        train_stacks: TrainStacks = _cluster().hand_out if address else one_by_one
        train_stacks(left, store, device, journal, compiled)
    journal.tell(end=title)


def _updates(todo: Iterable[Sequence[Run]]) -> int:
    return sum(run.steps for stack in todo for run in stack)


def _tell_what_is_old(
    runs: Sequence[Run], have: set[str], store: Store, device: str, journal: Journal
) -> None:
    """Say which stored runs are trained again, and which are taken though other code made them."""
    if outdated := _outdated([run for run in runs if run.key not in have], store, device):
        journal.tell(note=numerics.stale(outdated))
    if numerics.accepted() and (old := have - _standing(runs, store, device)):
        journal.tell(
            note=f"{len(old)} stored runs were trained by other code and are taken as they are: "
            f"{numerics.ACCEPT}=1"
        )


def current(runs: Iterable[Run], device: str) -> Fits:
    """Which stored versions of these runs stand: those made with what would make them now."""
    known = {run.key: run for run in runs}
    return lambda key, receipt: key in known and not differences(known[key], receipt, device)


def finished(runs: Iterable[Run], store: Store, device: str) -> set[str]:
    """Keys of those of the runs that the store holds as they would be trained now."""
    runs = list(runs)
    if numerics.accepted():
        return {key for key, _ in store.versions({run.key for run in runs})}
    return _standing(runs, store, device)


def _standing(runs: Iterable[Run], store: Store, device: str) -> set[str]:
    """Keys of the runs that are stored as they would be trained now, whatever is accepted."""
    fits = current(runs := list(runs), device)
    return {key for key, receipt in store.versions({run.key for run in runs}) if fits(key, receipt)}


def stored(runs: Iterable[Run], store: Store, device: str) -> tuple[Tables, list[dict[str, Any]]]:
    """Tables of finished runs and the receipts of their stacks.

    Raises:
        KeyError: for runs that are not in the store as they would be trained now.
    """
    runs = list(runs)
    fits = current(runs, device)
    if numerics.accepted():  # a version that stands goes before one that is merely accepted
        standing = _standing(runs, store, device)
        return store.load(
            [run.key for run in runs],
            lambda key, receipt: key not in standing or fits(key, receipt),
        )
    return store.load([run.key for run in runs], fits)


def differences(run: Run, receipt: dict[str, Any], device: str) -> list[str]:
    """How what made a stored run differs from what would make it now; nothing if it stands."""
    return numerics.differences(run, receipt, device, stacking(run.task, device).threads)


def _outdated(runs: Iterable[Run], store: Store, device: str) -> list[list[str]]:
    """Of each run that the store holds in no version that stands, how one of them differs."""
    known = {run.key: run for run in runs}
    versions = store.versions(known)
    by_key = {key: differences(known[key], receipt, device) for key, receipt in versions}
    return list(by_key.values())


def processes(device: str, asked: str) -> int:
    """How many processes of this machine train: 1 unless asked for more.

    `auto` is as many as it has room for.
    Room is a core each and memory for the widest stack, or a GPU each. Without Dask, or with
    workers elsewhere that `DASK_SCHEDULER_ADDRESS` names, `auto` is 1.

    Raises:
        ValueError: for anything but `auto`, a whole number from 1 on, or nothing; for more than
            there is room for; for workers here when that variable names others.
        RuntimeError: when workers are asked for and Dask is not installed.
    """
    elsewhere = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if elsewhere and not re.fullmatch(r"[a-z]+://[^\s/]+:\d+/?", elsewhere):
        raise RuntimeError(
            f"no Dask scheduler answers at DASK_SCHEDULER_ADDRESS={elsewhere} "
            "(it is no address); it must be like tcp://host:8786"
        )
    if asked in ("", "auto"):
        if asked == "" or elsewhere or importlib.util.find_spec("distributed") is None:
            return 1
        return _cluster().room(device, _widest(device))
    if not (asked.isascii() and asked.isdigit() and asked.strip("0")):
        raise ValueError(
            "WORKERS must be auto or a whole number from 1 on, "
            f"got {asked!r}; 1 is this process alone"
        )
    if elsewhere:
        raise ValueError(
            f"WORKERS={asked} starts workers here and DASK_SCHEDULER_ADDRESS={elsewhere} "
            "names others; set one of them"
        )
    if (number := asked.lstrip("0")) == "1":
        return 1
    most = _cluster().room(device, _widest(device))
    if len(number) > len(str(most)) or int(number) > most:
        limit = _cluster().room_of(device, _widest(device))
        given = asked if len(asked) < 30 else f"{asked[:30]}…"
        raise ValueError(f"WORKERS must be at most {most} on this machine, {limit}, got {given}")
    return int(number)


def _widest(device: str) -> float:
    """GiB that the largest stack of any task takes."""
    return max(stacking.memory for stacking in stackings(device).values())


@contextmanager
def workers(device: str, asked: str = "") -> Iterator[str | None]:
    """Workers for all that is trained inside: the address of their scheduler.

    None means that this process trains.
    Workers are so many processes of this machine as asked for, or as `WORKERS` says, or those of
    the scheduler that `DASK_SCHEDULER_ADDRESS` names.

    Raises:
        ValueError: for a number that is none, or for workers here and elsewhere.
        RuntimeError: when they cannot be had, with a sentence.
    """
    elsewhere = os.environ.get("DASK_SCHEDULER_ADDRESS")
    count = processes(device, asked or os.environ.get("WORKERS", ""))
    with _cluster().crew(device, count) if elsewhere or count > 1 else nullcontext() as address:
        yield address


def _cluster() -> ModuleType:
    try:
        from steadydescent.study.training import cluster
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"WORKERS and DASK_SCHEDULER_ADDRESS need Dask, and {error.name!r} is not installed; "
            "run pip install 'steadydescent[cluster]', or set WORKERS=1 to train in this process"
        ) from None
    return cluster


def one_by_one(
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
    journal.tell(done=_updates([stack]) - _updates([missing]))
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
        stack = Stack(runs, DATA, device, compiled, width=usual.width if compiled else 0)
        history = stack.train(tick=lambda steps: tell(done=steps))
        made = {
            "seconds": history.seconds,
            "width": len(runs),
            "compiled": compiled,
            "data": stack.data.checksum,
        }
        note = receipt(device, **made, code=numerics.made_with(runs, device))
    tables = (history.runs, history.finals, history.curves, history.measures, history.predictions)
    return Tables(*tables), note


def summary(receipts: Sequence[dict], device: str) -> dict:
    """One receipt for many stacks: this command and machine, and what did all the training.

    `commit`, `packages` and `date` are those of the command that put the result together;
    `trained_by` holds the commits, torch versions, devices and threads of the stacks that it rests
    on (`steadydescent.study.results.fingerprints.trained_by`).
    """
    kinds = sorted({r["device"] for r in receipts})
    seconds = round(sum(r["seconds"] for r in receipts), 1)
    training = {"seconds": seconds, "stacks": len(receipts), "trained_on": kinds}
    return receipt(device, **training, trained_by=numerics.trained_by(receipts))
