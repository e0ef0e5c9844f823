"""Weight averaging: every readout of a trajectory is a running average with its own mixing weights.

    a_t = a_{t−1} + w_t·(θ_t − a_{t−1})

One line, one accumulator each. The sequence w_1 … w_T tells the readouts apart: always 1 is the
last weights, 1/t the mean, (1−β)/(1−β^t) the debiased exponential moving average, and so on.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from steadydescent.averages import decay_for_window
from steadydescent.checks import check_count, check_share
from steadydescent.weight_averaging.mixing import Mixing, Ramped, TailMean, debiased_weight

Weights = NDArray[np.float64]
CHECKPOINTS_PER_RUN = 20
"""Checkpoints that a run makes, evenly spaced."""


def mix(average: Tensor, value: Tensor, weight: Tensor | float) -> Tensor:
    """One update of a running average, a + w·(θ − a); shapes broadcast.

    >>> mix(Tensor([2.0]), Tensor([6.0]), 0.25).item()
    3.0
    """
    return average + weight * (value - average)


def ema_weights(total: int, beta: float) -> Weights:
    """Debiased EMA: w_t = (1−β)/(1−β^t), so that V_t/(1−β^t) is itself a running average.

    >>> ema_weights(2, 0.98).round(4).tolist()  # 40 and 49 °F average to 44.545 °F
    [1.0, 0.5051]
    """
    check_count(total, "total")
    check_share(beta, "beta")
    weights = np.empty(total)
    weights[:] = debiased_weight(beta, np.arange(1.0, total + 1), np)
    return weights


def ramped_weights(total: int, cap: float = 0.9999) -> Weights:
    """Ramped EMA (opennmt-tf): w_t = 1 − min(cap, (1+t)/(10+t)); w_1 = 1 copies the weights.

    >>> ramped_weights(3).round(3).tolist()
    [1.0, 0.75, 0.692]
    """
    return _sequence(Ramped(cap), check_count(total, "total"))


def tail_weights(total: int, length: int) -> Weights:
    """Mean of the last `length` steps (tail averaging, SWA with one value per step): w_t = 1/k from
    its k-th step on.

    >>> tail_weights(4, 2).tolist()
    [0.0, 0.0, 1.0, 0.5]
    """
    if check_count(length, "length") > check_count(total, "total"):
        raise ValueError(f"length must be at most the {total} steps of the run, got {length}")
    return np.concatenate([np.zeros(total - length), _sequence(TailMean(), length)])


def checkpoint_weights(total: int, count: int, every: int) -> Weights:
    """Mean of the last `count` checkpoints, `every` steps apart, the end included (opennmt-tf): w_t
    = 1/j at the j-th.

    >>> checkpoint_weights(6, 2, 3).tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0, 0.5]
    """
    for value, name in ((total, "total"), (count, "count"), (every, "every")):
        check_count(value, name)
    if (count - 1) * every >= total:
        raise ValueError(f"a run of {total} steps has no {count} checkpoints {every} steps apart")
    weights = np.zeros(total)
    weights[total - 1 - every * np.arange(count - 1, -1, -1)] = _sequence(TailMean(), count)
    return weights


def snapshot_weights(total: int, step: int) -> Weights:
    """The weights as they stood after one step: w_t = 1 there, 0 elsewhere.

    >>> snapshot_weights(4, 2).tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    if check_count(step, "step") > check_count(total, "total"):
        raise ValueError(f"step must be at most the {total} steps of the run, got {step}")
    weights = np.zeros(total)
    weights[step - 1] = 1.0
    return weights


def _sequence(mixing: Mixing, total: int) -> Weights:
    """w_1 … w_T of a mixing, as an array."""
    return np.array([mixing(step) for step in range(1, total + 1)])


def coefficients(weights: Weights) -> Weights:
    """What a readout remembers: the share of each θ_t in a_T, c_t = w_t·∏_{u>t}(1 − w_u), `[T]`.

    They sum to 1 as soon as some w_t is 1. An EMA's fall off exponentially, a tail mean's are flat.

    >>> coefficients(tail_weights(4, 2)).tolist()
    [0.0, 0.0, 0.5, 0.5]
    """
    later = np.append(np.cumprod((1 - weights)[::-1])[::-1][1:], 1.0)
    return weights * later


class Kind(NamedTuple):
    """A kind of readout: its mixing weights, and what may be asked about it.

    `weights` maps a run's length T and the number in a readout's name to w_1 … w_T; it is None for
    the last weights, which need no accumulator. `number` says what that number is.
    """

    weights: Callable[[int, float], Weights] | None
    number: str = ""
    along: bool = False
    """Whether it means something in the middle of a run; others wait for its end."""
    one_step: bool = False
    """Whether it is the weights of one update and no average."""
    sparse: bool = False
    """Whether it takes in a few updates' weights alone."""
    starts_at: str = ""
    """The kind that it is with a share of the first weights mixed in."""


READOUTS = {
    "last": Kind(None, along=True, one_step=True),
    "at": Kind(
        lambda total, percent: snapshot_weights(total, round(total * percent / 100)),
        "PERCENT",
        one_step=True,
        sparse=True,
    ),
    "ema": Kind(
        lambda total, window: ema_weights(total, decay_of(window, total)), "WINDOW", along=True
    ),
    "ema-start": Kind(
        lambda total, window: ema_weights(total, decay_of(window, total)),
        "WINDOW",
        along=True,
        starts_at="ema",
    ),
    "ema-ramp": Kind(lambda total, _: ramped_weights(total), along=True),
    "tail": Kind(
        lambda total, percent: tail_weights(total, round(total * percent / 100)), "PERCENT"
    ),
    "checkpoints": Kind(
        lambda total, count: checkpoint_weights(
            total, int(count), max(1, total // CHECKPOINTS_PER_RUN)
        ),
        "COUNT",
        sparse=True,
    ),
}
"""Every kind of readout by name."""
STATISTICS = ("averaged", "copied", "reestimated")
"""Where a readout's batch-norm statistics come from: averaged as its weights are, copied from the
last weights, or estimated anew with its weights.
"""
_NAMES = (f"{name}-{kind.number}" if kind.number else name for name, kind in READOUTS.items())
KINDS = (
    f"{', '.join(_NAMES)} (windows in percent of the run), "
    f"each also with /{' or /'.join(STATISTICS[1:])} batch-norm statistics"
)
"""The names that a readout may have, for messages."""


def decay_of(window: float, total: int) -> float:
    """β of an EMA whose window is so many percent of a run of `total` updates.

    >>> decay_of(10, total=500)
    0.98
    """
    return decay_for_window(total * window / 100)


@dataclass(frozen=True)
class Readout:
    """Weights taken from a run for evaluation: `ema-10/copied` is an EMA whose window is a tenth of
    the run, with the batch-norm statistics of the last weights.

    `kind` is one of `READOUTS`, `number` the one in its name, `statistics` one of `STATISTICS`.

    >>> readout = Readout.parse("tail-50/copied")
    >>> readout
    Readout(kind='tail', number=50.0, statistics='copied')
    >>> readout.text, readout.weights(total=4).tolist()
    ('tail-50/copied', [0.0, 0.0, 1.0, 0.5])
    """

    kind: str
    number: float | None = None
    statistics: str = "averaged"

    @staticmethod
    @cache
    def parse(text: str) -> "Readout":
        """The readout that a text names.

        Raises:
            ValueError: for a text that is not the one that the readout has, such as `ema-10.0`.
        """
        name, _, statistics = text.partition("/")
        kind, _, number = (name, "", "") if name in READOUTS else name.rpartition("-")
        try:
            value = float(number) if number else None
            readout = Readout(kind, value, statistics or "averaged")
            known = readout._is_known and readout.text == text
        except ValueError:
            known = False
        if not known:
            raise ValueError(f"unknown readout {text!r}; allowed: {KINDS}")
        return readout

    @property
    def _is_known(self) -> bool:
        if self.kind not in READOUTS or self.statistics not in STATISTICS:
            return False
        if not READOUTS[self.kind].number or self.number is None:
            return not READOUTS[self.kind].number and self.number is None
        whole = READOUTS[self.kind].number != "COUNT" or self.number.is_integer()
        return math.isfinite(self.number) and whole

    @property
    def text(self) -> str:
        """The one text that names it, in YAML and in the keys of runs.

        >>> Readout("ema-start", 2.5, "reestimated").text
        'ema-start-2.5/reestimated'
        """
        number = "" if self.number is None else f"-{_shortest(self.number)}"
        statistics = "" if self.statistics == STATISTICS[0] else f"/{self.statistics}"
        return f"{self.kind}{number}{statistics}"

    @property
    def along(self) -> bool:
        """Whether it means something in the middle of a run, other statistics than its own left
        out: those would cost an evaluation each.
        """
        return READOUTS[self.kind].along and self.statistics == STATISTICS[0]

    @property
    def one_step(self) -> bool:
        """Whether it is the weights of one update and no average."""
        return READOUTS[self.kind].one_step

    @property
    def average_along(self) -> bool:
        """Whether it is an average that means something in the middle of a run."""
        return self.along and not self.one_step

    @property
    def sparse(self) -> bool:
        """Whether it takes in a few updates' weights alone."""
        return READOUTS[self.kind].sparse

    @property
    def accumulator(self) -> "Readout":
        """The readout of the running average that it is read from; many may share one.

        >>> Readout.parse("ema-start-10/copied").accumulator.text
        'ema-10'
        """
        return Readout(READOUTS[self.kind].starts_at or self.kind, self.number)

    def weights(self, total: int) -> Weights | None:
        """Its mixing weights `[T]` in a run of `total` updates, or None for the last weights.

        Raises:
            ValueError: for a run that it does not fit, such as a tail of less than one update.
        """
        try:
            return _weights(self.accumulator, total)
        except ValueError as error:
            raise ValueError(
                f"readout {self.text!r} does not fit a run of {total} steps ({error}); "
                f"allowed: {KINDS}"
            ) from None

    def start_share(self, total: int) -> float:
        """The share β^T of the first weights θ₀ after `total` updates of an EMA that was started at
        them: a_start = (1 − β^T)·a_debiased + β^T·θ₀; 0 for all others.
        """
        if not READOUTS[self.kind].starts_at or self.number is None:
            return 0.0
        return decay_of(self.number, total) ** total


def _shortest(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)


@cache
def _weights(readout: Readout, total: int) -> Weights | None:
    """One array for all runs of a length, so that nobody may write to it."""
    weights = READOUTS[readout.kind].weights
    if weights is None:
        return None
    array = weights(total, readout.number or 0.0)
    array.flags.writeable = False
    return array


def parse(name: str, total: int) -> tuple[Readout, Weights | None]:
    """A readout's name, such as `ema-10` in a run of `total` steps → the readout and its mixing
    weights, which are None for `last`.

    >>> readout, weights = parse("tail-50/copied", total=4)
    >>> readout.kind, readout.statistics, weights.tolist()
    ('tail', 'copied', [0.0, 0.0, 1.0, 0.5])
    """
    readout = Readout.parse(name)
    return readout, readout.weights(total)
