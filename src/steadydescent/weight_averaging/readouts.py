"""Weight averaging: every readout of a trajectory is a running average with its own mixing weights.

    a_t = a_{t−1} + w_t·(θ_t − a_{t−1})

One line, one accumulator each. The sequence w_1 … w_T tells the readouts apart: always 1 is the
last weights, 1/t the mean, (1−β)/(1−β^t) the debiased exponential moving average, and so on.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from steadydescent.averages import decay_for_window, ramped_decay
from steadydescent.checks import check_count, check_share

Weights = NDArray[np.float64]
CHECKPOINTS_PER_RUN = 20
KINDS = (
    "last, at-PERCENT, ema-WINDOW, ema-start-WINDOW, ema-ramp, tail-PERCENT, checkpoints-COUNT (windows in percent of "
    "the run), each also with /copied or /reestimated batch-norm statistics"
)
STATISTICS = ("averaged", "copied", "reestimated")


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
    steps = np.arange(1.0, total + 1)
    return (1 - beta) / -np.expm1(steps * np.log(beta)) if beta > 0 else np.ones(total)


@cache
def ramped_weights(total: int, cap: float = 0.9999) -> Weights:
    """Ramped EMA (opennmt-tf): w_t = 1 − min(cap, (1+t)/(10+t)); the first update copies the
    weights.
    """
    check_count(total, "total")
    weights = np.array([1.0] + [1 - ramped_decay(step, cap) for step in range(2, total + 1)])
    weights.flags.writeable = False  # one array serves every run of this length
    return weights


def tail_weights(total: int, length: int) -> Weights:
    """Mean of the last `length` steps (tail averaging, SWA with one value per step): w_t = 1/k from
    its k-th step on.

    >>> tail_weights(4, 2).tolist()
    [0.0, 0.0, 1.0, 0.5]
    """
    if check_count(length, "length") > check_count(total, "total"):
        raise ValueError(f"length must be at most the {total} steps of the run, got {length}")
    return np.concatenate([np.zeros(total - length), 1 / np.arange(1.0, length + 1)])


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
    weights[total - 1 - every * np.arange(count - 1, -1, -1)] = 1 / np.arange(1.0, count + 1)
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


def coefficients(weights: Weights) -> Weights:
    """What a readout remembers: the share of each θ_t in a_T, c_t = w_t·∏_{u>t}(1 − w_u), `[T]`.

    They sum to 1 as soon as some w_t is 1. An EMA's fall off exponentially, a tail mean's are flat.

    >>> coefficients(tail_weights(4, 2)).tolist()
    [0.0, 0.0, 0.5, 0.5]
    """
    later = np.append(np.cumprod((1 - weights)[::-1])[::-1][1:], 1.0)
    return weights * later


@dataclass(frozen=True)
class Readout:
    """Weights taken from a run for evaluation.

    `source` names the accumulator that it reads; `start_share` is β^T, the share of the first
    weights θ₀ in an EMA that was started at them: a_start = (1 − β^T)·a_debiased + β^T·θ₀.
    `statistics` says where its batch-norm statistics come from: averaged as the weights are, copied
    from the last weights, or estimated anew with the averaged weights.
    """

    name: str
    source: str
    start_share: float = 0.0
    statistics: str = "averaged"


@cache  # every run of a sweep asks for the same ones
def parse(name: str, total: int) -> tuple[Readout, Weights | None]:
    """A readout's name, such as `ema-10` in a run of `total` steps → the readout and its mixing
    weights.

    The weights are None for `last`, which needs no accumulator. `ema-10/copied` names the same
    weights with the last batch-norm statistics.

    >>> readout, weights = parse("tail-50/copied", total=4)
    >>> readout.source, readout.statistics, weights.tolist()
    ('tail-50', 'copied', [0.0, 0.0, 1.0, 0.5])
    """
    whole, (name, _, statistics) = name, name.partition("/")
    readout, weights = _parse(name, total)
    if _ and statistics not in STATISTICS[1:]:
        raise ValueError(f"unknown readout {whole!r}; allowed: {KINDS}")
    if weights is not None:
        weights.flags.writeable = False  # shared by all that ask
    return replace(readout, name=whole, statistics=statistics or "averaged"), weights


def _parse(name: str, total: int) -> tuple[Readout, Weights | None]:
    kind, _, number = name.rpartition("-")
    try:
        if name == "last":
            return Readout(name, name), None
        if name == "ema-ramp":
            return Readout(name, name), ramped_weights(total)
        value = float(number)
        if kind in ("ema", "ema-start"):
            beta = decay_for_window(total * value / 100)
            share = beta**total if kind == "ema-start" else 0.0
            return Readout(name, f"ema-{number}", share), ema_weights(total, beta)
        if kind == "tail":
            return Readout(name, name), tail_weights(total, round(total * value / 100))
        if kind == "at":
            return Readout(name, name), snapshot_weights(total, round(total * value / 100))
        if kind == "checkpoints" and value == int(value):
            return Readout(name, name), checkpoint_weights(
                total, int(value), max(1, total // CHECKPOINTS_PER_RUN)
            )
    except ValueError as error:
        raise ValueError(
            f"readout {name!r} does not fit a run of {total} steps ({error}); allowed: {KINDS}"
        ) from None
    raise ValueError(f"unknown readout {name!r}; allowed: {KINDS}")
