"""Intervals cover what they promise, choice among candidates included."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from steadydescent.study.judging.statistics import (
    Scores,
    level,
    paired,
    pseudo_values,
    tuned,
)
from steadydescent.study.judging.verdicts import of_interval
from steadydescent.study.planning import load_study

DRAWS = 2_000
REPLICATIONS = 150


def published_sizes() -> list[tuple[int, int]]:
    """(tuning, report) seeds of every task in the profiles that a laptop or desk runs."""
    profiles = [
        e.profiles[name]
        for e in load_study().values()
        for name in ("laptop", "desk")
        if name in e.profiles
    ]
    return sorted({(size.tuning, size.report) for profile in profiles for size in profile.values()})


def noisy_arm(
    rng, tuning: int, report: int, truth, shared=(0.0, 0.0), noise=1.0, shift=0.0
) -> Scores:
    """Candidates with true means `truth` + shift; `shared` is noise that arms of one trajectory
    have in common.
    """
    draw = lambda seeds: rng.normal(size=(seeds, len(truth)))
    return Scores(
        truth + shift + shared[0] + noise * draw(tuning),
        truth + shift + shared[1] + noise * draw(report),
    )


# ---- paired --------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.995])
@pytest.mark.parametrize("n", [2, 3, 19])
def test_paired_is_students_interval(n, confidence):
    differences = np.random.default_rng(n).normal(0.3, 2.0, n)
    found, expected = (
        paired(differences, confidence),
        stats.ttest_1samp(differences, 0).confidence_interval(confidence),
    )
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=1e-12)
    assert found.value == pytest.approx(differences.mean()) and found.n == n
    assert found.sd == pytest.approx(stats.tstd(differences))


@pytest.mark.parametrize("n", [0, 1])
def test_an_interval_needs_two_seeds(n):
    with pytest.raises(ValueError, match=f"at least 2 seeds, got {n}"):
        paired(np.zeros(n), 0.95)
    arm = Scores(np.zeros((3, 2)), np.zeros((n, 2)))
    with pytest.raises(ValueError, match=f"at least 2 report seeds, got {n}"):
        tuned(arm, arm, 0.95)
    arm = Scores(np.zeros((n, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match=f"at least 2 tuning seeds, got {n}"):
        tuned(arm, arm, 0.95)


# ---- tuned ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tuning", "report"), [(2, 5), (3, 11), (7, 43)])
def test_tuned_with_one_candidate_is_the_paired_interval(tuning, report):
    rng = np.random.default_rng(report)
    arm, against = (noisy_arm(rng, tuning, report, np.zeros(1), shift=s) for s in (0.4, 0.0))
    found, expected = (
        tuned(arm, against, 0.95),
        paired(arm.report[:, 0] - against.report[:, 0], 0.95),
    )
    assert found == pytest.approx(expected, rel=1e-12)


def known_arms(rng, tuning: int, report: int, candidates: int) -> tuple[Scores, Scores]:
    """Two arms with validation scores on report seeds."""
    draw = lambda seeds: rng.normal(size=(seeds, candidates))
    return tuple(Scores(draw(tuning), draw(report), draw(report)) for _ in range(2))


@pytest.mark.parametrize("known", [True, False])
def test_tuned_value_is_the_mean_over_every_way_to_draw_tuning_seeds(known):
    """Slow reference: all ordered draws of 2 tuning seeds from the pool, by loops."""
    arms = known_arms(np.random.default_rng(37), 2, 3, 4)
    arms = arms if known else tuple(arm._replace(validation=np.empty((0, 0))) for arm in arms)
    pools = [np.concatenate([arm.tuning, arm.validation]) if known else arm.tuning for arm in arms]
    values = []
    for seeds in itertools.product(range(len(pools[0])), repeat=2):
        ours, theirs = (
            a.report[:, p[list(seeds)].mean(axis=0).argmax()]
            for a, p in zip(arms, pools, strict=True)
        )
        values.append(ours.mean() - theirs.mean())
    found = tuned(*arms, 0.95, draws=100_000)
    assert found.value == pytest.approx(
        np.mean(values), abs=4 * np.std(values) / math.sqrt(100_000)
    )


@pytest.mark.parametrize("seed", [41, 46])
def test_tuned_pulls_are_derivatives_by_the_weight_of_a_seed(seed):
    """Slow reference for the variance: every draw enumerated, each seed's weight moved a little."""
    tuning, report = 2, 3
    arms = known_arms(np.random.default_rng(seed), tuning, report, 4)
    pools, total = [np.concatenate([arm.tuning, arm.validation]) for arm in arms], tuning + report

    def expected(pool, own) -> float:
        """The mean over draws when seeds weigh `pool` in the draws and `own` in the report."""
        mean = 0.0
        for seeds in map(list, itertools.product(range(total), repeat=tuning)):
            ours, theirs = (
                own @ a.report[:, p[seeds].mean(axis=0).argmax()]
                for a, p in zip(arms, pools, strict=True)
            )
            mean += np.prod(pool[seeds]) * (ours - theirs)
        return mean

    even = np.full(total, 1 / total), np.full(report, 1 / report)
    towards = lambda weights, i, step: (
        weights + step / len(weights) * (np.eye(len(weights))[i] - weights)
    )
    slope = lambda change: (change(1e-5) - change(-1e-5)) / 2e-5
    choice = np.array(
        [slope(lambda h, i=i: expected(towards(even[0], i, h), even[1])) for i in range(total)]
    )
    own = np.array(
        [slope(lambda h, i=i: expected(even[0], towards(even[1], i, h))) for i in range(report)]
    )
    together, apart = (
        (own + choice[tuning:]) @ (own + choice[tuning:]),
        own @ own + choice[tuning:] @ choice[tuning:],
    )
    assert (together > apart) == (seed == 41)  # both cases occur
    variance = 2 * choice[:tuning] @ choice[:tuning] + 1.5 * max(
        together, apart
    )  # n/(n − 1) for 2 and for 3
    found = tuned(*arms, 0.95, draws=200_000)
    assert found.sd**2 / report == pytest.approx(variance, rel=0.02)


def test_tuned_resamples_the_same_seeds_for_both_arms():
    """An arm that is the other plus a constant differs by that constant, with no uncertainty at
    all.
    """
    one = noisy_arm(np.random.default_rng(0), 5, 13, np.linspace(0, 2, 3))
    found = tuned(Scores(one.tuning + 1, one.report + 1), one, 0.95, draws=DRAWS)
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1), abs=1e-12)


def test_tuned_never_chooses_on_report_scores():
    """The best on report seeds is another candidate; taking it would be choosing on test data."""
    tuning = np.array([[0.0, 1.0, 0.5], [0.2, 1.1, 0.4]])
    report = np.array([[9.0, 3.0, 5.0], [9.0, 4.0, 5.0], [9.0, 5.0, 5.0]])
    arm, nothing = Scores(tuning, report), Scores(np.zeros((2, 1)), np.zeros((3, 1)))
    assert arm.chosen() == 1
    assert tuned(arm, nothing, 0.95, draws=DRAWS).value == 4.0


def test_tuned_widens_when_the_choice_is_uncertain():
    """Two candidates 4 apart: chosen by clear tuning scores, and by tuning scores that one seed
    could turn over.
    """
    rng, nothing = np.random.default_rng(3), Scores(np.zeros((5, 1)), np.zeros((17, 1)))
    report = np.array([0.0, 4.0]) + rng.normal(size=(17, 2))
    widths = []
    for gap in (10.0, 0.05):
        tuning = np.array([0.0, gap]) + np.array([[1, -1], [-1, 1], [1, -1], [-1, 1], [0, 0]])
        found = tuned(Scores(tuning, report), nothing, 0.95, draws=DRAWS)
        widths.append(found.high - found.low)
    assert widths[1] > 3 * widths[0]


def test_tuned_is_the_same_every_time_and_hardly_depends_on_the_draws():
    rng = np.random.default_rng(5)
    arm, against = (noisy_arm(rng, 5, 20, np.linspace(0, 1, 5)) for _ in range(2))
    first = tuned(arm, against, 0.95, draws=DRAWS)
    assert first == tuned(arm, against, 0.95, draws=DRAWS)
    other = tuned(arm, against, 0.95, seed=1, draws=DRAWS)
    assert other != first and other.high - other.low == pytest.approx(
        first.high - first.low, rel=0.1
    )


# ---- ratios and spreads --------------------------------------------------------------------------


def alone(report) -> Scores:
    """An arm with one candidate."""
    return Scores(np.zeros((3, 1)), np.asarray(report, dtype=float)[:, None])


@pytest.mark.parametrize("statistic", ["mean", "log mean", "log sd"])
def test_interval_is_students_on_miller_s_pseudo_values(statistic):
    """Slow reference: leave each seed out of the whole difference of arms, by a loop."""
    rng, n = np.random.default_rng(19), 11
    x, y = rng.gamma(5.0, size=n), rng.gamma(7.0, size=n)
    of = {
        "mean": np.mean,
        "log mean": lambda v: math.log(np.mean(v)),
        "log sd": lambda v: math.log(np.std(v, ddof=1)),
    }
    theta = lambda keep: of[statistic](x[keep]) - of[statistic](y[keep])
    every = np.arange(n)
    pseudo = np.array([n * theta(every) - (n - 1) * theta(every != i) for i in range(n)])
    found, expected = (
        tuned(alone(x), alone(y), 0.9, draws=7, statistic=statistic),
        paired(pseudo, 0.9),
    )
    assert found.value == pytest.approx(theta(every), rel=1e-12)
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=1e-9)


def test_pseudo_values_of_a_mean_are_the_scores():
    scores = np.random.default_rng(23).normal(size=(7, 3))
    assert pseudo_values(scores, "mean") == pytest.approx(scores, abs=1e-12)


@pytest.mark.parametrize("statistic", ["log mean", "log sd"])
def test_arm_that_is_the_other_times_three(statistic):
    """Its ratios are known without any uncertainty; its difference of means is not."""
    rng = np.random.default_rng(29)
    one = Scores(rng.normal(size=(5, 3)), 5 + rng.random((13, 3)))
    three = Scores(one.tuning, 3 * one.report)
    found = tuned(three, one, 0.95, draws=DRAWS, statistic=statistic)
    assert (found.value, found.low, found.high) == pytest.approx((math.log(3),) * 3, abs=1e-9)
    means = tuned(three, one, 0.95, draws=DRAWS)
    assert means.value == pytest.approx(11, abs=0.5) and means.high - means.low > 0.1


@pytest.mark.parametrize(
    ("statistic", "truth"), [("log mean", math.log(1.5)), ("log sd", math.log(2))]
)
def test_intervals_of_ratios_and_spreads_cover_the_truth(statistic, truth):
    rng, covered, n = np.random.default_rng(31), 0, 800
    for _ in range(n):
        x, y = 15 + 2 * rng.normal(size=20), 10 + rng.normal(size=20)
        found = tuned(alone(x), alone(y), 0.95, draws=7, statistic=statistic)
        covered += found.low <= truth <= found.high
    assert covered / n == pytest.approx(0.95, abs=0.025)  # 3 binomial standard errors


@pytest.mark.parametrize(
    ("report", "statistic", "message"),
    [
        ([1, 2, 3], "median", "statistic must be one of .*got 'median'"),
        ([1, 0, 3], "log mean", "positive numbers for the log mean, got 0.0"),
        ([1, -2, 3], "log mean", "positive numbers for the log mean, got -2.0"),
        ([1, math.inf, 3], "mean", "finite numbers"),
        ([1, math.nan, 3], "log sd", "finite numbers"),
        ([1, 2], "log sd", "log sd needs at least 3 report seeds, got 2"),
        ([5, 5, 5], "log sd", "scores that differ"),
        ([5, 5, 6], "log sd", "scores that differ"),  # equal with one left out
    ],
)
def test_tuned_refuses_scores_that_have_no_such_statistic(report, statistic, message):
    with pytest.raises(ValueError, match=message):
        tuned(
            alone(report),
            alone(np.arange(len(report)) + 1.0),
            0.95,
            draws=DRAWS,
            statistic=statistic,
        )


def test_tuned_refuses_arms_of_different_seeds():
    with pytest.raises(ValueError, match="same seeds"):
        tuned(alone([1, 2, 3]), alone([1, 2, 3, 4]), 0.95)
    with pytest.raises(ValueError, match="same seeds"):
        tuned(Scores(np.zeros((2, 1)), np.zeros((3, 1))), alone([1, 2, 3]), 0.95)
    with pytest.raises(ValueError, match="same seeds"):
        tuned(alone([1, 2, 3])._replace(validation=np.zeros((3, 1))), alone([1, 2, 3]), 0.95)
    with pytest.raises(ValueError, match="same seeds"):
        tuned(*[alone([1, 2, 3])._replace(validation=np.zeros((2, 1)))] * 2, 0.95)


def test_tuned_refuses_tuning_scores_that_are_no_numbers():
    with pytest.raises(ValueError, match="tuning and validation scores must be finite"):
        tuned(alone([1, 2, 3])._replace(tuning=np.full((3, 1), math.nan)), alone([1, 2, 3]), 0.95)


# ---- identical arms and planted effects ----------------------------------------------------------


@pytest.mark.parametrize(("tuning", "report"), published_sizes())
def test_identical_arms_with_noisy_tuning_are_rarely_called_different(tuning, report):
    """Nominal 5 %, at the numbers of seeds that are published. Ignoring the choice would reject far
    more of them.
    """
    rng, truth = np.random.default_rng(tuning), -1.0 * np.linspace(-1, 1, 9) ** 2
    wrong, wrong_without = 0, 0
    for replication in range(REPLICATIONS):
        arm, against = (noisy_arm(rng, tuning, report, truth) for _ in range(2))
        found = tuned(arm, against, 0.95, seed=replication, draws=DRAWS)
        naive = paired(arm.report[:, arm.chosen()] - against.report[:, against.chosen()], 0.95)
        wrong += found.low > 0 or found.high < 0
        wrong_without += naive.low > 0 or naive.high < 0
    assert wrong <= stats.binom.ppf(0.995, REPLICATIONS, 0.05), f"{wrong} of {REPLICATIONS}"
    assert wrong_without > wrong


def test_choice_alone_makes_a_plain_t_test_reject_identical_arms():
    """The reason for `tuned`: 3 tuning seeds, 30 report seeds, and a nominal 5 % is several times
    that.
    """
    rng, truth = np.random.default_rng(8), -1.0 * np.linspace(-1, 1, 5) ** 2
    rejected = 0
    for _ in range(REPLICATIONS):
        arm, against = (noisy_arm(rng, 3, 30, truth) for _ in range(2))
        naive = paired(arm.report[:, arm.chosen()] - against.report[:, against.chosen()], 0.95)
        rejected += naive.low > 0 or naive.high < 0
    assert rejected / REPLICATIONS > 0.12


def test_planted_effect_of_two_sd_is_found_and_covered():
    """Arms of one trajectory share most of their noise, as readouts do; the effect is 2 sd of a
    candidate's scores.
    """
    rng, truth, effect = np.random.default_rng(11), -1.0 * np.linspace(-1, 1, 9) ** 2, 2.0
    found, covered = 0, 0
    for replication in range(REPLICATIONS):
        shared = (rng.normal(size=(5, 1)), rng.normal(size=(20, 1)))
        arm = noisy_arm(rng, 5, 20, truth, shared, noise=0.5, shift=effect)
        against = noisy_arm(rng, 5, 20, truth, shared, noise=0.5)
        estimate = tuned(arm, against, level(10), seed=replication, draws=DRAWS)
        found += of_interval(estimate.low, estimate.high, margin=0.5) == "supported"
        covered += estimate.low <= effect <= estimate.high
    assert found == REPLICATIONS
    assert covered / REPLICATIONS >= 0.97


def test_paired_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(13)
    intervals = [paired(row, 0.9) for row in rng.normal(0.7, 1.3, size=(1_500, 6))]
    covered = np.mean([found.low <= 0.7 <= found.high for found in intervals])
    assert covered == pytest.approx(0.9, abs=0.025)  # 3 binomial standard errors
