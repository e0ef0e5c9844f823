"""How the interval for a difference of two differences fares, as a contrast with `minus` has it."""

from collections.abc import Iterator, Sequence

import numpy as np

from steadydescent.study.judging.simulated_worlds.means import NUMBERS_OF_SEEDS
from steadydescent.study.judging.simulated_worlds.tally import Intervals, at_levels
from steadydescent.study.judging.simulated_worlds.worlds import (
    RUN,
    SIMULATED_MARGIN,
    WORLDS,
    trials,
)
from steadydescent.study.judging.statistics import Array, Estimate, Scores, Side, combined

SHARED = {"conditions apart": 0.0, "seeds help one arm": 1.0}
"""World → standard deviation, in run noises, of what a seed gives the arm under both conditions."""


def simulated_differences(
    replications: int,
    draws: int = 500,
    sizes: Sequence[tuple[int, int]] = NUMBERS_OF_SEEDS,
    seed: int = 0,
) -> Iterator[Intervals]:
    """Arm minus against under one condition, minus the same under another, on the same seeds."""
    for name, share in SHARED.items():
        for tuning, report in sizes:
            rng = np.random.default_rng([seed, list(SHARED).index(name), tuning, report])
            both = (
                trials(WORLDS[world], tuning, report, replications, rng)
                for world in ("alike", "optima apart")
            )
            estimates, truths = [], []
            for here, there in zip(*both, strict=True):
                gift = share * RUN * rng.normal(size=tuning), share * RUN * rng.normal(size=report)
                pairs = [(_given(arm, *gift), against) for arm, against, _ in (here, there)]
                estimates.append(difference_of_differences(pairs[0], pairs[1], draws))
                truths.append(here[2] - there[2])
            case: dict[str, object] = {"kind": "difference of differences", "world": name}
            case |= {"tuning": tuning, "report": report, "replications": replications}
            truth = float(np.mean(truths))
            yield Intervals(case, at_levels(estimates), truth, SIMULATED_MARGIN)


def _given(scores: Scores, tuning: Array, report: Array) -> Scores:
    """The arm's scores with what each seed gives them."""
    return Scores(
        scores.tuning + tuning[:, None],
        scores.report + report[:, None],
        scores.validation + report[:, None],
    )


def difference_of_differences(
    here: tuple[Scores, Scores], there: tuple[Scores, Scores], draws: int = 500
) -> Estimate:
    """As a contrast with `minus` has it: seed by seed, on the same redraws."""
    signs = ((here, 1.0), (there, -1.0))
    sides = [
        Side(scores, sign * way)
        for pair, sign in signs
        for scores, way in zip(pair, (1.0, -1.0), strict=True)
    ]
    return combined(sides, 0.95, draws=draws)
