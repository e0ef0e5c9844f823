"""One's own variation of an experiment does what it says, is checked whole, and is no study's."""

import json
import re
from itertools import pairwise
from typing import get_args

import pytest

from planned import EVERY_PLAN, label
from steadydescent.engine.settings import read
from steadydescent.study.planning import Plan, load_study, plan_of, varied
from steadydescent.study.planning.axes import AXES, COMMON
from steadydescent.study.planning.experiment import AxisName

TASK = "mnist1d-mlp"
SMOKE = [plan for plan in EVERY_PLAN if plan.profile == "smoke"]


def own(experiment: str, profile: str = "smoke", **parameters) -> Plan:
    return plan_of(experiment, TASK, profile, **parameters)


def tuning(plan: Plan, condition: str, arm: str):
    return plan.tuning(condition, arm, [0])[0]


# ---- what is not varied --------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", [None, [], (), "", "null", "[]"])
@pytest.mark.parametrize("plan", SMOKE, ids=label)
def test_parameters_that_say_nothing_leave_the_studys_own_plan(plan, nothing):
    names = [*plan.experiment.axes, *COMMON]
    same = plan_of(plan.experiment.name, plan.task, "smoke", **dict.fromkeys(names, nothing))
    assert same == plan and same.own == {}
    assert [run.key for run in same.expected] == [run.key for run in plan.expected]
    assert same.place.parts == ("smoke", plan.experiment.name, plan.task)


def test_parameters_that_say_what_the_study_says_leave_its_own_plan():
    assert own("optimizers", seeds=3, updates=100).own == {}
    assert own("decay_schedules", schedules=["constant", "linear", "plateau"]).own == {}
    assert own("optimizers", seeds=3, updates=90).own == {"updates": 90}


def test_experiment_may_be_run_by_the_notebook_of_another_whose_axis_it_has_not():
    assert own("optimizers", readouts=None, batch_sizes="[]", seeds=None).own == {}


def test_study_itself_is_never_changed():
    before = {name: one.model_dump_json() for name, one in load_study().items()}
    own("batch_size", batch_sizes=[8, 48], seeds=4)
    own("weight_averaging", readouts=["last", "ema-5"])
    assert {name: one.model_dump_json() for name, one in load_study().items()} == before


def test_every_axis_is_one_of_the_studys_and_every_experiment_has_one():
    axes = {axis for experiment in load_study().values() for axis in experiment.axes}
    assert axes == set(AXES) - set(COMMON) == set(get_args(AxisName))
    assert all(experiment.axes for experiment in load_study().values())


# ---- what each parameter does --------------------------------------------------------------------


def test_own_batch_sizes_are_conditions_for_every_arm_in_the_order_given():
    plan = own("batch_size", batch_sizes=[48, 16])
    assert plan.conditions == ("n = 48", "n = 16")
    assert [tuning(plan, name, "sgd").batch_size for name in plan.conditions] == [48, 16]
    assert all(plan.arms_in(name) == ["sgd", "momentum"] for name in plan.conditions)
    assert plan.own == {"batch_sizes": [48, 16]}


def test_own_batch_size_that_the_study_has_shares_its_runs():
    studied, plan = own("batch_size"), own("batch_size", batch_sizes=[8, 128])
    for size in (8, 128):
        mine = {run.key for run in plan.tuning(f"n = {size}", "sgd", range(-1, 2))}
        assert mine == {run.key for run in studied.tuning(f"n = {size}", "sgd", range(-1, 2))}


def test_unit_of_an_own_batch_size_lies_between_those_of_its_neighbours():
    sizes = [1, 2, 8, 20, 32, 100, 128, 700, 1024, 3000, 4000]
    plan = own("batch_size", batch_sizes=sizes)
    units = [plan.experiment.conditions[f"n = {size}"].unit for size in sizes]
    assert all(low < high for low, high in pairwise(units)), units
    assert (units[0], units[4], units[-1]) == (0.1, 0.7, 3)


def test_own_updates_count_for_every_size_whatever_examples_that_takes():
    plan = own("batch_size", batch_sizes=[1000], updates=333)
    assert tuning(plan, "n = 1000", "sgd").steps == 333
    assert tuning(own("batch_size", batch_sizes=[1000]), "n = 1000", "sgd").steps == 20


def test_own_seeds_are_report_seeds_and_at_most_as_many_tune():
    for seeds, tuned in ((2, 2), (7, 4), (3, 3)):
        plan = own("optimizers", "laptop", seeds=seeds)
        assert (plan.size.report, plan.size.tuning) == (seeds, tuned)


def test_own_optimizer_with_options_searches_the_rates_of_its_rule():
    plan = own("optimizers", optimizers=["adam", "adam(beta1=0.8)", "adamw"])
    assert plan.arms_in("constant") == ["adam", "adam(beta1=0.8)", "adamw"]
    other = tuning(plan, "constant", "adam(beta1=0.8)")
    assert read(other.optimizer) == ("adam", {"beta1": 0.8})
    assert other.lr == tuning(plan, "constant", "adam").lr


def test_own_arms_run_under_every_condition_of_the_profile():
    plan = own("optimizers", "desk", optimizers=["adamw", "sgd"])
    assert plan.conditions == ("constant", "linear")
    assert all(plan.arms_in(name) == ["adamw", "sgd"] for name in plan.conditions)


def test_own_schedule_with_options_searches_the_rates_of_its_kind():
    noam = "noam(d_model=64, warmup=50)"
    plan = own("decay_schedules", schedules=["cosine", noam])
    assert read(tuning(plan, "momentum", noam).schedule).options["warmup"] == 50
    units = {name: plan.experiment.arms[name].unit for name in plan.arms}
    assert units == {"cosine": 2, noam: 40}


def test_own_readouts_are_arms_of_one_readout_each_or_arms_of_the_study():
    plan = own("weight_averaging", readouts=["last", "ema-5", "checkpoints"])
    assert plan.arms["ema-5"].readouts == ("ema-5",)
    assert plan.arms["checkpoints"] == load_study()["weight_averaging"].arms["checkpoints"]
    assert plan.readouts("constant") == (
        *("last", "ema-5", "checkpoints-2", "checkpoints-4", "checkpoints-8", "checkpoints-16"),
    )


def test_probes_that_own_runs_cannot_have_are_left_out():
    """The orbit is measured around a tail mean."""
    assert own("weight_averaging", readouts=["last", "ema-5"]).size.probes == ("predictions",)
    with_tail = own("weight_averaging", readouts=["last", "tail-25"])
    assert with_tail.size.probes == ("orbit", "predictions")


def test_own_shifts_and_networks_are_those_of_the_report_runs():
    shift = "shear(severity=2)"
    plan = own("covariate_shift", shifts=[shift], arms=["batch norm", "group norm"])
    assert plan.arms_in("constant") == ["batch norm", "group norm"]
    assert plan.reporting("constant", "batch norm", [0])[0].shifts == (shift,)


def test_own_rates_run_from_the_lowest_to_the_highest_in_even_steps():
    plan = own("learning_rate_search", rates=[0.001, 1], ramps=[50, 70])
    rates = [plan.rate("dense sweep", "momentum", i) for i in range(-2, 3)]
    assert rates == [0.001, 0.005623, 0.03162, 0.1778, 1.0]
    lengths = {run.steps for run in plan.expected if read(run.schedule).name == "ramp"}
    assert lengths == {50, 70}


def test_text_is_read_as_yaml_and_as_json():
    plan = own("batch_size", batch_sizes=[16, 48])
    assert (
        plan == own("batch_size", batch_sizes="[16, 48]") == own("batch_size", batch_sizes=(16, 48))
    )
    names = ["adam", "sgd"]
    assert own("optimizers", optimizers="[adam, sgd]") == own("optimizers", optimizers=names)
    assert own("optimizers", optimizers=json.dumps(names)) == own("optimizers", optimizers=names)
    assert own("optimizers", seeds="4").own == {"seeds": 4}


def test_variations_lie_apart_from_the_study_and_from_one_another():
    plans = [
        own("batch_size", batch_sizes=[16]),
        own("batch_size", batch_sizes=[17]),
        own("batch_size", batch_sizes=[16], seeds=4),
        own("batch_size"),
    ]
    places = {plan.place for plan in plans}
    assert len(places) == 4
    assert all((plan.place.parts[0] == "own") == bool(plan.own) for plan in plans)
    assert own("batch_size", batch_sizes="[16]").place == plans[0].place
    assert [plan.name for plan in plans] == [*3 * ["own-batch_size"], "batch_size"]


def test_own_batch_sizes_go_before_one_that_a_profile_states_for_its_task():
    experiment = load_study()["batch_size"]
    size = experiment.profiles["smoke"][TASK].model_copy(update={"batch_size": 7})
    profiles = experiment.profiles | {"smoke": {TASK: size}}
    experiment = experiment.model_copy(update={"profiles": profiles})
    other = varied(experiment, TASK, "smoke", batch_sizes=[16])
    plan = Plan(experiment=other, task=TASK, profile="smoke")
    assert tuning(plan, "n = 16", "sgd").batch_size == 16


# ---- what is refused -----------------------------------------------------------------------------

REFUSED = [
    ("batch_size", {"batch_sizes": [16, 5000]}, r"batch_sizes=.*at most the 4000 .*got 5000"),
    ("batch_size", {"batch_sizes": [16, 16]}, r"batch_sizes must not be given twice, got '16'"),
    ("batch_size", {"batch_sizes": [16.0]}, r"batch_sizes must be a list of whole .*got \[16\.0\]"),
    ("batch_size", {"batch_sizes": [0]}, r"batch_sizes must be .* from 1 on.*got \[0\]"),
    ("batch_size", {"batch_sizes": [True]}, r"batch_sizes must be .*got \[True\]"),
    ("batch_size", {"batch_sizes": 16}, r"batch_sizes must be .*such as \[16, 48\], got 16"),
    ("batch_size", {"batch_sizes": {"n": 1}}, r"batch_sizes must be a list .*got \{'n': 1\}"),
    ("batch_size", {"batch_sizes": "[16"}, r"batch_sizes, line 2: is no YAML"),
    ("batch_size", {"seeds": 1}, r"seeds must be a whole number from 2 to 9000, got 1"),
    ("batch_size", {"seeds": 10_001}, r"seeds must be .*got 10001"),
    ("batch_size", {"seeds": True}, r"seeds must be .*got True"),
    ("batch_size", {"updates": 0}, r"updates must be a whole number from 1 to \d+, got 0"),
    ("batch_size", {"updates": "many"}, r"updates must be .*got 'many'"),
    ("batch_size", {"optimizers": ["adam"]}, r"a parameter of batch_size must be one of .*'batch"),
    ("optimizers", {"optimizers": ["adamm"]}, r"optimizers=.*'adamm' is unknown; .*'adam'\? Known"),
    ("optimizers", {"optimizers": "adam"}, r"optimizers must be a list .*got 'adam'"),
    ("optimizers", {"optimizers": ["adam("]}, r"optimizers=.*not of the form"),
    ("optimizers", {"optimizers": ["adam(beta9=1)"]}, r"optimizers=.*beta9.*has \['beta1'"),
    (
        "optimizers",
        {"optimizers": ["adam", "adam(beta1=0.9)"]},
        r"optimizers=.*'adam' and 'adam\(beta1=0.9\)' are the same",
    ),
    ("decay_schedules", {"schedules": ["cosin"]}, r"schedules=.*did you mean 'cosine'"),
    ("decay_schedules", {"schedules": ["noam"]}, r"schedules=.*needs the options \['d_model'"),
    ("weight_averaging", {"readouts": ["ema-x"]}, r"readouts=.*ema-x.*allowed: last, at-PERCENT"),
    ("weight_averaging", {"readouts": ["ema-2/copied"]}, r"readouts=.*needs batch norm"),
    ("weight_averaging", {"readouts": ["ema-1"], "updates": 5}, r"readouts=.*updates=5.*5 steps"),
    ("covariate_shift", {"shifts": ["sheer(severity=2)"]}, r"shifts=.*must be one of .*'shear'"),
    ("covariate_shift", {"shifts": ["shear(severity=9)"]}, r"shifts=.*from 0 to 5, got 9"),
    (
        "covariate_shift",
        {"shifts": ["shear(severity=2)", "shear(severity=2, statistics=frozen)"]},
        r"shifts=.*a shift must not be given twice",
    ),
    ("covariate_shift", {"arms": ["norm"]}, r"arms=.*'norm' is unknown.*'batch norm'"),
    (
        "learning_rate_search",
        {"rates": [1, 0.1]},
        r"rates must be the lowest and .*got \[1, 0\.1\]",
    ),
    ("learning_rate_search", {"rates": [0.1]}, r"rates must be the lowest and the highest"),
    ("learning_rate_search", {"ramps": [1]}, r"ramps=\[1\].*range tests of 1 updates.*at least 2"),
]


@pytest.mark.parametrize(("experiment", "parameters", "sentence"), REFUSED)
def test_bad_parameter_is_refused_in_a_sentence_that_names_it_its_value_and_what_is_allowed(
    experiment, parameters, sentence
):
    with pytest.raises(ValueError, match=sentence) as refused:
        own(experiment, **parameters)
    assert "\n" not in str(refused.value)
    assert any(re.search(rf"\b{name}\b", str(refused.value)) for name in parameters)


def test_only_the_task_and_profile_that_are_varied_change():
    before = load_study()["optimizers"]
    after = varied(before, TASK, "smoke", updates=60)
    sizes = lambda one: {
        (profile, task): size for profile, own in one.profiles.items() for task, size in own.items()
    }
    differing = [place for place, size in sizes(before).items() if sizes(after)[place] != size]
    assert differing == [("smoke", TASK)]
