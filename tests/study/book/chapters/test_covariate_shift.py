"""What the chapter on batch norm computes, against loops over rows by hand and known numbers."""

from statistics import fmean

import numpy as np
import pandas as pd
import pytest
from published_results import published_result

from steadydescent.study.book.chapters.covariate_shift import (
    arms,
    examples,
    internal,
    shifts,
    stability,
)
from steadydescent.study.judging.evidence import Evidence

TASK, FASHION = arms.TASK, "fashion-mnist-mlp"


@pytest.fixture(scope="module")
def results() -> dict:
    return {task: published_result("covariate_shift", task) for task in (TASK, FASHION)}


@pytest.fixture(scope="module")
def evidence(results) -> Evidence:
    return results[TASK].evidence


@pytest.fixture(scope="module")
def losses(results) -> pd.DataFrame:
    return shifts.table_of_losses(results)


def report_runs(evidence: Evidence, arm: str, lr: float) -> list[str]:
    runs = evidence.runs(arms.CONDITION, arm)
    return [run.run for run in runs.itertuples() if run.test and run.lr == lr]


def test_only_badly_scaled_inputs_are_other_inputs(evidence):
    assert set(evidence.arms) - set(arms.same_inputs(evidence)) == {"badly scaled inputs"}


# ---- examples ------------------------------------------------------------------------------------


def test_division_by_the_variance_leaves_an_input_of_sigma_ten_with_a_tenth():
    table = examples.table_of_scales().set_index("inputs")
    sigma = table.loc["raw"].to_numpy(float)
    assert sigma == pytest.approx(np.array([10.0, 100.0]) * (2 / 3) ** 0.5)
    assert table.loc["printed, X/σ²"].to_numpy(float) == pytest.approx(1 / sigma)
    assert table.loc["right, X/σ"].to_numpy(float) == pytest.approx(1)


def test_re_estimated_statistics_undo_a_move_that_frozen_ones_pass_on():
    table = examples.table_of_outputs().set_index("outputs of")
    train, frozen, anew = table.to_numpy()
    assert anew == pytest.approx(train, abs=1e-5)
    assert frozen - train == pytest.approx(3, abs=1e-4)


def test_each_kind_of_shift_moves_what_defines_it():
    table = examples.table_of_moves().set_index("shift, severity 3")
    assert list(table.index) == ["covariate: shear", "prior", "concept"]
    assert table.loc["covariate: shear", "p(x)"] == "moves"
    assert table.loc["prior", "p(y)"] == "moves" and table.loc["prior", "p(y|x)"] == "stays"
    assert list(table.loc["concept", ["p(x)", "p(y|x)"]]) == ["stays", "moves"]


# ---- stability -----------------------------------------------------------------------------------


def test_highest_working_rate_lies_within_ten_points_of_the_arms_own_best():
    rows = {"task": "t", "arm": list("aaabb"), "lr": [1.0, 2.0, 4.0, 1.0, 2.0]}
    table = pd.DataFrame(rows | {"score": [70.0, 80.0, 69.9, 50.0, 40.0]})
    assert stability.highest_working(table).to_dict() == {("t", "a"): 2.0, ("t", "b"): 2.0}


# ---- inside the network --------------------------------------------------------------------------


def test_nearest_rate_is_near_in_logarithms_and_one_that_reports_ran(evidence):
    runs = evidence.runs(arms.CONDITION, arms.NORMED)
    ran = sorted(runs[runs.test].lr.unique())
    geometric = (ran[0] * ran[1]) ** 0.5
    assert internal.nearest_rate(evidence, arms.NORMED, 0.999 * geometric) == ran[0]
    assert internal.nearest_rate(evidence, arms.NORMED, 1.001 * geometric) == ran[1]


def test_measures_are_means_over_report_seeds_with_their_standard_error(evidence):
    table = internal.table_of_measures(evidence)
    assert set(table.measure) == set(internal.LABELS)
    row = table[(table.arm == arms.NORMED) & (table.measure == "input-shift")].iloc[2]
    runs = report_runs(evidence, arms.NORMED, row.rate)
    seen = [
        it.value
        for it in evidence.result.measures.itertuples()
        if it.run in runs and (it.measure, it.step) == ("input-shift", row.step)
    ]
    assert row["mean"] == pytest.approx(fmean(seen))
    assert row["sem"] == pytest.approx(np.std(seen, ddof=1) / len(seen) ** 0.5)


def test_later_means_leave_the_first_look_out():
    rows = {"measure": "m", "arm": "a", "step": [1, 10, 20], "mean": [100.0, 2.0, 4.0]}
    assert internal.later_means(pd.DataFrame(rows)).loc["m", "a"] == 3.0


def test_speeds_are_means_over_runs_at_the_rate_best_for_speed(evidence, results):
    row = internal.table_of_speeds({TASK: results[TASK]}).set_index("arm").loc[arms.MILD]
    lr = evidence.candidates(arms.CONDITION, arms.MILD, "steps to target").chosen.lr
    runs, shift, updates = report_runs(evidence, arms.MILD, lr), {}, {}
    looks = [it for it in evidence.result.measures.itertuples() if it.run in runs]
    first = min(it.step for it in looks if it.measure == "input-shift")
    for it in looks:
        if it.measure == "input-shift" and it.step > first:
            shift.setdefault(it.run, []).append(it.value)
        if it.measure == "steps to target":
            updates[it.run] = it.value
    assert row.rate == lr and row["shift low"] < row["shift"] < row["shift high"]
    assert row["shift"] == pytest.approx(fmean(fmean(each) for each in shift.values()))
    assert row["updates"] == pytest.approx(fmean(updates.values()))


# ---- shifts of the data --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shift", "inputs", "statistics"),
    [
        ("shear", "all", shifts.FROZEN),
        ("prior", "all", shifts.REESTIMATED),
        ("scale", 10, shifts.REESTIMATED),
    ],
)
def test_accuracy_lost_is_a_mean_of_differences_run_by_run(
    evidence, losses, shift, inputs, statistics
):
    mine = losses[(losses.task == TASK) & (losses.arm == arms.NORMED) & (losses.severity == 3)]
    mine = mine[(mine["shift"] == shift) & (mine.inputs == inputs)]
    (row,) = mine[mine.statistics == statistics].itertuples()
    lr = evidence.candidates(arms.CONDITION, arms.NORMED).chosen.lr
    runs, before, after = report_runs(evidence, arms.NORMED, lr), {}, {}
    for it in shifts.accuracies(evidence).itertuples():
        what = (it.shift, it.severity, it.statistics, it.inputs or "all")
        if it.run in runs and not it.shift:
            before[it.run] = it.accuracy
        if it.run in runs and what == (shift, 3, statistics, inputs):
            after[it.run] = it.accuracy
    lost = [100 * (before[run] - after[run]) for run in runs]
    assert len(lost) == 24 and row.drop == pytest.approx(fmean(lost))
    assert row.low < row.drop < row.high


def test_every_test_set_is_one_of_the_tables_rows(evidence):
    table = shifts.accuracies(evidence)
    keys = ["run", "shift", "severity", "statistics", "inputs"]
    assert not table.duplicated(keys).any()
    finals = evidence.result.finals
    assert len(table) == (~finals.split.isin(["validation", "train"])).sum()
    assert set(table.statistics) == {shifts.FROZEN, shifts.REESTIMATED}
    assert set(table.severity) == {0, 1, 3, 5} and set(table.inputs) == {0, 10, 100}


def test_severities_are_drawn_where_there_is_more_than_one(losses):
    table = shifts.at_severities(losses)
    assert set(table.task) == {TASK} and set(table.inputs) == {shifts.ALL}
    assert set(table["shift"]) == {"scale", "shear", "prior", "concept"}
    assert table.severity.min() == 1
    assert set(shifts.at_severity(losses).severity) == {3}


def test_after_a_shift_stands_what_was_there_less_what_was_lost(results, losses):
    table = shifts.table_after_shift(results, losses).set_index(["task", "arm"])
    lost = shifts.at_severity(losses).set_index(["task", "arm", "statistics", "shift"])["drop"]
    for line in shifts.LINES:
        name = line.arm + (", re-estimated" if line.statistics == shifts.REESTIMATED else "")
        row = table.loc[(TASK, name)]
        assert row["no shift"] - row["prior"] == pytest.approx(lost[TASK, *line, "prior"])
    assert shifts.table_after_shift(results, losses.iloc[:0]).empty


def test_few_inputs_stand_beside_all_of_them_and_beside_training(losses):
    table = shifts.table_of_few_inputs(losses).set_index(["shift", "severity"])
    mine = losses[(losses.arm == arms.NORMED) & (losses.task == TASK) & (losses.severity == 3)]
    drop = mine.set_index(["shift", "statistics", "inputs"])["drop"]
    row = table.loc[("shear", 3)]
    assert row["training"] == drop["shear", shifts.FROZEN, shifts.ALL]
    assert row["10 inputs"] == drop["shear", shifts.REESTIMATED, 10]
    assert row["all inputs"] == drop["shear", shifts.REESTIMATED, shifts.ALL]
    assert shifts.few_inputs_in_words(losses[losses.inputs == shifts.ALL]) is None
    assert "statistics of ten inputs cost" in shifts.few_inputs_in_words(losses).text
