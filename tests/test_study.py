"""What the study asks for: valid files, seeds that never meet, stable keys, stacks that hold every run once."""

import copy
import re
from collections import Counter
from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fabricated import SMALL_EXPERIMENT, a_run, experiments_from, tables, write_experiments
from steadydescent import sweep
from steadydescent.paths import EXPERIMENTS
from steadydescent.results import Store
from steadydescent.study import PROFILES, Experiment, Grid, Parameters, Plan, left_out, load_study, plans
from steadydescent.sweep import pick_device, stack_plans, stacks, train
from steadydescent.tasks import TASKS

EVERY_PLAN = [plan for profile in PROFILES for plan in plans(profile)]


def label(plan: Plan) -> str:
    return f"{plan.profile}-{plan.experiment.name}-{plan.task}"


@cache
def planned(place: int) -> list:
    """The runs of a plan, made once for all tests."""
    return EVERY_PLAN[place].expected


@pytest.fixture(params=range(len(EVERY_PLAN)), ids=[label(plan) for plan in EVERY_PLAN])
def plan(request) -> Plan:
    return EVERY_PLAN[request.param]


@pytest.fixture
def expected(plan) -> list:
    return planned(EVERY_PLAN.index(plan))


def changed(path: str, value: object) -> dict:
    """The small experiment with one value replaced; `path` is joined by slashes: `rates/mnist1d-mlp/ratio`."""
    fields = copy.deepcopy(SMALL_EXPERIMENT)
    *parents, last = path.split("/")
    place = fields
    for name in parents:
        place = place[name]
    place[last] = value
    return fields


def plan_of(fields: dict, profile: str = "laptop") -> Plan:
    return Plan(experiment=Experiment(name="toy", **fields), task="mnist1d-mlp", profile=profile)


# ---- the files -----------------------------------------------------------------------------------------------------


def test_every_experiment_has_its_notebook_and_rates_for_known_tasks():
    for experiment in load_study().values():
        assert (EXPERIMENTS / experiment.notebook).exists()
        assert set(experiment.rates) <= set(TASKS)
        assert set(experiment.profiles) == set(PROFILES)
        for tasks in experiment.profiles.values():
            assert set(tasks) <= set(experiment.rates)


def test_profiles_keep_the_numbers_of_seeds_and_updates_that_the_design_promises():
    for plan in EVERY_PLAN:
        if plan.profile == "smoke":
            assert plan.size.report <= 3 and plan.size.steps <= 500
            continue
        assert plan.size.steps >= 1_000
        least = {"full": (100, 30), "laptop": (20, 2), "desk": (20, 2)}[plan.profile][
            0 if "mnist1d" in plan.task else 1
        ]
        assert plan.size.report >= least, plan


def test_every_planned_run_is_valid_and_planned_once(expected):
    keys = [run.key for run in expected]
    assert len(set(keys)) == len(keys)


def test_tuning_and_report_seeds_never_meet_and_tuning_never_sees_test_data(plan, expected):
    tuning = [run for run in expected if not run.test]
    report = [run for run in expected if run.test]
    assert {run.seed for run in tuning}.isdisjoint({run.seed for run in report})
    assert (
        len({run.seed for run in tuning}) == plan.size.tuning and len({run.seed for run in report}) == plan.size.report
    )


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("batch_size", 0, "batch_size.*greater than or equal to 1.*0"),
        ("batch_size", "many", "batch_size.*valid integer.*many"),
        ("colour", "red", "colour.*Extra inputs are not permitted"),
        ("arms/ema", ["ema-11"], r"arm 'ema' uses readouts \['ema-11'\], which are not among"),
        ("rates/mnist1d-mlp/center", 0, "center.*greater than 0.*0"),
        ("rates/mnist1d-mlp/center", float("inf"), "center.*finite.*inf"),
        ("rates/mnist1d-mlp/ratio", 1, "ratio.*greater than 1.*1"),
        ("rates/mnist1d-mlp/points", 4, "points must be odd and at least 3.*got 4"),
        ("rates/mnist1d-mlp/points", 1, "points must be odd and at least 3.*got 1"),
        ("profiles/laptop/mnist1d-mlp/points", 6, "points must be odd and at least 3.*got 6"),
        ("profiles/laptop/mnist1d-mlp/points", 0, "points must be odd and at least 3.*got 0"),
        ("profiles/laptop/mnist1d-mlp/steps", 0, "steps.*greater than or equal to 1.*0"),
        ("profiles/laptop/mnist1d-mlp/tuning", 1, "tuning.*greater than or equal to 2.*1"),
        ("profiles/laptop/mnist1d-mlp/report", 1, "report.*greater than or equal to 2.*1"),
        ("profiles/laptop/mnist1d-mlp/report", 10_001, "report.*less than or equal to 10000.*10001"),
        ("profiles/laptop/cifar-mlp", {"steps": 40, "tuning": 2, "report": 2}, r"'laptop' names \['cifar-mlp'\]"),
        ("profiles/huge", {}, "profile must be one of.*laptop.*got 'huge'"),
    ],
)
def test_bad_value_in_the_study_is_refused_by_name_with_what_is_allowed(path, value, sentence):
    with pytest.raises(ValidationError, match=re.compile(sentence, re.DOTALL)):
        Experiment(name="toy", **changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("optimizer", "magic", r"optimizer must be one of \['adam'.*got 'magic'"),
        ("schedules", ["zigzag"], r"schedule must be one of \[.*'linear'.*\], got 'zigzag'"),
        ("readouts", SMALL_EXPERIMENT["readouts"] + ["ema-x"], "ema-x.*allowed: last, ema-WINDOW"),
    ],
)
def test_bad_word_in_the_study_is_refused_before_anything_is_trained(path, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        plan_of(changed(path, value)).expected  # noqa: B018


def test_file_with_a_bad_value_is_refused_when_it_is_loaded(tmp_path):
    write_experiments(tmp_path, changed("rates/mnist1d-mlp/ratio", 0.5))
    with experiments_from(tmp_path), pytest.raises(ValidationError, match="ratio"):
        load_study()
    assert "toy" not in load_study()


# ---- parameters ----------------------------------------------------------------------------------------------------

GOOD = {"experiment": "weight_averaging", "task": "mnist1d-mlp", "profile": "smoke", "device": "cpu"}


def test_good_parameters_are_plain_json():
    assert Parameters(**GOOD).model_dump() == GOOD


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"experiment": "weights"}, r"experiment must be one of \['weight_averaging'.*\], got 'weights'"),
        ({"profile": "huge"}, r"profile must be one of \['desk', 'full', 'laptop', 'smoke'\], got 'huge'"),
        ({"task": "mnist"}, r"task must be one of .*'mnist1d-mlp'.* in profile 'smoke', got 'mnist'"),
        (
            {"task": "fashion-mnist-cnn", "profile": "laptop"},
            "task must be one of .* in profile 'laptop', got 'fashion",
        ),
        ({"device": "tpu"}, "device must be auto, cpu or cuda, got 'tpu'"),
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
    with pytest.raises(ValueError, match=f"profile must be one of .*'laptop'.*, got '{profile}'"):
        plans(profile)


@pytest.mark.parametrize(
    "only", ["weight_averagin", "weight_averaging/", "mnist1d-mlp", "weight_averaging/fashion-mnist-cnn"]
)
def test_only_that_matches_nothing_is_refused_with_what_would_match(only):
    with pytest.raises(
        ValueError, match=f"only='{only}' matches nothing in profile 'laptop'; allowed: .*weight_averaging/"
    ):
        plans("laptop", only)


def test_only_keeps_an_experiment_or_one_of_its_tasks():
    assert plans("desk", "weight_averaging") == [p for p in plans("desk") if p.experiment.name == "weight_averaging"]
    assert [p.task for p in plans("desk", "weight_averaging/mnist1d-mlp")] == ["mnist1d-mlp"]
    assert plans("desk", None) == plans("desk", "") == plans("desk")


@pytest.mark.parametrize("profile", PROFILES)
def test_profile_plus_what_it_leaves_out_is_everything(profile):
    here = {f"{plan.experiment.name}/{plan.task}" for plan in plans(profile)}
    everything = {f"{plan.experiment.name}/{plan.task}" for plan in EVERY_PLAN}
    assert here.isdisjoint(left_out(profile)) and here | set(left_out(profile)) == everything


# ---- grids and keys ------------------------------------------------------------------------------------------------


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
    fewer = changed("profiles/laptop/mnist1d-mlp/curve_points", 1)
    for fields, points in ((SMALL_EXPERIMENT, 2), (fewer, 1)):
        assert {run.curve_points for run in plan_of(fields).expected if run.test} == {points}
        assert {run.curve_points for run in plan_of(fields).expected if not run.test} == {1}


def test_same_plan_gives_the_same_keys():
    one, other = ([run.key for run in plan_of(copy.deepcopy(SMALL_EXPERIMENT)).expected] for _ in range(2))
    assert one == other


@pytest.mark.parametrize("path", ["report", "tuning"])
def test_adding_seeds_keeps_the_keys_of_the_old_ones(path):
    before = {run.key for run in plan_of(SMALL_EXPERIMENT).expected}
    after = {run.key for run in plan_of(changed(f"profiles/laptop/mnist1d-mlp/{path}", 11)).expected}
    assert before < after


def test_growing_a_grid_keeps_the_keys_of_the_old_points():
    plan = plan_of(SMALL_EXPERIMENT)
    before, after = ({run.key for run in plan.tuning("constant", range(-h, h + 1))} for h in (2, 3))
    assert before < after


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("batch_size", 50),
        ("optimizer", "sgd"),
        ("profiles/laptop/mnist1d-mlp/steps", 41),
        ("rates/mnist1d-mlp/center", 0.11),
    ],
)
def test_changing_what_is_trained_changes_every_key(path, value):
    before = {run.key for run in plan_of(SMALL_EXPERIMENT).expected}
    assert before.isdisjoint(run.key for run in plan_of(changed(path, value)).expected)


# ---- cost ----------------------------------------------------------------------------------------------------------


def test_cost_counts_networks_steps_and_stacks_as_planned(plan, expected):
    cost = plan.cost("cpu")
    size, schedules = plan.size, len(plan.experiment.schedules)
    reported = min(plan.grid.points, 5)  # five rates around the choices
    networks = schedules * (plan.grid.points * size.tuning + reported * size.report)
    assert (cost["networks"], cost["replica_steps"]) == (networks, networks * size.steps)
    assert cost["stacks"] == len(stacks(expected, "cpu"))
    assert cost["minutes"] >= round(cost["replica_steps"] / stack_plans()["cpu"][plan.task].rate / 60, 1)
    assert cost["memory_gib"] > 0 and cost["disk_mb"] > 0


def test_plans_cost_more_from_profile_to_profile():
    minutes = [sum(plan.cost("cpu")["minutes"] for plan in plans(profile)) for profile in PROFILES]
    assert minutes == sorted(minutes) and minutes[0] < 5 and minutes[-1] > 5 * minutes[0]


# ---- stacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_stacks_hold_every_run_once_and_are_never_too_wide(plan, expected, device):
    cut, width = stacks(expected, device), stack_plans()[device][plan.task].width
    assert sorted(run.key for stack in cut for run in stack) == sorted(run.key for run in expected)
    assert all(1 <= len(stack) <= width and len({run.shape for run in stack}) == 1 for stack in cut)
    counts = Counter(run.shape for run in expected)
    assert len(cut) == sum(-(-count // width) for count in counts.values())  # and no stack is split without need


def test_stacks_are_cut_the_same_way_every_time_whatever_shapes_are_mixed():
    runs = [a_run(seed=seed, steps=40 + seed % 3) for seed in range(100)]
    names = lambda cut: [[run.key for run in stack] for stack in cut]
    assert names(stacks(runs, "cpu")) == names(stacks(list(runs), "cpu"))
    assert all(len({run.steps for run in stack}) == 1 for stack in stacks(runs, "cpu"))


def test_every_task_has_a_stack_plan_on_every_kind_of_device():
    assert {kind: set(table) for kind, table in stack_plans().items()} == {"cpu": set(TASKS), "cuda": set(TASKS)}


# ---- training what is missing --------------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A store, a journal's events, and the stacks that were trained: nothing real."""
    found = SimpleNamespace(store=Store(tmp_path / "store"), events=[], trained=[])

    def pretend(runs, store, device, journal):
        found.trained.append([run.seed for run in runs])
        journal.tell(done=sum(run.steps for run in runs))
        store.save(tables(runs), {})

    found.journal = SimpleNamespace(tell=lambda **event: found.events.append(event))
    monkeypatch.setattr(sweep, "_train_stack", pretend)
    return found


def seeds(numbers: range) -> list:
    return [a_run(seed=seed, curve_points=2) for seed in numbers]


def test_what_is_finished_is_not_trained_again(bench):
    width = stack_plans()["cpu"]["mnist1d-mlp"].width
    train(seeds(range(2 * width + 3)), bench.store, "cpu", bench.journal)
    assert [len(stack) for stack in bench.trained] == [width, width, 3]
    bench.trained.clear()
    train(seeds(range(2 * width + 3)), bench.store, "cpu", bench.journal)
    assert bench.trained == []


def test_added_seeds_alone_are_trained(bench):
    train(seeds(range(3)), bench.store, "cpu", bench.journal)
    train(seeds(range(5)), bench.store, "cpu", bench.journal)
    assert bench.trained == [[0, 1, 2], [3, 4]]


def test_what_another_runner_trained_meanwhile_is_not_trained_again(bench, monkeypatch):
    runs, lock = seeds(range(3)), bench.store.lock

    def overtaken(keys):
        Store(bench.store.root).save(tables(runs), {})
        return lock(keys)

    monkeypatch.setattr(bench.store, "lock", overtaken)
    train(runs, bench.store, "cpu", bench.journal)
    assert bench.trained == []


def test_progress_adds_up_to_the_total_whatever_was_there(bench):
    width = stack_plans()["cpu"]["mnist1d-mlp"].width
    train(seeds(range(width + 2)), bench.store, "cpu", bench.journal)  # one whole stack and part of the next
    bench.events.clear()
    runs = seeds(range(2 * width + 5))
    train(runs, bench.store, "cpu", bench.journal)
    start = bench.events[0]
    assert start["total"] == sum(run.steps for run in runs)
    assert start["initial"] + sum(event.get("done", 0) for event in bench.events) == start["total"]
    assert "end" in bench.events[-1]


def test_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(sweep.torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="device 'cuda' was asked for, but torch finds no GPU; use DEVICE=cpu"):
        pick_device("cuda")
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda, got 'gpu'"):
        pick_device("gpu")
    monkeypatch.setattr(sweep.torch.cuda, "is_available", lambda: True)
    assert (pick_device("auto"), pick_device("cuda"), pick_device("cpu")) == ("cuda", "cuda", "cpu")
