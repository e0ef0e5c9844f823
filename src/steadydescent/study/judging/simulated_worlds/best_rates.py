"""How the interval for an arm's best rate fares: that of `decades below`."""

from collections.abc import Iterator, Sequence

import numpy as np

from steadydescent.study.judging.contrasts.decades_below import maybe_best
from steadydescent.study.judging.simulated_worlds.means import NUMBERS_OF_SEEDS
from steadydescent.study.judging.simulated_worlds.tally import LEVELS, Intervals
from steadydescent.study.judging.simulated_worlds.worlds import GRID_PLACES, World, hill, runs_of
from steadydescent.study.judging.statistics import Array

STEP = float(np.log10(2))
"""A step of the grid, in decades."""
TOPS = {
    "a hill": (0.3, World(hill(0.3, 0.5), hill(0.3, 0.5))),
    "a broad hill": (0.0, World(hill(0, 0.1), hill(0, 0.1))),
    "plateau": (-1.0, World(hill(-1, 0.5, flat=1.2), hill(-1, 0.5, flat=1.2))),
    "crashes": (0.2, World(hill(0.2, 0.5), hill(0.2, 0.5), crashes_from=5)),
}
"""World → the place of its best rate, in steps of the grid, and its runs."""


def simulated_best_rates(
    replications: int, sizes: Sequence[tuple[int, int]] = NUMBERS_OF_SEEDS, seed: int = 0
) -> Iterator[Intervals]:
    """Decades between the grid's middle and the best rate; the margin is half a step of the grid.

    The tuned rate and its two neighbours run report seeds.
    """
    for name, (top, world) in TOPS.items():
        for tuning, report in sizes:
            rng = np.random.default_rng([seed, list(TOPS).index(name), tuning, report])
            ends: dict[float, list[tuple[float, float, float]]] = {level: [] for level in LEVELS}
            for _ in range(replications):
                scores = runs_of(world, 1, tuning, rng)[0][0, 0, :, :, 0]
                again = runs_of(world, 1, report, rng)[0][0, 0, :, :, 0]
                for level in LEVELS:
                    ends[level].append(_interval(scores, again, level))
            case = {"kind": "decades below", "world": name, "tuning": tuning, "report": report}
            case |= {"replications": replications}
            arrays = {level: np.array(found) for level, found in ends.items()}
            yield Intervals(case, arrays, top * STEP, STEP / 2)


def _interval(scores: Array, again: Array, level: float) -> tuple[float, float, float]:
    """The place of the best of validation scores `[S, G]`, and the ends, in decades."""
    best = int(scores.mean(axis=0).argmax())
    reported = np.abs(np.arange(len(GRID_PLACES)) - best) <= 1
    held = GRID_PLACES[maybe_best(scores, again[:, reported], reported, level)]
    return (
        GRID_PLACES[best] * STEP,
        (held.min() - 0.5) * STEP,
        (held.max() + 0.5) * STEP,
    )
