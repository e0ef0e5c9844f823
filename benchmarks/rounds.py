"""Interleaved timing: contenders take turns, and ratios are taken within a round.

What slows the machine for longer than a round slows all alike and cancels. Compiling and warming up
come before the first round and are reported apart.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from scipy.stats import bootstrap, quantile_test

FEWEST_FOR_ORDER_STATISTICS = 6
"""Below so many rounds even the range of all ratios does not hold their median with 95 %."""


class Contender(Protocol):
    """What takes part in rounds.

    `loss` is that of the network that all contenders train alike, None without one.
    """

    name: str
    warm_up: float
    loss: float | None

    def prepare(self, seconds: float) -> None:
        """Compile, warm up, and find how much work fills so many seconds."""

    def rate(self) -> float:
        """Work a second, over about that time."""


class Local:
    """A contender in this process; `advance(n)` makes n units of work and says how much that was.

    With `checked`, so many units are made before anything is timed, and `score` then says the loss:
    nobody wins by doing less. Rounds are whole numbers of `block` units.
    """

    def __init__(
        self,
        name: str,
        advance: Callable[[int], float],
        device: str = "cpu",
        *,
        threads: int = 0,
        checked: int = 1,
        block: int = 1,
        score: Callable[[], float] | None = None,
    ) -> None:
        self.name, self.advance, self.device, self.threads = name, advance, device, threads
        self.checked, self.block, self.score, self.units = checked, block, score, 1
        self.warm_up, self.loss = math.nan, None if score is None else math.nan

    def prepare(self, seconds: float) -> None:
        self.warm_up = self._timed(self.checked)[1]
        if self.score is not None:
            self.loss = self.score()
        fitting = units_in(seconds, lambda units: self._timed(units)[1])
        self.units = self.block * max(1, round(fitting / self.block))

    def rate(self) -> float:
        work, seconds = self._timed(self.units)
        return work / seconds

    def _timed(self, units: int) -> tuple[float, float]:
        torch.set_num_threads(self.threads or torch.get_num_threads())
        finish(self.device)
        began = time.perf_counter()
        work = self.advance(units)
        finish(self.device)
        return work, time.perf_counter() - began


def repeated(work: Callable[[], Any], amount: float = 1.0) -> Callable[[int], float]:
    """A function that repeats some work and says how much that was."""

    def advance(times: int) -> float:
        for _ in range(times):
            work()
        return amount * times

    return advance


def finish(device: str) -> None:
    """Wait for what a GPU still has to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def units_in(seconds: float, took: Callable[[int], float]) -> int:
    """How many units of work fill so many seconds.

    `took(n)` makes n of them and says how long that took.

    >>> units_in(1.0, lambda units: 0.01 * units)
    100
    """
    units = 1
    while (time_taken := took(units)) < seconds / 4:
        units = max(
            2 * units, min(8 * units, math.ceil(units * seconds / 3 / max(time_taken, 1e-9)))
        )
    return max(1, round(units * seconds / time_taken))


def interleaved(contenders: Sequence[Contender], rounds: int) -> dict[str, list[float]]:
    """Rates by contender, A B C … A B C …, one a round."""
    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            rates[contender.name].append(contender.rate())
    return rates


def median_interval(values: Sequence[float]) -> tuple[float, float, str]:
    """A 95 % interval of the median, and how it was made.

    From order statistics, or by bootstrap where there are few.

    >>> median_interval([1, 2, 3, 4, 5, 6, 7])
    (1.0, 7.0, 'order statistics')

    Raises:
        ValueError: for fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 rounds, got {len(values)}")
    if len(values) >= FEWEST_FOR_ORDER_STATISTICS:
        exact = quantile_test(values, p=0.5).confidence_interval(0.95)
        return float(exact.low), float(exact.high), "order statistics"
    drawn = bootstrap(
        (values,), np.median, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(drawn.low), float(drawn.high), "bootstrap"


def row(
    case: str,
    device: str,
    unit: str,
    ours: Sequence[float],
    peer: Sequence[float],
    peer_name: str,
    **more: Any,
) -> dict[str, Any]:
    """One comparison: medians of both, and the median of the rounds' ratios ours/peer.

    The ratio has its interval.
    """
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    low, high, how = median_interval(ratios)
    return {
        "case": case,
        "device": device,
        "unit": unit,
        "ours": statistics.median(ours),
        "peer": statistics.median(peer),
        "peer_name": peer_name,
        "ratio": statistics.median(ratios),
        "ratio_low": low,
        "ratio_high": high,
        "interval": how,
        "rounds": len(ratios),
        "our_warm_up": None,
        "peer_warm_up": None,
        "our_loss": None,
        "peer_loss": None,
        "losses_agree": None,
        "note": "",
        **more,
    }


def compare(
    case: str,
    device: str,
    unit: str,
    contenders: Sequence[Contender],
    rounds: int,
    seconds: float,
    *,
    times: float = 0.0,
    tolerance: float = 0.0,
    notes: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Prepare all, let them take turns, and hold the first against each other one: a row a peer.

    With `times` rows are times, `times` / rate, in place of rates: 1000 for milliseconds. Losses
    agree when they differ by at most `tolerance`, relative.
    """
    for contender in contenders:
        contender.prepare(seconds)
    rates = interleaved(contenders, rounds)
    shown = rates
    if times:
        shown = {name: [times / rate for rate in values] for name, values in rates.items()}
    ours, *peers = contenders
    return [
        row(
            case,
            device,
            unit,
            shown[ours.name],
            shown[peer.name],
            peer.name,
            our_warm_up=ours.warm_up,
            peer_warm_up=peer.warm_up,
            our_loss=ours.loss,
            peer_loss=peer.loss,
            losses_agree=agree(ours.loss, peer.loss, tolerance),
            note=(notes or {}).get(peer.name, ""),
        )
        for peer in peers
    ]


def agree(ours: float | None, theirs: float | None, tolerance: float) -> bool | None:
    """Whether two losses differ by at most a share `tolerance` of theirs.

    None where there is nothing to compare.
    """
    if ours is None or theirs is None:
        return None
    return math.isclose(ours, theirs, rel_tol=tolerance)
