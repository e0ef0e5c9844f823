"""A list of items worked through in a process of its own, with a time to end by.

A process that trains on a GPU may hang, or leave the GPU's context in ruins. So the command that
drives it only reads: the process tells of each item as it is done, in one line of JSON on its
standard output. When an item fails, the next process goes on with the items behind it.
"""

import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, NamedTuple

import psutil

from steadydescent.study.training.processes import follow

TICK = 5.0
"""Seconds between two ticks while nothing is told."""
FAILED = 3
"""The status with which a process ends that has told of its failure."""
START_ALLOWED = 30.0
"""Seconds that a process may take to start, besides those of an item."""
LONGEST_ERROR = 500
"""Letters of an error that are told."""


class Outcome(NamedTuple):
    """What became of an item: what was `found`, or the `error` that ended it, and the seconds."""

    item: str
    found: Any
    error: str
    seconds: float


def work_through(
    command: Sequence[str],
    items: Sequence[str],
    until: float,
    environment: Mapping[str, str],
    most: float = math.inf,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[Outcome]:
    """What becomes of each item, as it is known; those that were not reached by `until` have none.

    Args:
        command: starts a process that calls `serve_items`; the items are added to it, as JSON.
        items: what is to be done, in this order.
        until: when to end, on the clock of `time.monotonic`; the process is killed then.
        environment: the process's variables.
        most: seconds that one item may take; the first has those of the process's start besides.
        tick: called every few seconds while the process works.
    """
    left = list(items)
    while left and time.monotonic() < until:
        for outcome in _process(command, left, until, environment, most, tick):
            left.remove(outcome.item)
            yield outcome


def _process(
    command: Sequence[str],
    items: list[str],
    until: float,
    environment: Mapping[str, str],
    most: float,
    tick: Callable[[], None],
) -> Iterator[Outcome]:
    """One process, until it has done all, has failed, or has to end."""
    words = [*command, json.dumps(items)]
    running = subprocess.Popen(words, env=dict(environment), stdout=subprocess.PIPE, text=True)
    told: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(running.stdout, told), daemon=True).start()
    began, left = time.monotonic(), list(items)
    try:
        while line := _next(told, min(until, began + most + START_ALLOWED), tick):
            outcome = Outcome(**json.loads(line))
            left.remove(outcome.item)
            began = time.monotonic()
            yield outcome
        if left and time.monotonic() < until:
            if line is None:
                ended = f"it took longer than {most:.0f} seconds and was ended"
            elif running.wait() == FAILED:
                return
            else:
                ended = f"its process ended with status {running.returncode} and without a word"
            yield Outcome(left[0], None, ended, round(time.monotonic() - began, 1))
    finally:
        _end(running)


def _listen(stream: IO[str] | None, told: "queue.Queue[str]") -> None:
    for line in stream or ():
        told.put(line)
    told.put("")


def _next(told: "queue.Queue[str]", until: float, tick: Callable[[], None]) -> str | None:
    """The next line; an empty one at the end of the process, None at that of the time."""
    while (left := until - time.monotonic()) > 0:
        with suppress(queue.Empty):
            return told.get(timeout=min(TICK, left))
        tick()
    return None


def _end(running: subprocess.Popen) -> None:
    """Kill the process and all that it has started; one that has ended is left alone."""
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(running.pid).children(recursive=True)
        for process in [psutil.Process(running.pid), *family]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    running.wait()


def serve_items(work: Callable[[str], Any], items: Sequence[str]) -> None:
    """In the process: do one item after another and tell of each; end at the first that fails.

    Standard output belongs to what is told; what the work prints goes to standard error.
    """
    follow(os.getppid())
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as line:
        os.dup2(2, 1)
        for item in items:
            began, found, error = time.monotonic(), None, ""
            try:
                found = work(item)
            except Exception as reason:
                text = f"{type(reason).__name__}: {reason}".strip()
                error = text if len(text) <= LONGEST_ERROR else f"{text[:LONGEST_ERROR]}…"
            outcome = Outcome(item, found, error, round(time.monotonic() - began, 1))
            print(json.dumps(outcome._asdict(), default=float), file=line, flush=True)
            if error:
                sys.exit(FAILED)
