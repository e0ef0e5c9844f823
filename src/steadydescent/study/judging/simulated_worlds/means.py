"""How intervals for a difference of means fare, and the verdicts that they give."""

from collections.abc import Iterator, Sequence

import numpy as np

from steadydescent.study.judging.simulated_worlds.tally import Intervals, at_levels
from steadydescent.study.judging.simulated_worlds.worlds import (
    SIMULATED_MARGIN,
    WORLDS,
    World,
    trials,
)
from steadydescent.study.judging.statistics import Estimate, paired, tuned

NUMBERS_OF_SEEDS = ((20, 60), (10, 20), (5, 12), (3, 8))
"""Tuning seeds, report seeds."""
SIMULATED_DRAWS = 1_000
"""Draws of tuning in each interval; claims use 10 000, fewer make intervals a little wider."""
ALIKE_EFFECTS = (0.0, 0.2, 0.5, 2.0)


def simulated_means(
    replications: int,
    draws: int = SIMULATED_DRAWS,
    worlds: Sequence[str] = tuple(WORLDS),
    sizes: Sequence[tuple[int, int]] = NUMBERS_OF_SEEDS,
    seed: int = 0,
) -> Iterator[Intervals]:
    """Three intervals for each world and size, of which claims use `tuned`.

    `tuned, tuning seeds only` is the same without validation scores on report seeds, `paired t`
    what ignores that a choice was made. The truth is the expected difference of the arms as tuned
    by this procedure, in pp; at their best rates it is 0.
    """
    for name in worlds:
        for tuning, report in sizes:
            rng = np.random.default_rng([seed, list(WORLDS).index(name), tuning, report])
            found, truth = replicate(WORLDS[name], tuning, report, replications, draws, rng)
            for interval, estimates in found.items():
                case = {"interval": interval, "world": name, "tuning": tuning, "report": report}
                case |= {"replications": replications}
                yield Intervals(case, at_levels(estimates), truth, SIMULATED_MARGIN)


def alike(made: Intervals) -> Intervals:
    """The same intervals, asked whether two arms are alike."""
    return made._replace(rule="equivalence", effects=ALIKE_EFFECTS)


def replicate(
    world: World, tuning: int, report: int, n: int, draws: int, rng: np.random.Generator
) -> tuple[dict[str, list[Estimate]], float]:
    """Each interval's estimates in n replications, and the arms' expected difference as tuned."""
    found: dict[str, list[Estimate]] = {}
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
            found.setdefault(name, []).append(estimate)
        truths.append(truth)
    return found, float(np.mean(truths))
