"""The other kinds of interval put to the test on made-up runs: ratios, spreads, the best of
several, searches.

`planted` tests differences of means. Here the same runs are read as updates to a target, whose
means are compared as a ratio; as scores whose spread over seeds is compared; as one arm beside the
best of six; and a dense sweep is made up, on which searches are replayed.

Axes: N replications, S seeds, G rates, C candidates of an arm at a rate.
"""

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from steadydescent.study.judging import regret
from steadydescent.study.judging.simulated import (
    MARGIN,
    PLAIN,
    WORLDS,
    Reading,
    World,
    hill,
    runs_of,
    trials,
)
from steadydescent.study.judging.statistics import (
    STATISTICS,
    Array,
    Rule,
    Statistic,
    tuned,
    verdict,
)

UPDATES, LONGEST, POINTS = 400.0, 1_000.0, 4.0
"""Updates to the target of a run that scores as the best rate does on average; the length of all
runs; and the pp that shorten the way to the target by a factor of e.
"""
TRUTH_SEEDS = 50_000
SIZES = ((20, 60), (10, 20), (5, 12))
SWEEP_SIZES = ((20, 100), (8, 20), (4, 20), (3, 8))
RATES = np.geomspace(1e-5, 1, 31)
PLACES = np.arange(31.0)
SWEEP = 62 - 0.15 * (PLACES - 23) ** 2 * np.where(PLACES > 23, 4, 1)
"""True accuracy in percent at each of a sweep's rates: a slow rise to 0.046, then a steep fall."""
SWEEP_NOISE = 1.0
"""Standard deviation in pp of a run, and of what all runs of a seed share."""
TRIALS = 9


class Kind(NamedTuple):
    """One kind of interval: how runs are read, what is compared of them, and the rule that makes it
    a verdict.

    `false` and `found`: at so many margins of difference, this verdict is false; that one should be
    found.
    """

    statistic: Statistic
    margin: float
    rule: Rule = "superiority"
    reading: Reading = PLAIN
    worlds: tuple[str, ...] = ("alike", "plateau", "crashes")
    false: tuple[float, str] = (0.0, "supported or refuted")
    found: tuple[float, str] = (2.0, "supported")


def updates(scores: Array) -> Array:
    """Updates to a target of runs with these scores; those that do not arrive count with their
    whole length.
    """
    return np.minimum(UPDATES * np.exp(-scores / POINTS), LONGEST)


OTHER_WORLDS = WORLDS | {
    "best of six": World(
        hill(0.2, 0.5),
        np.concatenate([hill(x, 0.5) for x in np.linspace(-1, 1, 6)], axis=1),
        runs_apart=True,
    )
}
KINDS = {
    "ratio of updates": Kind(
        "log mean", math.log(1.15), reading=Reading(lambda s: -updates(s), updates, split=0)
    ),
    "ratio of spreads": Kind("log sd", math.log(1.15), found=(4.0, "supported")),
    "not worse than the best": Kind(
        "mean",
        MARGIN,
        "at least",
        worlds=("best of six",),
        false=(-1.0, "supported"),
        found=(0.0, "supported"),
    ),
}


def simulate_kinds(
    replications: int,
    draws: int = 500,
    kinds: Sequence[str] = tuple(KINDS),
    sizes: Sequence[tuple[int, int]] = SIZES,
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
    cells = [
        (kind, world, *size) for kind in kinds for world in KINDS[kind].worlds for size in sizes
    ]
    with tqdm(
        total=len(cells) * replications, unit="replication", file=sys.stderr, disable=not progress
    ) as bar:
        for name, world, tuning, report in cells:
            places = (list(KINDS).index(name), list(OTHER_WORLDS).index(world))
            rng = np.random.default_rng([seed, *places, tuning, report])
            found, truth = _replicated(
                KINDS[name], OTHER_WORLDS[world], tuning, report, replications, draws, rng, bar
            )
            known = {
                "kind": name,
                "world": world,
                "tuning": tuning,
                "report": report,
                "replications": replications,
            }
            rows.append(known | _counted(found, truth, KINDS[name]))
    return pd.DataFrame(rows)


def _replicated(
    kind: Kind,
    world: World,
    tuning: int,
    report: int,
    n: int,
    draws: int,
    rng: np.random.Generator,
    bar: tqdm,
) -> tuple[Array, float]:
    """Value and ends of each replication's interval, `[N, 3]`, above 0 where the arm is better, and
    the mean truth.
    """
    truths, better = _truths(kind, world, rng), 1 if kind.statistic == "mean" else -1
    found, expected = [], []
    for arm, against, truth in trials(world, tuning, report, n, rng, kind.reading, truths):
        made = tuned(arm, against, 0.95, draws=draws, statistic=kind.statistic)
        found.append((better * made.value, *sorted((better * made.low, better * made.high))))
        expected.append(better * truth)
        bar.update()
    return np.array(found), float(np.mean(expected))


def _truths(kind: Kind, world: World, rng: np.random.Generator) -> tuple[Array, Array] | None:
    """The statistic of every candidate of both arms over very many seeds, `[G, C]`; None: their
    means are known.
    """
    if kind.statistic == "mean":
        return None
    theta, reported = STATISTICS[kind.statistic], runs_of(world, 1, TRUTH_SEEDS, rng)
    arm, against = (
        kind.reading.report(scores[kind.reading.split, 0]) for scores in reported
    )  # [S, G, C]
    of_all = lambda table: theta(table.reshape(len(table), -1)).reshape(table.shape[1:])
    return of_all(arm), of_all(against)


def _counted(intervals: Array, truth: float, kind: Kind) -> dict[str, float]:
    """What intervals `[N, 3]` get right of their truth."""
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


def _share(around: Array, kind: Kind, effect: float, word: str) -> float:
    """The share of intervals that give a verdict when the truth lies `effect` margins above 0."""
    moved = around + effect * kind.margin
    return float(
        np.mean(
            [
                verdict(low, high, kind.margin, kind.rule) in word.split(" or ")
                for _, low, high in moved
            ]
        )
    )


GAIN, LOSS = "log-uniform against uniform search", "rate of a range test"
SEARCHES = {
    GAIN: Kind("mean", MARGIN),
    LOSS: Kind("mean", MARGIN, "at least", false=(-1.0, "supported"), found=(0.0, "supported")),
}


def simulate_searches(
    replications: int,
    resamples: int = 200,
    draws: int = 500,
    sizes: Sequence[tuple[int, int]] = SWEEP_SIZES,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """The same of intervals that are read off dense sweeps, here made-up ones: rows as in
    `simulate_kinds`.

    What 9 trials of log-uniform search regain of what uniform search gives away; and minus what is
    lost at rates that range tests suggest, here drawn log-normally around half the best one.
    """
    rows = []
    with tqdm(
        total=len(sizes) * replications, unit="replication", file=sys.stderr, disable=not progress
    ) as bar:
        for tuning, report in sizes:
            rng = np.random.default_rng([seed, tuning, report])
            found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SEARCHES}
            for _ in range(replications):
                sweep = regret.Sweep(RATES, swept(tuning, rng), swept(report, rng))
                gain = regret.contrast(
                    sweep,
                    "log-uniform",
                    "uniform",
                    TRIALS,
                    0.95,
                    draws,
                    int(rng.integers(2**32)),
                    resamples,
                )
                lost = regret.range_test_estimates(
                    sweep, _suggested(report, rng), 0.95, resamples=resamples
                )["middle", 400]
                found[GAIN].append((gain.value, gain.low, gain.high))
                found[LOSS].append((-lost.value, -lost.high, -lost.low))
                bar.update()
            known = {
                "world": "sweep",
                "tuning": tuning,
                "report": report,
                "replications": replications,
            }
            truths = {GAIN: _true_gain(), LOSS: -_true_loss(tuning)}
            rows += [
                {"kind": name}
                | known
                | _counted(np.array(found[name]), truths[name], SEARCHES[name])
                for name in found
            ]
    return pd.DataFrame(rows)


def swept(seeds: int, rng: np.random.Generator) -> Array:
    """Scores of a sweep, `[S, G]`: of every seed's runs a part is shared."""
    return SWEEP + SWEEP_NOISE * (
        rng.normal(size=(seeds, len(RATES))) + rng.normal(size=(seeds, 1))
    )


def _suggested(seeds: int, rng: np.random.Generator) -> pd.DataFrame:
    rates = RATES[SWEEP.argmax()] / 2 * np.exp(0.5 * rng.normal(size=seeds))
    return pd.DataFrame({"seed": range(seeds), "rule": "middle", "length": 400, "rate": rates})


def _true_gain() -> float:
    """Of very many searches on networks that no two trials share."""
    rng = np.random.default_rng(0)
    sweep = regret.Sweep(RATES, swept(20_000, rng), np.stack([SWEEP, SWEEP]))
    given = (
        regret.regrets(sweep, ("uniform", "log-uniform"), (TRIALS,), TRUTH_SEEDS)
        .set_index("method")
        .regret
    )
    return float(given["uniform"] - given["log-uniform"])


def _true_loss(tuning: int) -> float:
    """Against the rate that so many tuning seeds choose, on average."""
    rng = np.random.default_rng(0)
    best = np.mean([SWEEP[swept(tuning, rng).mean(axis=0).argmax()] for _ in range(4_000)])
    rates = _suggested(TRUTH_SEEDS, rng).rate
    return float(best - np.interp(np.log(rates), np.log(RATES), SWEEP).mean())
