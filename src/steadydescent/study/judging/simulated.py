"""Intervals put to the test on made-up runs whose truth is known, tuning included.

A world states the true mean score of two arms at every rate. Runs are drawn around it, tuned,
reported and judged as a trial does, thousands of times; `simulate` counts how often the interval
holds the truth and the verdict is right. Not imitated: grids that grow at their edge, noise that is
neither normal nor a crash.

Axes: N replications, S seeds, G rates, C readouts.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from steadydescent.study.judging.statistics import (
    Array,
    Scores,
    level,
    paired,
    student,
    tuned,
    verdict,
)

SEED, RUN, READOUT = (
    1.0,
    0.5,
    0.2,
)  # sd in pp: of what all runs of a seed share, of a run, of its readout
COMMON = 0.7  # the share of a run's variance that its validation and test scores have in common
CRASH, SHARE = 10.0, 0.05  # a crash costs 10 pp and befalls one run in twenty
PLACES = np.arange(-4, 5)  # nine rates
MARGIN = 1.0
SIZES = ((20, 60), (10, 30), (10, 20), (5, 12), (3, 8))  # tuning seeds, report seeds
BATCH = 200


class World(NamedTuple):
    """True mean scores at each rate, `[G, C]`, in pp below the best; the best rates of the arms
    score alike.
    """

    arm: Array
    against: Array
    one_trajectory: bool = False  # arms are readouts of the same runs
    crashes_from: int = len(PLACES)  # runs at this rate's index and above may crash
    runs_apart: bool = False  # the candidates of `against` at a rate are runs of their own: several arms, not readouts


class Reading(NamedTuple):
    """How runs are read: what rates are chosen by, larger better, what is reported, and of which
    split (0, 1).
    """

    choose: Callable[[Array], Array] = lambda scores: scores  # validation scores
    report: Callable[[Array], Array] = lambda scores: scores
    split: int = 1  # of test data; 0: of validation data, as updates to a target are


PLAIN = Reading()


def hill(best: float, cost: float, flat: float = 0.0) -> Array:
    """−cost·d², d grid steps from `best` beyond `flat` of them that cost nothing, `[G, 1]`."""
    return -cost * np.maximum(np.abs(PLACES - best) - flat, 0)[:, None] ** 2


def _peaked(mean: Array) -> Array:
    return mean - mean.max()


WORLDS = {
    "alike": World(hill(0.3, 0.5), hill(0.3, 0.5)),
    "optima apart": World(hill(-1, 0.3), hill(1, 1.0)),
    "plateau": World(hill(-1, 0.5, flat=1.2), hill(1, 0.7)),
    "readouts": World(
        np.concatenate(
            [hill(0.2, 0.5), hill(0.7, 0.5) - 0.05, hill(1.2, 0.4), hill(2, 0.4) - 0.3], axis=1
        ),
        hill(0, 0.5),
        one_trajectory=True,
    ),
    "crashes": World(hill(0.2, 0.5), hill(0.3, 0.5), crashes_from=5),
}
WORLDS = {
    name: w._replace(arm=_peaked(w.arm), against=_peaked(w.against)) for name, w in WORLDS.items()
}


def simulate(
    replications: int,
    draws: int = 1_000,
    worlds: Sequence[str] = tuple(WORLDS),
    sizes: Sequence[tuple[int, int]] = SIZES,
    contrasts: Sequence[int] = (1, 4, 12, 40),
    effects: Sequence[float] = (0.5, 1.0, 2.0),
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """How three intervals fare: one row for each world, size, interval and number of contrasts in a
    chapter.

    `tuned` is what claims are decided by, `tuned, tuning seeds only` the same without validation
    scores on report seeds, `paired t` what ignores that a choice was made. Columns, shares of
    replications unless said otherwise:

    - truth: the expected difference of the arms as tuned by this procedure, pp; at their best rates
      it is 0
    - bias and sd of the estimate, and error, the root mean square of its stated standard error, pp
    - coverage of the truth, and of the best rates' difference, by intervals at level 1 −
      0.05/contrasts
    - chapter_error: chance that any of so many independent intervals misses its truth
    - false_verdict: supported or refuted though the best rates score alike; chapter_false_verdict:
      any of so many
    - no_difference, then; and supported_<e>: supported when the arm is better by e margins at every
      rate

    Args:
        replications: runs of the whole procedure, tuning to interval, for each world and size.
        draws: of tuning in each interval; claims use 10 000, fewer make intervals a little wider.
    """
    rows = []
    cells = [(name, *size) for name in worlds for size in sizes]
    with tqdm(
        total=len(cells) * replications, unit="replication", file=sys.stderr, disable=not progress
    ) as bar:
        for name, tuning, report in cells:
            rng = np.random.default_rng([seed, list(WORLDS).index(name), tuning, report])
            found, truth = replicate(WORLDS[name], tuning, report, replications, draws, rng, bar)
            known = {
                "world": name,
                "tuning": tuning,
                "report": report,
                "replications": replications,
                "draws": draws,
            }
            for interval, estimates in found.items():
                value, error = estimates.T
                about = {
                    "interval": interval,
                    "truth": truth,
                    "bias": value.mean() - truth,
                    "sd": value.std(ddof=1),
                }
                about["error"] = np.sqrt((error**2).mean())
                rows += [
                    known | about | _counted(value, error, report, truth, k, effects)
                    for k in contrasts
                ]
    return pd.DataFrame(rows)


def replicate(
    world: World,
    tuning: int,
    report: int,
    n: int,
    draws: int,
    rng: np.random.Generator,
    bar: tqdm | None = None,
) -> tuple[dict[str, Array], float]:
    """Values and standard errors of each interval, `[N, 2]`, and the expected difference of the
    arms as tuned, pp.
    """
    found: dict[str, list[tuple[float, float]]] = {
        "tuned": [],
        "tuned, tuning seeds only": [],
        "paired t": [],
    }
    truths, unknown = [], np.empty((0, 0))
    for arm, against, truth in trials(world, tuning, report, n, rng):
        estimates = (
            tuned(arm, against, 0.95, draws=draws),
            tuned(
                arm._replace(validation=unknown),
                against._replace(validation=unknown),
                0.95,
                draws=draws,
            ),
            paired(arm.report[:, arm.chosen()] - against.report[:, against.chosen()], 0.95),
        )
        for kept, estimate in zip(found.values(), estimates, strict=True):
            kept.append((estimate.value, estimate.sd / report**0.5))
        truths.append(truth)
        if bar is not None:
            bar.update()
    return {name: np.array(kept) for name, kept in found.items()}, float(np.mean(truths))


def trials(
    world: World,
    tuning: int,
    report: int,
    n: int,
    rng: np.random.Generator,
    reading: Reading = PLAIN,
    truths: tuple[Array, Array] | None = None,
) -> Iterator[tuple[Scores, Scores, float]]:
    """The arms' scores in n replications, and the true difference of the candidates that tuning
    chose.

    Report seeds ran the arms' chosen rates and their neighbours; the choice is made anew among
    these. `truths` `[G, C]` of both arms stand in for their mean scores.
    """
    means, readouts = (
        truths or (world.arm, world.against),
        (world.arm.shape[1], world.against.shape[1]),
    )
    for start in range(0, n, BATCH):
        size = min(BATCH, n - start)
        tuned_on, reported = (runs_of(world, size, seeds, rng) for seeds in (tuning, report))
        for i in range(size):
            validation = [reading.choose(arm[0, i]) for arm in tuned_on]  # [S, G, C]
            chosen = [int(scores.mean(axis=0).argmax()) for scores in validation]
            places = {
                c // width + step
                for c, width in zip(chosen, readouts, strict=True)
                for step in (-1, 0, 1)
            }
            rates = sorted(places & set(range(len(PLACES))))
            told = [
                (reading.report(arm[reading.split, i]), reading.choose(arm[0, i]))
                for arm in reported
            ]
            tables = [(scores, *both) for scores, both in zip(validation, told, strict=True)]
            arm, against = (
                Scores(*(t[:, rates].reshape(len(t), -1) for t in three)) for three in tables
            )
            yield arm, against, float(means[0].flat[chosen[0]] - means[1].flat[chosen[1]])


def runs_of(world: World, n: int, seeds: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Validation and test scores of both arms, `[2, N, S, G, C]`."""
    rates = len(PLACES)
    risk = SHARE * (np.arange(rates) >= world.crashes_from)[:, None]

    def noise(sd: float, readouts: int) -> Array:
        both, own = (
            rng.normal(size=(n, seeds, rates, readouts)),
            rng.normal(size=(2, n, seeds, rates, readouts)),
        )
        return sd * (COMMON**0.5 * both + (1 - COMMON) ** 0.5 * own)

    def runs(apart: int = 1) -> Array:
        return noise(RUN, apart) - CRASH * ((rng.random((n, seeds, rates, apart)) < risk) - risk)

    shared, of_arm = SEED * rng.normal(size=(n, seeds, 1, 1)), runs()
    of_against = (
        of_arm if world.one_trajectory else runs(world.against.shape[1] if world.runs_apart else 1)
    )
    arm = world.arm + shared + of_arm + noise(READOUT, world.arm.shape[1])
    return arm, world.against + shared + of_against + noise(READOUT, world.against.shape[1])


def _counted(
    value: Array, error: Array, report: int, truth: float, k: int, effects: Sequence[float]
) -> dict[str, float]:
    """What intervals at the level of one of k contrasts get right."""
    half = student(level(k), report - 1) * error
    inside = lambda point: float((np.abs(value - point) <= half).mean())
    words = lambda effect: [
        verdict(v + effect - h, v + effect + h, MARGIN) for v, h in zip(value, half, strict=True)
    ]
    null, n = words(0.0), len(value)
    false = (null.count("supported") + null.count("refuted")) / n
    counts = {
        "contrasts": k,
        "coverage": inside(truth),
        "coverage_of_best": inside(0.0),
        "chapter_error": 1 - inside(truth) ** k,
        "false_verdict": false,
        "chapter_false_verdict": 1 - (1 - false) ** k,
        "no_difference": null.count("no difference") / n,
    }
    return counts | {f"supported_{e:g}": words(e * MARGIN).count("supported") / n for e in effects}
