"""What a trial keeps: rates that range tests suggest, times, measures, quantiles, and an id of its
content.
"""

import numpy as np
import pandas as pd
import pytest

from fabricated import a_run, result, tables
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.planning import Plan, load_study
from steadydescent.study.results.store import Result, read_folder
from steadydescent.study.training import trial as module
from steadydescent.study.training.trial_tables import quantiles, result_id, split_texts
from trials import peak_at, start, study_with

# ---- measures ------------------------------------------------------------------------------------


def test_range_tests_suggest_rates_from_their_losses(toy, monkeypatch):
    """A loss that falls from 1e-3 to 1e-1 and then explodes; each rule's rate, seed by seed, is
    kept in the result.
    """

    def losses(run):
        if run.schedule.startswith("ramp"):
            place = np.log10(run.rates())
            loss = 2.3 - np.clip((place + 3) / 2, 0, 1) + 20.0 ** np.clip(place, 0, None) - 1
            yield from (("", "loss", step, value) for step, value in enumerate(loss, start=1))
        yield "", "tail-loss-sd", None, 0.5

    with study_with(toy, size={"ramps": [60]}, arms={"last": {}}):
        trial, _ = start(monkeypatch, toy, {"": 0}, probed=losses)
        trial.tune()
        trial.report()
        found = trial.range_tests()
        assert set(found.rule) == set(module.SUGGESTIONS)
        assert len(found) == 5 * len(module.SUGGESTIONS)
        middle = found[found.rule == "middle"].rate
        assert middle.between(1e-3, 1e-1).all()
        kept = read_folder(trial.save(toy / "results"), Result)[0]
        assert set(found.run) <= set(kept.runs.run)
        assert kept.suggestions.to_dict("list") == found.to_dict("list")
        tests = kept.roster[kept.roster.purpose == "range test"]
        assert set(tests.run) == set(found.run)
        assert set(zip(tests.condition, tests.arm, strict=True)) == {("constant", "last")}
        assert "loss" not in set(kept.measures.measure)  # single losses stay in the store
        shown = set(kept.measures[kept.measures.measure == "tail-loss-sd"].run)
        assert shown == set(
            kept.runs[kept.runs.test].run
        )  # what is measured of tuning runs does too


def test_time_of_sizes_is_kept_beside_the_runs(toy, monkeypatch):
    times = pd.DataFrame(
        {"batch_size": [31, 32, 33], "round": [0, 0, 0], "seconds_per_example": [2.0, 1.0, 2.0]}
    )
    gains = pd.DataFrame({"batch_size": [32], "round": [0], "gain": [50.0]})
    monkeypatch.setattr(module, "time_per_example", lambda task, sizes, device, seed: times)
    monkeypatch.setattr(module, "power_of_two_gain", lambda found: gains)
    with study_with(toy, size={"timed": [31, 32, 33]}):
        trial, _ = start(monkeypatch, toy, {"": 0})
        trial.tune()
        trial.report()
        shown = trial.time_sizes()
        kept = read_folder(trial.save(toy / "results"), Result)[0].timings
    assert kept[list(times)].equals(times) and shown.equals(kept)
    assert kept.dropna()[["batch_size", "round", "gain"]].to_numpy().tolist() == [[32, 0, 50.0]]


# ---- what is kept --------------------------------------------------------------------------------


def test_result_id_names_the_content_not_its_order(toy):
    plan = Plan(experiment=load_study()["toy"], task="mnist1d-mlp", profile="smoke")
    first = result(plan, peak_at({"": 0}))
    shuffled = first._replace(finals=first.finals.sample(frac=1, random_state=0))
    assert result_id("toy", "t", first) == result_id("toy", "t", shuffled)
    other = first.finals.copy()
    other.loc[3, "accuracy"] += 0.001
    assert result_id("toy", "t", first) != result_id("toy", "t", first._replace(finals=other))
    name, _, content = result_id("weight_averaging", "mnist1d-mlp", first).partition("@")
    assert name == "weight-averaging/mnist1d-mlp" and len(content) == 8 and int(content, 16) >= 0


def test_result_id_tells_shifts_apart_and_writes_each_as_one_text(toy):
    shifts = (
        "scale(severity=3)",
        'scale(severity=3, statistics="reestimated")',
        'scale(batch=10, severity=3, statistics="reestimated")',
    )
    made = tables([a_run(shifts=shifts)])
    splits = ["validation", "test", "train", *(f"test/{shift}" for shift in shifts)]
    assert list(dict.fromkeys(split_texts(made.finals))) == splits


def test_saved_result_says_whom_each_run_serves_and_what_was_chosen(toy, monkeypatch):
    """Two arms share the runs of a third: each is told of all; rows are in the study's order."""
    arms = {"last": {"readouts": ["last"]}, "adam": {"optimizer": "adam"}}
    arms["ema"] = {"readouts": ["ema-10", "ema-30"]}
    with study_with(toy, arms=arms):
        trial, _ = start(monkeypatch, toy, {"": 0, "ema-10": 1, "ema-30": 1, "linear/last": -1})
        trial.tune()
        trial.report()
        kept, receipt = read_folder(trial.save(toy / "results"), Result)
        plan, evidence = trial.plan, Evidence(kept, receipt)
    places = [(c, arm) for c in ("constant", "linear") for arm in ("last", "adam", "ema")]
    assert list(dict.fromkeys(zip(kept.roster.condition, kept.roster.arm, strict=True))) == places
    optimizer = kept.runs.set_index("run").optimizer
    of = kept.roster.assign(rule=kept.roster.run.map(optimizer)).groupby("arm").rule.unique()
    assert {arm: list(rules) for arm, rules in of.items()} == {
        "last": ["momentum"], "adam": ["adam"], "ema": ["momentum"]
    }  # fmt: skip
    assert evidence.design == plan.design
    chosen = {(row.condition, row.arm): (row.lr, row.readout) for row in kept.choices.itertuples()}
    assert chosen["constant", "last"] == (0.1, "last") and chosen["linear", "last"][0] == 0.05
    assert chosen["constant", "ema"] == (0.2, "ema-10") and list(chosen) == places
    for place, choice in chosen.items():
        assert evidence.chosen(*place)[:2] == choice
        assert trial.choices[place[0]][place[1]] == [round(np.log2(choice[0] / 0.1))]


def test_each_arm_is_served_by_its_own_runs_and_range_tests_are_no_arms(toy, monkeypatch):
    """Arms that differ in their rule, their data or their unit alone share no run."""
    arms = {"sgd": {"optimizer": "sgd"}, "adam": {"optimizer": "adam"}}
    arms |= {"few": {"task": {"examples": 200}}, "wide": {"optimizer": "adam", "unit": 4.1}}
    falling = lambda run: [("", "loss", step, 1 / step) for step in range(1, run.steps + 1)]
    with study_with(toy, size={"ramps": [50]}, arms=arms):
        trial, _ = start(monkeypatch, toy, {"": 0}, probed=falling)
        trial.tune()
        trial.report()
        trial.range_tests()
        evidence = Evidence(*read_folder(trial.save(toy / "results"), Result))
        plan, seen = trial.plan, set()
        for condition in plan.conditions:
            for arm in plan.arms_in(condition):
                whole = trial.tuned[condition]
                tuned = {run.key for run in plan.tuning(condition, arm, whole)}
                reports = {run.key for run in plan.reporting(condition, arm, whole)}
                mine = set(evidence.runs(condition, arm).run)
                assert tuned <= mine <= tuned | reports and mine & reports
                assert not mine & seen
                seen |= mine
        assert seen.isdisjoint(run.key for run in plan.range_tests(50))


def test_quantiles_are_those_over_seeds():
    with_seed = lambda run, readout, split: run.seed / 10
    changes = [
        {"schedule": schedule, "lr": lr} for schedule in ("constant", "linear") for lr in (0.1, 0.2)
    ]
    made = tables(
        [a_run(seed=seed, curve_points=5, **change) for seed in range(3) for change in changes],
        with_seed,
    )
    found = quantiles(made)
    assert (
        len(found) == 4 * 2 * 5 and (found.seeds == 3).all()
    )  # (schedule, rate) × readouts × points
    for name, share in (("low", 0.1), ("median", 0.5), ("high", 0.9)):
        assert found[name].to_numpy() == pytest.approx(np.quantile([0.0, 0.1, 0.2], share))
