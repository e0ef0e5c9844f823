"""What is counted of intervals whose words are known in advance, and of whole books of them."""

import numpy as np
import pytest

from steadydescent.study.judging.simulated_worlds.books import simulated_books
from steadydescent.study.judging.simulated_worlds.tally import (
    JUDGED_WORDS,
    LEVELS,
    Intervals,
    at_levels,
    false_word,
    rows_of,
)
from steadydescent.study.judging.statistics import Estimate, student

CASE = {"kind": "made up", "tuning": 3, "report": 8}


def intervals(values, half, truth=0.0, **more):
    ends = np.stack([values, values - half, values + half], axis=1)
    return Intervals(CASE, dict.fromkeys(LEVELS, ends), truth, 1.0, **more)


def test_counts_of_two_intervals_known_in_advance():
    """One of ± 0.2 around 0.1, one around 3, of a truth of 0.1; the margin is 1."""
    made = intervals(np.array([0.1, 3.0]), 0.2, truth=0.1, effects=(0.0, 0.5, -3.0))
    none, half, turned = rows_of(made)[:3]
    assert none["coverage"] == 0.5 and none["bias"] == pytest.approx(1.45)
    assert (none["too small to matter"], none["supported"], none["for"]) == (0.5, 0.5, 0.5)
    assert (half["too small to matter"], half["supported"], half["for"]) == (0.5, 0.5, 1.0)
    assert (turned["refuted"], turned["too small to matter"], turned["against"]) == (0.5, 0.5, 0.5)
    assert all(sum(row[word] for word in JUDGED_WORDS) == 1 for row in rows_of(made))


def test_levels_are_those_of_secondary_and_primary_rows():
    ends = at_levels([Estimate(1.0, 0.0, 2.0, 2.0, 16)] * 2)
    assert list(ends) == [0.95, 0.99975]
    for level, made in ends.items():
        assert made[0] == pytest.approx(1 + 0.5 * student(level, 15) * np.array([0, -1, 1]))


@pytest.mark.parametrize(
    ("rule", "effect", "wrong"),
    [
        (
            "superiority",
            0.0,
            {"supported", "supported, size open", "refuted", "refuted, size open"},
        ),
        ("superiority", 0.5, {"supported", "refuted", "refuted, size open"}),
        ("superiority", 2.0, {"too small to matter", "refuted", "refuted, size open"}),
        ("equivalence", 0.5, {"refuted"}),
        ("equivalence", -2.0, {"supported"}),
        ("difference", 2.0, {"refuted"}),
        ("at least", -0.5, {"refuted"}),
        ("at least", -2.0, {"supported"}),
    ],
)
def test_false_words_are_those_that_the_truth_contradicts(rule, effect, wrong):
    assert {word for word in JUDGED_WORDS if false_word(word, effect, rule)} == wrong


def test_a_book_of_sure_rows_has_no_false_word_and_one_of_wrong_rows_only_such():
    rng = np.random.default_rng(0)
    sure = intervals(0.01 * rng.normal(size=50), 0.1)
    wrong = intervals(3 + 0.01 * rng.normal(size=50), 0.1)
    for cell, false in ((sure, 0.0), (wrong, 1.0)):
        for row in simulated_books([cell], 20, used=5):
            if row["book"] == "nulls":
                assert (row["false_word"], row["false_direction"]) == (false, false)
                assert row["decided"] == row["decided_by_holm"] == 5


def test_one_false_row_in_a_hundred_makes_a_book_of_ten_false_as_often_as_it_should():
    values = np.zeros(1_000)
    values[:10] = 3.0
    rows = simulated_books([intervals(values, 0.1)], 4_000, used=10)
    (found,) = (r for r in rows if (r["book"], r["seeds"]) == ("nulls", "all"))
    assert found["false_word"] == pytest.approx(1 - 0.99**10, abs=0.02)
