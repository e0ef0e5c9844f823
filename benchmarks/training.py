"""Training with one EMA, side by side in one run: our stack, a good single-model loop, and the loop people write.

Repetitions are interleaved (A B C A B C …), so that a noisy machine slows all alike; ratios are taken
within a repetition. Compiling and warming up are timed apart. Every contender then trains the same
number of updates from scratch, and the losses are shown: nobody wins by doing less.
"""

import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from scipy.stats import quantile_test
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from steadydescent import data
from steadydescent.engine import Stack, initial_weights
from steadydescent.minibatches import IndexStream
from steadydescent.paths import DATA
from steadydescent.runs import Run, stream_seed
from steadydescent.stepping import can_compile, numerics
from steadydescent.sweep import stack_plans
from steadydescent.tasks import find

LR, BATCH, WINDOW = 0.08, 100, 100
BETA = 1 - 1 / WINDOW
CHECKED_UPDATES = 400


class Single:
    """One network on data in memory: what both single-model loops share."""

    def __init__(self, task: str, seed: int = 0) -> None:
        source = find(task).source
        loaded = data.load(source, [seed], DATA)
        standard = lambda rows: (loaded.pool[rows] - loaded.mean[0]) / loaded.std[0]
        self.x, self.y = standard(loaded.train[0]), loaded.labels[loaded.train[0]]
        self.held_out = (standard(loaded.validation[0]), loaded.labels[loaded.validation[0]])
        self.order = IndexStream(len(self.x), BATCH, stream_seed(source, seed, "order"))
        self.model = initial_weights(task, seed)
        self.average = deepcopy(self.model)

    def loss(self) -> float:
        """Validation cross-entropy of the last weights."""
        with torch.no_grad():
            return nn.functional.cross_entropy(self.model.eval()(self.held_out[0]), self.held_out[1]).item()


class DataLoaderLoop(Single):
    """P0: DataLoader, nn.Module, torch.optim, an EMA over the state dict; one seed after another."""

    def __init__(self, task: str) -> None:
        super().__init__(task)
        self.loader = DataLoader(TensorDataset(self.x, self.y), BATCH, shuffle=True, drop_last=True)
        self.optimizer = torch.optim.SGD(self.model.parameters(), LR, momentum=0.9)
        self.batches = iter(self.loader)

    def advance(self, updates: int) -> int:
        self.model.train()
        for _ in range(updates):
            try:
                x, y = next(self.batches)
            except StopIteration:
                self.batches = iter(self.loader)
                x, y = next(self.batches)
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.model(x), y).backward()
            self.optimizer.step()
            with torch.no_grad():
                for average, value in zip(
                    self.average.state_dict().values(), self.model.state_dict().values(), strict=True
                ):
                    average.copy_(BETA * average + (1 - BETA) * value)
        return updates


class InMemoryLoop(Single):
    """An eager loop over one model: data in memory, foreach optimiser, EMA by one foreach lerp."""

    def __init__(self, task: str, threads: int) -> None:
        super().__init__(task)
        self.threads = threads
        self.optimizer = torch.optim.SGD(self.model.parameters(), LR, momentum=0.9, foreach=True)
        self.weights = [p.data for p in self.model.parameters()]
        self.averages = [p.data for p in self.average.parameters()]

    def advance(self, updates: int) -> int:
        torch.set_num_threads(self.threads)
        self.model.train()
        for rows in self.order.take(updates):
            self.optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(self.model(self.x[rows]), self.y[rows]).backward()
            self.optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(self.averages, self.weights, 1 - BETA)
        return updates


class OurStack:
    """The engine: a stack at the planned width, compiled where it can be, one EMA."""

    def __init__(self, task: str, updates: int = 10**6) -> None:
        plan = stack_plans()["cpu"][task]
        self.threads = plan.threads
        window = f"ema-{100 * WINDOW / updates:g}"
        runs = [
            Run(task=task, optimizer="momentum", schedule="constant", lr=LR, batch_size=BATCH, steps=updates, seed=seed,
                readouts=("last", window)) for seed in range(plan.width)
        ]  # fmt: skip
        self.stack, self.done = Stack(runs, DATA, compile=can_compile("cpu") is None), 0

    def advance(self, updates: int) -> int:
        torch.set_num_threads(self.threads)
        with torch.no_grad():
            self.stack.advance(self.done, self.done + updates)
        self.done += updates
        return updates * len(self.stack.runs)

    def loss(self) -> float:
        """Validation cross-entropy of the first replica, seed 0 as in the other loops."""
        stack = self.stack
        stack.done = self.done
        return float(stack.evaluate(stack.readouts[0], stack.look(stack.validation)).loss[0])


def rate(contender: Any, seconds: float) -> float:
    """Replica-steps a second over about `seconds`."""
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        done += contender.advance(20)
    return done / (time.perf_counter() - began)


def best_threads(task: str, seconds: float) -> InMemoryLoop:
    """The in-memory loop at the thread count that suits it best on this machine."""
    loops = [InMemoryLoop(task, threads) for threads in sorted({1, torch.get_num_threads()})]
    return max(loops, key=lambda loop: rate(loop, seconds))


def checked_loss(build: Callable[[], Any]) -> float:
    """Validation loss after the same number of updates from scratch."""
    contender = build()
    contender.advance(CHECKED_UPDATES)
    return contender.loss()


def compare_loops(seconds: float, rounds: int, task: str = "mnist1d-mlp") -> list[dict[str, Any]]:
    """One row a peer: rates, their ratio with a 95 % interval of the median, and the losses that were checked."""
    with numerics():
        ours, peer0, peer1 = OurStack(task), DataLoaderLoop(task), best_threads(task, seconds)
        began = time.perf_counter()
        ours.advance(3)
        warm_up = time.perf_counter() - began
        contenders = {
            "ours": ours,
            "P0 DataLoader loop": peer0,
            f"P1 eager in-memory loop, {peer1.threads} threads": peer1,
        }
        for contender in contenders.values():  # caches and allocators settle before anything counts
            rate(contender, seconds)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, contender in contenders.items():
                rates[name].append(rate(contender, seconds))
        losses = [
            checked_loss(build)
            for build in (
                lambda: OurStack(task, CHECKED_UPDATES),
                lambda: DataLoaderLoop(task),
                lambda: InMemoryLoop(task, peer1.threads),
            )
        ]
    return [
        _row(task, name, rates["ours"], found, warm_up, losses[0], loss)
        for (name, found), loss in zip(list(rates.items())[1:], losses[1:], strict=True)
    ]


def _row(
    task: str, peer: str, ours: list[float], theirs: list[float], warm_up: float, our_loss: float, their_loss: float
) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    interval = quantile_test(ratios, p=0.5).confidence_interval(0.95)
    return {
        "case": f"train {task}, one EMA", "device": "cpu", "peer_name": peer,
        "ours": round(statistics.median(ours)), "peer": round(statistics.median(theirs)),
        "ratio": statistics.median(ratios), "ratio_low": float(interval.low), "ratio_high": float(interval.high),
        "compile_seconds": round(warm_up, 1), "our_loss": our_loss, "peer_loss": their_loss, "rounds": len(ratios),
    }  # fmt: skip
