"""Levels of intervals, and how many seeds would decide: simulated, and beside closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from steadydescent.study.judging.power import MOST_REPORT_SEEDS, decided, seeds_needed
from steadydescent.study.judging.statistics import (
    PRIMARY_PLACES,
    Estimate,
    confidence_tail,
    level,
    level_of,
    paired,
    student,
)
from steadydescent.study.judging.verdicts import DECISIONS, of_interval

PRIMARY = level_of(primary=True)
RULES = sorted(DECISIONS)


def truth(value: float, sd: float = 1.0, n: int = 5) -> Estimate:
    return Estimate(value, value - 1, value + 1, sd, n)


def test_contrasts_share_five_percent():
    assert [level(k) for k in (1, 5, 10)] == pytest.approx([0.95, 0.99, 0.995])
    assert 2 * 7 * confidence_tail(7) == pytest.approx(0.05)
    assert pytest.approx(0.05) == PRIMARY_PLACES * (1 - PRIMARY)
    with pytest.raises(ValueError, match="contrasts must be at least 1, got 0"):
        level(0)


@pytest.mark.parametrize(
    ("rule", "value", "sd", "at"),
    [
        ("superiority", 0.0, 1.3, 0.95),
        ("superiority", 0.4, 1.3, PRIMARY),
        ("superiority", -2.0, 1.3, PRIMARY),
        ("equivalence", 0.3, 0.9, 0.95),
        ("difference", -1.8, 0.9, PRIMARY),
        ("at least", -0.5, 1.3, PRIMARY),
        ("at least", 0.2, 2.0, 0.95),
    ],
)
def test_so_many_seeds_decide_in_four_runs_of_five(rule, value, sd, at):
    """Normal seeds around the effect; Student's interval of each run, and the word it gives."""
    n, rng = seeds_needed(truth(value, sd), 1.0, rule, at), np.random.default_rng(17)

    def share(seeds: int) -> float:
        runs = rng.normal(value, sd, size=(3_000, seeds))
        half = student(at, seeds - 1) * runs.std(axis=1, ddof=1) / math.sqrt(seeds)
        ends = zip(runs.mean(axis=1) - half, runs.mean(axis=1) + half, strict=True)
        return float(np.mean([of_interval(*end, 1.0, rule) != "open" for end in ends]))

    assert 0.77 < share(n) < 0.87  # few seeds come in steps of up to 4 %
    assert share(max(2, round(0.7 * n))) < 0.75


@pytest.mark.parametrize("n", [3, 8, 40])
@pytest.mark.parametrize("value", [-1.4, -0.5, 0.0, 0.2])
def test_power_of_no_loss_is_that_of_the_noncentral_t(value, n):
    away, quantile = (value + 1) * math.sqrt(n), student(0.95, n - 1)
    above = stats.nct.sf(quantile, n - 1, away)
    below = stats.nct.cdf(-quantile, n - 1, away)
    assert decided(truth(value), n, 1.0, "at least", 0.95) == pytest.approx(above + below, abs=2e-3)


def test_never_where_no_number_of_seeds_decides():
    """The effect is the margin itself: neither alike nor different, neither worse nor not worse."""
    for rule, value in (("equivalence", 1.0), ("difference", -1.0), ("at least", -1.0)):
        assert seeds_needed(truth(value), 1.0, rule, 0.95) == "never"
    assert seeds_needed(truth(-1.0), 1.0, "superiority", 0.95) < 30
    assert seeds_needed(truth(0.0, sd=1_000.0), 1.0, "superiority", 0.95) == "never"


@pytest.mark.parametrize(
    ("rule", "value", "fixed", "at"),
    [
        ("superiority", 0.5, 0.15, 0.95),
        ("superiority", 2.0, 0.4, PRIMARY),
        ("at least", -0.4, 0.2, 0.95),
        ("equivalence", 0.0, 0.2, PRIMARY),
    ],
)
def test_so_many_seeds_decide_beside_an_error_that_none_lessens(rule, value, fixed, at):
    """The test set stays as it was drawn: means move by their seeds alone, and each interval is as
    much wider as `widened` makes it.
    """
    known = truth(value)._replace(fixed=fixed, fixed_freedom=40.0)
    n, rng = seeds_needed(known, 1.0, rule, at), np.random.default_rng(3)
    assert n > seeds_needed(truth(value), 1.0, rule, at)
    words = []
    for seeds in rng.normal(value, 1.0, size=(3_000, n)):
        wide = paired(seeds, at).widened(fixed**2, 40.0, at)
        words.append(of_interval(wide.low, wide.high, 1.0, rule))
    assert 0.77 < np.mean([word != "open" for word in words]) < 0.87


@pytest.mark.parametrize(
    ("rule", "value", "room"),
    [("superiority", 1.5, 1.5), ("superiority", 0.1, 0.9), ("at least", -0.7, 0.3)]
    + [("equivalence", 0.4, 0.6), ("difference", 1.2, 0.2)],
)
def test_never_where_the_fixed_error_alone_reaches_further_than_a_decision_allows(
    rule, value, room
):
    """With seeds without end the interval is value ± z·fixed; `room` is what it may reach."""
    z = stats.norm.ppf(0.975)
    for share, decides in ((0.97, True), (1.03, False)):
        known = truth(value)._replace(fixed=share * room / z)
        assert (seeds_needed(known, 1.0, rule, 0.95) != "never") is decides


@given(st.floats(-3, 3), st.floats(0, 20), st.sampled_from(RULES))
def test_fewest_seeds_that_reach_the_power_and_more_for_more(value, sd, rule):
    at = truth(value, sd)
    n = seeds_needed(at, 1.0, rule, 0.95)
    if n == "never":
        assert decided(at, MOST_REPORT_SEEDS, 1.0, rule, 0.95) < 0.8
        return
    assert n == 2 or decided(at, n - 1, 1.0, rule, 0.95) < 0.8 <= decided(at, n, 1.0, rule, 0.95)
    for more in (seeds_needed(at, 1.0, rule, PRIMARY), seeds_needed(at, 1.0, rule, 0.95, 0.9)):
        assert more == "never" or more >= n


def test_seeds_needed_refuses_an_unknown_rule():
    with pytest.raises(ValueError, match=r"rule must be one of .*got 'best'"):
        seeds_needed(truth(0.0), 1.0, "best", 0.95)
