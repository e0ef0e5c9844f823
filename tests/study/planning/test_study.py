"""What the study says: valid files, bad values refused by name, settings that add up."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fabricated import SMALL_EXPERIMENT, experiments_from, write_experiments
from planned import EVERY_PLAN, changed, label, plan_of, varied
from steadydescent.engine.data import SPLIT_SIZES
from steadydescent.engine.settings import read
from steadydescent.engine.tasks import TASKS, base
from steadydescent.study.paths import EXPERIMENTS
from steadydescent.study.planning import (
    PROFILES,
    Arm,
    Condition,
    Experiment,
    Recipe,
    load_study,
)

# ---- the files -----------------------------------------------------------------------------------


def test_every_experiment_has_its_notebook_and_rates_for_known_tasks():
    for experiment in load_study().values():
        assert (EXPERIMENTS / experiment.notebook).exists()
        assert set(experiment.rates) <= set(TASKS)
        assert set(experiment.profiles) == set(PROFILES)
        for tasks in experiment.profiles.values():
            assert set(tasks) <= set(experiment.rates)
        for condition in experiment.conditions.values():
            assert set(condition.arms or ()) <= set(experiment.arms)
        for stated in {stated for pair in experiment.secondary for stated in pair}:
            assert stated.arm in experiment.arms, stated
            assert stated.condition in (None, *experiment.conditions), stated


def test_profiles_keep_the_numbers_of_seeds_and_updates_that_the_design_promises():
    """As many report seeds as the design says, but where a desk has no time for a larger task; each
    says how many.
    """
    for plan in EVERY_PLAN:
        if plan.profile == "smoke":
            assert plan.size.report <= 3 and plan.size.steps <= 500
            continue
        on_signals = plan.task == "mnist1d-mlp"
        assert plan.size.steps >= (400 if plan.profile == "desk" and not on_signals else 1_000)
        least = {"full": (100, 30), "laptop": (20, 20), "desk": (20, 4)}[plan.profile]
        share = 0.5 if plan.experiment.report == "everything" else 1  # every trial is reported
        assert plan.size.report >= share * least[0 if on_signals else 1], label(plan)


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
        (
            "tune_by",
            ["steps to target"],
            r"targets must state one for each task.*not for \['mnist1d-mlp'\]",
        ),
        ("report", "best", "report.*'choices', 'all-arms' or 'everything'"),
        ("rates/mnist1d-mlp/center", 0, "center.*greater than 0.*0"),
        ("rates/mnist1d-mlp/center", float("inf"), "center.*finite.*inf"),
        ("rates/mnist1d-mlp/ratio", 1, "ratio.*greater than 1.*1"),
        ("rates/mnist1d-mlp/points", 4, "points must be odd and at least 3.*got 4"),
        ("rates/mnist1d-mlp/points", 1, "points must be odd and at least 3.*got 1"),
        ("profiles/laptop/mnist1d-mlp/points", 6, "points must be odd and at least 3.*got 6"),
        ("profiles/laptop/mnist1d-mlp/points", 0, "points must be odd and at least 3.*got 0"),
        ("curve_points", 1, "curve_points.*greater than or equal to 2.*1"),
        (
            "profiles/laptop/mnist1d-mlp/curve_points",
            1,
            "curve_points.*greater than or equal to 2.*1",
        ),
        ("profiles/laptop/mnist1d-mlp/steps", 0, "steps.*greater than or equal to 1.*0"),
        ("profiles/laptop/mnist1d-mlp/tuning", 1, "tuning.*greater than or equal to 2.*1"),
        ("profiles/laptop/mnist1d-mlp/report", 1, "report.*greater than or equal to 2.*1"),
        (
            "profiles/laptop/mnist1d-mlp/report",
            10_001,
            "report.*less than or equal to 9000.*10001",
        ),
        (
            "profiles/laptop/cifar-mlp",
            {"steps": 40, "tuning": 2, "report": 2},
            r"'laptop' names \['cifar-mlp'\]",
        ),
        ("profiles/laptop/mnist1d-mlp/ramps", [0], "ramps.*greater than or equal to 1.*0"),
        (
            "profiles/laptop/mnist1d-mlp/arms",
            ["swa"],
            r"an arm in laptop/mnist1d-mlp must be one of \['last', 'ema'.*got 'swa'",
        ),
        (
            "profiles/laptop/mnist1d-mlp/conditions",
            ["x"],
            r"a condition in laptop/mnist1d-mlp must be one of \['constant', 'linear'\], got 'x'",
        ),
        ("shifted", ["swa"], r"an arm in shifted must be one of \['last', 'ema'.*got 'swa'"),
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
        (
            "conditions/linear/schedule",
            "zigzag",
            r"schedule must be one of \[.*'linear'.*\], got 'zigzag'",
        ),
        ("arms/ema/readouts", ["ema-x"], "ema-x.*allowed: last, at-PERCENT, ema-WINDOW"),
        ("readouts", ["ema-x"], "ema-x.*allowed: last, at-PERCENT, ema-WINDOW"),
        (
            "conditions/linear/task",
            {"norm": "magic"},
            "norm must be one of .*'batch'.*, got 'magic'",
        ),
        (
            "profiles/laptop/mnist1d-mlp/probes",
            ["temperature"],
            "probes must be among .*'orbit'.*temperature",
        ),
    ],
)
def test_bad_word_in_the_study_is_refused_before_anything_is_trained(path, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        plan_of(changed(path, value)).expected  # noqa: B018


def test_file_with_a_bad_value_is_refused_when_it_is_loaded(tmp_path):
    write_experiments(tmp_path, changed("rates/mnist1d-mlp/ratio", 0.5))
    with (
        experiments_from(tmp_path),
        pytest.raises(ValueError, match=r"study.yml, line 1: toy: rates: .*ratio: .*0\.5"),
    ):
        load_study()
    assert "toy" not in load_study()


# ---- settings ------------------------------------------------------------------------------------


def test_settings_under_others_keep_what_these_do_not_say_and_multiply_factors():
    low = Recipe(
        optimizer="sgd", batch_size=8, task={"norm": "none", "examples": 200}, steps=2, unit=0.5
    )
    high = Recipe(schedule="linear", batch_size=16, task={"norm": "batch"}, steps=0.25, unit=4)
    found = low.under(high)
    assert (found.optimizer, found.schedule, found.batch_size) == ("sgd", "linear", 16)
    assert (found.steps, found.unit) == (0.5, 2.0)
    assert found.task == {"norm": "batch", "examples": 200}


def test_settings_under_nothing_are_themselves():
    told = Recipe(
        optimizer="adam", schedule="linear", batch_size=3, task={"norm": "batch"}, steps=3, unit=2
    )
    assert told.under(Recipe()) == told == Recipe().under(told)


@given(
    st.lists(
        st.sampled_from(
            [
                Recipe(steps=2),
                Condition(unit=3, optimizer="adam"),
                Arm(task={"norm": "group"}),
                Arm(optimizer="sgd", steps=0.5),
            ]
        ),
        min_size=3,
        max_size=3,
    )
)
def test_settings_under_one_another_do_not_depend_on_where_brackets_stand(three):
    a, b, c = (Recipe().under(part) for part in three)
    assert a.under(b).under(c) == a.under(b.under(c))


def test_arm_beats_condition_beats_runs():
    plan = varied(
        {"plain": {}, "named": {"schedule": "linear", "optimizer": "adam", "batch_size": 50}},
        {"own": {"optimizer": "sgd"}, "none": {}},
    )
    run = lambda *place: plan.tuning(*place, [0])[0]
    assert (run("plain", "none").optimizer, run("plain", "none").schedule) == (
        "momentum",
        "constant",
    )
    assert run("named", "none").optimizer == "adam" and run("named", "own").optimizer == "sgd"
    assert {run("named", arm).schedule for arm in plan.arms} == {"linear"}
    assert {run("named", arm).batch_size for arm in plan.arms} == {50} and run(
        "plain", "own"
    ).batch_size == 100


def test_units_multiply_the_rates_of_the_grid():
    """Condition × arm, rounded to four digits only at the end; the grid itself is the centre's."""
    plan = varied({"a": {}, "b": {"unit": 3}}, {"x": {}, "y": {"unit": 0.1}})
    for place, unit in ((("a", "x"), 1), (("a", "y"), 0.1), (("b", "x"), 3), (("b", "y"), 0.3)):
        found = [plan.tuning(*place, [i])[0].lr for i in (-2, 0, 1)]
        assert found == pytest.approx([0.025 * unit, 0.1 * unit, 0.2 * unit], rel=1e-3)
        assert (
            found
            == [float(f"{lr:.4g}") for lr in found]
            == [plan.rate(*place, i) for i in (-2, 0, 1)]
        )


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
    plan = varied(
        {
            "all": {"batch_size": 1_000_000},
            "few": {"batch_size": 1_000_000, "task": {"examples": 200}},
        }
    )
    batches = [plan.tuning(name, "last", [0])[0].batch_size for name in ("all", "few")]
    assert batches == [SPLIT_SIZES["mnist1d"]["train"], 200]


def test_task_options_of_runs_condition_and_arm_add_up_in_the_task():
    plan = varied(
        {"few": {"task": {"examples": 200}}}, {"bn": {"task": {"norm": "batch"}}, "none": {}}
    )
    assert read(plan.tuning("few", "bn", [0])[0].task).options == {"examples": 200, "norm": "batch"}
    assert read(plan.tuning("few", "none", [0])[0].task).options == {"examples": 200}
    assert base(plan.tuning("few", "bn", [0])[0].task) == "mnist1d-mlp"


def test_conditions_may_have_arms_and_a_grid_of_their_own():
    plan = varied(
        {"whole": {}, "part": {"schedule": "linear", "arms": ["ema", "last"], "points": 3}}
    )
    assert plan.arms_in("whole") == list(SMALL_EXPERIMENT["arms"]) and plan.arms_in("part") == [
        "last",
        "ema",
    ]
    assert (plan.half("whole"), plan.half("part")) == (2, 1)
    rates = lambda schedule: {
        run.lr for run in plan.expected if run.schedule == schedule and not run.test
    }
    assert rates("constant") == {0.025, 0.05, 0.1, 0.2, 0.4} and rates("linear") == {0.05, 0.1, 0.2}


def test_profile_may_leave_out_conditions_and_arms():
    plan = varied(size={"conditions": ["linear"], "arms": ["tail", "last"]})
    assert plan.conditions == ("linear",) and set(plan.arms) == {"tail", "last"}
    assert {run.schedule for run in plan.expected} == {"linear"}
    assert set(plan.readouts("linear")) == {"last", "tail-25"}


def test_readouts_are_those_of_the_arms_and_those_shown_besides_each_once():
    plan = varied(readouts=["last", "ema-2"])
    assert sorted(plan.readouts("constant")) == sorted(
        ["last", "ema-2", "ema-10", "ema-30", "ema-ramp", "tail-25", "checkpoints-2"]
    )


def test_arms_that_are_scored_on_shifted_inputs_are_all_or_those_named():
    shifts = {"profiles/laptop/mnist1d-mlp/shifts": ["shear(severity=3)"]}
    asked = lambda plan: {run.shifted_readouts for run in plan.expected if run.test}
    all_scored = plan_of(changed(*shifts.popitem()))
    assert asked(all_scored) == {()}
    named = all_scored.experiment.model_copy(update={"shifted": ("tail", "ema")})
    plan = all_scored.model_copy(update={"experiment": named})
    assert asked(plan) == {("ema-10", "ema-30", "tail-25")}
    assert not any(run.shifted_readouts for run in plan.expected if not run.test)
    assert {run.key for run in plan.expected if run.test}.isdisjoint(
        run.key for run in all_scored.expected
    )


def test_arms_of_batch_norm_statistics_are_there_where_networks_have_batch_norm():
    arms = {
        "ema": {"readouts": ["ema-10"]},
        "copied": {"readouts": ["ema-10/copied", "ema-30/copied"]},
    }
    plan = varied({"none": {}, "normed": {"task": {"norm": "batch"}}}, arms)
    assert plan.arms_in("none") == ["ema"] and plan.arms_in("normed") == ["ema", "copied"]
    assert plan.readouts("none") == ("ema-10",)
    assert plan.readouts("normed") == ("ema-10", "ema-10/copied", "ema-30/copied")


def test_plan_with_arms_that_share_runs_expects_each_once():
    """Five arms are readouts of the same runs: two conditions × (5 rates × 3 tuning seeds + 5 × 5
    report seeds).
    """
    keys = [run.key for run in plan_of(SMALL_EXPERIMENT).expected]
    assert len(keys) == len(set(keys)) == 2 * (5 * 3 + 5 * 5)


@pytest.mark.parametrize(("report", "rates"), [("choices", 4), ("all-arms", 6), ("everything", 7)])
def test_an_arm_alone_expects_report_runs_around_its_choice_or_more(report, rates):
    arms = {"sgd": {"optimizer": "sgd"}, "adam": {"optimizer": "adam"}}
    expected = varied(None, arms, {"points": 7}, report=report).expected
    assert len([run for run in expected if run.test]) == 2 * 2 * rates * 5


def test_default_rate_is_reported_at_the_nearest_grid_point():
    plan = varied(
        None,
        {"plain": {}, "adam": {"optimizer": "adam", "unit": 0.05, "default": 0.001}},
        {"points": 9},
    )
    whole = range(-4, 5)  # of 0.1·2^i
    assert plan.besides("constant", "plain", whole, {}) == set()
    assert plan.besides("constant", "adam", whole, {}) == {
        -2
    }  # 0.005·2^−2 = 0.00125 is nearer than 0.000625
    assert {run.lr for run in plan.expected if run.test and run.optimizer == "adam"} == {
        0.0025,
        0.005,
        0.01,
        0.02,  # in case that redraws crowd at the edge
        0.00125,
    }


def test_rates_chosen_for_another_arm_are_reported_too():
    """The other arm chose 0.1·2^1 and 0.1·2^4; these and their neighbours are at −2 … 0 and 1 … 3
    of a grid that starts at four times as much: another tuning might choose a neighbour.
    """
    plan = varied(
        None, {"plain": {}, "falling": {"schedule": "linear", "unit": 4, "at_rate_of": "plain"}}
    )
    chosen = {"plain": [1, 4], "falling": [0]}
    assert plan.besides("constant", "falling", range(-4, 5), chosen) == {-2, -1, 0, 1, 2, 3}
    assert plan.besides("constant", "plain", range(-4, 5), chosen) == set()
    with pytest.raises(
        ValueError, match=r"at_rate_of of 'falling' must be one of .*, got 'absent'"
    ):
        varied(None, {"plain": {}, "falling": {"at_rate_of": "absent"}})
