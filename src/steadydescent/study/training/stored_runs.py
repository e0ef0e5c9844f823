"""Which runs a store holds as they would be trained now, and what is taken from it."""

from collections.abc import Iterable
from typing import Any

from steadydescent.engine.runs import Run
from steadydescent.study.planning.stacks import stacking
from steadydescent.study.results import fingerprints as numerics
from steadydescent.study.results.store import Fits, Store, Tables


def current(runs: Iterable[Run], device: str) -> Fits:
    """Which stored versions of these runs stand: those made with what would make them now."""
    known = {run.key: run for run in runs}
    return lambda key, receipt: key in known and not changes_since(known[key], receipt, device)


def finished(runs: Iterable[Run], store: Store, device: str) -> set[str]:
    """Keys of those of the runs that the store holds as they would be trained now."""
    runs = list(runs)
    if numerics.accepted():
        return {key for key, _ in store.versions({run.key for run in runs})}
    return up_to_date_keys(runs, store, device)


def up_to_date_keys(runs: Iterable[Run], store: Store, device: str) -> set[str]:
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
        fresh = up_to_date_keys(runs, store, device)
        return store.load(
            [run.key for run in runs],
            lambda key, receipt: key not in fresh or fits(key, receipt),
        )
    return store.load([run.key for run in runs], fits)


def changes_since(run: Run, receipt: dict[str, Any], device: str) -> list[str]:
    """How what made a stored run differs from what would make it now; nothing if it stands."""
    return numerics.differences(run, receipt, device, stacking(run.task, device).threads)


def outdated(runs: Iterable[Run], store: Store, device: str) -> list[list[str]]:
    """Of each run that the store holds in no version that stands, how one of them differs."""
    known = {run.key: run for run in runs}
    versions = store.versions(known)
    by_key = {key: changes_since(known[key], receipt, device) for key, receipt in versions}
    return list(by_key.values())
