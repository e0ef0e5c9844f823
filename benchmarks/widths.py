"""How wide a task's stacks should be here, whether its step is compiled and its updates replayed.

Measured, and proposed as a row of `study/planning/stackings.yml`.

The runs are those of the shape on which profile full makes most updates of the task.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import psutil
import torch

from rounds import finish
from steadydescent.engine.blocks import RECORDED
from steadydescent.engine.memory import is_out_of_memory
from steadydescent.engine.runs import Run
from steadydescent.engine.stack import Stack
from steadydescent.engine.stepping import can_compile, numerics
from steadydescent.engine.tasks import base
from steadydescent.study.paths import DATA
from steadydescent.study.planning import FIRST_REPORT_SEED, MOST_SEEDS, Plan, plans
from steadydescent.study.planning.stacks import Stacking, stacking
from steadydescent.study.training.stack_training import free_memory

LONGEST = 30_000
"""Updates of the runs that are timed, at least: more than are made."""
GAIN = 1.1
"""A width or a way must be so much faster before it is worth its memory or its compiling."""
NEVER = 1_000_000
"""Updates from which compiling pays, where it does not."""
GIB = 2**30


@dataclass(frozen=True)
class Look:
    """How long to look: seconds a measurement, and how wide a stack may be."""

    seconds: float = 0.5
    widest: int = 8192
    examples: int = 4_000


class Measured(NamedTuple):
    """What a stack of one width reaches in one way; a rate of None says that it did not fit."""

    width: int
    way: str
    rate: float | None
    """Replica-updates a second."""
    start: float = 0.0
    """Seconds of the first updates: tracing or compiling, and recording."""
    evaluation: float = 0.0
    """Examples × readouts × replicas a second."""
    memory: float = 0.0
    """GiB at the most: on a GPU of the allocator, on a CPU of the process."""


WAYS = {
    "traced": {"compile": False, "graph": False},
    "traced, graph": {"compile": False, "graph": True},
    "compiled": {"compile": True, "graph": False},
    "compiled, graph": {"compile": True, "graph": True},
}
"""Way → how its stack is made."""


def busiest(task: str) -> tuple[Run, int]:
    """A run of the shape on which profile full makes most updates of a task, and how many runs of
    that shape there are.
    """
    mine = [plan for plan in _full() if base(plan.task) == task]
    if not mine:
        raise ValueError(f"profile full has no runs of {task}")
    runs = [run for plan in mine for run in plan.expected]
    updates = Counter[tuple]()
    for run in runs:
        updates[run.shape] += run.steps
    shape = updates.most_common(1)[0][0]
    alike = [run for run in runs if run.shape == shape]
    return alike[0], len(alike)


@cache
def _full() -> list[Plan]:
    return plans("full")


def stack_of(like: Run, width: int, device: str, way: str) -> Stack:
    """So many runs like one, few seeds and many rates as in a sweep."""
    longer = {"steps": max(like.steps, LONGEST), "shifts": (), "probes": ()}
    seeds = min(width, MOST_SEEDS, 20)
    runs = [
        like.model_copy(
            update=longer
            | {"seed": FIRST_REPORT_SEED + i % seeds, "lr": like.lr * (1 + 0.01 * (i // seeds))}
        )
        for i in range(width)
    ]
    return Stack(runs, DATA, device, **WAYS[way])


def measured(like: Run, width: int, device: str, way: str, look: Look) -> Measured:
    """Train and evaluate a stack for a while; one that does not fit is a finding, too."""
    try:
        return _measured(like, width, device, way, look)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    free_memory()
    return Measured(width, way, None)


@torch.no_grad()
def _measured(like: Run, width: int, device: str, way: str, look: Look) -> Measured:
    if device == "cuda":
        free_memory()
        torch.cuda.reset_peak_memory_stats()
    block = RECORDED if device == "cuda" else 1
    stack = stack_of(like, width, device, way)
    start = _seconds(lambda: stack.training.advance(2 * block), device)
    done, spent = 0, 0.0
    while spent < look.seconds and stack.training.done + block <= LONGEST:
        # twice as many each time: a GPU is waited for seldom
        more = min(max(block, done), LONGEST - stack.training.done) // block * block
        spent += _seconds(partial(_advance, stack, more, block), device)
        done += more
    rows = stack.examples.look(stack.examples.validation[:, : look.examples])
    readouts = [readout for readout in stack.readouts if readout.along] or stack.readouts[:1]
    score = lambda: [stack.view.score(readout, rows) for readout in readouts]
    evaluated = len(readouts) * rows.rows.numel()
    warm = _seconds(score, device)
    again = _seconds(score, device) if warm < 4 * look.seconds else warm
    return Measured(
        width, way, done * width / spent, start, evaluated / again, _memory_taken(device)
    )


def _advance(stack: Stack, updates: int, block: int) -> None:
    for _ in range(updates // block):
        stack.training.advance(stack.training.done + block)


def _seconds(work: Callable[[], Any], device: str) -> float:
    finish(device)
    began = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - began


def _memory_taken(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_reserved() / GIB
    return psutil.Process().memory_info().rss / GIB


def narrowest(first: int, widest: int, rate: Callable[[int], float | None]) -> int:
    """The narrowest width that is nearly as fast as the best, among powers of two times the first.

    From the first width on wider ones are tried while they are worth it, else narrower ones while
    nothing is lost; of a width that does not fit the rate is None.

    >>> narrowest(64, 1024, lambda width: min(width, 256))
    256
    >>> narrowest(64, 1024, lambda width: None if width > 16 else width)
    16

    Raises:
        ValueError: when not even one network fits.
    """
    width, best = min(first, widest), rate(min(first, widest))
    while best is None:
        if width == 1:
            raise ValueError("not even one network fits")
        widest = width = width // 2
        best = rate(width)
    grown = False
    while 2 * width <= widest and (wider := rate(2 * width)) and wider > GAIN * best:
        width, best, grown = 2 * width, wider, True
    while not grown and width > 1 and (narrow := rate(width // 2)) and GAIN * narrow >= best:
        width, best = width // 2, max(best, narrow)
    return width


def compile_from(traced: Measured, compiled: Measured) -> int:
    """The updates of a shape's stacks from which compiling pays; `NEVER` where it saves nothing."""
    if not (traced.rate and compiled.rate) or compiled.rate < GAIN * traced.rate:
        return NEVER
    saved = traced.width / traced.rate - compiled.width / compiled.rate  # seconds an update
    return max(1, min(NEVER, _rounded(max(0.0, compiled.start - traced.start) / saved)))


def _rounded(number: float) -> int:
    """Two digits are what a measurement holds."""
    return int(float(f"{number:.2g}"))


def proposed(usual: Stacking, found: list[Measured], width: int) -> Stacking:
    """The row that measurements at one width speak for."""
    ways = {one.way: one for one in found if one.width == width and one.rate}
    graphs = [way for way in ways if way.endswith("graph")]
    plain = [way for way in ways if not way.endswith("graph")]
    rate = lambda names: max((ways[name].rate or 0.0 for name in names), default=0.0)
    graph = not graphs or rate(plain) <= GAIN * rate(graphs)
    suffix = ", graph" if graph and graphs else ""
    traced, compiled = ways[f"traced{suffix}"], ways.get(f"compiled{suffix}")
    used = max([traced, *([compiled] if compiled else [])], key=lambda one: one.rate or 0.0)
    return replace(
        usual,
        width=width,
        compile_from=compile_from(traced, compiled) if compiled else NEVER,
        rate=_rounded(used.rate or 0.0),
        evaluation=_rounded(used.evaluation),
        memory=round(max(one.memory for one in ways.values()) + 0.05, 1),
        graph=graph,
    )


def widths(task: str, device: str, look: Look) -> dict[str, Any]:
    """Measure a task, from its planned width on: the row proposed, and all that it rests on."""
    usual, (like, count) = stacking(task, device), busiest(task)
    enough = 1 << (count - 1).bit_length()  # no stack is wider than there are runs
    plain = "traced, graph" if device == "cuda" else "traced"
    found: list[Measured] = []

    def rate(width: int) -> float | None:
        found.append(measured(like, width, device, plain, look))
        return found[-1].rate

    with numerics(usual.threads):
        width = narrowest(min(usual.width, enough), min(look.widest, enough), rate)
        for way in _other_ways(device, plain):
            found.append(measured(like, width, device, way, look))
    row = asdict(proposed(usual, found, width))
    return {"row": row, "measured": [one._asdict() for one in found], "shape": like.row["run"]}


def _other_ways(device: str, plain: str) -> Iterator[str]:
    """What else is tried at the chosen width."""
    for way, options in WAYS.items():
        possible = device == "cuda" or not options["graph"]
        if way != plain and possible and not (options["compile"] and can_compile(device)):
            yield way
