"""Made-up ratios, spreads, bests and searches have the truth that is stated, and their intervals
hold it.
"""

import math

import numpy as np
import pytest
from scipy import stats

from steadydescent.study.judging.simulated_worlds import simulate_kinds, simulate_searches
from steadydescent.study.judging.simulated_worlds.other_kinds import (
    KIND_SIZES,
    LONGEST_RUN,
    OTHER_KINDS,
    OTHER_WORLDS,
    POINTS_A_FACTOR,
    IntervalKind,
    _truths,
    tallied,
    updates_to_target,
)
from steadydescent.study.judging.simulated_worlds.searches import (
    SWEEP,
    SWEEP_KINDS,
    SWEEP_SIZES,
    _true_gain,
    _true_loss,
    swept,
)
from steadydescent.study.judging.simulated_worlds.worlds import (
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


def test_counts_of_two_intervals_known_in_advance():
    kind = IntervalKind(
        "mean", 1.0, "at least", false=(-1.0, "supported"), found=(0.0, "supported")
    )
    found = tallied(np.array([[0.0, -0.5, 0.5], [3.0, 2.5, 3.5]]), 0.1, kind)
    assert (found["coverage"], found["bias"]) == (0.5, pytest.approx(1.4))
    # at −1 margin the intervals lie around −1.1 and 1.9, at 0 around −0.1 and 2.9; above −1 counts
    # as supported
    assert (found["false"], found["found"]) == (0.5, 1.0)


def test_intervals_of_every_kind_hold_their_truth():
    table = simulate_kinds(300, 150, sizes=[(10, 20)], progress=False)
    low = stats.binom.ppf(0.001, 300, 0.95) / 300
    assert set(table.kind) == set(OTHER_KINDS) and (table.coverage >= low).all()
    assert (table.false <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)).all()
    plain = table[table.world != "crashes"]
    assert (plain.bias.abs() < 0.4 * plain.sd).all() and (plain.found > 0.8).all()


def test_made_up_sweeps_have_their_means_and_noise():
    table = swept(20_000, np.random.default_rng(5))
    assert table.mean(axis=0) == pytest.approx(SWEEP, abs=0.05)
    assert np.var(table[:, 0] - table[:, 1]) == pytest.approx(2, rel=0.05)


def test_true_losses_of_searches_are_what_a_plain_replay_gives():
    """Nine networks a search, each with its own noise; the nearest rate on a log scale."""
    rng, grid, count = np.random.default_rng(6), np.geomspace(1e-5, 1, 31), 40_000

    def lost(rates: np.ndarray) -> float:
        near = np.abs(np.log(grid) - np.log(rates)[..., None]).argmin(-1)
        best = (SWEEP[near] + math.sqrt(2) * rng.normal(size=near.shape)).argmax(1)
        return float((SWEEP.max() - SWEEP[near[np.arange(count), best]]).mean())

    uniform, log = rng.uniform(1e-5, 1, (count, 9)), 10 ** rng.uniform(-5, 0, (count, 9))
    assert _true_gain() == pytest.approx(lost(uniform) - lost(log), abs=0.03)
    assert 0 < _true_loss(20) < SWEEP.max() - SWEEP[20]


def test_intervals_of_searches_hold_their_truth():
    table = simulate_searches(40, 60, 200, sizes=[(8, 20)], progress=False)
    assert set(table.kind) == set(SWEEP_KINDS) and (table.coverage >= 0.85).all()


def test_simulation_is_the_same_every_time(capsys):
    ask = {"kinds": ["ratio of updates"], "sizes": [(2, 3)]}
    first = simulate_kinds(20, 50, **ask)
    assert "60/60" in capsys.readouterr().err
    assert (
        first.equals(simulate_kinds(20, 50, **ask, progress=False)) and not first.isna().any().any()
    )


def test_published_simulation_backs_what_methods_say():
    table = published.table("intervals-kinds.csv")
    worlds = sum(len(kind.worlds) for kind in OTHER_KINDS.values())
    assert len(table) == worlds * len(KIND_SIZES) + len(SWEEP_KINDS) * len(SWEEP_SIZES)
    assert (table[table.kind.isin(OTHER_KINDS)].replications == 10_000).all()
    assert (table.coverage > 0.93).all() and (table.false < 0.07).all()
