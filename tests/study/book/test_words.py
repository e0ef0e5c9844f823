"""Numbers and verdicts read the same wherever they stand: page, terminal, README."""

from __future__ import annotations

import pytest

from steadydescent.study.book.words import (
    DASH,
    MINUS,
    NO_BREAK,
    counted,
    estimate_and_interval,
    for_terminal,
    four_digits,
    interval_text,
    intervals_of,
    margin_text,
    most_first,
    notes,
    number,
    short,
    thousands,
)

DIFFERENCE = {"estimate": 0.123456, "ci_low": -1.2, "ci_high": 2.0, "null": 0.0, "unit": "pp"}
RATIO = {"estimate": 1.25, "ci_low": 0.98, "ci_high": 1.6, "null": 1.0, "unit": "×"}
EXACT = {"ci_low": None, "ci_high": None}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (DIFFERENCE, f"+0.12{NO_BREAK}pp ({MINUS}1.20 to +2.00)"),
        (DIFFERENCE | {"margin": 0.01}, f"+0.123{NO_BREAK}pp ({MINUS}1.200 to +2.000)"),
        (RATIO, "1.25× (0.98 to 1.60)"),
        (RATIO | {"unit": ""}, "1.25 (0.98 to 1.60)"),
        (DIFFERENCE | EXACT | {"estimate": -2e-7}, f"{MINUS}2e-07{NO_BREAK}pp"),
        (DIFFERENCE | {"estimate": None}, DASH),
    ],
)
def test_estimates_have_a_sign_unless_they_are_ratios_and_ends_where_there_are_some(row, text):
    assert estimate_and_interval({"margin": 1.0} | row) == text


def test_an_interval_alone_has_the_digits_and_signs_that_it_has_beside_its_estimate():
    for row in (DIFFERENCE, RATIO):
        assert f"({interval_text(row | {'margin': 1.0})})" in estimate_and_interval(
            row | {"margin": 1.0}
        )


def test_a_terminal_may_break_lines_at_any_space_and_shows_nothing_where_nothing_was_made():
    row = DIFFERENCE | {"margin": 1.0}
    assert for_terminal(row) == f"+0.12 pp ({MINUS}1.20 to +2.00)"
    assert for_terminal(row | {"estimate": None}) == ""


def test_a_zero_has_no_sign():
    assert {number(value, ".2f", signed=True) for value in (0.0, -0.0, 0.001, -0.001)} == {"0.00"}
    assert number(float("-inf"), ".1f") == f"{MINUS}inf"


def test_a_format_that_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'d' does not format 0.5: .* use something like"):
        number(0.5, "d")


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"margin": 1.0, "null": 0.0, "rule": "superiority"}, "±1"),
        ({"margin": 1.15, "null": 1.0, "rule": "superiority"}, "×1.15"),
        ({"margin": 0.3, "null": 0.0, "rule": "at least"}, f"{MINUS}0.3"),
        ({"margin": None, "null": 0.0, "rule": "superiority"}, DASH),
        ({"margin": 1.0, "estimate": None, "unit": ""}, DASH),
    ],
)
def test_a_margin_says_on_which_sides_it_counts(row, text):
    assert margin_text({"estimate": 0.1, "unit": "pp"} | row) == text


def test_words_are_counted_as_they_come_or_the_most_frequent_first():
    words = ["refuted", "supported", "supported"]
    assert counted(words) == "1 refuted; 2 supported"
    assert most_first(words) == "2 supported; 1 refuted"


def test_notes_say_only_what_there_is_to_say():
    row = {"diverged": 0, "on_edge": False, "seeds_needed": None, "n_seeds": 5, "rates": {"a": 1.0}}
    assert notes(row) == []
    row |= {"diverged": 2, "on_edge": True, "seeds_needed": 1200}
    assert notes(row) == [
        "2 of 5 diverged",
        "a chosen rate is the last of its grid",
        "about 1,200 seeds would decide",
    ]
    row = {"seeds_needed": "never", "edge_share": 0.34, "censored_share": 0.2, "n_seeds": 5}
    row |= {"registered": "2026-02-02", "first_seen": "2026-02-01"}
    assert notes(row) == [
        "more seeds alone would not decide",
        "in 34 % of redraws the choice is the outermost reported",
        "20 % of runs did not arrive",
        "added or restated after results were seen",
    ]
    row |= {"edge_share": 0.1, "censored_share": 0.0, "first_seen": "2026-02-02"}
    assert notes(row | {"seeds_needed": None}) == []


def test_notes_say_why_a_row_is_open_or_was_not_run():
    why = {"reason": "the arm ran no rate near 0.14", "censored_share": None}
    assert notes(why) == ["the arm ran no rate near 0.14"]
    missed = {"reason": "30 % of the runs miss the target", "censored_share": 0.3}
    assert notes(missed) == ["30 % of the runs miss the target"]
    bound = {"reason": "", "censored_share": 0.3, "bound": "at least"}
    assert notes(bound) == ["30 % of runs did not arrive, so the ratio is a bound"]


def test_notes_say_which_intervals_are_about_one_test_set():
    said = {sampled: notes({"test_set_sampled": sampled}) for sampled in (True, False, None)}
    assert said == {True: [], False: ["on this test set"], None: []}


def test_a_difference_that_is_zero_on_every_seed_is_called_so():
    alike = {"rates": {"ema": 0.1}, "ci_low": 0.0, "ci_high": 0.0, "null": 0.0}
    (said,) = notes(alike)
    assert "the same score on every seed" in said and not notes(alike | {"ci_high": 0.1})


def test_choices_are_told_where_no_candidate_is_most_of_them():
    share = lambda lr, readout, share: {"lr": lr, "readout": readout, "share": share}
    spread = [share(0.1, "ema-10", 0.45), share(0.2, "last", 0.4)]
    row = {"choices": {"ema": spread, "last": [share(0.1, "last", 0.9)]}}
    assert notes(row) == [
        "tuning drawn anew chooses for ema: 45 % 0.1 with ema-10, 40 % 0.2 with last"
    ]


def test_choices_are_told_where_tuning_chose_another_than_most_redraws():
    row = {"choices": {"last": [{"lr": 0.1, "readout": "last", "share": 0.9}]}}
    assert notes(row | {"rates": {"last": 0.1}}) == []
    assert notes(row | {"rates": {"last": 0.2}}) == ["tuning drawn anew chooses for last: 90 % 0.1"]


def test_intervals_are_named_by_their_kind():
    rows = [{"primary": False, "level": 0.95}, {"primary": True, "level": 0.99975}] * 2
    said = "99.975 % intervals (primary) and 95 % intervals (secondary)"
    assert intervals_of(rows) == said
    assert intervals_of(rows[:1]) == "95 % intervals (secondary)"


def test_a_bound_is_said_to_be_one():
    row = {"estimate": 3.0, "ci_low": 2.0, "ci_high": 4.0, "margin": 1.25, "null": 1, "unit": "×"}
    assert estimate_and_interval(row | {"bound": "at least"}).startswith("at least 3.00×")


def test_plain_values_of_a_terminal():
    assert (short(0.123456), short("text"), short(12), thousands(21480)) == (
        "0.123",
        "text",
        "12",
        "21 480",
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5_000_000, "5,000,000"),
        (1999.0000000001, "1,999"),
        (4e-6, "4e−6"),
        (-0.94567, "−0.9457"),
        (0.0, "0"),
        (float("nan"), "NaN"),
    ],
)
def test_numbers_of_the_errata_have_four_digits(value, text):
    assert four_digits(value) == text
