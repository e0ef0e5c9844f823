"""Accuracy at one training loss, against curves that were planted."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fabricated import evidence_of, result
from judged import arms_plan, contrast_of
from steadydescent.study.judging.contrasts.equal_loss import lowest_reached
from steadydescent.study.judging.measures import table
from steadydescent.study.judging.measures.equal_loss import beside_training_loss

STEPS = (10, 20, 30, 40)
ARMS = {"last": {"readouts": ["last"]}, "ema": {"readouts": ["last", "ema-10"]}}
CONDITIONS = {name: {"schedule": name} for name in ("constant", "linear")}
LINEAR = {"arm": "last", "condition": "linear"}


def evidence(losses, accuracies):
    """Two conditions whose report runs have these curves: functions of a run."""
    plan = arms_plan({"last": {"readouts": ["last"]}}, conditions=CONDITIONS)
    how = lambda run, readout, split: 0.6 - 0.1 * abs(np.log2(run.lr / 0.1))
    made = result(plan, how)
    rows = []
    for run in made.runs[made.runs.test].itertuples():
        for name, curve in (("training-loss", losses), ("validation accuracy", accuracies)):
            for step, value in zip(STEPS, curve(run), strict=True):
                rows.append((run.run, "last", name, step, value))
    known = table([(run, readout, name, value) for run, readout, name, _, value in rows])
    steps = pd.array([step for *_, step, _ in rows], "Int64")
    return evidence_of(made._replace(measures=known.assign(step=steps)), plan)


def falling(run) -> list[float]:
    """Linear decay ends at 0.2, a constant rate at 0.5 and a little, by seed."""
    if run.schedule == "linear":
        return [1.0, 0.6, 0.4, 0.2]
    return [1.0, 0.8, 0.6, 0.5 + 0.01 * (run.seed - 1_000)]


def rising(run) -> list[float]:
    linear = run.schedule == "linear"
    return (
        [0.5, 0.56, 0.58, 0.6] if linear else [0.5, 0.52, 0.54, 0.55 + 0.001 * (run.seed - 1_000)]
    )


def test_the_level_is_the_lowest_that_both_sides_reach_and_accuracies_are_read_off_there():
    """Of five seeds at a constant rate all must arrive: 0.54, the last one's end."""
    contrast = contrast_of("equal loss", LINEAR, against="last", better=True)
    found = evidence(falling, rising)
    compared = contrast.compared(found, "constant")
    assert compared.level == pytest.approx(0.54)
    linear = 56 + 2 * (0.6 - 0.54) / 0.2
    ends = [0.5 + 0.01 * seed for seed in range(5)]
    constant = [
        100 * np.interp((0.6 - 0.54) / (0.6 - end), [0, 1], [0.54, 0.55 + 0.001 * seed])
        for seed, end in enumerate(ends)
    ]
    estimate = contrast.estimate(found, "constant", 0.95)
    expected = stats.ttest_1samp(linear - np.array(constant), 0).confidence_interval(0.95)
    assert estimate.value == pytest.approx(linear - np.mean(constant))
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected))
    worse = contrast_of("equal loss", LINEAR, against="last", better=False)
    assert worse.estimate(found, "constant", 0.95).value == pytest.approx(-estimate.value)
    said = contrast.remarks(found, "constant")
    assert contrast.answerable(found, "constant") and said.reason == ""
    assert said.test_set_sampled is None and said.censored_share is None


def test_a_level_far_from_the_ends_is_no_comparison_of_minima():
    """The linear side passes the level with 40 % and ends with 60."""
    far = lambda run: [0.2, 0.4, 0.5, 0.6] if run.schedule == "linear" else rising(run)
    contrast = contrast_of("equal loss", LINEAR, against="last", better=True)
    found = evidence(falling, far)
    assert not contrast.answerable(found, "constant")
    assert "points from that of its runs' ends" in contrast.remarks(found, "constant").reason


def test_a_side_that_does_not_arrive_leaves_no_comparison():
    lost = lambda run: [1.0, 0.8, 0.6, np.nan] if run.seed == 1_001 else falling(run)
    contrast = contrast_of("equal loss", LINEAR, against="last", better=True)
    assert "fewer than 95 %" in contrast.remarks(evidence(lost, rising), "constant").reason


def test_without_training_losses_there_is_no_answer():
    plan = arms_plan({"last": {"readouts": ["last"]}}, conditions=CONDITIONS)
    found = evidence_of(result(plan, lambda *_: 0.5), plan)
    contrast = contrast_of("equal loss", LINEAR, against="last", better=True)
    assert not contrast.answerable(found, "constant")
    assert "no training loss" in contrast.remarks(found, "constant").reason


def test_a_twentieth_of_the_runs_may_miss_the_level():
    losses = np.arange(1.0, 41.0).reshape(20, 2)
    everyone = [1.0, 0.0]  # of the first candidate alone: 1, 3 … 39
    assert lowest_reached(losses, np.array(everyone)) == 37
    assert lowest_reached(losses, np.array([0.5, 0.5])) == 38
    some = losses.copy()
    some[0, 0] = np.nan
    assert lowest_reached(some, np.array(everyone)) == 39
    some[1, 0] = np.inf
    assert lowest_reached(some, np.array(everyone)) == np.inf


def test_validation_accuracy_is_kept_where_the_training_loss_is_known():
    from fabricated import a_run, tables

    runs = [a_run(seed=seed, curve_points=4) for seed in (0, 1)]
    probed = lambda run: [("last", "training-loss", 20, 0.5)] if run.seed else []
    made = tables(runs, lambda run, readout, split: 0.1 + 0.2 * run.seed, probed=probed)
    (row,) = beside_training_loss(made).itertuples()
    assert (row.run, row.readout, row.measure) == (runs[1].key, "last", "validation accuracy")
    assert row.step == 20 and row.value == pytest.approx(0.3)
