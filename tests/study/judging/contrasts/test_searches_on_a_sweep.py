"""Searches and range tests judged on a dense sweep: what they lose of a peak that was planted."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from fabricated import evidence_of, result, tables
from judged import arms_plan, contrast_of, estimated, peak
from steadydescent.study.judging.contrasts.range_test import suggestions
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.regret import dense_sweep, search_gain

RATES = {100: 0.05, 400: 0.1}
"""Updates of a ramp → the rate in the middle of its descent."""


@pytest.fixture(scope="module")
def swept() -> Evidence:
    """A whole grid with a little noise, reported everywhere, with range tests of two lengths."""
    plan = arms_plan({"last": {}}, report="everything")
    rng = np.random.default_rng(3)

    def noisy(run, readout, split):
        return peak(run, readout, split) + 0.002 * rng.normal()

    made = result(plan, noisy, half=2)
    ramps = [run for length in plan.size.ramps for run in plan.range_tests(length)]
    extra = tables(ramps)
    rows = [(run.key, "middle", RATES[run.steps]) for run in ramps]
    rows += [(run.key, "steepest", 0.4) for run in ramps]
    served = pd.DataFrame({"run": extra.runs.run, "condition": "constant", "arm": "last"})
    parts = made._replace(
        runs=pd.concat([made.runs, extra.runs]),
        roster=pd.concat([made.roster, served.assign(purpose="range test")]),
        finals=pd.concat([made.finals, extra.finals]),
        suggestions=pd.DataFrame(rows, columns=["run", "rule", "rate"]),
    )
    return evidence_of(parts, plan)


def test_dense_sweep_holds_every_rate_in_percent_and_no_range_test(swept):
    sweep = dense_sweep(swept, "constant", "last")
    assert sweep.rates.tolist() == [0.025, 0.05, 0.1, 0.2, 0.4]
    assert sweep.tuning.shape == (3, 5) and sweep.report.shape == (5, 5)
    expected = 70 - 2 * np.abs(np.log2(sweep.rates / 0.1))
    assert sweep.report.mean(axis=0) == pytest.approx(expected + 0.2, abs=0.4)
    # seeds 10 000 … are 4, 5, 6 modulo 7
    assert sweep.tuning.mean(axis=0) == pytest.approx(expected + 0.5, abs=0.4)


def test_search_regret_is_the_difference_of_two_searches_on_the_sweep(swept):
    made = estimated("search regret", swept, method="log-uniform", than="uniform", trials=3)
    sweep = dense_sweep(swept, "constant", "last")
    assert made == search_gain(sweep, "log-uniform", "uniform", 3, 0.95)
    turned = estimated("search regret", swept, method="uniform", than="log-uniform", trials=3)
    assert turned.value == pytest.approx(-made.value)


def test_suggestions_say_seed_rule_length_and_rate(swept):
    table = suggestions(swept)
    assert len(table) == 2 * 2 * 5 and set(table.rule) == {"middle", "steepest"}
    middle = table[table.rule == "middle"].groupby("length").rate.unique()
    assert middle.map(list).to_dict() == {length: [rate] for length, rate in RATES.items()}


@pytest.mark.parametrize(
    ("updates", "suggestion", "lost"),
    [(100, "middle", 2), (400, "middle", 0), (400, "steepest", 4)],
)
def test_range_test_loses_what_the_suggested_rate_scores_below_the_best(
    swept, updates, suggestion, lost
):
    """Two points a grid step; above −margin is a good rate, so the loss comes with a minus."""
    made = estimated("range test", swept, updates=updates, suggestion=suggestion)
    assert made.value == pytest.approx(-lost, abs=0.5) and made.low <= made.value <= made.high
    sweep = dense_sweep(swept, "constant", "last")
    rate = {"steepest": 0.4, "middle": RATES[updates]}[suggestion]
    at = sweep.means[list(sweep.rates).index(rate)]
    assert made.value == pytest.approx(at - sweep.oracle)


def test_range_test_of_a_length_that_was_not_run_is_not_answered(swept):
    for updates, answered in ((100, True), (1600, False)):
        contrast = contrast_of("range test", updates=updates, suggestion="middle")
        assert contrast.answerable(swept, "constant") == answered


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        ("search regret", {"method": "grid"}, "a method of search.*'uniform'.*got 'grid'"),
        ("search regret", {"than": "log-unifrom"}, "did you mean 'log-uniform'"),
        ("search regret", {"trials": 0}, "trials.*greater than or equal to 1"),
        ("range test", {"suggestion": "highest"}, "suggestion must be one of .*'highest'"),
        ("range test", {"updates": 1.5}, "updates.*valid integer"),
    ],
)
def test_option_that_cannot_be_used_is_refused_with_what_is_allowed(kind, change, sentence):
    options = {
        "search regret": {"method": "log-uniform", "than": "uniform", "trials": 3},
        "range test": {"suggestion": "middle", "updates": 100},
    }[kind]
    with pytest.raises(ValidationError, match=f"(?s){sentence}"):
        contrast_of(kind, **(options | change))
