"""What a plan asks for: seeds that never meet, stable keys, what runs look at, and what it all
costs.
"""

import copy
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fabricated import LAPTOP, SMALL_EXPERIMENT, experiments_from, write_experiments
from planned import EVERY_PLAN, changed, cost_of, is_ramp, label, places, plan_of, planned, varied
from steadydescent.engine.cost import evaluated
from steadydescent.engine.data import SPLIT_SIZES
from steadydescent.engine.runs import Run
from steadydescent.engine.tasks import find
from steadydescent.study.planning import (
    FIRST_REPORT_SEED,
    FIRST_TUNING_SEED,
    MOST_SEEDS,
    PROFILES,
    RAMP,
    Experiment,
    Grid,
    Parameters,
    Plan,
    left_out,
    load_study,
    plans,
)
from steadydescent.study.planning.cost import START
from steadydescent.study.planning.stacks import stacking, stacks


@pytest.fixture(params=range(len(EVERY_PLAN)), ids=[label(plan) for plan in EVERY_PLAN])
def plan(request) -> Plan:
    return EVERY_PLAN[request.param]


@pytest.fixture
def expected(plan) -> list:
    return planned(EVERY_PLAN.index(plan))


# ---- every plan ----------------------------------------------------------------------------------


def test_every_planned_run_is_valid_and_planned_once(expected):
    keys = [run.key for run in expected]
    assert len(set(keys)) == len(keys)
    for run in expected[
        :: max(1, len(expected) // 20)
    ]:  # seeds are set without checking, which must not matter
        assert Run(**run.model_dump()).key == run.key


def test_every_arm_has_its_tuning_and_report_runs_at_the_centre(plan, expected):
    keys = {run.key for run in expected}
    for place in places(plan):
        whole = plan.grid_points(place[0])
        assert {run.key for run in plan.tuning(*place, whole)} <= keys
        middle = [0, 1] if plan.experiment.searched else [-1, 0, 1]
        assert {run.key for run in plan.reporting(*place, middle)} <= keys


FIRST_EDITION = {*range(400), *range(10_000, 10_050)}
"""The seeds of its published results."""


def test_seeds_cannot_meet_however_many_a_study_asks_for():
    plan = varied(size={"tuning": MOST_SEEDS, "report": MOST_SEEDS})
    place = places(plan)[0]
    tuning = {run.seed for run in plan.tuning(*place, [0])}
    report = {run.seed for run in plan.reporting(*place, [0])}
    assert len(tuning) == len(report) == MOST_SEEDS and not tuning & report
    assert not (tuning | report) & FIRST_EDITION
    with pytest.raises(ValueError, match="less than or equal to 9000"):
        varied(size={"report": MOST_SEEDS + 1})


def test_tuning_and_report_seeds_never_meet_and_tuning_never_sees_test_data(plan, expected):
    runs = [run for run in expected if not is_ramp(run)]
    tuning, report = ({run.seed for run in runs if run.test == kind} for kind in (False, True))
    assert tuning == set(range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + plan.size.tuning))
    assert report == set(range(FIRST_REPORT_SEED, FIRST_REPORT_SEED + plan.size.report))
    assert not tuning & report and not (tuning | report) & FIRST_EDITION
    assert all(run.test or not run.shifts for run in expected)


# ---- parameters ----------------------------------------------------------------------------------

GOOD = {
    "experiment": "weight_averaging",
    "task": "mnist1d-mlp",
    "profile": "smoke",
    "device": "cpu",
}


def test_good_parameters_are_plain_json():
    assert Parameters(**GOOD).model_dump() == GOOD


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"experiment": "weights"},
            r"experiment must be one of \[.*'weight_averaging'.*\], got 'weights'",
        ),
        (
            {"profile": "huge"},
            r"profile must be one of \['smoke', 'laptop', 'desk', 'full'\], got 'huge'",
        ),
        (
            {"task": "mnist"},
            r"task in 'smoke' 'mnist' is unknown; did you mean '.*Known are .*'mnist1d-mlp'",
        ),
        (
            {"task": "fashion-mnist-cnn", "profile": "laptop"},
            "task in 'laptop' must be one of .*got 'fashion",
        ),
        ({"device": "tpu"}, "device 'tpu' is unknown; did you mean 'cpu'"),
        ({"task": 3}, "task.*valid string.*3"),
        ({"profile": None}, "profile.*valid string.*None"),
        ({"lr": 1e-3}, "lr.*Extra inputs are not permitted"),
    ],
)
def test_bad_parameter_is_refused_by_name_with_what_is_allowed(change, sentence):
    with pytest.raises(ValidationError, match=re.compile(sentence, re.DOTALL)):
        Parameters(**(GOOD | change))


@pytest.mark.parametrize("profile", ["huge", "", "Laptop"])
def test_unknown_profile_is_refused(profile):
    with pytest.raises(ValueError, match=f"profile .*'{profile}'"):
        plans(profile)


@pytest.mark.parametrize(
    "only",
    ["weight_averagin", "weight_averaging/", "mnist1d-mlp", "weight_averaging/fashion-mnist-cnn"],
)
def test_only_that_matches_nothing_is_refused_with_what_would_match(only):
    with pytest.raises(
        ValueError, match=f"in profile 'laptop', only .*'{only}'.*did you mean '.*weight_averaging"
    ):
        plans("laptop", only)


def test_only_keeps_an_experiment_or_one_of_its_tasks():
    assert plans("desk", "weight_averaging") == [
        p for p in plans("desk") if p.experiment.name == "weight_averaging"
    ]
    assert [p.task for p in plans("desk", "weight_averaging/mnist1d-mlp")] == ["mnist1d-mlp"]
    assert plans("desk", None) == plans("desk", "") == plans("desk")


@pytest.mark.parametrize("profile", PROFILES)
def test_profile_plus_what_it_leaves_out_is_everything(profile):
    """Every task, condition and arm that some profile runs is either in this profile or named as
    left out.
    """
    gone = {
        line.split(" without ")[0]: line.partition(" without ")[2] for line in left_out(profile)
    }
    for name, experiment in load_study().items():
        for task in {task for tasks in experiment.profiles.values() for task in tasks}:
            size, told = experiment.profiles.get(profile, {}).get(task), gone.get(f"{name}/{task}")
            if size is None:
                assert told == ""
                continue
            lines = [
                line for line in left_out(profile) if line.startswith(f"{name}/{task} without ")
            ]
            absent = [
                n for n in experiment.conditions if size.conditions and n not in size.conditions
            ]
            without = [n for n in experiment.arms if size.arms and n not in size.arms]
            assert lines == [
                f"{name}/{task} without {', '.join(part)}" for part in (absent, without) if part
            ]


def test_what_is_left_out_is_named_task_condition_and_arm(tmp_path):
    profiles = {
        "smoke": {
            "mnist1d-mlp": LAPTOP | {"conditions": ["constant"], "arms": ["last", "ema", "tail"]}
        },
        "laptop": {"mnist1d-mlp": LAPTOP},
        "desk": {},
    }
    write_experiments(tmp_path, SMALL_EXPERIMENT | {"profiles": profiles})
    with experiments_from(tmp_path):
        names = ["toy/mnist1d-mlp without linear", "toy/mnist1d-mlp without checkpoints, ramp"]
        assert (
            left_out("smoke") == names
            and left_out("laptop") == []
            and left_out("desk") == ["toy/mnist1d-mlp"]
        )


# ---- what runs look at ---------------------------------------------------------------------------


def test_tuning_runs_follow_the_curve_only_where_the_steps_to_a_target_count():
    steps = varied(tune_by=["accuracy", "steps to target"], targets={"mnist1d-mlp": 0.5})
    for plan, points in ((plan_of(SMALL_EXPERIMENT), 1), (steps, 2)):
        assert {run.curve_points for run in plan.tuning("constant", "last", [0])} == {points}
        assert {run.curve_points for run in plan.reporting("constant", "last", [0])} == {2}
    assert steps.target == 0.5 and plan_of(SMALL_EXPERIMENT).target is None


def test_shifts_and_probes_are_for_report_runs_alone():
    plan = varied(size={"shifts": ["scale(severity=4)"], "probes": ["orbit"]})
    report, tuning = plan.reporting("constant", "last", [0]), plan.tuning("constant", "last", [0])
    assert all(run.shifts and run.probes == ("orbit",) and run.test for run in report)
    assert not any(run.shifts or run.probes or run.test for run in tuning)


def test_surface_is_tuned_by_its_height_where_tasks_are_tuned_by_accuracy():
    fields = {
        "tune_by": ["accuracy", "steps to target"],
        "targets": {"saddle": -0.2, "mnist1d-mlp": 0.5},
        "rates": {
            "saddle": {"center": 0.5, "ratio": 3},
            "mnist1d-mlp": {"center": 0.1, "ratio": 2},
        },
        "profiles": {"laptop": {"saddle": LAPTOP, "mnist1d-mlp": LAPTOP}},
    }
    experiment = Experiment(name="toy", **(SMALL_EXPERIMENT | fields))
    by = {
        task: Plan(experiment=experiment, task=task, profile="laptop").tune_by
        for task in experiment.rates
    }
    assert by == {
        "saddle": ("loss", "steps to target"),
        "mnist1d-mlp": ("accuracy", "steps to target"),
    }


def test_range_tests_raise_the_rate_over_the_ramp_and_keep_every_loss():
    plan = varied(size={"ramps": [50, 200]})
    for length in plan.size.ramps:
        runs = plan.range_tests(length)
        assert [run.seed - FIRST_REPORT_SEED for run in runs] == list(range(plan.size.report))
        for run in runs:
            rates = run.rates()
            assert len(rates) == run.steps == length and not run.test and run.probes == ("losses",)
            assert (rates[0], rates[-1]) == pytest.approx(RAMP)
            assert rates[1:] / rates[:-1] == pytest.approx(
                (RAMP[1] / RAMP[0]) ** (1 / (length - 1))
            )
    assert {run.steps for run in plan.expected if is_ramp(run)} == {50, 200}
    assert len(plan.expected) == len(plan_of(SMALL_EXPERIMENT).expected) + 2 * plan.size.report
    assert not any(is_ramp(run) for run in plan_of(SMALL_EXPERIMENT).expected)


# ---- grids and keys ------------------------------------------------------------------------------


@given(st.floats(1e-5, 10), st.floats(1.1, 10), st.integers(1, 6))
def test_grid_is_evenly_spaced_on_a_log_scale_around_its_centre(center, ratio, half):
    grid = Grid(center=center, ratio=ratio, points=2 * half + 1)
    rates = [grid.rate(i) for i in range(-grid.half, grid.half + 1)]
    assert len(rates) == grid.points and rates[half] == pytest.approx(center, rel=5e-4)
    assert all(high / low == pytest.approx(ratio, rel=1.1e-3) for low, high in pairwise(rates))


def test_profile_may_ask_for_fewer_points():
    assert plan_of(SMALL_EXPERIMENT, "smoke").grid.points == 3
    assert plan_of(SMALL_EXPERIMENT, "laptop").grid.points == 5


def test_profile_may_ask_for_fewer_curve_points_of_report_runs():
    more = SMALL_EXPERIMENT | {"curve_points": 7}
    fewer = more | {"profiles": {"laptop": {"mnist1d-mlp": LAPTOP | {"curve_points": 3}}}}
    for fields, points in ((more, 7), (fewer, 3)):
        assert {run.curve_points for run in plan_of(fields).expected if run.test} == {points}


def test_same_plan_gives_the_same_keys():
    one, other = (
        [run.key for run in plan_of(copy.deepcopy(SMALL_EXPERIMENT)).expected] for _ in range(2)
    )
    assert one == other


@pytest.mark.parametrize("path", ["report", "tuning"])
def test_adding_seeds_keeps_the_keys_of_the_old_ones(path):
    before = {run.key for run in plan_of(SMALL_EXPERIMENT).expected}
    after = {
        run.key for run in plan_of(changed(f"profiles/laptop/mnist1d-mlp/{path}", 11)).expected
    }
    assert before < after


def test_growing_a_grid_keeps_the_keys_of_the_old_points():
    plan = plan_of(SMALL_EXPERIMENT)
    before, after = (
        {run.key for run in plan.tuning("constant", "last", range(-h, h + 1))} for h in (2, 3)
    )
    assert before < after


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("runs/batch_size", 50),
        ("runs/optimizer", "sgd"),
        ("runs/task", {"norm": "batch"}),
        ("profiles/laptop/mnist1d-mlp/steps", 41),
        ("rates/mnist1d-mlp/center", 0.11),
    ],
)
def test_changing_what_is_trained_changes_every_key(path, value):
    before = {run.key for run in plan_of(SMALL_EXPERIMENT).expected}
    assert before.isdisjoint(run.key for run in plan_of(changed(path, value)).expected)


# ---- cost ----------------------------------------------------------------------------------------


def test_cost_counts_networks_steps_and_stacks_as_planned(plan, expected):
    cost, steps = cost_of(EVERY_PLAN.index(plan)), sum(run.steps for run in expected)
    runs = (0, len(expected)) if find(plan.task).surface else (len(expected), 0)
    assert (cost["networks"], cost["points"], cost["replica_steps"]) == (*runs, steps)
    assert cost["stacks"] == len(stacks(expected, "cpu"))
    least = (
        sum(run.steps * (0.4 + 0.6 * run.batch_size / 100) for run in expected)
        / stacking(plan.task, "cpu").rate
    )
    assert cost["minutes"] >= round(least / 60, 1)
    parts = cost["training_minutes"] + cost["evaluation_minutes"]
    assert cost["minutes"] == pytest.approx(parts + START, abs=0.16)  # each to a tenth
    sizes = SPLIT_SIZES[find(plan.task).source]
    looks = sum(evaluated(run, sizes["validation"], sizes["test"]) for run in expected)
    assert cost["evaluation_minutes"] >= round(
        looks / stacking(plan.task, "cpu").evaluation / 60, 1
    )
    assert cost["memory_gib"] > 0 and cost["disk_mb"] > 0


def test_plans_cost_more_from_profile_to_profile():
    """Together, and each experiment on each task that two profiles share."""
    minutes = {
        (p.profile, label(p).partition("-")[2]): cost_of(place)["minutes"]
        for place, p in enumerate(EVERY_PLAN)
    }
    sums = [
        sum(cost for (profile, _), cost in minutes.items() if profile == name) for name in PROFILES
    ]
    assert sums == sorted(sums) and sums[-1] > 5 * sums[0]
    for less, more in pairwise(PROFILES):
        for name in {name for profile, name in minutes if profile == less} & {
            n for p, n in minutes if p == more
        }:
            assert minutes[less, name] <= minutes[more, name], name
