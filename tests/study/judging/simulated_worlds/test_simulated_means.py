"""Made-up runs have the truth and the noise that they state, and intervals hold that truth as often
as they should.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from steadydescent.study.judging.simulated_worlds.means import (
    NUMBERS_OF_SEEDS,
    replicate,
    simulated_means,
)
from steadydescent.study.judging.simulated_worlds.tally import EFFECTS, LEVELS, at_levels, rows_of
from steadydescent.study.judging.simulated_worlds.worlds import (
    COMMON_SHARE,
    GRID_PLACES,
    READOUT,
    RUN,
    SEED,
    WORLDS,
    World,
    hill,
    runs_of,
    trials,
)
from steadydescent.study.judging.statistics import paired, tuned
from steadydescent.study.results import published


@pytest.mark.parametrize("name", WORLDS)
def test_scores_have_the_stated_means_and_the_best_rates_score_alike(name):
    world, n = WORLDS[name], 4_000
    assert world.arm.max() == world.against.max() == 0
    arm, against = runs_of(world, n, 5, np.random.default_rng(1))
    for found, mean in ((arm, world.arm), (against, world.against)):
        error = found.std(axis=(1, 2)) / np.sqrt(
            n
        )  # seeds of a replication share nothing, so this is generous
        assert (np.abs(found.mean(axis=(1, 2)) - mean) < 5 * error).all()


def test_noise_is_as_large_and_as_common_as_stated():
    validation, test = runs_of(WORLDS["alike"], 30_000, 2, np.random.default_rng(2))[0][
        :, :, 0, 4, 0
    ]
    variance, own = SEED**2 + RUN**2 + READOUT**2, (1 - COMMON_SHARE) * (RUN**2 + READOUT**2)
    assert (np.var(validation), np.var(test)) == pytest.approx((variance, variance), rel=0.04)
    assert np.var(validation - test) == pytest.approx(2 * own, rel=0.04)


def test_runs_are_paired_by_seed_and_readouts_by_run():
    """What a difference between arms keeps of the noise: two runs' and two readouts', or two
    readouts' alone.
    """
    for name, kept in (("alike", 2 * (RUN**2 + READOUT**2)), ("readouts", 2 * READOUT**2)):
        arm, against = runs_of(WORLDS[name], 20_000, 2, np.random.default_rng(3))
        assert np.var(arm[1, :, 0, 4, 0] - against[1, :, 0, 4, 0]) == pytest.approx(kept, rel=0.05)


def test_report_seeds_ran_the_chosen_rates_and_their_neighbours_and_the_choice_stands():
    """Steep hills at places −2 and 3, above the noise; the third readout is the arm's best."""
    far = np.array([-9.0, -9.0, 0.0])
    world = World(hill(-2, 30) + far, hill(3, 30))
    for arm, against, truth in trials(world, 2, 3, 50, np.random.default_rng(4)):
        assert arm.tuning.shape == (2, 3 * 6) and arm.report.shape == arm.validation.shape == (
            3,
            3 * 6,
        )
        assert against.tuning.shape == (2, 6) and against.report.shape == (3, 6)
        assert (arm.chosen(), against.chosen()) == (5, 4)  # places −3 −2 −1 2 3 4
        assert (
            0 < np.abs(arm.report - arm.validation).max() < 3
        )  # test data and validation data of the same runs
        assert truth == 0


def test_report_stays_inside_the_grid():
    world = World(hill(GRID_PLACES[0], 30), hill(GRID_PLACES[-1], 30))
    for arm, against, _ in trials(world, 2, 3, 20, np.random.default_rng(5)):
        assert arm.tuning.shape == against.tuning.shape == (2, 4)
        assert (arm.chosen(), against.chosen()) == (0, 3)


def test_an_effect_moves_the_value_and_nothing_else():
    """Why effects need no runs of their own."""
    arm, against, _ = next(trials(WORLDS["plateau"], 3, 8, 1, np.random.default_rng(6)))
    better = arm._replace(**{name: table + 2.0 for name, table in arm._asdict().items()})
    before, after = (tuned(scores, against, 0.95, draws=500) for scores in (arm, better))
    assert after.value - before.value == pytest.approx(2) and after.sd == pytest.approx(before.sd)


def test_all_intervals_are_the_same_exact_one_when_there_is_no_choice():
    """Hills so steep that every draw chooses the top."""
    world = World(hill(0, 90), hill(1, 90))
    found, truth = replicate(world, 3, 5, 800, 50, np.random.default_rng(7))
    pairs = [np.array([(e.value, e.sd) for e in every]) for every in found.values()]
    assert truth == 0 and all(one == pytest.approx(pairs[0]) for one in pairs)
    drawn = trials(world, 3, 5, 800, np.random.default_rng(7))
    by_hand = [paired(a.report[:, a.chosen()] - b.report[:, b.chosen()], 0.95) for a, b, _ in drawn]
    ends = at_levels(found["tuned"])[0.95]
    assert ends == pytest.approx(np.array([one[:3] for one in by_hand]))
    held = (ends[:, 1] <= 0) & (ends[:, 2] >= 0)
    assert np.mean(held) == pytest.approx(0.95, abs=0.024)  # 3 binomial standard errors


def test_tuned_intervals_hold_the_truth_where_plain_ones_do_not():
    rows = [r for made in simulated_means(600, 300, ["alike"], [(20, 60)]) for r in rows_of(made)]
    table = pd.DataFrame(rows).set_index(["interval", "level", "effect"])
    low, high = stats.binom.ppf([0.001, 0.999], 600, 0.95) / 600
    assert low <= table.coverage["tuned", 0.95, 0] <= high
    assert table.coverage["tuned", LEVELS[1], 0] > 0.995
    assert table.coverage["tuned, tuning seeds only", 0.95, 0] >= low
    assert table.coverage["paired t", 0.95, 0] < 0.9
    sd = table.sd.xs((0.95, 0), level=("level", "effect"))
    assert sd["tuned"] < sd["tuned, tuning seeds only"] < sd["paired t"]
    ours = table.loc["tuned", LEVELS[1]]
    assert ours["for"][2.0] > 0.99 and ours["against"][0.0] + ours["for"][0.0] < 0.01
    assert ours["supported"][[0.2, 0.5, 1.0]].max() < 0.01
    assert ours["too small to matter"][0.0] > 0.99


def test_simulation_is_the_same_every_time():
    ask = {"worlds": ["alike", "readouts"], "sizes": [(2, 3), (3, 5)]}

    def table(seed):
        return pd.DataFrame(
            [r for made in simulated_means(20, 50, **ask, seed=seed) for r in rows_of(made)]
        )

    first = table(0)
    assert first.equals(table(0)) and not first.equals(table(1))
    assert len(first) == 2 * 2 * 3 * 2 * len(EFFECTS) and not first.isna().any().any()


def test_published_simulation_backs_what_methods_say():
    """Stored; a changed interval must be simulated anew."""
    table = published.table("intervals.csv")
    assert set(table.world) == set(WORLDS)
    assert len(table) == len(WORLDS) * len(NUMBERS_OF_SEEDS) * 3 * 2 * len(EFFECTS)
    assert (table.replications >= 2_000).all()
    ours = table[table.interval == "tuned"]
    assert ours[ours.level == 0.95].coverage.between(0.94, 0.985).all()
    assert (ours[ours.level > 0.95].coverage > 0.998).all()
    made, *_ = simulated_means(200, 200, ["alike"], [(3, 8)])
    again = rows_of(made)[0]
    stored = ours[(ours.world == "alike") & (ours.report == 8) & (ours.level == 0.95)].iloc[0]
    assert again["half_width"] == pytest.approx(stored.half_width, rel=0.1)
    assert again["sd"] == pytest.approx(stored.sd, rel=0.25)
