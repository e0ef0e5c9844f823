"""Holm's procedure, and how many rows it would decide beyond fixed places."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from steadydescent.study.judging.holm import (
    decided_by_holm,
    decided_in_place,
    holm,
    p_of_deciding,
)
from steadydescent.study.judging.statistics import student
from steadydescent.study.judging.verdicts import of_interval

RULES = ("superiority", "equivalence", "difference", "at least")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_is_bonferroni_again_and_again_on_those_that_are_left(p):
    left, rejected = dict(enumerate(p)), set()
    while left:
        first = min(left, key=left.__getitem__)
        if left[first] > 0.05 / len(left):
            break
        rejected.add(first)
        del left[first]
    assert set(np.flatnonzero(holm(p))) == rejected


def test_holm_works_along_the_last_axis():
    table = np.array([[0.04, 0.001, 0.03], [0.01, 0.02, 0.03]])
    assert holm(table).tolist() == [holm(row).tolist() for row in table]


@pytest.mark.parametrize("rule", RULES)
@given(st.floats(-3, 3), st.floats(0.1, 1))
def test_p_is_the_level_at_which_the_word_is_no_longer_open(rule, value, error):
    p = float(p_of_deciding(np.array([value]), np.array([error]), 1.0, rule, 9)[0])
    for level, decided in ((1 - 1.001 * p, True), (1 - 0.999 * p, False)):
        if 0 < level < 1 and p > 1e-9:
            half = student(level, 9) * error
            assert (of_interval(value - half, value + half, 1.0, rule) != "open") == decided


def row(value, half, **more):
    made = {"primary": True, "level": 0.9995, "ci_low": value - half, "ci_high": value + half}
    made |= {"margin": 1.0, "rule": "superiority", "null": 0.0, "n_seeds": 10, "verdict": "open"}
    return made | more


def test_rows_are_decided_by_the_p_of_their_intervals():
    """Three of p = 0.0004, 0.02 and 0.04: alone 0.05/3 suffices for one, then 0.05/2 and 0.05."""
    error = 1.0
    half = student(0.9995, 9) * error
    values = [float(stats.t.isf(p / 2, 9)) for p in (0.0004, 0.02, 0.04)]
    rows = [row(value, half) for value in values]
    rows[0]["verdict"] = "supported, size open"
    others = [row(9, half, primary=False), row(9, half, level=None)]
    assert (decided_in_place(rows + others), decided_by_holm(rows + others)) == (1, 3)
    as_factors = {"ci_low": math.exp(values[1] - half), "ci_high": math.exp(values[1] + half)}
    rows[1] |= as_factors | {"null": 1.0, "margin": math.e}
    assert decided_by_holm(rows) == 3 and decided_by_holm([]) == 0
