"""What surrounds the training: imports, a sweep's store and journal, an idle run, the book."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rounds import row
from steadydescent.engine import stack as engine
from steadydescent.engine.recorder import Histories
from steadydescent.engine.runs import Run
from steadydescent.study.book.build import MADE_FROM
from steadydescent.study.paths import RESULTS, ROOT
from steadydescent.study.planning.stacks import stacking
from steadydescent.study.results.store import Store, Tables, read_folder
from steadydescent.study.training import sweep
from steadydescent.study.training.progress import Journal
from training import Settings

SWEEP_STACKS, SWEEP_UPDATES = 2, {"cpu": 2_000, "cuda": 6_000}


def seconds(*words: str, **environment: str) -> float:
    """How long a command takes; one that fails is an error."""
    began = time.perf_counter()
    done = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed: {done.stderr.strip()[-500:]}")
    return time.perf_counter() - began


def importing(module: str, device: str, settings: Settings) -> list[dict[str, Any]]:
    """A fresh interpreter that imports a module against one that imports torch."""
    took: dict[str, list[float]] = {module: [], "torch": []}
    start = lambda name: seconds(sys.executable, "-c", f"import {name}")
    for name in took:  # files come into memory
        start(name)
    for _ in range(settings.rounds):
        for name, times in took.items():
            times.append(start(name))
    return [row(f"import {module}", device, "s", took[module], took["torch"], "import torch")]


class Timed:
    """Seconds spent inside the stacks of a sweep: making them, with their data, and training."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def stacks(self) -> Iterator[None]:
        """Stacks made meanwhile are timed."""
        timed = self

        class TimedStack(engine.Stack):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                with timed.span():
                    super().__init__(*arguments, **options)

            def train(self, *arguments: Any, **options: Any) -> Histories:
                with timed.span():
                    return super().train(*arguments, **options)

        with patch.object(engine, "Stack", TimedStack):
            yield

    @contextmanager
    def span(self) -> Iterator[None]:
        """Count what happens meanwhile."""
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began


def sweep_runs(device: str, settings: Settings) -> list[Run]:
    """Runs for a few stacks of the desk's usual length."""
    task, updates = "mnist1d-mlp", settings.checked or SWEEP_UPDATES[device]
    count = SWEEP_STACKS * (settings.width or stacking(task, device).width)
    common = {
        "task": task,
        "optimizer": "momentum",
        "schedule": "constant",
        "steps": updates,
        "batch_size": 100,
    }
    common |= {"readouts": ("last", "ema-20", "ema-50"), "curve_points": min(10, updates)}
    return [
        Run.model_validate({**common, "lr": 0.02 * (1 + i // 30), "seed": i % 30})
        for i in range(count)
    ]


def sweep_share(device: str, settings: Settings) -> list[dict[str, Any]]:
    """Time of a sweep, with store, journal and checks, against that of the stacks it trains."""
    runs, whole, inside = sweep_runs(device, settings), [], []
    for _ in range(1 + min(3, settings.rounds)):
        timed = Timed()
        with tempfile.TemporaryDirectory() as folder, timed.stacks(), redirect_stderr(StringIO()):
            began = time.perf_counter()
            sweep.train(runs, Store(Path(folder)), device, Journal())
            whole.append(time.perf_counter() - began)
        inside.append(timed.seconds)
    if not all(inside):
        raise RuntimeError(
            "no stack of the sweep was timed: it was trained in another process; unset WORKERS"
        )
    note = f"{len(runs)} networks of {runs[0].steps} updates"
    return [
        row(
            "store, journal and checks",
            device,
            "s",
            whole[1:],
            inside[1:],
            "bare stacks of the sweep",
            note=note,
        )
    ]


def reproduce(device: str, settings: Settings) -> list[dict[str, Any]]:
    """`steady reproduce --profile smoke`, book and all, when it is done already.

    The run before may have to train.
    """
    command = (
        str(Path(sys.executable).with_name("steady")),
        "reproduce",
        "--profile",
        "smoke",
        "--device",
        device,
    )
    took, made = [], []
    for _ in range(3):
        before = stacks_stored()
        took.append(seconds(*command))
        made.append(updates_in(stacks_stored() - before))
    note = f"updates made: {sum(made[1:])}, and {made[0]} by the run before"
    return [
        row(
            "reproduce with nothing to do",
            device,
            "s",
            took[1:],
            took[:1] * 2,
            "the run before it",
            note=note,
        )
    ]


def stacks_stored() -> set[Path]:
    """Finished stacks in the store."""
    return set((RESULTS / "store").glob("[0-9a-f][0-9a-f]/*/receipt.json"))


def updates_in(receipts: set[Path]) -> int:
    """Updates of all the networks in these stacks."""
    return sum(int(read_folder(path.parent, Tables)[0].runs.steps.sum()) for path in receipts)


def book(device: str, settings: Settings) -> list[dict[str, Any]]:
    """The book built on a clean tree against the same built again, both in a copy."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for pattern in MADE_FROM:
            for path in ROOT.glob(pattern):
                copy = shutil.copytree if path.is_dir() else shutil.copy2
                (home / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
                copy(path, home / path.relative_to(ROOT))
        command = (str(Path(sys.executable).with_name("steady")), "book")
        cold, *warm = (seconds(*command, STEADY_HOME=folder) for _ in range(3))
    note = "a book whose sources and results are the same is left as it is"
    return [row("book, built again", device, "s", warm, [cold] * 2, "cold book", note=note)]
