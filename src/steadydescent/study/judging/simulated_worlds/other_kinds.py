"""How the other kinds of interval fare: ratios, spreads, and the best of several arms.

`means` tests differences of means. Here the same runs are read as updates to a target, whose means
are compared as a ratio; as scores whose spread over seeds is compared; and as one arm beside the
best of six.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from steadydescent.study.judging.simulated_worlds.means import NUMBERS_OF_SEEDS
from steadydescent.study.judging.simulated_worlds.tally import EFFECTS, Intervals, at_levels
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
from steadydescent.study.judging.statistics import OVER_SEEDS, Array, Estimate, Statistic, tuned
from steadydescent.study.judging.verdicts import DecisionRule

USUAL_UPDATES, LONGEST_RUN, POINTS_A_FACTOR = 400.0, 1_000.0, 4.0
"""Updates to the target of a run that scores as the best rate does on average; the length of all
runs; and the pp that shorten the way to the target by a factor of e.
"""
TRUTH_SEEDS = 50_000


class IntervalKind(NamedTuple):
    """One kind of interval: how runs are read, what is compared, and by which rule."""

    statistic: Statistic
    margin: float
    rule: DecisionRule = "superiority"
    reading: RunReading = AS_DRAWN
    worlds: tuple[str, ...] = ("alike", "plateau", "crashes")
    effects: tuple[float, ...] = EFFECTS


def updates_to_target(scores: Array) -> Array:
    """Updates to a target of runs with these scores.

    Those that do not arrive count with their whole length.
    """
    return np.minimum(USUAL_UPDATES * np.exp(-scores / POINTS_A_FACTOR), LONGEST_RUN)


def _fewest_updates(scores: Array) -> Array:
    return -updates_to_target(scores)


_SIX_HILLS = np.concatenate([hill(best, 0.5) for best in np.linspace(-1, 1, 6)], axis=1)
OTHER_WORLDS = WORLDS | {"best of six": World(hill(0.2, 0.5), _SIX_HILLS, runs_apart=True)}
NOT_WORSE = (-2.0, -1.0, -0.5, 0.0, 1.0)
OTHER_KINDS = {
    "ratio of updates": IntervalKind(
        "log mean", math.log(1.15), reading=RunReading(_fewest_updates, updates_to_target, split=0)
    ),
    "ratio of spreads": IntervalKind("log sd", math.log(1.15), effects=(*EFFECTS, 4.0)),
    "not worse than the best": IntervalKind(
        "mean", SIMULATED_MARGIN, "at least", worlds=("best of six",), effects=NOT_WORSE
    ),
}


def simulated_kinds(
    replications: int,
    draws: int = 500,
    kinds: Sequence[str] = tuple(OTHER_KINDS),
    sizes: Sequence[tuple[int, int]] = NUMBERS_OF_SEEDS,
    seed: int = 0,
) -> Iterator[Intervals]:
    """Intervals of these kinds for each world and size.

    The truth is the expected contrast of the arms as tuned, above 0 the arm is better; of ratios
    the logarithm.
    """
    for name in kinds:
        kind = OTHER_KINDS[name]
        for world in kind.worlds:
            for tuning, report in sizes:
                places = (list(OTHER_KINDS).index(name), list(OTHER_WORLDS).index(world))
                rng = np.random.default_rng([seed, *places, tuning, report])
                numbers = (tuning, report, replications, draws)
                estimates, truth = _replicated(kind, OTHER_WORLDS[world], *numbers, rng)
                case = {"kind": name, "world": world, "tuning": tuning, "report": report}
                case |= {"replications": replications}
                ends = at_levels(estimates)
                yield Intervals(case, ends, truth, kind.margin, kind.rule, kind.effects)


def _replicated(
    kind: IntervalKind,
    world: World,
    tuning: int,
    report: int,
    n: int,
    draws: int,
    rng: np.random.Generator,
) -> tuple[list[Estimate], float]:
    """Each replication's estimate, above 0 where the arm is better, and the mean truth."""
    truths, better = _truths(kind, world, rng), 1 if kind.statistic == "mean" else -1
    estimates, expected = [], []
    for arm, against, truth in trials(world, tuning, report, n, rng, kind.reading, truths):
        made = tuned(arm, against, 0.95, draws=draws, statistic=kind.statistic)
        estimates.append(made if better > 0 else made.turned())
        expected.append(better * truth)
    return estimates, float(np.mean(expected))


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
