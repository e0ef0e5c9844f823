"""Time per example of a plain training loop at many batch sizes: are powers of two faster?

One network in the loop that people write: data in memory, an `nn.Module`, torch's own SGD with
momentum. Repetitions are interleaved (A B C … A B C …), so that a noisy machine slows all sizes
alike; sizes are compared within a round.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import torch
from pandas import DataFrame

from steadydescent.checks import check_count, check_positive
from steadydescent.engine.tasks import TASKS, initial_model

TIMED_SIZES = (31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 255, 256, 257)
"""Powers of two, their neighbours, and the round number that people take."""
INPUTS = {"mnist1d-mlp": 40, "fashion-mnist-mlp": 784}
"""Task → features of an input."""
EXAMPLES, CLASSES, WARM_UP = 10_000, 10, 20


def time_per_example(
    task: str,
    sizes: Sequence[int] = TIMED_SIZES,
    rounds: int = 50,
    seconds: float = 0.03,
    *,
    device: str = "cpu",
    threads: int = 1,
    seed: int = 0,
) -> DataFrame:
    """Time each batch size once a round: columns batch_size, round and seconds_per_example.

    Inputs and labels are random. Each size is warmed up by 20 updates, then 20 more are timed to
    find how many fill `seconds`, and that many are run in every round. `threads` is how many
    threads torch may use meanwhile. On a GPU the clock is read when all work that was queued is
    done.

    Many short rounds compare better than few long ones: what slows a machine for longer than a
    round cancels. Sizes keep their order in a round: listed as n − 1, n, n + 1, a machine that
    slows down steadily slows n as much as its neighbours on average.

    Raises:
        ValueError: for a task without random inputs here, no sizes or the same one twice, sizes
            beyond the 10 000 examples, or rounds, seconds or threads that are not positive.
    """
    if task not in INPUTS:
        raise ValueError(f"task must be one of {sorted(INPUTS)}, got {task!r}")
    if not sizes or len(set(sizes)) < len(sizes):
        raise ValueError(f"sizes must be one or more, each once, got {tuple(sizes)}")
    if max(check_count(size, "sizes") for size in sizes) > EXAMPLES:
        raise ValueError(f"sizes must be at most the {EXAMPLES} examples, got {max(sizes)}")
    check_count(rounds, "rounds")
    check_positive(seconds, "seconds")
    with _threads(check_count(threads, "threads")):
        loops = {size: training(task, size, device, seed) for size in sizes}
        updates = {size: _updates_in(seconds, loop, device) for size, loop in loops.items()}
        rows = [
            (size, number, _seconds(loop, updates[size], device) / (updates[size] * size))
            for number in range(rounds)
            for size, loop in loops.items()
        ]
    return DataFrame(rows, columns=["batch_size", "round", "seconds_per_example"])


def power_of_two_gain(table: DataFrame) -> DataFrame:
    """What a power of two saves, in percent of time per example, a row for each power n and round.

    100·((ln t(n−1) + ln t(n+1))/2 − ln t(n)), all of one round: above 0 the power of two is faster.
    A cost of a/n + b per example, which knows nothing of powers, gains at most 50/n² percent, 0.05
    % at n = 32.

    >>> table = DataFrame({"batch_size": [31, 32, 33], "round": 0})
    >>> table["seconds_per_example"] = [1.02, 1.0, 1.02]
    >>> power_of_two_gain(table).gain.round(2).tolist()
    [1.98]

    Raises:
        ValueError: if no power of two is there with both its neighbours, or a size is missing in a
            round or there twice.
    """
    logs = np.log(table.pivot(index="round", columns="batch_size", values="seconds_per_example"))
    if logs.isna().to_numpy().any():
        raise ValueError(
            f"every round must have every size, missing: {logs.columns[logs.isna().any()].tolist()}"
        )
    powers = [n for n in logs if n & (n - 1) == 0 and {n - 1, n + 1} <= set(logs)]
    if not powers:
        raise ValueError(
            f"sizes must hold a power of two with both its neighbours, got {list(logs)}"
        )
    gains = DataFrame({n: 100 * ((logs[n - 1] + logs[n + 1]) / 2 - logs[n]) for n in powers})
    return gains.rename_axis(columns="batch_size").unstack().rename("gain").reset_index()


def training(task: str, batch_size: int, device: str, seed: int) -> Iterator[int]:
    """Train for ever on random data in memory; yields the examples of each update.

    Each epoch has a new order. Examples that are left over at its end are dropped, so that all
    batches have one size.
    """
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(EXAMPLES, INPUTS[task], generator=generator, device=device)
    y = torch.randint(CLASSES, (EXAMPLES,), generator=generator, device=device)
    model, loss = initial_model(task, seed).to(device), TASKS[task].loss
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    while True:
        order = torch.randperm(EXAMPLES, generator=generator, device=device)
        for rows in order[: EXAMPLES // batch_size * batch_size].split(batch_size):
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
            yield len(rows)


def _updates_in(seconds: float, loop: Iterator[int], device: str) -> int:
    """How many updates fill so many seconds, after a warm-up."""
    _seconds(loop, WARM_UP, device)
    return max(1, math.ceil(seconds * WARM_UP / _seconds(loop, WARM_UP, device)))


def _seconds(loop: Iterator[int], updates: int, device: str) -> float:
    """Time of so many updates."""
    _finish(device)
    start = perf_counter()
    for _ in range(updates):
        next(loop)
    _finish(device)
    return perf_counter() - start


def _finish(device: str) -> None:
    """Wait for what a GPU still has to do."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
