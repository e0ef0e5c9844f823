"""One training loop in several processes, one thread each, all at once.

Each process waits for a go, makes so many updates, and reports how much work that was and how long
it took; the rate of all is their sum.
"""

import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch

from rounds import finish, units_in
from steadydescent.engine.stepping import numerics


class Loop(Protocol):
    """What a process runs: `advance(n)` makes n updates and returns those of single networks."""

    device: str

    def advance(self, updates: int) -> int: ...

    def loss(self) -> float: ...


class Processes:
    """A contender of several processes; process i runs `build(*arguments[i])`, a `Loop`.

    All updates are made in whole numbers of `block`, of which `checked` is a multiple.
    """

    def __init__(
        self,
        name: str,
        build: Callable[..., Loop],
        arguments: Sequence[tuple],
        checked: int,
        block: int = 1,
    ) -> None:
        self.name, self.checked, self.block, self.units = name, checked, block, block
        self.warm_up = math.nan
        self.loss: float | None = math.nan
        context = multiprocessing.get_context("spawn")
        self.lines: list[Connection] = []
        self.workers = []
        for given in arguments:
            line, other = context.Pipe()
            worker = context.Process(target=_work, args=(other, build, given), daemon=True)
            worker.start()
            other.close()  # so that a worker's death ends the line
            self.lines.append(line)
            self.workers.append(worker)

    def prepare(self, seconds: float) -> None:
        began = time.perf_counter()
        self._ask(self.checked)
        self.warm_up = time.perf_counter() - began
        self.loss = self._ask("loss")[0]
        took = lambda blocks: max(seconds for _, seconds in self._ask(blocks * self.block))
        self.units = self.block * units_in(seconds, took)

    def rate(self) -> float:
        return sum(work / took for work, took in self._ask(self.units))

    def _ask(self, order: int | str) -> list[Any]:
        """Each one's answer: work and seconds of so many updates, made all at once, or its loss."""
        for line in self.lines:
            line.send(order)
        return [self._answer(line) for line in self.lines]

    def _answer(self, line: Connection) -> Any:
        try:
            answer = line.recv()
        except EOFError:
            raise RuntimeError(
                f"a process of {self.name!r} died, perhaps for want of memory"
            ) from None
        if isinstance(answer, str):
            raise RuntimeError(f"a process of {self.name!r} failed: {answer}")
        return answer

    def close(self) -> None:
        """Let the processes go."""
        for line in self.lines:
            line.close()
        for worker in self.workers:
            worker.join()


def _work(line: Connection, build: Callable[..., Loop], arguments: tuple) -> None:
    """In each process: build the loop, then train or give the loss when asked, until the end."""
    try:
        with numerics(1):
            loop = build(*arguments)
            while True:
                order = line.recv()
                line.send(loop.loss() if order == "loss" else _timed(loop, order))
    except EOFError:
        return
    except Exception as error:
        line.send(repr(error))


def _timed(loop: Loop, updates: int) -> tuple[int, float]:
    torch.set_num_threads(1)
    finish(loop.device)
    began = time.perf_counter()
    work = loop.advance(updates)
    finish(loop.device)
    return work, time.perf_counter() - began
