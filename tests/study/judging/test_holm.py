"""The chance of a row follows from its interval, and Holm's procedure from the chances."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadydescent.study.judging.holm import open_chance, rejected
from steadydescent.study.judging.statistics import student
from steadydescent.study.judging.verdicts import DECISIONS, of_interval


@given(st.floats(-4, 4), st.floats(0.05, 2), st.sampled_from(sorted(DECISIONS)), st.booleans())
def test_a_row_is_decided_below_its_chance_and_open_above_it(value, error, rule, ratio):
    """At levels on either side of 1 − chance the interval's word is another kind of word."""
    n, margin = 8, 1.5
    half = student(0.95, n - 1) * error
    ends = [value, value - half, value + half]
    shown = [margin**end for end in ends] if ratio else [margin * end for end in ends]
    chance = open_chance(*shown, float(ratio), margin, 0.95, n, rule)

    def word(alpha: float) -> str:
        half = student(1 - alpha, n - 1) * error
        return of_interval(value - half, value + half, 1.0, rule)

    if 1e-6 < chance < 0.99:
        assert word(min(1.01 * chance, 0.999)) != "open" and word(0.99 * chance) == "open"


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_rejects_what_its_step_down_says_and_all_that_bonferroni_does(chances):
    """By hand: adjusted chances are running maxima of (K − i)·p."""
    order, largest, expected = sorted(range(len(chances)), key=chances.__getitem__), 0.0, set()
    for place, number in enumerate(order):
        largest = max(largest, (len(chances) - place) * chances[number])
        if largest <= 0.05:
            expected.add(number)
    near = any(math.isclose(0.05, (len(chances) - n) * chances[i]) for n, i in enumerate(order))
    assert near or set(rejected(chances)) == expected
    assert {i for i, p in enumerate(chances) if p < 0.05 / len(chances)} <= set(rejected(chances))


def test_holm_of_known_cases():
    assert rejected([]) == [] and rejected([0.05]) == [0]
    assert rejected([0.01, 0.04, 0.03, 0.005]) == [3, 0]
    with pytest.raises(TypeError):
        rejected([None, 0.1])
