"""Training with one EMA: the engine against P0 to P4, the loops people write.

In replica-updates a second.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from jax_peer import JaxChoice, JaxStack, missing, stacks_of, version, with_all_threads
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


def words(rates: Mapping[Any, float]) -> str:
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


class Race:
    """The contenders of one task, each at its best here; those of several processes until closed.

    `told` says of each by name what was tried, and with ours, as on standard error, who cannot take
    part; `failed` are ways to run P4 that did not work.
    """

    def __init__(self, task: str, device: str, settings: Settings, running: ExitStack) -> None:
        self.task, self.device, self.running = task, device, running
        self.width = settings.width or plan(task, device).width
        self.checked, self.seconds = settings.updates_checked(task), settings.seconds / 3
        self.entrant = partial(trained, device=device, checked=self.checked)
        self.told: dict[str, str] = {}
        self.failed: list[str] = []

    def at_once(
        self, name: str, build: Callable[..., Any], of: Sequence[Any], block: int = 1
    ) -> Processes:
        """A contender of several processes."""
        return self.running.enter_context(closing(Processes(name, build, of, self.checked, block)))

    def ours(self) -> Contender:
        """As many stacks as `make reproduce` trains at once."""
        stacks = side_by_side(self.task, self.device, self.width)
        threads = 1 if stacks[1:] else plan(self.task, self.device).threads
        each = f"{self.width} networks on {threads_in_words(threads)}"
        self.told["ours"] = f"ours: {len(stacks)} at once, each {each}"
        if stacks[1:]:
            return self.at_once("ours", OurStack, stacks)
        stack = OurStack(*stacks[0])
        return self.entrant("ours", stack, threads=threads, block=BLOCK[self.device])

    def single_loops(self) -> list[Contender]:
        """P0, P1 and P2."""
        tried = single_loops(self.task, self.device, self.seconds)
        one, many = fastest(tried), fastest(of_one_thread(tried))
        count = min(os.cpu_count() or 1, MOST_PROCESSES[self.device])
        each = [(self.task, self.device, many, seed) for seed in range(count)]
        names = [f"P1 best single-model loop: {one}", f"P2 {count} processes at once: {many}"]
        self.told |= dict.fromkeys(names, words(tried))
        plain = DataLoaderLoop(self.task, self.device)
        best = InMemoryLoop(self.task, self.device, one)
        return [
            self.entrant("P0 DataLoader loop", plain, threads=one.threads),
            self.entrant(names[0], best, threads=one.threads),
            self.at_once(names[1], InMemoryLoop, each),
        ]

    def ensemble(self) -> Contender:
        """P3."""
        made = lambda: Ensemble(self.task, self.device, self.width)
        loop = made().advance
        tried = {n: Local("", loop, self.device, threads=n, checked=1) for n in thread_counts()}
        rates = rates_of(tried, self.seconds)
        threads = fastest(rates)
        name = f"P3 torch.func ensemble of {self.width}, eager, {threads_in_words(threads)}"
        self.told[name] = words({threads_in_words(n): rate for n, rate in rates.items()})
        return self.entrant(name, made(), threads=threads)

    def jax(self) -> list[Contender]:
        """P4, where JAX can be used."""
        reason = missing(self.device)
        rates = {} if reason else self._jax_rates()
        if not rates:
            left_out = f"P4 is left out: {reason or '; '.join(self.failed)}"
            self.told["ours"] += f"; {left_out}"
            print(f"{self.task}: {left_out}", file=sys.stderr, flush=True)
            return []
        choice = fastest(rates)
        name = f"P4 JAX {version()}: {choice}"
        self.told[name] = "; ".join([words(rates), *self.failed])
        return [self.at_once(name, JaxStack, self._jax_stacks(choice), self.scanned)]

    def _jax_rates(self) -> dict[JaxChoice, float]:
        """The rate of each way to run P4 here; on a CPU the fastest stack with all threads, too."""
        rates: dict[JaxChoice, float] = {}
        for choice in stacks_of(self.device, self.width):
            rates |= self._jax_rate(choice)
        if rates and self.device == "cpu":
            rates |= self._jax_rate(with_all_threads(fastest(rates)))
        return rates

    def _jax_rate(self, choice: JaxChoice) -> dict[JaxChoice, float]:
        """The rate of one way to run P4; none where it fails, as where memory does not hold it."""
        given, scanned = self._jax_stacks(choice), self.scanned
        try:
            with closing(Processes("P4", JaxStack, given, scanned, scanned)) as tried:
                return rates_of({choice: tried}, self.seconds)
        except RuntimeError as error:
            self.failed.append(f"{choice}: {error}")
            return {}

    @property
    def scanned(self) -> int:
        """Updates in one call of P4; a Transformer's on a CPU is long enough by itself."""
        return 1 if (self.task, self.device) == ("names-transformer", "cpu") else self.checked

    def _jax_stacks(self, choice: JaxChoice) -> list[tuple]:
        """Arguments of `JaxStack` for each process; seeds differ."""
        given = (self.task, self.device, choice.width, choice.threads, self.scanned)
        return [(*given, i * choice.width) for i in range(choice.processes)]


def train(task: str, device: str, settings: Settings) -> list[dict[str, Any]]:
    """Our stacks against P0 to P4: a row a peer; without JAX there is no P4.

    On a CPU ours are as many processes as `make reproduce` has here.
    """
    with numerics(), ExitStack() as running:
        race = Race(task, device, settings, running)
        contenders = [race.ours(), *race.single_loops(), race.ensemble(), *race.jax()]
        return compare(
            f"train {task}, one EMA",
            device,
            "replica-updates/s",
            contenders,
            settings.rounds,
            settings.seconds,
            tolerance=TOLERANCE,
            notes={"P0 DataLoader loop": race.told["ours"], **race.told},
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
