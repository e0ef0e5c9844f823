"""The rates that a range test suggests, on curves with known answers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rate_searches import quadratic, rng
from steadydescent.lr_search import (
    SUGGESTIONS,
    middle,
    minimum_tenth,
    ramp,
    range_test,
    steepest,
    valley,
)


def logistic_fall(rates, centre, width=0.4):
    """A fall from 2 to 1, steepest per logarithm at `centre`, point-symmetric about it."""
    return 1 + 1 / (1 + np.exp(np.log(rates / centre) / width))


def test_steepest_finds_the_turning_point_of_a_logistic_fall():
    rates = ramp(1e-6, 1, 301)
    assert steepest(rates, logistic_fall(rates, rates[173]), beta=0.0) == rates[173]


def test_slope_is_taken_per_logarithm_of_the_rate():
    """loss = −√rate falls fastest per logarithm at the last rate, per rate at the first."""
    rates = ramp(1e-4, 1, 41)
    assert steepest(rates, -np.sqrt(rates), beta=0.0) == rates[-1]


def test_minimum_tenth_is_a_tenth_of_the_rate_of_the_lowest_loss():
    rates = ramp(1e-6, 1, 301)
    assert minimum_tenth(rates, np.log(rates / rates[120]) ** 2, beta=0.0) == rates[120] / 10


def test_middle_lies_half_way_between_start_and_end_of_a_straight_descent():
    """Flat to 100, straight down to 200, then up: a tenth of the fall ends at 110, middle 155."""
    rates = ramp(1e-6, 1, 301)
    losses = np.interp(np.arange(301), [0, 100, 200, 300], [2.0, 2.0, 1.0, 4.0])
    assert middle(rates, losses, beta=0.0) == pytest.approx(rates[155], rel=1e-9)


def longest_fall(losses):
    """Slow reference: the longest falling subsequence up to each index, and the first longest."""
    lengths = []
    for i, loss in enumerate(losses):
        lengths.append(1 + max((lengths[j] for j in range(i) if losses[j] > loss), default=0))
    return lengths.index(max(lengths)), max(lengths)


# no fall is rounding
@given(st.lists(st.integers(0, 9000).map(lambda n: n / 1000), min_size=3, max_size=30))
def test_valley_lies_half_way_along_the_longest_fall(losses):
    rates, (end, length) = ramp(1e-6, 1, len(losses)), longest_fall(losses)
    if length < 3:
        with pytest.raises(
            ValueError,
            match=f"must fall at least twice in the range test, it fell {length - 1} times",
        ):
            valley(rates, np.array(losses), beta=0.0)
    else:
        sections = length / 3  # as fastai counts
        index = end - length + int(sections) + int(sections / 2)
        assert valley(rates, np.array(losses), beta=0.0) == rates[index]


def test_valley_of_one_straight_fall_is_its_middle():
    rates = ramp(1e-6, 1, 121)
    assert valley(rates, -np.arange(121.0), beta=0.0) == rates[59]


def test_smoothing_moves_the_steepest_point_by_its_lag():
    """An exponential average lags β/(1−β) steps behind: 9 at β = 0.9, 49 at 0.98.

    On a long ramp the slope with it.
    """
    rates = ramp(1e-6, 1, 3001)
    losses = logistic_fall(rates, rates[1700], width=1.6)  # far wider than the lag
    for beta, lag in [(0.9, 9), (0.98, 49)]:
        assert (
            abs(int(np.flatnonzero(rates == steepest(rates, losses, beta))[0]) - (1700 + lag)) <= 1
        )


@pytest.mark.parametrize("name", sorted(SUGGESTIONS))
def test_suggestions_stop_at_the_first_loss_that_is_not_finite(name):
    rates = ramp(1e-6, 1, 61)
    losses = logistic_fall(rates, rates[30])
    broken = losses.copy()
    broken[45], broken[50] = math.nan, -100.0
    assert SUGGESTIONS[name](rates, broken) == SUGGESTIONS[name](rates[:45], losses[:45])


@pytest.mark.parametrize("name", sorted(SUGGESTIONS))
def test_suggestions_scale_with_the_rates_and_ignore_the_losses_scale(name):
    rates, noise = ramp(1e-6, 1, 61), rng(7).normal(scale=0.05, size=61)
    losses = logistic_fall(rates, rates[30]) + noise
    assert SUGGESTIONS[name](rates * 8, losses * 4 + 16) == pytest.approx(
        8 * SUGGESTIONS[name](rates, losses)
    )


def test_middle_of_the_descent_moves_with_the_length_of_the_ramp():
    """Doubt about `lr-range-test`: on a quadratic the suggestion falls like T^(−1/2).

    The best rate, 1/h, stays.

    A ramp four times as long spends four times as many updates at each rate, so the descent starts
    at a quarter of the rate; it ends at 2/h for all. So the geometric middle halves.
    """
    suggested = [
        middle(*range_test(quadratic(), 1e-5, 10, steps, divergence=math.inf), beta=0.0)
        for steps in (97, 388, 1552)
    ]
    assert suggested[0] / suggested[1] == pytest.approx(2, rel=0.1)
    assert suggested[1] / suggested[2] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("name", sorted(SUGGESTIONS))
def test_curve_that_is_no_range_test_is_refused(name):
    rates, suggest = ramp(1e-3, 1, 5), SUGGESTIONS[name]
    for call, reason in [
        (lambda: suggest(rates, np.ones(4)), "of one length"),
        (lambda: suggest(rates[::-1], -np.arange(5.0)), "positive, finite and rising"),
        (lambda: suggest(rates - 1e-3, -np.arange(5.0)), "positive, finite and rising"),
        (
            lambda: suggest(rates, np.array([2.0, 1.0, math.nan, 1.0, 0.0])),
            "3 finite losses to start with, got 2",
        ),
        (lambda: suggest(rates, -np.arange(5.0), beta=1.0), r"beta must be in \[0, 1\)"),
        (lambda: suggest(rates, np.arange(5.0)), "the smoothed loss must fall"),
    ]:
        with pytest.raises(ValueError, match=reason):
            call()
