"""P2: the best single-model loop in as many processes as there are cores, one thread each, all at once.

Each process waits for a go, makes so many updates, and reports how long that took; the rate of all is their sum.
"""

import math
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from peers import Choice, InMemoryLoop
from rounds import finish, units_in
from steadydescent.stepping import numerics


class Processes:
    """A contender of `count` processes, each with a loop of its own; process i trains seed i."""

    def __init__(self, name: str, task: str, device: str, choice: Choice, count: int, checked: int) -> None:
        self.name, self.checked, self.units = name, checked, 1
        self.warm_up = math.nan
        self.loss: float | None = math.nan
        context = multiprocessing.get_context("spawn")
        self.lines: list[Connection] = []
        self.workers = []
        for seed in range(count):
            line, other = context.Pipe()
            asked = (other, InMemoryLoop, (task, device, choice, seed))
            worker = context.Process(target=_work, args=asked, daemon=True)
            worker.start()
            other.close()  # so that a worker's death ends the line
            self.lines.append(line)
            self.workers.append(worker)

    def prepare(self, seconds: float) -> None:
        began = time.perf_counter()
        self._go(self.checked)
        self.warm_up = time.perf_counter() - began
        self.loss = self._ask("loss")[0]
        self.units = units_in(seconds, lambda units: max(self._go(units)))

    def rate(self) -> float:
        return sum(self.units / seconds for seconds in self._go(self.units))

    def _go(self, updates: int) -> list[float]:
        """Let all make so many updates at once; the seconds that each took."""
        return self._ask(updates)

    def _ask(self, order: int | str) -> list[float]:
        for line in self.lines:
            line.send(order)
        return [self._answer(line) for line in self.lines]

    def _answer(self, line: Connection) -> float:
        try:
            found = line.recv()
        except EOFError:
            raise RuntimeError(f"a process of {self.name!r} died, perhaps for want of memory") from None
        if isinstance(found, str):
            raise RuntimeError(f"a process of {self.name!r} failed: {found}")
        return found

    def close(self) -> None:
        """Let the processes go."""
        for line in self.lines:
            line.close()
        for worker in self.workers:
            worker.join()


def _work(line: Connection, build: Callable[..., Any], arguments: tuple) -> None:
    """In each process: build the loop, then train, or say the loss, whenever asked, until the line closes."""
    try:
        with numerics(1):
            loop = build(*arguments)
            while True:
                order = line.recv()
                line.send(loop.loss() if order == "loss" else _seconds(loop, order))
    except EOFError:
        return
    except Exception as error:
        line.send(repr(error))


def _seconds(loop: InMemoryLoop, updates: int) -> float:
    torch.set_num_threads(1)
    finish(loop.device)
    began = time.perf_counter()
    loop.advance(updates)
    finish(loop.device)
    return time.perf_counter() - began
