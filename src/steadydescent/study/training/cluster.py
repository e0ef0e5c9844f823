"""Stacks on the workers of a Dask cluster: processes here, GPUs, or the nodes of a whole cluster.

`WORKERS=4` starts that many processes here, on GPUs one a worker.
`DASK_SCHEDULER_ADDRESS=tcp://host:8786` takes any scheduler's workers, such as those that dask-cuda
or dask-jobqueue started. The command hands every free worker one stack and writes what comes back
into the store itself. A worker needs no folder in common with it, only this package and the data,
which each worker makes or fetches like any other process; a stack's rows are some hundred kB. What
a worker had in hand when it was lost goes to another, and nothing else does.

Dask sends its messages unencrypted unless told otherwise, and whoever reaches a scheduler or a
worker can have it run any code: keep those of a cluster in a network of their own. The workers
started here listen on the loopback address alone. Other users of the machine reach that, too: where
you do not trust them, set WORKERS=1.
"""

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Collection, Iterator
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from dask.system import CPU_COUNT
from distributed import Client, KilledWorker, Nanny, Scheduler, SpecCluster, Worker, get_worker
from distributed.core import rpc
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.system import MEMORY_LIMIT
from filelock import FileLock, Timeout

from steadydescent.engine.runs import Run
from steadydescent.study.planning.stacks import OWN_GIB
from steadydescent.study.results.store import Store, Tables
from steadydescent.study.training.processes import deaf, heard
from steadydescent.study.training.progress import Journal
from steadydescent.study.training.stack_training import pick_device, still_missing, train_fitting
from steadydescent.study.training.stored_runs import changes_since

ADDRESS = "DASK_SCHEDULER_ADDRESS"
LOOPBACK = "127.0.0.1"
CONNECT_SECONDS = 5
POLL_SECONDS = 1.0
"""How often stacks that another runner holds, and the number of workers, are looked at again."""
RETRIES = 2
"""A stack that fails is tried so many times more, elsewhere if it can be."""


class OneStack(WorkerPlugin):
    """A worker trains one stack at a time, with as many of its threads as a stack has use for."""

    name = "steadydescent-stack"

    async def setup(self, worker: Worker) -> None:
        await worker.set_resources(**{self.name: 1})


@contextmanager
def crew(device: str, count: int) -> Iterator[str]:
    """The address of a scheduler that answers: one that is named, or one here with its workers.

    The environment names one, or `count` workers are started here.
    Workers started here live as long as the block. Inside, `DASK_SCHEDULER_ADDRESS` names the
    scheduler and `WORKERS` is gone, so that notebooks started inside share the workers.
    """
    if address := os.environ.get(ADDRESS):
        with _client(address):
            yield address
        return
    with local_cluster(count, device) as cluster:
        before = os.environ.pop("WORKERS", "")
        os.environ[ADDRESS] = cluster.scheduler_address
        try:
            yield cluster.scheduler_address
        finally:
            del os.environ[ADDRESS]
            os.environ["WORKERS"] = before


def room(device: str, memory: float) -> int:
    """Workers that this machine has room for.

    Each takes a GPU, or a core and so many GiB beside the command's own.
    """
    if device == "cuda":
        return torch.cuda.device_count()
    return max(1, min(CPU_COUNT, int((MEMORY_LIMIT / 2**30 - OWN_GIB) / memory)))


def room_of(device: str, memory: float) -> str:
    """What limits `room`, in words."""
    if device == "cuda":
        return "one a GPU"
    return (
        f"one for each of {CPU_COUNT} cores and for {memory:g} GiB each of the "
        f"{max(0.0, MEMORY_LIMIT / 2**30 - OWN_GIB):.1f} GiB beside the command"
    )


def local_cluster(workers: int, device: str, threads: int = 0) -> SpecCluster:
    """Worker processes on this machine.

    Each sees a GPU of its own, or has `threads` (0: its share of the cores).
    All listen on the loopback address alone, without a dashboard, and hear no Ctrl-C: this process
    ends them.
    """
    share = {"nthreads": threads or max(1, CPU_COUNT // workers)}
    options: list[dict[str, Any]] = [share] * workers
    if device == "cuda":
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = seen.split(",") if seen else [str(i) for i in range(torch.cuda.device_count())]
        if workers > len(gpus):
            raise ValueError(f"WORKERS must be at most {len(gpus)}, one a GPU, got {workers}")
        options = [{"nthreads": 1, "env": {"CUDA_VISIBLE_DEVICES": gpu}} for gpu in gpus[:workers]]
    # without a memory limit: Dask would pause and kill workers for tensors that it cannot spill
    local = {"host": LOOPBACK, "dashboard": False, "dashboard_address": f"{LOOPBACK}:0"}
    usual = local | {"memory_limit": 0, "silence_logs": logging.WARNING}
    spec = {i: {"cls": Nanny, "options": usual | option} for i, option in enumerate(options)}
    scheduler = {"cls": Scheduler, "options": local | {"port": 0}}
    start = partial(SpecCluster, workers=spec, scheduler=scheduler, silence_logs=logging.WARNING)
    # in a thread of its own: this one goes on listening to Ctrl-C meanwhile
    with ThreadPoolExecutor(1, initializer=deaf) as starting:
        return heard([starting.submit(start)])[0]


def _client(address: str) -> Client:
    """A client of the scheduler at an address.

    The scheduler is asked for its name first: a client that fails leaves a mess.
    """
    try:
        # in a thread of its own: a notebook's kernel has a loop in this one
        with ThreadPoolExecutor(1, initializer=deaf) as asking:
            answer = asyncio.wait_for(_kind(address), CONNECT_SECONDS + 1)
            (kind,) = heard([asking.submit(asyncio.run, answer)])
        if kind != "Scheduler":
            raise ValueError(f"it is the address of a {kind}")
    except Exception as error:  # whatever a wrong address, a wrong port or a wrong server gives
        reason = (str(error).strip() or "no answer in time").splitlines()[0]
        raise RuntimeError(
            f"no Dask scheduler answers at {ADDRESS}={address} ({reason}); "
            "it must be like tcp://host:8786: "
            "start one with `dask scheduler`, or unset it to train in this process"
        ) from None
    return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)


async def _kind(address: str) -> str:
    """What a Dask server calls itself."""
    async with rpc(address, timeout=CONNECT_SECONDS) as server:
        return (await server.identity())["type"]


def hand_out(
    todo: list[list[Run]],
    store: Store,
    device: str,
    journal: Journal,
    compiled: Collection[tuple] = (),
) -> None:
    """Train stacks on workers of the scheduler that the environment names; each is stored at once.

    Steps of the shapes in `compiled` are compiled. As many stacks are out as there are workers.
    Those that another runner holds are left for last. Whatever ends this early, Ctrl-C too, costs
    the stacks that are out and no other.
    """
    left, out, notes = deque(todo), dict[Future, tuple[list[Run], FileLock]](), set[str]()

    def tell(note: str) -> None:
        if note not in notes:
            journal.tell(note=note)
        notes.add(note)

    with _client(os.environ[ADDRESS]) as client:
        client.register_plugin(OneStack())
        executor = client.get_executor(pure=False, retries=RETRIES, resources={OneStack.name: 1})
        try:
            while left or out:
                if not (workers := len(client.nthreads())):
                    tell(f"there is no worker at {os.environ[ADDRESS]} yet; waiting for one")
                while len(out) < max(1, workers) and (taken := _take(left, store, device, journal)):
                    plain = [run.model_dump(mode="json") for run in taken[0]]
                    worth_it = taken[0][0].shape in compiled
                    out[executor.submit(train_plain, plain, device, worth_it)] = taken
                for future in _back(out):
                    missing, lock = out[future]
                    for note in _store(future, missing, store):
                        tell(note)
                    journal.tell(done=sum(run.steps for run in missing))
                    del out[future]
                    lock.release()
        finally:
            # what is out is given up; with nothing out there is nothing to cancel, which the
            # scheduler would tell a client that is gone
            executor.shutdown(wait=not out)
            for _, lock in out.values():
                lock.release()


def _take(
    left: deque[list[Run]], store: Store, device: str, journal: Journal
) -> tuple[list[Run], FileLock] | None:
    """The next stack that nobody else is training, less what is stored, and its lock, or None."""
    for _ in range(len(left)):
        stack = left.popleft()
        lock = store.lock([run.key for run in stack])
        try:
            lock.acquire(blocking=False)
        except Timeout:
            left.append(stack)
            continue
        if missing := still_missing(stack, store, device, journal):
            return missing, lock
        lock.release()
    return None


def _back(out: Collection[Future]) -> list[Future]:
    """Stacks that are back, failures last.

    It waits a moment for the first, or for other runners when nothing is out.
    """
    if not out:
        time.sleep(POLL_SECONDS)
    done = futures.wait(out, POLL_SECONDS, futures.FIRST_COMPLETED).done
    return sorted(done, key=lambda future: future.cancelled() or future.exception() is not None)


def _store(future: Future, runs: list[Run], store: Store) -> list[str]:
    """Store a stack that came back; what its worker had to say."""
    try:
        stacks, notes = future.result()
    except KilledWorker as error:
        raise RuntimeError(
            f"a stack of {len(runs)} × {runs[0].task} went down with "
            f"{error.allowed_failures + 1} workers, one after another, perhaps for want of memory; "
            "what is finished is kept"
        ) from error
    except futures.CancelledError as error:
        raise RuntimeError(
            f"the scheduler at {os.environ[ADDRESS]} is lost; "
            "what is finished is kept, run it again"
        ) from error
    receipt = stacks[0][1]
    if {key for tables, _ in stacks for key in tables.runs.run} != {run.key for run in runs}:
        raise RuntimeError(
            f"a worker has another version of steadydescent, {receipt['commit']}; "
            "install this one on every worker"
        )
    if other := changes_since(runs[0], receipt, receipt["device_kind"]):
        raise RuntimeError(
            f"a worker trained with {', '.join(other)}, which is not what this process would train "
            "with; install the same steadydescent, torch and numpy on every worker"
        )
    command = os.environ.get("STEADY_COMMAND", receipt["command"])
    for tables, receipt in stacks:
        store.save(tables, receipt | {"command": command})
    return notes


def train_plain(
    runs: list[dict[str, Any]], device: str, compiled: bool
) -> tuple[list[tuple[Tables, dict[str, Any]]], list[str]]:
    """On a worker: tables and receipts of a stack given as plain data, and notes.

    It comes back as several stacks where it did not fit. Keys are so this installation's.
    """
    notes: list[str] = []

    def tell(note: str = "", **_: object) -> None:
        notes.extend([note] if note else [])

    threads, stack = get_worker().state.nthreads, [Run(**run) for run in runs]
    trained = train_fitting(stack, pick_device(device), tell, compiled, threads=threads)
    return list(trained), notes
