"""How time and memory grow with replicas, parameters, networks and workers.

It takes a few minutes and writes one file of rows.

    python benchmarks/growth.py                # → results/published/growth-cpu.json, drawn by the
    chapter on growth python benchmarks/growth.py --compile      # the stack's step compiled at
    every point; adds minutes

Every point of the first two curves is measured in a process of its own, so that its peak of memory
is its own. The time of an update is that of the quietest of many short chunks: other work on the
machine can only add to it.
"""

import importlib.util
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import click
import psutil
import torch

from steadydescent import verified
from steadydescent.engine.runs import Run
from steadydescent.engine.stack import Stack
from steadydescent.engine.stepping import can_compile, numerics
from steadydescent.engine.tasks import TASKS, Task, initial_model
from steadydescent.engine.tasks.models import mlp
from steadydescent.files import write_atomically
from steadydescent.study.paths import DATA
from steadydescent.study.planning.stacks import stacking
from steadydescent.study.results import published
from steadydescent.study.results.provenance import receipt
from steadydescent.study.results.store import Store, Tables
from steadydescent.study.training import stack_training, sweep

TASK = "mnist1d-mlp"
REPLICAS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
HIDDEN = (25, 50, 100, 200, 400, 800, 1600)
"""Units of each of the two hidden layers; parameters grow with their square."""
AT_REPLICAS = 8
"""Replicas of the stack whose parameters grow."""
SEEDS = 4
STEPS, SWEEP_STEPS = 2_000, 100
STACKS, STORED = (1, 2, 4, 8), (25, 50, 100, 200)
CHUNKS = 12
CURVES = ("replicas", "parameters", "planned", "networks", "store", "workers")
QUIET: Any = SimpleNamespace(tell=lambda **event: None)
# Without these, activations go back to the system and come again at every step.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}


def networks(count: int, steps: int, task: str = TASK) -> list[Run]:
    """So many runs of one shape: few seeds, many rates."""
    usual: dict[str, Any] = {
        "task": task,
        "optimizer": "momentum",
        "schedule": "constant",
        "batch_size": 100,
        "steps": steps,
    }
    readouts = ("last", "ema-10")
    return [
        Run(**usual, lr=0.01 * (1 + i // SEEDS), seed=i % SEEDS, readouts=readouts)
        for i in range(count)
    ]


def wide(hidden: int) -> str:
    """The name of a task like `mnist1d-mlp` with other hidden layers, known in this process."""
    name = f"mnist1d-mlp-{hidden}"
    TASKS[name] = Task("mnist1d", partial(mlp, 40, hidden, hidden, 10), "none")
    return name


def peak(device: str) -> float:
    """The most memory that this process has held so far, on a GPU its tensors there, MiB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )


def point(replicas: int, hidden: int, device: str, seconds: float, compile: bool) -> dict[str, Any]:
    """Seconds an update of a stack, and the memory it needs.

    The memory is that above a process with the library loaded.
    """
    task = wide(hidden)
    base = psutil.Process().memory_info().rss / 2**20 if device == "cpu" else 0.0
    unit = 32 if device == "cuda" else 1  # a block of updates recorded as one graph
    with numerics(stacking(TASK, device).threads), torch.no_grad():
        stack, done = Stack(networks(replicas, STEPS, task), DATA, device, compile), 0

        def timed(updates: int) -> float:
            nonlocal done
            began = time.perf_counter()
            stack.training.advance(done + updates)
            torch.cuda.synchronize() if device == "cuda" else None
            done += updates
            return (time.perf_counter() - began) / updates

        first = timed(2 * unit)
        guess = min(timed(unit) for _ in range(3))
        size = unit * max(
            1, min(STEPS // CHUNKS // unit - 1, round(seconds / CHUNKS / guess / unit))
        )
        times = [timed(size) for _ in range(CHUNKS)]
    parameters = sum(p.numel() for p in initial_model(task, 0).parameters())
    row = {
        "replicas": replicas,
        "parameters": parameters,
        "seconds": min(times),
        "median_seconds": median(times),
    }
    return row | {"memory_mib": peak(device) - base, "first_seconds": first, "compiled": compile}


def alone(**settings: Any) -> dict[str, Any]:
    """`point` in a process of its own, which starts with the library loaded and nothing else."""
    fork = get_context("forkserver")
    with ProcessPoolExecutor(1, fork, max_tasks_per_child=1) as pool:
        return pool.submit(point, **settings).result()


def swept(stacks: int, device: str, root: Path) -> tuple[float, Store]:
    """Seconds of a whole sweep of so many stacks at the planned width.

    Data, evaluation and store are included.
    """
    store, width = Store(root / str(stacks)), stacking(TASK, device).width
    runs = networks(stacks * width, SWEEP_STEPS)
    return seconds_of(lambda: sweep.train(runs, store, device, QUIET)), store


def more_networks(device: str) -> Iterator[dict[str, Any]]:
    """Sweeps of more and more networks, and what they take on disk."""
    width = stacking(TASK, device).width
    with tempfile.TemporaryDirectory() as folder:
        swept(1, device, Path(folder) / "warm")
        base = psutil.Process().memory_info().rss / 2**20 if device == "cpu" else 0.0
        for stacks in STACKS:
            seconds, store = swept(stacks, device, Path(folder))
            size = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
            row = {
                "stacks": stacks,
                "networks": stacks * width,
                "updates": SWEEP_STEPS,
                "seconds": seconds,
            }
            yield row | {"bytes": size, "memory_mib": max(0.0, peak(device) - base)}


def more_stored(device: str) -> Iterator[dict[str, Any]]:
    """Seconds to store a stack, and to look through a store that holds more and more of them."""
    with tempfile.TemporaryDirectory() as folder:
        runs = networks(stacking(TASK, device).width, 10)
        tables, note = stack_training.train_stack(runs, device, QUIET.tell, compiled=True)
        store, saving = Store(Path(folder)), []
        for stored in range(1, STORED[-1] + 1):
            renamed = Tables(*(table.assign(run=f"{stored:03d}" + table.run) for table in tables))
            saving.append(seconds_of(partial(store.save, renamed, note)))
            if stored in STORED:
                store.keys()  # every file is checked once, when it is first seen
                looking = min(seconds_of(store.keys) for _ in range(5))
                yield {"stacks": stored, "seconds": looking, "save_seconds": median(saving)}


def seconds_of(act: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def cache_mib() -> float | None:
    """The largest cache of the first core, where the system tells."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max(
        (int(path.read_text(encoding="utf-8").rstrip("K\n")) / 1024 for path in sizes), default=None
    )


def more_workers(device: str) -> Iterator[dict[str, Any]]:
    """The same sweep on more and more workers, up to twice the cores.

    One thread each; on GPUs one GPU each.
    """
    from dask.system import CPU_COUNT
    from distributed import Client

    from steadydescent.study.training.cluster import ADDRESS, local_cluster

    most = torch.cuda.device_count() if device == "cuda" else 2 * CPU_COUNT
    counts = [2**i for i in range(most.bit_length()) if 2**i <= most]
    stacks = max(8, 2 * counts[-1])
    for workers in counts:
        with (
            tempfile.TemporaryDirectory() as folder,
            local_cluster(workers, device, threads=1) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            os.environ[ADDRESS] = client.scheduler.address
            try:
                # a stack each: they load the library
                first = [run for i in range(workers) for run in networks(1, 10 + i)]
                sweep.train(first, Store(Path(folder) / "warm"), device, QUIET)
                seconds, _ = swept(stacks, device, Path(folder))
            finally:
                del os.environ[ADDRESS]
            memory = sum(client.run(peak, device).values())
        yield {"workers": workers, "stacks": stacks, "seconds": seconds, "memory_mib": memory}


def points(curve: str, device: str, seconds: float, compile: bool) -> Iterator[dict[str, Any]]:
    """The points of a curve, as they are measured."""
    settings = {"device": device, "seconds": seconds, "compile": compile}
    if curve == "replicas":
        yield from (alone(replicas=count, hidden=100, **settings) for count in REPLICAS)
    elif curve == "parameters":
        yield from (alone(replicas=AT_REPLICAS, hidden=hidden, **settings) for hidden in HIDDEN)
    elif curve == "planned":
        yield alone(
            replicas=stacking(TASK, device).width,
            hidden=100,
            **settings | {"compile": True},
        )
    else:
        yield from {"networks": more_networks, "store": more_stored, "workers": more_workers}[
            curve
        ](device)


def unavailable(curve: str, device: str) -> str | None:
    """Why a curve cannot be measured here, or None."""
    if curve == "workers" and importlib.util.find_spec("distributed") is None:
        return "Dask is missing: pip install 'steadydescent[cluster]'"
    return can_compile(device) if curve == "planned" else None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--curve",
    "curves",
    multiple=True,
    type=click.Choice(CURVES),
    help="One curve; again for more. All.",
)
@click.option(
    "--seconds", default=2.0, show_default=True, help="Seconds a point of the first two curves."
)
@click.option(
    "--compile",
    is_flag=True,
    help="Compile the step at every point, not at the planned width alone.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Where to; results/published/growth-<device>.json.",
)
def main(
    device: str, curves: tuple[str, ...], seconds: float, compile: bool, output: Path | None
) -> None:
    """Measure how time and memory grow, and save the rows with a receipt.

    A few minutes on two quiet cores.
    """
    device, rows, began = stack_training.pick_device(device), [], time.perf_counter()
    for name in ("WORKERS", "DASK_SCHEDULER_ADDRESS"):
        os.environ.pop(name, None)  # the curves say themselves who trains
    os.environ.update(ALLOCATOR)
    for curve in curves or CURVES:
        if reason := unavailable(curve, device):
            click.echo(f"{curve} left out: {reason}", err=True)
            continue
        for row in points(curve, device, seconds, compile):
            rows.append({"curve": curve, **row})
            click.echo(json.dumps(rows[-1]), err=True)
    machine = {"cores": os.cpu_count(), "cache_mib": cache_mib() if device == "cpu" else None}
    note = receipt(device, seconds=round(time.perf_counter() - began, 1), task=TASK, **machine)
    name, content = f"growth-{device}.json", {"receipt": note, "rows": rows}
    if output:
        write_atomically(output, verified.text(verified.plain(content)))
    click.echo(f"{len(rows)} rows: {output or published.write_json(name, content)}")


if __name__ == "__main__":
    main()
