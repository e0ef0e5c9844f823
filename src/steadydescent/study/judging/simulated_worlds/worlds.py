"""Worlds whose truth is known, and runs drawn around it.

Axes: N replications, S seeds, G rates, C readouts.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from steadydescent.study.judging.statistics import Array, Scores

SEED, RUN, READOUT = 1.0, 0.5, 0.2
"""Standard deviations in pp: of what all runs of a seed share, of a run, of its readout."""
COMMON_SHARE = 0.7
"""The share of a run's variance that its validation and test scores have in common."""
CRASH, CRASHES = 10.0, 0.05
"""A crash costs 10 pp and befalls one run in twenty."""
GRID_PLACES = np.arange(-4, 5)
"""Nine rates, by their place on the grid."""
SIMULATED_MARGIN = 1.0
DRAWN_AT_ONCE = 200


class World(NamedTuple):
    """True mean scores at each rate, `[G, C]`, in pp below the best; the best rates score alike.

    `one_trajectory`: arms are readouts of the same runs. Runs at the rate of index `crashes_from`
    and above may crash. `runs_apart`: the candidates of `against` at a rate are runs of their own,
    as of several arms, not readouts.
    """

    arm: Array
    against: Array
    one_trajectory: bool = False
    crashes_from: int = len(GRID_PLACES)
    runs_apart: bool = False


def as_it_is(scores: Array) -> Array:
    """Scores as they were drawn."""
    return scores


class RunReading(NamedTuple):
    """How runs are read.

    Rates are chosen by `choose` of validation scores, larger better; `report` of the scores of a
    `split` is reported, 1 for test data, 0 for validation data, as updates to a target are.
    """

    choose: Callable[[Array], Array] = as_it_is
    report: Callable[[Array], Array] = as_it_is
    split: int = 1


AS_DRAWN = RunReading()


def hill(best: float, cost: float, flat: float = 0.0) -> Array:
    """−cost·d², d grid steps from `best` beyond `flat` of them that cost nothing, `[G, 1]`."""
    return -cost * np.maximum(np.abs(GRID_PLACES - best) - flat, 0)[:, None] ** 2


def _peaked(mean: Array) -> Array:
    return mean - mean.max()


def _four_readouts() -> Array:
    hills = [hill(0.2, 0.5), hill(0.7, 0.5) - 0.05, hill(1.2, 0.4), hill(2, 0.4) - 0.3]
    return np.concatenate(hills, axis=1)


_HILLS = {
    "alike": World(hill(0.3, 0.5), hill(0.3, 0.5)),
    "optima apart": World(hill(-1, 0.3), hill(1, 1.0)),
    "plateau": World(hill(-1, 0.5, flat=1.2), hill(1, 0.7)),
    "readouts": World(_four_readouts(), hill(0, 0.5), one_trajectory=True),
    "crashes": World(hill(0.2, 0.5), hill(0.3, 0.5), crashes_from=5),
}
WORLDS = {
    name: world._replace(arm=_peaked(world.arm), against=_peaked(world.against))
    for name, world in _HILLS.items()
}


def trials(
    world: World,
    tuning: int,
    report: int,
    n: int,
    rng: np.random.Generator,
    reading: RunReading = AS_DRAWN,
    truths: tuple[Array, Array] | None = None,
) -> Iterator[tuple[Scores, Scores, float]]:
    """Both arms' scores in n replications, and the true difference of what tuning chose.

    Report seeds ran the arms' chosen rates and their neighbours; the choice is made anew among
    these. `truths` `[G, C]` of both arms stand in for their mean scores.
    """
    means = truths or (world.arm, world.against)
    for start in range(0, n, DRAWN_AT_ONCE):
        size = min(DRAWN_AT_ONCE, n - start)
        tuned_on, reported = (runs_of(world, size, seeds, rng) for seeds in (tuning, report))
        for i in range(size):
            validation = [reading.choose(arm[0, i]) for arm in tuned_on]  # [S, G, C]
            chosen = [int(scores.mean(axis=0).argmax()) for scores in validation]
            rates = _reported_rates(chosen, world)
            sides = [
                Scores(*(_at(table, rates) for table in (scores, *_read(arm, i, reading))))
                for scores, arm in zip(validation, reported, strict=True)
            ]
            truth = float(means[0].flat[chosen[0]] - means[1].flat[chosen[1]])
            yield sides[0], sides[1], truth


def _reported_rates(chosen: list[int], world: World) -> list[int]:
    """Places of the rates that tuning chose for both arms, and of their neighbours."""
    readouts = (world.arm.shape[1], world.against.shape[1])
    centres = [candidate // width for candidate, width in zip(chosen, readouts, strict=True)]
    near = {centre + step for centre in centres for step in (-1, 0, 1)}
    return sorted(near & set(range(len(GRID_PLACES))))


def _read(arm: Array, i: int, reading: RunReading) -> tuple[Array, Array]:
    """What report seeds' scores `[2, N, S, G, C]` of a replication report, and are chosen by."""
    return reading.report(arm[reading.split, i]), reading.choose(arm[0, i])


def _at(table: Array, rates: list[int]) -> Array:
    """Scores `[S, G, C]` at some rates, as candidates."""
    return table[:, rates].reshape(len(table), -1)


def runs_of(world: World, n: int, seeds: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Validation and test scores of both arms, `[2, N, S, G, C]`."""
    rates = len(GRID_PLACES)
    risk = CRASHES * (np.arange(rates) >= world.crashes_from)[:, None]

    def noise(sd: float, readouts: int) -> Array:
        both = rng.normal(size=(n, seeds, rates, readouts))
        own = rng.normal(size=(2, n, seeds, rates, readouts))
        return sd * (COMMON_SHARE**0.5 * both + (1 - COMMON_SHARE) ** 0.5 * own)

    def runs(apart: int = 1) -> Array:
        return noise(RUN, apart) - CRASH * ((rng.random((n, seeds, rates, apart)) < risk) - risk)

    shared, of_arm = SEED * rng.normal(size=(n, seeds, 1, 1)), runs()
    if world.one_trajectory:
        of_against = of_arm
    else:
        of_against = runs(world.against.shape[1] if world.runs_apart else 1)
    arm = world.arm + shared + of_arm + noise(READOUT, world.arm.shape[1])
    return arm, world.against + shared + of_against + noise(READOUT, world.against.shape[1])
