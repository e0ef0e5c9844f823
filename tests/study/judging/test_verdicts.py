"""Verdicts follow the rule at its boundaries; levels and numbers of seeds follow from the number of
contrasts.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadydescent.study.judging.exact import Exact
from steadydescent.study.judging.statistics import (
    confidence_tail,
    level,
    paired,
    seeds_needed,
)
from steadydescent.study.judging.verdicts import (
    DECISIONS,
    VERDICTS,
    of_claim,
    of_interval,
    of_number,
)

# ---- verdicts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-1.0, 1.0, "no difference"),  # the margin itself is inside
        (0.2, 1.0, "no difference"),  # above 0, but too small to matter
        (-1.0, -0.2, "no difference"),
        (0.0, 0.0, "no difference"),
        (0.2, 1.001, "supported"),
        (1.5, 2.0, "supported"),
        (0.0, 1.5, "inconclusive"),  # touching 0 is not above it
        (-1.001, 1.0, "inconclusive"),
        (-1.5, 0.0, "inconclusive"),
        (-3.0, 3.0, "inconclusive"),
        (-1.001, -0.2, "refuted"),
        (-2.0, -1.5, "refuted"),
    ],
)
def test_verdict_rule(low, high, expected):
    assert of_interval(low, high, margin=1.0) == expected


@pytest.mark.parametrize(
    ("low", "high", "alike", "not_worse"),
    [
        # the margin itself is alike, but is worse by the margin
        (-1.0, 1.0, "supported", "inconclusive"),
        (-0.999, 1.0, "supported", "supported"),
        (-0.5, 1.001, "inconclusive", "supported"),
        (1.001, 3.0, "refuted", "supported"),
        (1.0, 3.0, "inconclusive", "supported"),  # touching the margin is not wholly outside
        (-3.0, -1.001, "refuted", "refuted"),
        (-3.0, -1.0, "inconclusive", "inconclusive"),
        (-3.0, 3.0, "inconclusive", "inconclusive"),
    ],
)
def test_rules_for_claims_of_likeness_and_of_no_loss(low, high, alike, not_worse):
    assert of_interval(low, high, 1.0, "equivalence") == alike
    assert of_interval(low, high, 1.0, "at least") == not_worse


@given(st.floats(-5, 5), st.floats(0, 5), st.floats(0.01, 5))
def test_likeness_is_supported_where_superiority_sees_no_difference(low, width, margin):
    alike = of_interval(low, low + width, margin, "equivalence")
    assert (alike == "supported") == (of_interval(low, low + width, margin) == "no difference")
    assert alike == of_interval(-(low + width), -low, margin, "equivalence")


def test_verdict_refuses_an_unknown_rule():
    with pytest.raises(ValueError, match=r"rule must be one of .*got 'best'"):
        of_interval(0, 1, 1, "best")


@given(st.floats(-5, 5), st.floats(0, 5), st.floats(0.01, 5))
def test_verdict_of_the_opposite_claim_is_the_opposite(low, width, margin):
    opposite = {"supported": "refuted", "refuted": "supported"}
    word = of_interval(low, low + width, margin)
    assert of_interval(-(low + width), -low, margin) == opposite.get(word, word)


@pytest.mark.parametrize(
    ("low", "high", "margin"),
    [(1, 0, 1), (0, 1, 0), (0, 1, -1), (math.nan, 1, 1), (0, math.nan, 1)],
)
def test_verdict_refuses_what_is_no_interval_or_margin(low, high, margin):
    with pytest.raises(ValueError, match="low <= high and margin > 0"):
        of_interval(low, high, margin)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], "not run"),
        (["refuted"], "refuted"),
        (["supported"] * 3, "supported"),
        (["supported", "inconclusive"], "mixed"),
        (["supported", "no difference", "supported"], "mixed"),
    ],
)
def test_overall_verdict_is_the_common_one_else_mixed(verdicts, expected):
    assert of_claim(verdicts) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "not run"),
        (["supported"] * 3, "supported"),
        (["supported", "inconclusive"], "inconclusive"),
        (["inconclusive"] * 2, "inconclusive"),
        (["supported", "inconclusive", "refuted"], "refuted"),
        (["no difference"] * 2, "refuted"),
    ],
)
def test_a_claim_that_needs_every_row_falls_with_one(words, expected):
    assert of_claim(words, "all") == expected


def test_a_claim_that_needs_every_row_is_undecided_only_where_nothing_refutes():
    words = ("supported", "no difference", "refuted", "inconclusive")
    for one, other in itertools.product(words, words):
        refuting = {"refuted", "no difference"} & {one, other}
        undecided = "refuted" if refuting else "inconclusive"
        expected = "supported" if {one, other} == {"supported"} else undecided
        assert of_claim([one, other], "all") == of_claim([other, one], "all") == expected


def test_a_claim_needs_what_is_known():
    with pytest.raises(ValueError, match=r"needed must be one of .*'all'.*, got 'most'"):
        of_claim(["supported"], "most")


# ---- numbers that are known exactly --------------------------------------------------------------


@given(st.floats(-5, 5), st.floats(0.01, 5), st.sampled_from(sorted(DECISIONS)))
def test_an_exact_number_is_an_interval_without_width(value, margin, rule):
    word = of_number(value, margin, rule)
    assert word == of_interval(value, value, margin, rule) and word in VERDICTS
    assert word == Exact("t = 1", "gain", value, margin, "%", rule).verdict


@pytest.mark.parametrize(
    ("value", "margin"), [(math.nan, 1), (math.inf, 1), (0.0, -1.0), (0.0, math.nan)]
)
def test_an_exact_number_without_a_verdict_is_refused(value, margin):
    with pytest.raises(ValueError, match="need a finite value and margin >= 0"):
        of_number(value, margin, "superiority")


@given(st.floats(-5, 5), st.floats(0, 5), st.floats(0.01, 5))
def test_a_difference_is_supported_where_likeness_is_refuted(low, width, margin):
    turned = {"supported": "refuted", "refuted": "supported", "inconclusive": "inconclusive"}
    alike = of_interval(low, low + width, margin, "equivalence")
    assert of_interval(low, low + width, margin, "difference") == turned[alike]


# ---- levels and numbers of seeds -----------------------------------------------------------------


def test_contrasts_share_five_percent():
    assert [level(k) for k in (1, 5, 10)] == pytest.approx([0.95, 0.99, 0.995])
    assert 2 * 7 * confidence_tail(7) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="contrasts must be at least 1, got 0"):
        level(0)


@pytest.mark.parametrize("ratio", [0.8, 2.0, 7.3])
def test_seeds_needed_is_the_designs_rule_of_thumb(ratio):
    assert seeds_needed(3 * ratio, 3.0, contrasts=10) == pytest.approx(
        16.7 * ratio**2, rel=0.005, abs=1
    )


@given(st.floats(0, 50), st.floats(0.1, 3), st.integers(1, 20))
def test_seeds_needed_never_falls_with_spread_or_contrasts(sd, margin, contrasts):
    n = seeds_needed(sd, margin, contrasts)
    assert 2 <= n <= seeds_needed(2 * sd, margin, contrasts)
    assert n <= seeds_needed(sd, margin, contrasts + 1)
    assert n <= seeds_needed(sd, margin, contrasts, power=0.9)


def test_seeds_needed_decide_a_true_zero_in_four_runs_of_five():
    contrasts, sd, margin = 4, 2.0, 1.0
    n, rng = seeds_needed(sd, margin, contrasts), np.random.default_rng(17)

    def decided(seeds: int) -> float:
        intervals = [paired(row, level(contrasts)) for row in rng.normal(0, sd, size=(800, seeds))]
        words = [of_interval(i.low, i.high, margin) for i in intervals]
        return words.count("no difference") / len(words)

    # 3 standard errors; the formula's z instead of t costs 1 %
    assert decided(n) == pytest.approx(0.8, abs=0.045)
    assert decided(n // 2) < 0.5
