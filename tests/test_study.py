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

from fabricated import LAPTOP, SMALL_EXPERIMENT, a_run, experiments_from, tables, write_experiments
from steadydescent import sweep
from steadydescent.data import SPLIT_SIZES
from steadydescent.paths import EXPERIMENTS
from steadydescent.results import Store
from steadydescent.runs import Run
from steadydescent.settings import read
from steadydescent.study import (
    FIRST_TUNING_SEED,
    PROFILES,
    RAMP,
    Arm,
    Condition,
    Experiment,
    Grid,
    Parameters,
    Plan,
    Settings,
    left_out,
    load_study,
    plans,
)
from steadydescent.sweep import pick_device, stack_plans, stacks, train
from steadydescent.tasks import TASKS, base

EVERY_PLAN = [plan for profile in PROFILES for plan in plans(profile)]


def label(plan: Plan) -> str:
    return f"{plan.profile}-{plan.experiment.name}-{plan.task}"


@cache
def planned(place: int) -> list:
    """The runs of a plan, made once for all tests."""
    return EVERY_PLAN[place].expected


@cache
def cost_of(place: int) -> dict:
    """The cost of a plan, counted once for all tests."""
    return EVERY_PLAN[place].cost("cpu")


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


def varied(conditions: dict | None = None, arms: dict | None = None, size: dict | None = None, **fields) -> Plan:
    """The small experiment with other conditions, arms or fields, on its laptop profile."""
    told = {"conditions": conditions, "arms": arms, "secondary": []}
    told = {name: value for name, value in told.items() if value is not None} | fields
    return plan_of(SMALL_EXPERIMENT | told | {"profiles": {"laptop": {"mnist1d-mlp": LAPTOP | (size or {})}}})


def places(plan: Plan) -> list[tuple[str, str]]:
    return [(condition, arm) for condition in plan.conditions for arm in plan.arms_in(condition)]


def is_ramp(run: Run) -> bool:
    return run.schedule.startswith("ramp")


# ---- the files -----------------------------------------------------------------------------------------------------


def test_every_experiment_has_its_notebook_and_rates_for_known_tasks():
    for experiment in load_study().values():
        assert (EXPERIMENTS / experiment.notebook).exists()
        assert set(experiment.rates) <= set(TASKS)
        assert set(experiment.profiles) == set(PROFILES)
        for tasks in experiment.profiles.values():
            assert set(tasks) <= set(experiment.rates)
        for condition in experiment.conditions.values():
            assert set(condition.arms or ()) <= set(experiment.arms)
        for name in {name for pair in experiment.secondary for name in pair}:
            arm, _, condition = name.partition("@")
            assert arm in experiment.arms and (not condition or condition in experiment.conditions), name


def test_profiles_keep_the_numbers_of_seeds_and_updates_that_the_design_promises():
    """As many report seeds as the design says, but where a desk has no time for a larger task; each says how many."""
    for plan in EVERY_PLAN:
        if plan.profile == "smoke":
            assert plan.size.report <= 3 and plan.size.steps <= 500
            continue
        assert plan.size.steps >= 1_000
        on_signals = plan.task == "mnist1d-mlp"
        least = {"full": (100, 30), "laptop": (20, 20), "desk": (20, 4)}[plan.profile]
        assert plan.size.report >= least[0 if on_signals else 1], label(plan)


def test_every_planned_run_is_valid_and_planned_once(expected):
    keys = [run.key for run in expected]
    assert len(set(keys)) == len(keys)
    for run in expected[:: max(1, len(expected) // 20)]:  # seeds are set without checking, which must not matter
        assert Run(**run.model_dump()).key == run.key


def test_every_arm_has_its_tuning_and_report_runs_at_the_centre(plan, expected):
    keys = {run.key for run in expected}
    for place in places(plan):
        whole = range(-plan.half(place[0]), plan.half(place[0]) + 1)
        assert {run.key for run in plan.tuning(*place, whole)} <= keys
        assert {run.key for run in plan.reporting(*place, [-1, 0, 1])} <= keys


def test_tuning_and_report_seeds_never_meet_and_tuning_never_sees_test_data(plan, expected):
    runs = [run for run in expected if not is_ramp(run)]
    tuning, report = ({run.seed for run in runs if run.test == kind} for kind in (False, True))
    assert tuning == set(range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + plan.size.tuning))
    assert report == set(range(plan.size.report))
    assert all(run.test or not run.shifts for run in expected)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("runs/batch_size", 0, "batch_size.*greater than or equal to 1.*0"),
        ("runs/batch_size", "many", "batch_size.*valid integer.*many"),
        ("runs/steps", 0, "steps.*greater than 0.*0"),
        ("runs/momentum", 0.9, "momentum.*Extra inputs are not permitted"),
        ("colour", "red", "colour.*Extra inputs are not permitted"),
        ("arms/ema/readouts", [], "readouts.*at least 1 item"),
        ("arms/ema/unit", 0, "unit.*greater than 0.*0"),
        ("conditions/linear/points", 2, "points must be odd and at least 3.*got 2"),
        ("tune_by", ["test accuracy"], "tune_by.*'accuracy', 'loss' or 'steps to target'"),
        ("tune_by", ["steps to target"], r"targets must state one for each task.*not for \['mnist1d-mlp'\]"),
        ("report", "best", "report.*'choices', 'all-arms' or 'everything'"),
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
        ("profiles/laptop/mnist1d-mlp/ramps", [0], "ramps.*greater than or equal to 1.*0"),
        ("profiles/laptop/mnist1d-mlp/arms", ["swa"], r"names arms \['swa'\]; there are \['last', 'ema'"),
        ("profiles/laptop/mnist1d-mlp/conditions", ["x"], r"names conditions \['x'\]; there are \['constant', 'linear"),
        ("profiles/huge", {}, "profile must be one of.*laptop.*got 'huge'"),
    ],
)
def test_bad_value_in_the_study_is_refused_by_name_with_what_is_allowed(path, value, sentence):
    with pytest.raises(ValidationError, match=re.compile(sentence, re.DOTALL)):
        Experiment(name="toy", **changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("runs/optimizer", "magic", r"optimizer must be one of \['adam'.*got 'magic'"),
        ("conditions/linear/schedule", "zigzag", r"schedule must be one of \[.*'linear'.*\], got 'zigzag'"),
        ("arms/ema/readouts", ["ema-x"], "ema-x.*allowed: last, at-PERCENT, ema-WINDOW"),
        ("readouts", ["ema-x"], "ema-x.*allowed: last, at-PERCENT, ema-WINDOW"),
        ("conditions/linear/task", {"norm": "magic"}, "norm must be one of .*'batch'.*, got 'magic'"),
        ("profiles/laptop/mnist1d-mlp/probes", ["temperature"], "probes must be among .*'orbit'.*temperature"),
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
        ({"experiment": "weights"}, r"experiment must be one of \[.*'weight_averaging'.*\], got 'weights'"),
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
    """Every task, condition and arm that some profile runs is either in this profile or named as left out."""
    gone = {line.split(" without ")[0]: line.partition(" without ")[2] for line in left_out(profile)}
    for name, experiment in load_study().items():
        for task in {task for tasks in experiment.profiles.values() for task in tasks}:
            size, told = experiment.profiles[profile].get(task), gone.get(f"{name}/{task}")
            if size is None:
                assert told == ""
                continue
            lines = [line for line in left_out(profile) if line.startswith(f"{name}/{task} without ")]
            absent = [n for n in experiment.conditions if size.conditions and n not in size.conditions]
            without = [n for n in experiment.arms if size.arms and n not in size.arms]
            assert lines == [f"{name}/{task} without {', '.join(part)}" for part in (absent, without) if part]


def test_what_is_left_out_is_named_task_condition_and_arm(tmp_path):
    profiles = {"smoke": {"mnist1d-mlp": LAPTOP | {"conditions": ["constant"], "arms": ["last", "ema", "tail"]}},
                "laptop": {"mnist1d-mlp": LAPTOP}, "desk": {}}  # fmt: skip
    write_experiments(tmp_path, SMALL_EXPERIMENT | {"profiles": profiles})
    with experiments_from(tmp_path):
        names = ["toy/mnist1d-mlp without linear", "toy/mnist1d-mlp without checkpoints, ramp"]
        assert left_out("smoke") == names and left_out("laptop") == [] and left_out("desk") == ["toy/mnist1d-mlp"]


# ---- settings ------------------------------------------------------------------------------------------------------


def test_settings_under_others_keep_what_these_do_not_say_and_multiply_factors():
    low = Settings(optimizer="sgd", batch_size=8, task={"norm": "none", "examples": 200}, steps=2, unit=0.5)
    high = Settings(schedule="linear", batch_size=16, task={"norm": "batch"}, steps=0.25, unit=4)
    found = low.under(high)
    assert (found.optimizer, found.schedule, found.batch_size) == ("sgd", "linear", 16)
    assert (found.steps, found.unit) == (0.5, 2.0)
    assert found.task == {"norm": "batch", "examples": 200}


def test_settings_under_nothing_are_themselves():
    told = Settings(optimizer="adam", schedule="linear", batch_size=3, task={"norm": "batch"}, steps=3, unit=2)
    assert told.under(Settings()) == told == Settings().under(told)


@given(st.lists(st.sampled_from([Settings(steps=2), Condition(unit=3, optimizer="adam"), Arm(task={"norm": "group"}),
                                 Arm(optimizer="sgd", steps=0.5)]), min_size=3, max_size=3))  # fmt: skip
def test_settings_under_one_another_do_not_depend_on_where_brackets_stand(three):
    a, b, c = (Settings().under(part) for part in three)
    assert a.under(b).under(c) == a.under(b.under(c))


def test_arm_beats_condition_beats_runs():
    plan = varied(
        {"plain": {}, "named": {"schedule": "linear", "optimizer": "adam", "batch_size": 50}},
        {"own": {"optimizer": "sgd"}, "none": {}},
    )
    run = lambda *place: plan.tuning(*place, [0])[0]
    assert (run("plain", "none").optimizer, run("plain", "none").schedule) == ("momentum", "constant")
    assert run("named", "none").optimizer == "adam" and run("named", "own").optimizer == "sgd"
    assert {run("named", arm).schedule for arm in plan.arms} == {"linear"}
    assert {run("named", arm).batch_size for arm in plan.arms} == {50} and run("plain", "own").batch_size == 100


def test_units_multiply_the_rates_of_the_grid():
    """Condition × arm, rounded to four digits only at the end; the grid itself is the centre's."""
    plan = varied({"a": {}, "b": {"unit": 3}}, {"x": {}, "y": {"unit": 0.1}})
    for place, unit in ((("a", "x"), 1), (("a", "y"), 0.1), (("b", "x"), 3), (("b", "y"), 0.3)):
        found = [plan.tuning(*place, [i])[0].lr for i in (-2, 0, 1)]
        assert found == pytest.approx([0.025 * unit, 0.1 * unit, 0.2 * unit], rel=1e-3)
        assert found == [float(f"{lr:.4g}") for lr in found] == [plan.rate(*place, i) for i in (-2, 0, 1)]


def test_steps_factor_lengthens_or_shortens_a_condition():
    plan = varied({"a": {}, "b": {"steps": 5}, "c": {"steps": 0.25}}, size={"steps": 200})
    assert [plan.tuning(name, "last", [0])[0].steps for name in "abc"] == [200, 1000, 50]


def test_examples_cap_the_updates_of_large_batches_alone():
    """No run sees more than so many examples, and none makes more updates than the profile's."""
    sizes = {f"n = {n}": {"batch_size": n} for n in (10, 100, 1000)}
    plan = varied(sizes, {"last": {}}, size={"steps": 40, "examples": 2_000})
    runs = [plan.tuning(name, "last", [0])[0] for name in sizes]
    assert [run.steps for run in runs] == [40, 20, 2]
    assert all(run.steps * run.batch_size <= 2_000 for run in runs)


def test_batch_is_never_larger_than_what_there_is_to_train_on():
    """In the study n = m names the whole training set, of 200 examples too."""
    plan = varied({"all": {"batch_size": 1_000_000}, "few": {"batch_size": 1_000_000, "task": {"examples": 200}}})
    batches = [plan.tuning(name, "last", [0])[0].batch_size for name in ("all", "few")]
    assert batches == [SPLIT_SIZES["mnist1d"]["train"], 200]


def test_task_options_of_runs_condition_and_arm_add_up_in_the_task():
    plan = varied({"few": {"task": {"examples": 200}}}, {"bn": {"task": {"norm": "batch"}}, "none": {}})
    assert read(plan.tuning("few", "bn", [0])[0].task).options == {"examples": 200, "norm": "batch"}
    assert read(plan.tuning("few", "none", [0])[0].task).options == {"examples": 200}
    assert base(plan.tuning("few", "bn", [0])[0].task) == "mnist1d-mlp"


def test_conditions_may_have_arms_and_a_grid_of_their_own():
    plan = varied({"whole": {}, "part": {"schedule": "linear", "arms": ["ema", "last"], "points": 3}})
    assert plan.arms_in("whole") == list(SMALL_EXPERIMENT["arms"]) and plan.arms_in("part") == ["last", "ema"]
    assert (plan.half("whole"), plan.half("part")) == (2, 1)
    rates = lambda schedule: {run.lr for run in plan.expected if run.schedule == schedule and not run.test}
    assert rates("constant") == {0.025, 0.05, 0.1, 0.2, 0.4} and rates("linear") == {0.05, 0.1, 0.2}


def test_profile_may_leave_out_conditions_and_arms():
    plan = varied(size={"conditions": ["linear"], "arms": ["tail", "last"]})
    assert plan.conditions == ("linear",) and set(plan.arms) == {"tail", "last"}
    assert {run.schedule for run in plan.expected} == {"linear"}
    assert set(plan.readouts) == {"last", "tail-25"}


def test_readouts_are_those_of_the_arms_and_those_shown_besides_each_once():
    plan = varied(readouts=["last", "ema-2"])
    assert sorted(plan.readouts) == sorted(
        ["last", "ema-2", "ema-10", "ema-30", "ema-ramp", "tail-25", "checkpoints-2"]
    )


def test_runs_are_found_again_in_a_table_by_their_trajectory():
    """Each arm finds its own runs and those of arms that differ in readouts or unit alone; range tests are no arm's."""
    plan = varied(None, {"sgd": {"optimizer": "sgd"}, "adam": {"optimizer": "adam"}, "few": {"task": {"examples": 200}},
                         "wide": {"optimizer": "adam", "unit": 4}}, size={"ramps": [50]})  # fmt: skip
    table = tables(plan.expected).runs
    for place in places(plan):
        mine = [*plan.tuning(*place, range(-2, 3)), *plan.reporting(*place, [-1, 0, 1])]
        found = set(plan.trajectory(*place).of(table).run)
        assert {run.key for run in mine} <= found
        others = [run for other in places(plan) if other[0] != place[0] or plan.trajectory(*other) !=
                  plan.trajectory(*place) for run in plan.tuning(*other, range(-2, 3))]  # fmt: skip
        assert found.isdisjoint(run.key for run in [*others, *plan.range_tests(50)])


def test_plan_with_arms_that_share_runs_expects_each_once():
    """Five arms are readouts of the same runs: two conditions × (5 rates × 3 tuning seeds + 5 × 5 report seeds)."""
    keys = [run.key for run in plan_of(SMALL_EXPERIMENT).expected]
    assert len(keys) == len(set(keys)) == 2 * (5 * 3 + 5 * 5)


@pytest.mark.parametrize(("report", "rates"), [("choices", 3), ("all-arms", 5), ("everything", 7)])
def test_an_arm_alone_expects_report_runs_around_its_choice_or_more(report, rates):
    arms = {"sgd": {"optimizer": "sgd"}, "adam": {"optimizer": "adam"}}
    expected = varied(None, arms, {"points": 7}, report=report).expected
    assert len([run for run in expected if run.test]) == 2 * 2 * rates * 5


def test_default_rate_is_reported_at_the_nearest_grid_point():
    plan = varied(None, {"plain": {}, "adam": {"optimizer": "adam", "unit": 0.05, "default": 0.001}}, {"points": 9})
    whole = range(-4, 5)
    assert plan.default_index("constant", "plain", whole) == []
    (index,) = plan.default_index("constant", "adam", whole)  # 0.005·2^−2 = 0.00125 is nearer than 0.000625
    assert index == -2 and {run.lr for run in plan.expected if run.test and run.optimizer == "adam"} == {
        0.0025, 0.005, 0.01, 0.00125}  # fmt: skip


# ---- what runs look at ---------------------------------------------------------------------------------------------


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
    fields = {"tune_by": ["accuracy", "steps to target"], "targets": {"saddle": -0.2, "mnist1d-mlp": 0.5},
              "rates": {"saddle": {"center": 0.5, "ratio": 3}, "mnist1d-mlp": {"center": 0.1, "ratio": 2}},
              "profiles": {"laptop": {"saddle": LAPTOP, "mnist1d-mlp": LAPTOP}}}  # fmt: skip
    experiment = Experiment(name="toy", **(SMALL_EXPERIMENT | fields))
    by = {task: Plan(experiment=experiment, task=task, profile="laptop").tune_by for task in experiment.rates}
    assert by == {"saddle": ("loss", "steps to target"), "mnist1d-mlp": ("accuracy", "steps to target")}


def test_range_tests_raise_the_rate_over_the_ramp_and_keep_every_loss():
    plan = varied(size={"ramps": [50, 200]})
    for length in plan.size.ramps:
        runs = plan.range_tests(length)
        assert [run.seed for run in runs] == list(range(plan.size.report))
        for run in runs:
            rates = run.rates()
            assert len(rates) == run.steps == length and not run.test and run.probes == ("losses",)
            assert (rates[0], rates[-1]) == pytest.approx(RAMP)
            assert rates[1:] / rates[:-1] == pytest.approx((RAMP[1] / RAMP[0]) ** (1 / (length - 1)))
    assert {run.steps for run in plan.expected if is_ramp(run)} == {50, 200}
    assert len(plan.expected) == len(plan_of(SMALL_EXPERIMENT).expected) + 2 * plan.size.report
    assert not any(is_ramp(run) for run in plan_of(SMALL_EXPERIMENT).expected)


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
    before, after = ({run.key for run in plan.tuning("constant", "last", range(-h, h + 1))} for h in (2, 3))
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


# ---- cost ----------------------------------------------------------------------------------------------------------


def test_cost_counts_networks_steps_and_stacks_as_planned(plan, expected):
    cost, steps = cost_of(EVERY_PLAN.index(plan)), sum(run.steps for run in expected)
    assert (cost["networks"], cost["replica_steps"]) == (len(expected), steps)
    assert cost["stacks"] == len(stacks(expected, "cpu"))
    work = sum(run.steps * max(0.3, run.batch_size / 100) for run in expected)
    assert cost["minutes"] >= round(work / stack_plans()["cpu"][plan.task].rate / 60, 1)
    assert cost["memory_gib"] > 0 and cost["disk_mb"] > 0


def test_plans_cost_more_from_profile_to_profile():
    """Together, and each experiment on each task that two profiles share."""
    minutes = {(p.profile, label(p).partition("-")[2]): cost_of(place)["minutes"] for place, p in enumerate(EVERY_PLAN)}
    sums = [sum(cost for (profile, _), cost in minutes.items() if profile == name) for name in PROFILES]
    assert sums == sorted(sums) and sums[-1] > 5 * sums[0]
    for less, more in pairwise(PROFILES):
        for name in {name for profile, name in minutes if profile == less} & {n for p, n in minutes if p == more}:
            assert minutes[less, name] <= minutes[more, name], name


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
