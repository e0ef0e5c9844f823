"""Training with one EMA: the engine against P0 to P3, the loops people write.

In replica-updates a second.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from ours import OurStack, plan
from peers import Choice, DataLoaderLoop, Ensemble, InMemoryLoop, choices, threads_in_words
from processes import Processes
from rounds import Contender, Local, compare
from steadydescent.engine.stepping import numerics
from steadydescent.study.training.workers import processes

TASKS = (
    "mnist1d-mlp",
    "mnist1d-cnn",
    "fashion-mnist-mlp",
    "fashion-mnist-cnn",
    "names-transformer",
)
BLOCK = {"cpu": 1, "cuda": 32}
"""The engine is timed over multiples of so many updates: on a GPU the length of a recorded block.
"""
MOST_PROCESSES = {"cpu": 1_000, "cuda": 16}
"""P2 on a GPU: more processes than this share one GPU no better and take minutes to start."""
SECONDS = {"cpu": 1.0, "cuda": 0.4}
"""Seconds a measurement unless told otherwise."""


@dataclass(frozen=True)
class Settings:
    """How long to measure: seconds a measurement, and rounds.

    `checked` are the updates after which losses are compared, `width` is that of the stack; 0 means
    the task's own.
    """

    seconds: float = 1.0
    rounds: int = 7
    checked: int = 0
    width: int = 0

    def updates_checked(self, task: str) -> int:
        """Fewer where rounding soon shows: a background of one shade crosses a ReLU at once."""
        return self.checked or {
            "mnist1d-mlp": 192,
            "fashion-mnist-cnn": 16,
            "names-transformer": 32,
        }.get(task, 64)


TOLERANCE = 0.01
"""Losses after the same updates may differ by rounding, which grows along training: 1 %, relative.
"""


def trained(name: str, loop: Any, device: str, checked: int, threads: int, block: int = 1) -> Local:
    """A training loop as a contender; its units are updates."""
    return Local(
        name, loop.advance, device, threads=threads, checked=checked, block=block, score=loop.loss
    )


def rates_of(tried: Mapping[Any, Contender], seconds: float) -> dict[Any, float]:
    """The best of three short measurements of each contender."""
    rates = {}
    for choice, contender in tried.items():
        contender.prepare(seconds)
        rates[choice] = max(contender.rate() for _ in range(3))
    return rates


def fastest(rates: Mapping[Any, float]) -> Any:
    """What has the highest rate."""
    return max(rates, key=rates.__getitem__)


def told(rates: Mapping[Any, float]) -> str:
    """What was tried, and the rates."""
    return "tried " + "; ".join(f"{choice}: {rate:.0f}/s" for choice, rate in rates.items())


def single_loops(task: str, device: str, seconds: float) -> dict[Choice, float]:
    """The rate here of each single-model loop worth trying."""
    loop = lambda choice: InMemoryLoop(task, device, choice).advance
    tried = choices(device, thread_counts())
    return rates_of(
        {c: Local("", loop(c), device, threads=c.threads, checked=3) for c in tried}, seconds
    )


def of_one_thread(rates: Mapping[Choice, float]) -> dict[Choice, float]:
    """Those that can be run in as many processes as cores."""
    return {choice: rate for choice, rate in rates.items() if choice.threads == 1}


def thread_counts() -> tuple[int, ...]:
    """One thread and all."""
    return tuple(sorted({1, os.cpu_count() or 1}))


def side_by_side(task: str, device: str, width: int) -> list[tuple]:
    """Arguments of `OurStack` for each process that `make reproduce` trains in on this machine."""
    count = processes(device, "auto") if device == "cpu" else 1
    return [(task, device, 1, width, i * width) for i in range(count)]


def train(task: str, device: str, settings: Settings) -> list[dict[str, Any]]:
    """Our stacks against P0 to P3: a row a peer.

    On a CPU ours are as many processes as `make reproduce` has here.
    """
    width, threads = settings.width or plan(task, device).width, plan(task, device).threads
    checked, stacks = settings.updates_checked(task), side_by_side(task, device, width)
    entrant = partial(trained, device=device, checked=checked)
    with numerics(), ExitStack() as running:
        singles = single_loops(task, device, settings.seconds / 3)
        choice = fastest(singles)
        many = fastest(of_one_thread(singles))
        count = min(os.cpu_count() or 1, MOST_PROCESSES[device])
        ensemble = Ensemble(task, device, width)
        tried = {
            n: Local("", ensemble.advance, device, threads=n, checked=1) for n in thread_counts()
        }
        ensembles = rates_of(tried, settings.seconds / 3)
        best = fastest(ensembles)
        names = {
            "P0": "P0 DataLoader loop",
            "P1": f"P1 best single-model loop: {choice}",
            "P2": f"P2 {count} processes at once: {many}",
            "P3": f"P3 torch.func ensemble of {width}, eager, {threads_in_words(best)}",
        }

        def at_once(name: str, build: Callable[..., Any], of: Sequence[Any]) -> Processes:
            return running.enter_context(closing(Processes(name, build, of, checked)))

        one = lambda: entrant("ours", OurStack(*stacks[0]), threads=threads, block=BLOCK[device])
        contenders: list[Contender] = [
            one() if len(stacks) == 1 else at_once("ours", OurStack, stacks),
            entrant(names["P0"], DataLoaderLoop(task, device), threads=choice.threads),
            entrant(names["P1"], InMemoryLoop(task, device, choice), threads=choice.threads),
            at_once(
                names["P2"], InMemoryLoop, [(task, device, many, seed) for seed in range(count)]
            ),
            entrant(names["P3"], Ensemble(task, device, width), threads=best),
        ]
        ours_on = threads_in_words(1 if stacks[1:] else threads)
        ours = f"ours: {len(stacks)} at once, each {width} networks on {ours_on}"
        return compare(
            f"train {task}, one EMA",
            device,
            "replica-updates/s",
            contenders,
            settings.rounds,
            settings.seconds,
            tolerance=TOLERANCE,
            notes={names["P0"]: ours, names["P1"]: told(singles), names["P3"]: told(ensembles)},
        )


def averages_cost(
    task: str, device: str, settings: Settings, averages: int
) -> list[dict[str, Any]]:
    """Time of an update that keeps so many averages against one that keeps none."""
    threads = plan(task, device).threads
    stack = partial(OurStack, task, device, width=settings.width)
    entrant = partial(trained, device=device, checked=32, threads=threads, block=BLOCK[device])
    named = {1: "one EMA added to a step", 5: "five averages added to a step"}[averages]
    with numerics(threads):
        contenders = [
            entrant("ours", stack(averages)),
            entrant("the same step without an average", stack(0)),
        ]
        times = 1000.0 * (settings.width or plan(task, device).width)
        return compare(
            f"{named}, {task}",
            device,
            "ms/update",
            contenders,
            settings.rounds,
            settings.seconds,
            times=times,
            tolerance=TOLERANCE,
        )
