"""Verdicts follow the rule at its boundaries, and more data only refine them."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadydescent.study.judging.exact import Exact
from steadydescent.study.judging.verdicts import (
    DECISIONS,
    VERDICTS,
    direction_of,
    of_interval,
    of_number,
    size_of,
    stance,
)

ENDS = st.floats(-5, 5)
RULES = st.sampled_from(sorted(DECISIONS))

# ---- the rule at its boundaries ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-1.0, 1.0, "too small to matter"),  # the margin itself is inside
        (0.2, 1.0, "too small to matter"),  # above 0, and too small to matter
        (-1.0, -0.2, "too small to matter"),
        (0.0, 0.0, "too small to matter"),
        (0.2, 1.001, "supported, size open"),
        (1.0, 2.0, "supported, size open"),
        (1.001, 2.0, "supported"),
        (0.0, 1.5, "open"),  # touching 0 is not above it
        (-1.001, 1.0, "open"),
        (-1.5, 0.0, "open"),
        (-3.0, 3.0, "open"),
        (-1.001, -0.2, "refuted, size open"),
        (-2.0, -1.0, "refuted, size open"),
        (-2.0, -1.001, "refuted"),
    ],
)
def test_claim_that_an_arm_is_better(low, high, expected):
    assert of_interval(low, high, margin=1.0) == expected


@pytest.mark.parametrize(
    ("low", "high", "alike", "not_worse"),
    [
        # the margin itself is alike, but is worse by the margin
        (-1.0, 1.0, "supported", "open"),
        (-0.999, 1.0, "supported", "supported"),
        (-0.5, 1.001, "open", "supported"),
        (1.001, 3.0, "refuted", "supported"),
        (1.0, 3.0, "open", "supported"),  # touching the margin is not wholly outside
        (-3.0, -1.001, "refuted", "refuted"),
        (-3.0, -1.0, "open", "open"),
        (-3.0, 3.0, "open", "open"),
    ],
)
def test_rules_for_claims_of_likeness_and_of_no_loss(low, high, alike, not_worse):
    assert of_interval(low, high, 1.0, "equivalence") == alike
    assert of_interval(low, high, 1.0, "at least") == not_worse


@pytest.mark.parametrize(
    ("low", "high", "direction", "size"),
    [
        (0.1, 0.9, "for", "small"),
        (0.1, 1.1, "for", "open"),
        (1.1, 2.0, "for", "large"),
        (-0.9, -0.1, "against", "small"),
        (-2.0, -1.1, "against", "large"),
        (-0.5, 0.5, "open", "small"),
        (-0.5, 1.5, "open", "open"),
    ],
)
def test_direction_and_size_are_two_questions(low, high, direction, size):
    assert (direction_of(low, high), size_of(low, high, 1.0)) == (direction, size)


# ---- more data only refine -----------------------------------------------------------------------


@given(ENDS, ENDS, st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 5), RULES)
def test_an_interval_within_another_keeps_what_was_decided(a, b, left, right, margin, rule):
    """Direction, size and what the word says of the claim; only what was open may change, and of a
    word its size: "supported, size open" may end too small to matter, "supported" may not.
    """
    low, high = min(a, b), max(a, b)
    inside = low + left * (high - low)
    narrow = min(inside, high), min(max(inside, high - right * (high - inside)), high)
    for ask in (direction_of, lambda lo, hi: size_of(lo, hi, margin)):
        assert ask(low, high) in ("open", ask(*narrow))
    before, after = of_interval(low, high, margin, rule), of_interval(*narrow, margin, rule)
    allowed = {
        "open": set(VERDICTS),
        "supported, size open": {"supported, size open", "supported", "too small to matter"},
        "refuted, size open": {"refuted, size open", "refuted", "too small to matter"},
    }
    assert after in allowed.get(before, {before})


@given(st.floats(0.001, 0.999), st.floats(1.001, 5))
def test_an_effect_within_the_margin_ends_small_and_one_beyond_it_supported(small, large):
    """A true effect, in margins, under ever narrower intervals around it."""
    for truth, end in ((small, "too small to matter"), (large, "supported")):
        words = [of_interval(truth - half, truth + half, 1.0) for half in (9.0, 1.0, 1e-4)]
        assert words[-1] == end and direction_of(truth - 1e-4, truth + 1e-4) == "for"
        assert "refuted" not in " ".join(words)


# ---- laws between the rules ----------------------------------------------------------------------


@given(ENDS, st.floats(0, 5), st.floats(0.01, 5))
def test_likeness_is_supported_where_a_difference_is_too_small_to_matter(low, width, margin):
    alike = of_interval(low, low + width, margin, "equivalence")
    small = of_interval(low, low + width, margin) == "too small to matter"
    assert (alike == "supported") == small
    assert alike == of_interval(-(low + width), -low, margin, "equivalence")


@given(ENDS, st.floats(0, 5), st.floats(0.01, 5))
def test_verdict_of_the_opposite_claim_is_the_opposite(low, width, margin):
    word, turned = (
        of_interval(*ends, margin) for ends in ((low, low + width), (-(low + width), -low))
    )
    opposite = {"for": "against", "against": "for"}
    assert stance(turned) == opposite.get(stance(word), stance(word))
    assert word.endswith("size open") == turned.endswith("size open")


@given(ENDS, st.floats(0, 5), st.floats(0.01, 5))
def test_a_difference_is_supported_where_likeness_is_refuted(low, width, margin):
    turned = {"supported": "refuted", "refuted": "supported", "open": "open"}
    alike = of_interval(low, low + width, margin, "equivalence")
    assert of_interval(low, low + width, margin, "difference") == turned[alike]


# ---- numbers that are known exactly --------------------------------------------------------------


@given(ENDS, st.floats(0.01, 5), RULES)
def test_an_exact_number_is_an_interval_without_width(value, margin, rule):
    word = of_number(value, margin, rule)
    assert word == of_interval(value, value, margin, rule) and word in VERDICTS
    assert word == Exact("t = 1", "gain", value, margin, "%", rule).verdict
    assert not word.endswith("size open")


@pytest.mark.parametrize(
    ("value", "margin"), [(math.nan, 1), (math.inf, 1), (0.0, -1.0), (0.0, math.nan)]
)
def test_an_exact_number_without_a_verdict_is_refused(value, margin):
    with pytest.raises(ValueError, match="need a finite value and margin >= 0"):
        of_number(value, margin, "superiority")


# ---- what is refused -----------------------------------------------------------------------------


def test_verdict_refuses_an_unknown_rule():
    with pytest.raises(ValueError, match=r"rule must be one of .*got 'best'"):
        of_interval(0, 1, 1, "best")


@pytest.mark.parametrize(
    ("low", "high", "margin"),
    [(1, 0, 1), (0, 1, 0), (0, 1, -1), (math.nan, 1, 1), (0, math.nan, 1)],
)
def test_verdict_refuses_what_is_no_interval_or_margin(low, high, margin):
    with pytest.raises(ValueError, match="low <= high and margin > 0"):
        of_interval(low, high, margin)


def test_every_word_has_a_stance_and_others_are_refused():
    ends = [-3.0, -1.5, -0.5, 0.5, 1.5, 3.0]
    pairs = [(low, high) for low, high in product(ends, ends) if low <= high]
    words = {of_interval(*pair, 1.0, rule) for pair in pairs for rule in DECISIONS}
    assert words | {"not run"} == set(VERDICTS)
    stances = {stance(word) for word in VERDICTS}
    assert stances == {"for", "against", "small", "open", "not run"}
    with pytest.raises(ValueError, match=r"a verdict must be one of .*got 'mixed'"):
        stance("mixed")
