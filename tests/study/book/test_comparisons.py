"""Tables and figures of notebooks, against numbers that are known beforehand."""

from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from fabricated import note, result
from steadydescent.lr_search import SUGGESTIONS
from steadydescent.study.book.comparisons import (
    Comparison,
    batch_size,
    bill,
    covariate_shift,
    decay_schedules,
    learning_rate_search,
    optimizers,
    weight_averaging,
)
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.planning import Plan, load_study, plan_of

TASK = "mnist1d-mlp"
VARIATIONS = {
    "batch_size": {"batch_sizes": [16, 48]},
    "covariate_shift": {"shifts": ["shear(severity=2)"]},
    "decay_schedules": {"schedules": ["cosine", "linear"]},
    "learning_rate_search": {"rates": [0.001, 1]},
    "optimizers": {"optimizers": ["sgd", "adam"]},
    "weight_averaging": {"readouts": ["last", "ema-5"]},
}


def compared(plan: Plan, score, **tables) -> Comparison:
    """A comparison whose networks score as they are told; a little noise a seed."""
    noisy = lambda run, readout, split: score(run, readout, split) + 1e-3 * (run.seed % 3)
    whose = {"own": plan.own, "result": f"{plan.name}/{TASK}@12345678"} if plan.own else {}
    made = result(plan, noisy)._replace(**tables)
    return Comparison(Evidence(made, note(plan) | whose))


def own(experiment: str, score=lambda run, readout, split: 0.5, **changes) -> Comparison:
    plan = plan_of(experiment, TASK, "smoke", **changes)
    tables = searched(plan, dict.fromkeys(range(3), 0.1)) if plan.size.ramps else {}
    return compared(plan, score, **tables)


def searched(plan: Plan, rates: dict[int, float]) -> dict[str, pd.DataFrame]:
    """Range tests of every length that suggest these rates, by the place of their seed."""
    runs = [run for length in plan.size.ramps for run in plan.range_tests(length)]
    made = result(plan, lambda *_: 0.5).runs
    rows = pd.DataFrame([{**run.row, "diverged_at": None} for run in runs]).astype(made.dtypes)
    suggestions = [(run.key, rule, rates[run.seed - 1_000]) for run in runs for rule in SUGGESTIONS]
    return {
        "runs": pd.concat([made, rows], ignore_index=True),
        "suggestions": pd.DataFrame(suggestions, columns=["run", "rule", "rate"]),
    }


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.mark.parametrize("name", VARIATIONS)
def test_every_table_and_figure_says_whose_it_is(name):
    module = import_module(f"steadydescent.study.book.comparisons.{name}")
    for changes in ({}, VARIATIONS[name]):
        comparison = own(name, **changes)
        whose = "own" if changes else "study"
        tables = (module.table(comparison), comparison.rates(), comparison.verdicts())
        assert all(table.columns.name == f"{whose}, smoke" for table in tables)
        for figure in (module.figure(comparison), comparison.sweep()):
            title = " ".join(figure.get_suptitle().split())
            assert ("own: " in title) == bool(changes) and ("the study's" in title) != bool(changes)
            assert all(parameter in title for parameter in changes)


def test_bill_names_each_parameter_that_is_ones_own():
    plan = plan_of("batch_size", TASK, "smoke", batch_sizes=[16], seeds=4)
    (row,) = bill(plan, "cpu").to_dict("records")
    assert (row["own batch_sizes"], row["own seeds"]) == ("[16]", "4")
    assert row["networks"] == len(plan.expected)
    studied = bill(plan_of("batch_size", TASK, "smoke"), "cpu")
    assert not [name for name in studied if name.startswith("own")]


def test_batch_sizes_are_shown_in_their_order_at_each_ones_tuned_rate():
    """Larger minibatches score better here, and each size best at the centre of its grid."""

    def score(run, readout, split):
        centre = plan.rate(f"n = {run.batch_size}", "sgd", 0)
        off = 0.1 if run.optimizer == "sgd" and run.lr != centre else 0
        return 0.3 + run.batch_size / 1000 - off

    plan = plan_of("batch_size", TASK, "smoke", batch_sizes=[48, 16])
    table = batch_size.table(compared(plan, score)).reset_index()
    sgd = table[table.arm == "sgd"].set_index("batch_size")
    assert list(sgd.index) == [16, 48] and set(table.arm) == {"sgd", "momentum"}
    assert sgd["test accuracy / %"].tolist() == pytest.approx([31.7, 34.9])
    assert sgd.lr.tolist() == [plan.rate(f"n = {n}", "sgd", 0) for n in (16, 48)]


def test_optimizers_are_ranked_the_best_first():
    gains = {"sgd": 0.1, "adam": 0.3, "momentum": 0.2}
    comparison = own("optimizers", lambda run, *_: 0.4 + gains[run.optimizer])
    assert optimizers.table(comparison).arm.tolist() == ["adam", "momentum", "sgd"]
    assert optimizers.ranked(comparison, "constant")["rank"].tolist() == [1, 2, 3]


def test_heights_are_ranked_the_lowest_first():
    gains = {"sgd": -0.1, "adam": -0.3, "momentum": -0.2, "rmsprop": 0.0}
    plan = plan_of("optimizers", "saddle", "smoke")
    comparison = compared(plan, lambda run, *_: gains[run.optimizer])
    table = optimizers.table(comparison)
    assert table.arm.tolist() == ["adam", "momentum", "sgd", "rmsprop"]
    assert table.height.is_monotonic_increasing


def test_schedules_are_told_how_far_they_are_behind_the_best():
    comparison = own(
        "decay_schedules",
        lambda run, *_: 0.6 if run.schedule == "linear" else 0.55,
        schedules=["cosine", "linear"],
    )
    behind = decay_schedules.table(comparison).behind
    assert behind.to_dict() == pytest.approx({("momentum", "cosine"): 5, ("momentum", "linear"): 0})


def test_shapes_of_schedules_are_shares_of_the_peak_and_plateau_has_none():
    assert decay_schedules.shape("constant", 5, epoch=2).tolist() == [1] * 5
    noam = decay_schedules.shape("noam(d_model=64, warmup=3)", 9, epoch=2)
    assert noam.argmax() == 2 and noam.max() == 1
    assert decay_schedules.shape("plateau", 5, epoch=2) is None


def test_gain_on_the_last_weights_is_paired_by_seed():
    """Seeds differ by far more than the gain, which is the same for each."""

    def score(run, readout, split):
        return 0.4 + 0.05 * run.seed % 0.3 + (0.02 if readout == "ema-5" else 0)

    gains = weight_averaging.gains(own("weight_averaging", score, readouts=["last", "ema-5"]))
    assert gains.arm.tolist() == ["ema-5"] * 2 and gains.condition.tolist() == [
        "constant",
        "linear",
    ]
    assert gains["mean"].to_numpy() == pytest.approx(2) and gains.low.to_numpy() == pytest.approx(2)


def test_without_an_arm_of_last_weights_the_scores_are_shown():
    comparison = own("weight_averaging", readouts=["ema-5", "ema-10"])
    assert weight_averaging.gains(comparison).empty
    assert weight_averaging.table(comparison).gain.isna().all()
    axes = weight_averaging.figure(comparison).axes
    assert [ax.get_xlabel() for ax in axes] == ["test accuracy / %"] * 2


def test_shifts_are_shown_beside_plain_test_data_with_what_is_lost():
    def score(run, readout, split):
        normed = 'norm="batch"' in run.task
        return 0.6 - (0.2 if normed else 0.1) * (split != "test" and split.startswith("test"))

    shifts = ["shear(severity=2)", "scale(severity=1, statistics=reestimated, batch=10)"]
    rows = covariate_shift.shifted(own("covariate_shift", score, shifts=shifts))
    assert rows[rows["shift"] == ""].lost.tolist() == [0, 0]
    lost = rows[rows["shift"] != ""].groupby("arm").lost.mean()
    assert lost.to_dict() == pytest.approx({"no norm": 10, "batch norm": 20})
    names = list(dict.fromkeys(covariate_shift.named(rows)))
    assert names == ["test data", "shear 2", "scale 1, re-estimated from 10"]


def test_regret_of_a_range_test_is_what_its_nearest_rate_gives_away():
    plan = plan_of("learning_rate_search", TASK, "smoke")
    rates = [plan.rate("dense sweep", "momentum", i) for i in (-1, 0, 1)]
    step = np.log(rates[2] / rates[1])
    score = lambda run, *_: 0.6 - 0.1 * abs(np.log(run.lr / rates[1])) / step
    suggested = {0: rates[0] * 1.05, 1: 9.0, 2: rates[0] * 1.1}
    comparison = compared(plan, score, **searched(plan, suggested))
    table = learning_rate_search.table(comparison).set_index(["rule", "updates"])
    assert table.regret["whole sweep", 100] == 0
    for length in plan.size.ramps:
        assert table.regret["steepest", length] == pytest.approx(10, abs=0.01)
        assert table.nearest["steepest", length] == pytest.approx(rates[0], abs=1e-4)


def test_every_comparison_of_the_study_has_its_table_and_figure():
    notebooks = {experiment.notebook for experiment in load_study().values()}
    assert {f"{name}.ipynb" for name in VARIATIONS} == notebooks
