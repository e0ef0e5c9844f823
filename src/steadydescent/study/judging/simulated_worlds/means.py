"""How intervals for a difference of means fare, and the verdicts that they give."""

import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from steadydescent.study.judging.simulated_worlds.worlds import (
    SIMULATED_MARGIN,
    WORLDS,
    World,
    trials,
)
from steadydescent.study.judging.statistics import Array, level, paired, student, tuned
from steadydescent.study.judging.verdicts import of_interval, stance

MEAN_SIZES = ((20, 60), (10, 30), (10, 20), (5, 12), (3, 8))
"""Tuning seeds, report seeds."""


def simulate_means(
    replications: int,
    draws: int = 1_000,
    worlds: Sequence[str] = tuple(WORLDS),
    sizes: Sequence[tuple[int, int]] = MEAN_SIZES,
    contrasts: Sequence[int] = (1, 4, 12, 40),
    effects: Sequence[float] = (0.5, 1.0, 2.0),
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """How three intervals fare, a row for each world, size, interval and number of contrasts.

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
    cases = [(name, *size) for name in worlds for size in sizes]
    total = len(cases) * replications
    with tqdm(total=total, unit="replication", file=sys.stderr, disable=not progress) as bar:
        for name, tuning, report in cases:
            rng = np.random.default_rng([seed, list(WORLDS).index(name), tuning, report])
            pairs, truth = replicate(WORLDS[name], tuning, report, replications, draws, rng, bar)
            case = {"world": name, "tuning": tuning, "report": report}
            case |= {"replications": replications, "draws": draws}
            for interval, estimates in pairs.items():
                about = case | {"interval": interval} | _deviations(estimates, truth)
                rows += [about | _counted(estimates, report, truth, k, effects) for k in contrasts]
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
    """Values and standard errors of each interval, `[N, 2]`, and the arms' expected difference.

    The difference is that of the arms as tuned, in pp.
    """
    pairs: dict[str, list[tuple[float, float]]] = {}
    truths, unknown = [], np.empty((0, 0))
    for arm, against, truth in trials(world, tuning, report, n, rng):
        alone = [side._replace(validation=unknown) for side in (arm, against)]
        chosen = arm.report[:, arm.chosen()] - against.report[:, against.chosen()]
        intervals = {
            "tuned": tuned(arm, against, 0.95, draws=draws),
            "tuned, tuning seeds only": tuned(alone[0], alone[1], 0.95, draws=draws),
            "paired t": paired(chosen, 0.95),
        }
        for name, estimate in intervals.items():
            pairs.setdefault(name, []).append((estimate.value, estimate.sd / report**0.5))
        truths.append(truth)
        if bar is not None:
            bar.update()
    return {name: np.array(pair) for name, pair in pairs.items()}, float(np.mean(truths))


def _deviations(estimates: Array, truth: float) -> dict[str, float]:
    """How far estimates `[N, 2]` lie from the truth and from each other, and say that they do."""
    value, error = estimates.T
    return {
        "truth": truth,
        "bias": value.mean() - truth,
        "sd": value.std(ddof=1),
        "error": np.sqrt((error**2).mean()),
    }


def _counted(
    estimates: Array, report: int, truth: float, k: int, effects: Sequence[float]
) -> dict[str, float]:
    """What intervals at the level of one of k contrasts get right; values and errors `[N, 2]`."""
    value, error = estimates.T
    half = student(level(k), report - 1) * error

    def covered(point: float) -> float:
        return float((np.abs(value - point) <= half).mean())

    def words(effect: float) -> list[str]:
        ends = zip(value + effect - half, value + effect + half, strict=True)
        return [stance(of_interval(low, high, SIMULATED_MARGIN)) for low, high in ends]

    null, n = words(0.0), len(value)
    false = (null.count("for") + null.count("against")) / n
    counts = {
        "contrasts": k,
        "coverage": covered(truth),
        "coverage_of_best": covered(0.0),
        "chapter_error": 1 - covered(truth) ** k,
        "false_verdict": false,
        "chapter_false_verdict": 1 - (1 - false) ** k,
        "no_difference": null.count("small") / n,
    }
    return counts | {
        f"supported_{e:g}": words(e * SIMULATED_MARGIN).count("for") / n for e in effects
    }
