"""How the other kinds of interval fare: ratios, spreads, and the best of several arms.

`means` tests differences of means. Here the same runs are read as updates to a target, whose means
are compared as a ratio; as scores whose spread over seeds is compared; and as one arm beside the
best of six.
"""

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from steadydescent.study.judging.simulated_worlds.worlds import (
    AS_DRAWN,
    SIMULATED_MARGIN,
    WORLDS,
    RunReading,
    World,
    hill,
    runs_of,
    trials,
)
from steadydescent.study.judging.statistics import OVER_SEEDS, Array, Statistic, tuned
from steadydescent.study.judging.verdicts import DecisionRule, of_interval

USUAL_UPDATES, LONGEST_RUN, POINTS_A_FACTOR = 400.0, 1_000.0, 4.0
"""Updates to the target of a run that scores as the best rate does on average; the length of all
runs; and the pp that shorten the way to the target by a factor of e.
"""
TRUTH_SEEDS = 50_000
KIND_SIZES = ((20, 60), (10, 20), (5, 12))


class IntervalKind(NamedTuple):
    """One kind of interval: how runs are read, what is compared, and by which rule.

    `false` and `found`: a number of margins, and the verdict that is false where the arm is better
    by so many; and the verdict that ought to be found there.
    """

    statistic: Statistic
    margin: float
    rule: DecisionRule = "superiority"
    reading: RunReading = AS_DRAWN
    worlds: tuple[str, ...] = ("alike", "plateau", "crashes")
    false: tuple[float, str] = (0.0, "supported or refuted")
    found: tuple[float, str] = (2.0, "supported")


def updates_to_target(scores: Array) -> Array:
    """Updates to a target of runs with these scores.

    Those that do not arrive count with their whole length.
    """
    return np.minimum(USUAL_UPDATES * np.exp(-scores / POINTS_A_FACTOR), LONGEST_RUN)


def _fewest_updates(scores: Array) -> Array:
    return -updates_to_target(scores)


_SIX_HILLS = np.concatenate([hill(best, 0.5) for best in np.linspace(-1, 1, 6)], axis=1)
OTHER_WORLDS = WORLDS | {"best of six": World(hill(0.2, 0.5), _SIX_HILLS, runs_apart=True)}
OTHER_KINDS = {
    "ratio of updates": IntervalKind(
        "log mean", math.log(1.15), reading=RunReading(_fewest_updates, updates_to_target, split=0)
    ),
    "ratio of spreads": IntervalKind("log sd", math.log(1.15), found=(4.0, "supported")),
    "not worse than the best": IntervalKind(
        "mean",
        SIMULATED_MARGIN,
        "at least",
        worlds=("best of six",),
        false=(-1.0, "supported"),
        found=(0.0, "supported"),
    ),
}


def simulate_kinds(
    replications: int,
    draws: int = 500,
    kinds: Sequence[str] = tuple(OTHER_KINDS),
    sizes: Sequence[tuple[int, int]] = KIND_SIZES,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """How intervals of 95 % of these kinds fare: one row for each kind, world and size.

    Columns, shares of replications unless said otherwise:

    - truth: the expected contrast of the arms as tuned, above 0 the arm is better; of ratios the
      logarithm
    - bias and sd of the estimate, and half_width of the interval (root mean square)
    - coverage of the truth
    - false: verdicts that are false, the truth moved to the kind's `false` margins; found: the
      right one, at `found`
    """
    rows = []
    cases = [(k, world, *size) for k in kinds for world in OTHER_KINDS[k].worlds for size in sizes]
    total = len(cases) * replications
    with tqdm(total=total, unit="replication", file=sys.stderr, disable=not progress) as bar:
        for name, world, tuning, report in cases:
            kind, numbers = OTHER_KINDS[name], (tuning, report, replications, draws)
            places = (list(OTHER_KINDS).index(name), list(OTHER_WORLDS).index(world))
            rng = np.random.default_rng([seed, *places, tuning, report])
            intervals, truth = _replicated(kind, OTHER_WORLDS[world], *numbers, rng, bar)
            case = {"kind": name, "world": world, "tuning": tuning, "report": report}
            rows.append(case | {"replications": replications} | tallied(intervals, truth, kind))
    return pd.DataFrame(rows)


def _replicated(
    kind: IntervalKind,
    world: World,
    tuning: int,
    report: int,
    n: int,
    draws: int,
    rng: np.random.Generator,
    bar: tqdm,
) -> tuple[Array, float]:
    """Value and ends of each replication's interval, `[N, 3]`, and the mean truth.

    Above 0 where the arm is better.
    """
    truths, better = _truths(kind, world, rng), 1 if kind.statistic == "mean" else -1
    intervals, expected = [], []
    for arm, against, truth in trials(world, tuning, report, n, rng, kind.reading, truths):
        made = tuned(arm, against, 0.95, draws=draws, statistic=kind.statistic)
        made = made if better > 0 else made.turned()
        intervals.append((made.value, made.low, made.high))
        expected.append(better * truth)
        bar.update()
    return np.array(intervals), float(np.mean(expected))


def _truths(
    kind: IntervalKind, world: World, rng: np.random.Generator
) -> tuple[Array, Array] | None:
    """The statistic of every candidate of both arms over very many seeds, `[G, C]`.

    None: their means are known.
    """
    if kind.statistic == "mean":
        return None
    theta, reported = OVER_SEEDS[kind.statistic], runs_of(world, 1, TRUTH_SEEDS, rng)

    def of_all(scores: Array) -> Array:
        table = kind.reading.report(scores[kind.reading.split, 0])  # [S, G, C]
        return theta(table.reshape(len(table), -1)).reshape(table.shape[1:])

    return of_all(reported[0]), of_all(reported[1])


def tallied(intervals: Array, truth: float, kind: IntervalKind) -> dict[str, float]:
    """What intervals `[N, 3]`, value and ends, get right of their truth."""
    value, low, high = intervals.T
    return {
        "truth": truth,
        "bias": value.mean() - truth,
        "sd": value.std(ddof=1),
        "half_width": float(np.sqrt((((high - low) / 2) ** 2).mean())),
        "coverage": float(((low <= truth) & (truth <= high)).mean()),
        "false": _share(intervals - truth, kind, *kind.false),
        "found": _share(intervals - truth, kind, *kind.found),
    }


def _share(around: Array, kind: IntervalKind, effect: float, words: str) -> float:
    """The share of intervals that give a verdict when the truth lies `effect` margins above 0."""
    moved = around + effect * kind.margin
    given = [of_interval(low, high, kind.margin, kind.rule) for _, low, high in moved]
    known = [word.removesuffix(", size open") for word in given]
    return float(np.mean([word in words.split(" or ") for word in known]))
