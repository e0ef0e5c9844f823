"""Best of k candidates, what range tests suggest, and what no regret can be meant by."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from sweeps import RATES, certain, noisy, parabola

from rate_searches import rng
from steadydescent.study.judging.regret import (
    Sweep,
    best_of_k,
    range_test_estimates,
    range_test_regret,
    search_gain,
    searched,
)
from steadydescent.study.judging.statistics import paired

# ---- best of k -----------------------------------------------------------------------------------


@pytest.mark.parametrize("single", [False, True])
def test_best_of_k_is_the_mean_over_every_subset(single):
    tuning, report = rng(12).normal(size=(3, 7)), rng(13).normal(50, 10, size=(5, 7))
    table = best_of_k(tuning, report, range(1, 8), single).set_index("k")
    for k in range(1, 8):
        choosers = tuning if single else [tuning.mean(axis=0)]
        values = [
            report[:, max(s, key=lambda c: row[c])].mean()
            for row in choosers
            for s in combinations(range(7), k)
        ]
        assert table.loc[k].tolist() == pytest.approx([np.mean(values), np.std(values)])


def test_best_of_all_is_the_choice_itself_and_best_of_one_the_mean():
    tuning, report = rng(14).normal(size=(5, 9)), rng(15).normal(size=(11, 9))
    table = best_of_k(tuning, report, [1, 9]).set_index("k")
    assert table.score[1] == pytest.approx(report.mean())
    assert table.loc[9].tolist() == pytest.approx(
        [report[:, tuning.mean(axis=0).argmax()].mean(), 0]
    )
    assert best_of_k([[1, 1, 0]], [[4, 8, 9]], [3]).score.tolist() == [
        4
    ]  # a tie goes to the earlier


def test_best_of_more_is_never_worse_where_tuning_tells_the_truth():
    truth = rng(16).normal(size=(1, 9))
    assert (np.diff(best_of_k(truth, truth, range(1, 10)).score) > 0).all()


# ---- range test ----------------------------------------------------------------------------------


def suggested(rates, rule="middle", length=100):
    return pd.DataFrame({"seed": range(len(rates)), "rule": rule, "length": length, "rate": rates})


def test_range_test_regret_is_interpolated_and_marks_what_lies_outside():
    sweep = certain([0.01, 0.1, 1], [80, 90, 60])
    table = range_test_regret(sweep, suggested([0.1, 10**-0.5, 0.01, 1e-4, 7.0]))
    assert table.regret.tolist() == pytest.approx([0, 15, 10, 10, 30])
    assert table.outside.tolist() == [False, False, False, True, True]
    assert table.columns.tolist() == ["seed", "rule", "length", "rate", "regret", "outside"]


def test_range_test_interval_is_students_where_the_choice_is_beyond_doubt():
    """Suggestions that vary on a certain sweep; then noisy report seeds, each with its suggestion:
    the pairing counts.
    """
    truth = np.tile(parabola(RATES), (29, 1))
    rows = suggested(10 ** rng(17).uniform(-4, -1, size=29))
    found = range_test_estimates(Sweep(RATES, truth, truth), rows, 0.95)["middle", 100]
    lost = Sweep(RATES, truth, truth).interpolated_regret(rows.rate.to_numpy())
    assert found[:3] == pytest.approx(paired(lost, 0.95)[:3]) and found.n == 29

    sweep = Sweep(RATES, truth, parabola(RATES) + rng(18).normal(size=(29, 31)))
    found = range_test_estimates(sweep, suggested(np.full(29, RATES[20])), 0.95)["middle", 100]
    expected = paired(sweep.report[:, 15] - sweep.report[:, 20], 0.95)
    assert found[:3] == pytest.approx(expected[:3])

    found = range_test_estimates(sweep, rows, 0.95)["middle", 100]
    each = sweep.interpolated_regret(rows.rate.to_numpy())
    shares = np.eye(31)[15] - sweep.interpolated_shares(rows.rate.to_numpy())
    expected = paired(sweep.report @ shares + each - each.mean(), 0.95)
    assert found[:3] == pytest.approx(expected[:3])


def test_seeds_without_a_suggestion_count_as_the_others_do_on_average():
    truth = np.tile(parabola(RATES), (10, 1))
    rows = suggested(10 ** rng(17).uniform(-4, -1, size=10)).iloc[[0, 3, 4, 5, 7]]
    sweep = Sweep(RATES, truth, truth)
    found = range_test_estimates(sweep, rows, 0.95)["middle", 100]
    lost = sweep.interpolated_regret(rows.rate.to_numpy())
    spread = lost.std() / math.sqrt(5 - 5 / 10)
    assert found.value == pytest.approx(lost.mean()) and found.n == 10
    assert found.sd / math.sqrt(10) == pytest.approx(spread, rel=1e-6)


def test_range_test_estimates_tell_a_good_rule_from_a_bad_one_at_every_length():
    good, bad = 10 ** rng(19).normal(-2.5, 0.1, 11), 10 ** rng(20).normal(-0.8, 0.1, 11)
    rows = pd.concat(
        [suggested(r, rule, t) for rule, r in (("good", good), ("bad", bad)) for t in (50, 200)]
    )
    found = range_test_estimates(noisy(21, parabola(RATES)), rows, 0.95)
    assert list(found) == [("bad", 50), ("bad", 200), ("good", 50), ("good", 200)]
    for length in (50, 200):
        assert found["good", length].low < 0.3 < found["bad", length].low
        assert found["bad", length].low < 4 * 1.7**2 < found["bad", length].high


# ---- refusals ------------------------------------------------------------------------------------

GOOD = certain([0.1, 1], [1, 2])
LONE = Sweep([0.1, 1], [[1, 2]], [[1, 2], [1, 2]])


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (
            lambda: Sweep([0.1], [[1]], [[1]]),
            r"rates must be at least 2, positive, finite and rising, got \[0.1\]",
        ),
        (lambda: Sweep([1, 0.1], [[1, 2]], [[1, 2]]), "rising"),
        (lambda: Sweep([0, 0.1], [[1, 2]], [[1, 2]]), "positive"),
        (lambda: Sweep([0.1, math.nan], [[1, 2]], [[1, 2]]), "finite"),
        (
            lambda: Sweep([0.1, 1], [[1, 2, 3]], [[1, 2]]),
            r"tuning must be a table \[seeds, 2\], got shape \(1, 3\)",
        ),
        (
            lambda: Sweep([0.1, 1], [[1, 2]], [1, 2]),
            r"report must be a table \[seeds, 2\], got shape \(2,\)",
        ),
        (lambda: Sweep([0.1, 1], [[1, 2]], np.empty((0, 2))), r"got shape \(0, 2\)"),
        (
            lambda: Sweep([0.1, 1], [[1, math.nan]], [[1, 2]]),
            "tuning must be finite, got nan; a diverged run",
        ),
        (
            lambda: searched(GOOD, "grid", 1, 1, rng()),
            "method must be one of .*'coarse-to-fine'.*, got 'grid'",
        ),
        (
            lambda: searched(GOOD, "uniform", 0, 1, rng()),
            "trials must be a whole number of at least 1, got 0",
        ),
        (
            lambda: searched(GOOD, "uniform", 1, 0, rng()),
            "draws must be a whole number of at least 1, got 0",
        ),
        (
            lambda: searched(GOOD, "uniform", 1, 1, np.random),
            "generator must be a numpy.random.Generator",
        ),
        (lambda: searched(GOOD, "uniform", 1, 1, rng(), (0.0, 1)), "low must be positive"),
        (lambda: searched(GOOD, "uniform", 1, 1, rng(), (0.5, 0.5)), "high must be above low"),
        (
            lambda: searched(GOOD, "uniform", 1, 1, rng(), (0.1, 2)),
            r"within the sweep's rates \(0.1, 1.0\), got",
        ),
        (
            lambda: search_gain(LONE, "uniform", "uniform", 1, 0.9),
            "at least 2 tuning and 2 report seeds, got 1",
        ),
        (
            lambda: search_gain(GOOD, "uniform", "uniform", 1, 1.0),
            r"level must be in \(0, 1\), got 1.0",
        ),
        (
            lambda: Sweep([0.1, 1], [[1, 2]], [[1, 2]], seeds=(3, 4)),
            "seeds must be 1, one a row of report, got 2",
        ),
        (
            lambda: range_test_estimates(GOOD, suggested([0.1, 0.2, 0.3, 0.4]), 0.9),
            r"of the report seeds \(0, 1, 2\), got \[0, 1, 2, 3\]",
        ),
        (
            lambda: best_of_k([[1, 2]], [[1, 2]], [3]),
            "k must be at most the number of candidates, 2, got 3",
        ),
        (
            lambda: best_of_k([[1, 2]], [[1, 2]], [0]),
            "k must be a whole number of at least 1, got 0",
        ),
        (
            lambda: best_of_k([[1, 2]], [[1, 2, 3]], [1]),
            r"report must be a table \[seeds, 2\], got shape \(1, 3\)",
        ),
        (
            lambda: range_test_regret(GOOD, pd.DataFrame({"seed": [0], "rate": [1.0]})),
            r"named \['rule', 'length'\]",
        ),
        (lambda: range_test_regret(GOOD, suggested([])), "at least one row"),
        (
            lambda: range_test_regret(GOOD, pd.concat([suggested([0.1])] * 2)),
            "one rate for each seed, rule and length",
        ),
        (
            lambda: range_test_regret(GOOD, suggested([0.1, math.nan])),
            "got nan .seed 1, rule 'middle', length 100.; c",
        ),
        (
            lambda: range_test_regret(GOOD, suggested([0.0])),
            "rate must be positive and finite, got 0.0",
        ),
        (
            lambda: range_test_estimates(GOOD, suggested([0.1]), 0.9),
            "at least 2 seeds, got 1 of rule 'middle'",
        ),
        (
            lambda: range_test_estimates(LONE, suggested([0.1, 0.2]), 0.9),
            "at least 2 tuning and 2 report seeds",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
