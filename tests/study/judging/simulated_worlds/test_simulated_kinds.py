"""Made-up ratios, spreads, bests and searches have the truth that is stated, and their intervals
hold it.
"""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from steadydescent.study.judging.simulated_worlds.best_rates import simulated_best_rates
from steadydescent.study.judging.simulated_worlds.books import BOOKS
from steadydescent.study.judging.simulated_worlds.differences import simulated_differences
from steadydescent.study.judging.simulated_worlds.means import NUMBERS_OF_SEEDS
from steadydescent.study.judging.simulated_worlds.other_kinds import (
    LONGEST_RUN,
    OTHER_KINDS,
    OTHER_WORLDS,
    POINTS_A_FACTOR,
    _truths,
    simulated_kinds,
    updates_to_target,
)
from steadydescent.study.judging.simulated_worlds.searches import (
    CLOSING,
    GAIN,
    LOSS,
    SWEEP,
    _true_gain,
    _true_loss,
    reported,
    simulated_range_tests,
    simulated_searches,
    swept,
)
from steadydescent.study.judging.simulated_worlds.tally import rows_of
from steadydescent.study.judging.simulated_worlds.worlds import (
    COMMON_SHARE,
    READOUT,
    RUN,
    SEED,
    World,
    hill,
    runs_of,
    trials,
)
from steadydescent.study.results import published


def test_updates_fall_by_e_in_so_many_points_and_end_with_the_run():
    slow, fast = updates_to_target(np.array([0.0, POINTS_A_FACTOR]))
    assert slow / fast == pytest.approx(math.e)
    assert updates_to_target(np.array([-100.0])) == LONGEST_RUN


def test_true_ratio_of_means_is_that_of_lognormal_updates():
    """Far from the length of the run: log E = μ + σ²/2, the same σ everywhere, so that ratios are
    those of e^μ.
    """
    high = World(hill(0, 0.5) + 40, hill(1, 0.5) + 38)
    arm, against = _truths(OTHER_KINDS["ratio of updates"], high, np.random.default_rng(1))
    expected = -(high.arm - high.against) / POINTS_A_FACTOR
    assert arm - against == pytest.approx(expected, abs=0.01)


def test_true_spreads_are_those_of_the_noise():
    kind, rng = OTHER_KINDS["ratio of spreads"], np.random.default_rng(2)
    arm, against = _truths(kind, OTHER_WORLDS["alike"], rng)
    spread = 0.5 * np.log(SEED**2 + RUN**2 + READOUT**2)
    assert arm == pytest.approx(np.full_like(arm, spread), abs=0.01)
    assert np.abs(arm - against).max() < 0.02


def test_the_best_of_six_are_runs_of_their_own():
    """Arms at one rate share a seed and nothing else; readouts share the run too."""
    _, against = runs_of(OTHER_WORLDS["best of six"], 20_000, 2, np.random.default_rng(3))
    apart = against[1, :, 0, 4, 0] - against[1, :, 0, 4, 5]
    assert np.var(apart) == pytest.approx(2 * (RUN**2 + READOUT**2), rel=0.05)


def test_a_reading_chooses_and_reports_what_it_says():
    kind = OTHER_KINDS["ratio of updates"]
    rng = np.random.default_rng(4)
    for arm, against, _ in trials(OTHER_WORLDS["alike"], 3, 4, 5, rng, kind.reading):
        for scores in (arm, against):
            assert (scores.report > 0).all() and np.array_equal(scores.validation, -scores.report)
            assert (scores.tuning < 0).all()


@pytest.mark.slow
def test_intervals_of_every_kind_hold_their_truth():
    made = list(simulated_kinds(300, 150, sizes=[(10, 20)]))
    made += simulated_differences(300, 150, sizes=[(10, 20)])
    made += simulated_range_tests(300, 150, sizes=[(10, 20)])
    made += simulated_searches(300, sizes=[(10, 20)])
    made += simulated_best_rates(300, sizes=[(10, 20)])
    table = pd.DataFrame([row for cell in made for row in rows_of(cell)])
    low = stats.binom.ppf(0.001, 300, 0.95) / 300
    assert (table.coverage >= low).all()
    assert (table[table.level > 0.95].coverage > 0.985).all()


def test_small_simulations_hold_their_truth_and_are_the_same_every_time():
    kinds = (
        lambda: simulated_kinds(40, 50, ["ratio of updates"], [(3, 8)]),
        lambda: simulated_differences(40, 50, [(3, 8)]),
        lambda: simulated_range_tests(40, 50, [(3, 8)]),
        lambda: simulated_searches(40, [(3, 8)]),
        lambda: simulated_best_rates(40, [(3, 8)]),
    )
    for kind in kinds:
        first, again = (pd.DataFrame([r for c in kind() for r in rows_of(c)]) for _ in range(2))
        assert first.equals(again) and not first.isna().any(axis=None)
        assert (first.coverage >= 0.825).all()  # binom.ppf(0.001, 40, 0.95) = 33
        assert (first[first.level > 0.95].coverage >= 0.975).all()


def test_made_up_sweeps_have_their_means_and_noise():
    table = swept(20_000, np.random.default_rng(5))
    assert table.mean(axis=0) == pytest.approx(SWEEP, abs=0.05)
    assert np.var(table[:, 0] - table[:, 1]) == pytest.approx(2, rel=0.05)


def test_validation_and_test_scores_have_in_common_what_is_stated():
    validation, test = reported(20_000, np.random.default_rng(7))
    variance = np.array([np.var(validation - test), np.var(test[:, 0] - test[:, 1])])
    assert variance == pytest.approx([2 * (1 - COMMON_SHARE), 2], rel=0.05)


def test_true_losses_of_searches_are_what_a_plain_replay_gives():
    """Nine networks a search, each with its own noise; the nearest rate on a log scale."""
    rng, grid, count = np.random.default_rng(6), np.geomspace(1e-5, 1, 31), 40_000

    def lost(rates: np.ndarray) -> float:
        near = np.abs(np.log(grid) - np.log(rates)[..., None]).argmin(-1)
        best = (SWEEP[near] + math.sqrt(2) * rng.normal(size=near.shape)).argmax(1)
        return float((SWEEP.max() - SWEEP[near[np.arange(count), best]]).mean())

    uniform, log = rng.uniform(1e-5, 1, (count, 9)), 10 ** rng.uniform(-5, 0, (count, 9))
    found = _true_gain("log-uniform", "uniform", 9)
    assert found == pytest.approx(lost(uniform) - lost(log), abs=0.03)
    assert 0 < _true_loss(20) < SWEEP.max() - SWEEP[20]


def test_published_simulation_backs_what_methods_say():
    table = published.table("intervals-kinds.csv")
    names = {*OTHER_KINDS, "two arms alike", "difference of differences", "decades below"}
    assert set(table.kind) == {*names, GAIN, CLOSING, LOSS}
    assert (table[table.kind != CLOSING].replications >= 2_000).all()
    assert (table[table.level == 0.95].coverage > 0.93).all()
    assert (table[table.level > 0.95].coverage > 0.997).all()


def test_published_books_hold_few_false_words():
    table = published.table("intervals-book.csv")
    assert set(table.book) == set(BOOKS) and len(table) == len(BOOKS) * (1 + len(NUMBERS_OF_SEEDS))
    assert (table[["false_word", "false_direction"]] <= 0.05).all(axis=None)
    assert (table.decided_by_holm >= table.decided - 1e-9).all()
