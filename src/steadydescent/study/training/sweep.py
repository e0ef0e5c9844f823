"""From runs to stored results: what a list of runs lacks is trained, here or on workers."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Protocol

from steadydescent.engine.runs import Run
from steadydescent.study.planning.stacks import stacks, worth_compiling
from steadydescent.study.results import fingerprints as numerics
from steadydescent.study.results.provenance import receipt
from steadydescent.study.results.store import Store
from steadydescent.study.training.progress import Journal
from steadydescent.study.training.stack_training import train_here, updates_of
from steadydescent.study.training.stored_runs import finished, outdated, up_to_date_keys
from steadydescent.study.training.workers import cluster_module, workers


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
    total = updates_of(todo)
    journal.tell(start=title, total=total, initial=total - updates_of(left))
    compiled = worth_compiling(todo, device)
    with workers(device) if left else nullcontext() as address:
        train_stacks: TrainStacks = cluster_module().hand_out if address else train_here
        train_stacks(left, store, device, journal, compiled)
    journal.tell(end=title)


def _tell_what_is_old(
    runs: Sequence[Run], have: set[str], store: Store, device: str, journal: Journal
) -> None:
    """Say which stored runs are trained again, and which are taken though other code made them."""
    if old_code := outdated([run for run in runs if run.key not in have], store, device):
        journal.tell(note=numerics.stale(old_code))
    if numerics.accepted() and (old := have - up_to_date_keys(runs, store, device)):
        journal.tell(
            note=f"{len(old)} stored runs were trained by other code and are taken as they are: "
            f"{numerics.ACCEPT}=1"
        )


def summary(receipts: Sequence[dict], device: str) -> dict:
    """One receipt for many stacks: this command and machine, and what did all the training.

    `seconds` is their sum, and `evaluation` what looks at the networks took of it, by kind, where
    every stack says so. `commit`, `packages` and `date` are those of the command that put the
    result together; `trained_by` holds the commits, torch versions, devices and threads of the
    stacks that it rests on (`steadydescent.study.results.fingerprints.trained_by`).
    """
    kinds = sorted({r["device"] for r in receipts})
    seconds = round(sum(r["seconds"] for r in receipts), 1)
    training: dict[str, Any] = {"seconds": seconds, "stacks": len(receipts)}
    training["trained_on"] = kinds
    if all("evaluation" in r for r in receipts):
        looks = sum((Counter(r["evaluation"]) for r in receipts), Counter[str]())
        training["evaluation"] = {kind: round(took, 1) for kind, took in looks.items()}
    return receipt(device, **training, trained_by=numerics.trained_by(receipts))
