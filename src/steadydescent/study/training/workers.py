"""How many processes train, and the workers that they are."""

import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType

from steadydescent.study.planning.stacks import stackings


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
        return cluster_module().room(device, _widest(device))
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
    most = cluster_module().room(device, _widest(device))
    if len(number) > len(str(most)) or int(number) > most:
        limit = cluster_module().room_of(device, _widest(device))
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
    several = bool(elsewhere) or count > 1
    with cluster_module().crew(device, count) if several else nullcontext() as address:
        yield address


def cluster_module() -> ModuleType:
    try:
        from steadydescent.study.training import cluster
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"WORKERS and DASK_SCHEDULER_ADDRESS need Dask, and {error.name!r} is not installed; "
            "run pip install 'steadydescent[cluster]', or set WORKERS=1 to train in this process"
        ) from None
    return cluster
