"""Learning-rate search: draws against their law, coarse to fine on known valleys, refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rate_searches import bounds, rng
from steadydescent.lr_search import coarse_to_fine, log_uniform, ramp, range_test, uniform


@pytest.mark.worked("viblo-lr")
def test_uniform_search_spends_nine_tenths_above_a_tenth():
    """P(rate < 0.1) on [0, 1] is 10 %, above 90 %: the CDF is the rate itself.

    4 binomial standard errors.
    """
    count = 100_003
    below = (uniform(0, 1, count, rng()) < 0.1).mean()
    assert stats.uniform(0, 1).cdf(0.1) == pytest.approx(0.1)
    assert abs(below - 0.1) < 4 * math.sqrt(0.1 * 0.9 / count)


@pytest.mark.worked("viblo-lr")
def test_log_uniform_search_spends_a_fifth_in_each_decade():
    """log₁₀ rate is uniform on [−5, 0]: P(decade) = 1/5 by the CDF, and in a sample.

    The sample is within 4 standard errors.
    """
    count, edges = 100_003, 10.0 ** np.arange(-5, 1)
    shares = np.histogram(log_uniform(1e-5, 1, count, rng()), edges)[0] / count
    assert np.diff(stats.loguniform(1e-5, 1).cdf(edges)) == pytest.approx([0.2] * 5)
    assert np.abs(shares - 0.2).max() < 4 * math.sqrt(0.2 * 0.8 / count)


@pytest.mark.parametrize(
    ("draw", "law"),
    [(uniform, stats.uniform(0.003, 0.7 - 0.003)), (log_uniform, stats.loguniform(0.003, 0.7))],
)
def test_draws_follow_their_distribution(draw, law):
    """Kolmogorov and Smirnov's distance of 10 007 draws stays below its 99.9 % point, 1.95/√n."""
    rates = draw(0.003, 0.7, 10_007, rng(1))
    assert rates.dtype == np.float64 and rates.shape == (10_007,)
    assert stats.kstest(rates, law.cdf).statistic < 1.95 / math.sqrt(10_007)


@given(bounds, st.integers(1, 23), st.integers(0, 99))
def test_draws_stay_within_their_bounds_and_repeat_by_seed(limits, count, seed):
    for draw in (uniform, log_uniform):
        rates = draw(*limits, count, rng(seed))
        assert ((limits[0] <= rates) & (rates <= limits[1])).all()
        assert np.array_equal(rates, draw(*limits, count, rng(seed)))


# Coarse to fine


def bowl(rates):
    """Lowest at 0.003, a parabola in the logarithm."""
    return np.log10(rates / 0.003) ** 2


@settings(max_examples=60)
@given(st.integers(1, 6), st.integers(1, 13), st.integers(0, 999))
def test_intervals_only_shrink_hold_the_best_and_respect_the_budget(rounds, per_round, seed):
    asked = []

    def evaluate(rates):
        asked.append(rates)
        return bowl(rates)

    search = coarse_to_fine(evaluate, 1e-5, 1, rounds, per_round, rng(seed))
    assert [len(rates) for rates in asked] == [per_round] * rounds
    assert np.array_equal(np.concatenate(asked), search.rate) and np.array_equal(
        bowl(search.rate), search.loss
    )
    assert np.array_equal(search.round, np.repeat(np.arange(1, rounds + 1), per_round))
    assert ((search.low <= search.rate) & (search.rate <= search.high)).all()
    assert (np.diff(search.low) >= 0).all() and (np.diff(search.high) <= 0).all()
    for number in range(2, rounds + 1):
        before, now = search.round < number, np.argmax(search.round == number)
        best = search.rate[before][np.argmin(search.loss[before])]
        assert search.low[now] <= best <= search.high[now]
    assert search.best == search.rate[np.argmin(search.loss)]


def test_interval_reaches_from_the_trial_below_the_best_quarter_to_the_one_above():
    """Eight trials, the best two chosen by loss.

    In a bowl they are neighbours, so the fourth-best bracket them.
    """
    for seed in range(20):
        search = coarse_to_fine(bowl, 1e-5, 1, 2, 8, rng(seed))
        order = np.argsort(bowl(search.rate[:8]))
        known = np.sort(np.concatenate([[1e-5], search.rate[:8], [1.0]]))
        inner = np.flatnonzero(np.isin(known, search.rate[:8][order[:2]]))
        assert inner[1] == inner[0] + 1
        assert search.low[8] == known[inner[0] - 1] and search.high[8] == known[inner[1] + 1]


@given(st.floats(1e-5, 1), st.floats(0.1, 10), st.integers(1, 6), st.integers(0, 999))
def test_interval_holds_the_minimum_of_every_single_valley(centre, lean, per_round, seed):
    def lopsided(rates):
        return np.maximum(np.log(rates / centre) * lean, -np.log(rates / centre))

    search = coarse_to_fine(lopsided, 1e-5, 1, 4, per_round, rng(seed))
    assert ((search.low <= centre) & (centre <= search.high)).all()


@given(st.integers(0, 999))
def test_one_round_from_coarse_to_fine_is_log_uniform_search(seed):
    search = coarse_to_fine(bowl, 1e-5, 1, 1, 11, rng(seed))
    assert np.array_equal(search.rate, log_uniform(1e-5, 1, 11, rng(seed)))


def test_every_round_closes_in_on_a_bowl():
    for seed in range(20):
        search = coarse_to_fine(bowl, 1e-5, 1, 5, 8, rng(seed))
        widths = np.log(search.high / search.low)[::8]
        assert (np.diff(widths) < 0).all() and widths[-1] < 0.2 * widths[0]
        assert search.low[-1] <= 0.003 <= search.high[-1]


@pytest.mark.parametrize("worst", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_counts_as_the_worst(worst):
    def evaluate(rates):
        # better towards the edge beyond which it diverges
        return np.where(rates > 1e-3, worst, -rates)

    search = coarse_to_fine(evaluate, 1e-5, 1, 4, 9, rng(5))
    finite = search.rate[search.rate <= 1e-3]
    assert 0 < len(finite) < 36 and search.best == finite.max()
    assert (search.high[-1] < 0.1) and not np.isfinite(search.loss[search.rate > 1e-3]).any()


def test_search_in_which_all_diverge_stays_where_it_is_and_has_no_best():
    search = coarse_to_fine(lambda rates: np.full(len(rates), np.nan), 1e-5, 1, 3, 4, rng())
    assert (search.low == 1e-5).all() and (search.high == 1).all()
    with pytest.raises(ValueError, match="none of the 12 trials has a finite loss"):
        _ = search.best


def test_losses_may_come_as_a_tensor():
    as_arrays = coarse_to_fine(bowl, 1e-5, 1, 3, 5, rng())
    as_tensors = coarse_to_fine(lambda rates: torch.from_numpy(bowl(rates)), 1e-5, 1, 3, 5, rng())
    assert np.array_equal(as_arrays.rate, as_tensors.rate)


# Refusals


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [
        (0.0, 1.0, "low must be positive and finite, got 0.0"),
        (-1.0, 1.0, "low must be positive and finite, got -1.0"),
        (math.nan, 1.0, "low must be positive and finite, got nan"),
        (0.1, 0.1, "high must be above low = 0.1, got 0.1"),
        (0.1, math.inf, "high must be positive and finite, got inf"),
        (0.1, math.nan, "high must be positive and finite, got nan"),
    ],
)
def test_bounds_that_are_none_are_refused_before_anything_is_evaluated(low, high, reason):
    never = lambda *_: pytest.fail("evaluated before the bounds were checked")
    for call in (
        lambda: log_uniform(low, high, 3, rng()),
        lambda: ramp(low, high, 5),
        lambda: coarse_to_fine(never, low, high, 2, 3, rng()),
        lambda: range_test(never, low, high, 5),
    ):
        with pytest.raises(ValueError, match=reason):
            call()


def test_other_bad_arguments_are_refused_by_name():
    never = lambda *_: pytest.fail("evaluated before the arguments were checked")
    for call, reason in [
        (lambda: uniform(-0.1, 1, 3, rng()), "low must be at least 0 and finite, got -0.1"),
        (lambda: uniform(0, 1, 0, rng()), "count must be a whole number of at least 1, got 0"),
        (
            lambda: coarse_to_fine(never, 0.1, 1, 0, 3, rng()),
            "rounds must be a whole number of at least 1, got 0",
        ),
        (
            lambda: coarse_to_fine(never, 0.1, 1, 2, 0, rng()),
            "per_round must be a whole number of at least 1, got 0",
        ),
        (
            lambda: coarse_to_fine(lambda rates: rates[:2], 0.1, 1, 2, 3, rng()),
            r"shape \(3,\), got \(2,\)",
        ),
        (lambda: ramp(0.1, 1, 1), "steps must be a whole number of at least 2, got 1"),
        (
            lambda: range_test(never, 0.1, 1, 5, divergence=1.0),
            "divergence must be more than 1, got 1.0",
        ),
        (lambda: range_test(never, 0.1, 1, 5, beta=1.0), r"beta must be in \[0, 1\), got 1.0"),
    ]:
        with pytest.raises(ValueError, match=reason):
            call()
