"""What the chapter on weight averaging says, against closed forms and loops by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from steadydescent.study.book.chapters.results import main_task, networks
from steadydescent.study.book.chapters.weight_averaging import arms, quadratic, readouts


def test_the_slides_example_is_what_arithmetic_gives():
    first, second = 0.02 * 40, 0.98 * 0.02 * 40 + 0.02 * 49
    assert readouts.example().text == (
        "The slides' example: 40 and 49 degrees with β = 0.98 give "
        f"V₁ = {first:.1f} and V₂ = {second:.3f}; debiased 40 and {second / (1 - 0.98**2):.3f}. "
        "The window 1/(1 − β) is 50 values; in lag and noise the average is like the plain mean "
        "of (1 + β)/(1 − β) = 99."
    )


def test_shares_of_every_readout_sum_to_one():
    sums = readouts.table_of_shares().groupby("readout").share.sum()
    np.testing.assert_allclose(sums, 1)
    assert set(sums.index) == set(readouts.READOUTS)


def test_shares_are_those_of_an_average_by_hand():
    steps, beta = 200, 1 - 1 / (0.1 * 200)
    table = readouts.table_of_shares(["ema-10", "tail-25"], steps).set_index("readout").share
    by_hand = (1 - beta) * beta ** np.arange(steps)[::-1] / (1 - beta**steps)
    np.testing.assert_allclose(table["ema-10"], by_hand, rtol=1e-9)
    np.testing.assert_allclose(table["tail-25"], [0.0] * 150 + [1 / 50] * 50)


def test_half_of_a_flat_tail_lies_in_its_later_half():
    assert readouts.half_of(readouts.table_of_shares(), "tail-25") == 25


def test_a_single_step_has_no_shares():
    with pytest.raises(ValueError, match="'last' keeps one step alone"):
        readouts.table_of_shares(["last"])


# ---- arms ----------------------------------------------------------------------------------------

TASKS = {"constant": "mnist1d-mlp", "constant, batch norm": 'mnist1d-mlp(norm="batch")'}
IN_BOTH = ["last", *arms.TREATMENTS]


def result(measure: str = "accuracy") -> SimpleNamespace:
    settings = lambda condition, arm: SimpleNamespace(task=TASKS[condition], schedule="constant")
    arms_in = lambda condition: IN_BOTH if "norm" in TASKS[condition] else ["last", "ema"]
    own = SimpleNamespace(
        conditions=tuple(TASKS), settings=settings, arms_in=arms_in, main_measure=measure
    )
    return SimpleNamespace(evidence=own, id="toy@1")


RESULTS = {"mnist1d-mlp": result(), "noisy-quadratic": result("height")}


def numbers(condition: str, arm: str) -> dict[str, dict]:
    key = f"weight_averaging/mnist1d-mlp/{condition}/{arm}"
    values = {what: {"value": 1.0} for what in arms.COLUMNS.values()}
    values |= {"rate": {"value": "0.1"}, "readout": {"value": "ema-10/copied"}}
    values |= {"gap": {"value": len(arm), "low": 0.0, "high": 9.0}}
    return {f"{key}/{what}": number for what, number in values.items()}


NUMBERS = {
    key: number
    for condition in TASKS
    for arm in IN_BOTH
    for key, number in numbers(condition, arm).items()
}


def test_networks_are_the_tasks_with_an_accuracy_and_the_usual_one_is_shown_first():
    assert list(networks(RESULTS)) == ["mnist1d-mlp"]
    assert main_task({"other": result()} | RESULTS) == "mnist1d-mlp"
    assert main_task({"other": result()}) == "other"
    assert main_task({"noisy-quadratic": result("height")}) == main_task({}) == ""


def test_conditions_that_change_the_norm_are_told_by_their_task():
    assert arms.usual_norm(result().evidence) == ["constant"]


def test_arms_have_a_row_where_they_were_run():
    table = arms.table_of_arms(RESULTS, NUMBERS)
    assert list(zip(table.condition, table.arm, strict=True)) == [
        (condition, arm) for condition in TASKS for arm in ("last", "ema")
    ]


def test_statistics_are_compared_where_all_treatments_were_run():
    apart = {"value": -0.5, "low": -0.75, "high": 0.25}
    key = "weight_averaging/mnist1d-mlp/constant, batch norm/copied statistics-ema/tuned"
    table = arms.table_of_statistics(RESULTS, NUMBERS | {key: apart})
    assert list(table.statistics) == list(arms.TREATMENTS.values())
    assert set(table.task) == {"mnist1d-mlp"} and set(table.window) == {"ema-10"}
    assert list(table["minus averaged, pp"]) == ["", "-0.50 (-0.75 to +0.25)", ""]


def test_gaps_are_those_of_both_schedules(monkeypatch):
    monkeypatch.setattr(arms, "SCHEDULES", ("constant",))
    monkeypatch.setattr(arms, "ARMS", ("last", "ema"))
    table = arms.table_of_gaps(RESULTS, NUMBERS)
    assert list(table.arm) == ["last", "ema"] and list(table.gap) == [4, 3]


def test_heights_have_three_standard_errors_on_either_side(monkeypatch):
    heights = [1.0, 2.0, 3.0, 6.0]
    columns = pd.MultiIndex.from_product([[0.1], ["last", "tail-25", "ema-10"]], names=["lr", "r"])
    table = pd.DataFrame(dict.fromkeys(columns, heights))
    table.columns = columns
    own = SimpleNamespace(conditions=("linear",), report=lambda *_: table)
    monkeypatch.setattr(quadratic, "expected_curve", lambda *_: np.array([9.0, 2.5]))
    made = quadratic.table_of_heights(own)
    half = 3 * np.std(heights, ddof=1) / 2
    assert list(made.readout) == ["last", "tail-25", "ema-10"] and set(made["closed form"]) == {2.5}
    np.testing.assert_allclose(made[["low", "measured", "high"]].iloc[0], [3 - half, 3, 3 + half])


def test_heads_are_the_rows_of_that_claim_with_what_tuning_chose():
    row = {"id": "ema-or-checkpoints", "task": "t", "condition": "linear, head to head"}
    row |= {"verdict": "supported", "estimate": 0.25, "ci_low": -0.1, "ci_high": 0.6, "margin": 1}
    row |= {"null": 0.0, "unit": "pp", "rates": {"ema": 0.1, "against checkpoints": 0.2}}
    row |= {"readouts": {"ema": "ema-10", "against checkpoints": "checkpoints-4"}}
    (told,) = arms.table_of_heads([row, row | {"id": "other"}]).to_dict("records")
    assert told["schedule"] == "linear" and told["verdict"] == "supported"
    assert told["ema"] == "ema-10 at 0.1" and told["checkpoints"] == "checkpoints-4 at 0.2"


def test_choices_are_shown_where_no_candidate_has_most_redraws():
    spread = [{"lr": 0.1, "readout": "ema-2", "share": 0.4}]
    spread.append({"lr": 0.2, "readout": "ema-10", "share": 0.35})
    sure = [{"lr": 0.1, "readout": "last", "share": 0.9}]
    row = {"title": "T", "task": "t", "condition": "c", "choices": {"ema": spread, "last": sure}}
    (told,) = arms.table_of_choices([row]).to_dict("records")
    assert told["arm"] == "ema"
    assert list(told.values())[-1] == "40 % 0.1 with ema-2, 35 % 0.2 with ema-10"
