"""One's own variation of an experiment: other minibatch sizes, optimisers, … than the study's.

A notebook's parameters say it. `study.yml` names the axes of each experiment; `seeds` and `updates`
go with all of them. A variation is a plan like any other, whose runs are trained, tuned and stored
alike; what it changes stands in `Plan.own`, and its results lie in a folder of their own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from steadydescent.checks import check_choice
from steadydescent.engine.data import SPLIT_SIZES
from steadydescent.engine.runs import Run
from steadydescent.engine.settings import read
from steadydescent.engine.tasks import find
from steadydescent.study.planning.claims import check_claims
from steadydescent.study.planning.experiment import (
    FIRST_TUNING_SEED,
    Arm,
    Condition,
    Experiment,
    Grid,
    Parameters,
    load_study,
)
from steadydescent.study.planning.plan import Plan
from steadydescent.study.yaml_files import shown, unique, value_of

MOST_UPDATES = 10**7


class Axis(NamedTuple):
    """What a parameter may be, in words and as a check, and the experiment that it makes."""

    allowed: str
    fits: Callable[[Any], bool]
    vary: Callable[[Plan, Any], Experiment]


def plan_of(experiment: str, task: str, profile: str, device: str = "auto", **own: Any) -> Plan:
    """The study's plan, or one's own variation of it where a parameter says something else.

    Raises: ValueError: for an unknown word, and as `varied`.
    """
    Parameters(experiment=experiment, task=task, profile=profile, device=device)
    check_claims(load_study())
    studied = load_study()[experiment]
    changes = {
        name: value
        for name, value in stated(studied, own).items()
        if varied(studied, task, profile, **{name: value}) != studied
    }
    varying = varied(studied, task, profile, **changes)
    return Plan(experiment=varying, task=task, profile=profile, own=changes)


def varied(experiment: Experiment, task: str, profile: str, **own: Any) -> Experiment:
    """The experiment as `own` varies it on one task in one profile; equal to it where it does not.

    Raises: ValueError: for a parameter that the experiment has not, or a value that is not allowed,
        with name, value and what is allowed.
    """
    changes = stated(experiment, own)
    for name, value in changes.items():
        plan = Plan(experiment=experiment, task=task, profile=profile)
        try:
            experiment = AXES[name].vary(plan, value)
            varying = Plan(experiment=experiment, task=task, profile=profile)
            varying = _without_probes(varying)
            experiment = varying.experiment
            varying.check(name)
            _check_arms(varying)
        except ValueError as error:
            reason = str(error).removeprefix(f"{name}: ")
            raise ValueError(f"{name}={shown(value)}: {reason}") from None
    return experiment


def stated(experiment: Experiment, own: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that say something, as plain data; text is read as YAML, as papermill hands on
    lists.

    Raises: ValueError: as `varied`.
    """
    changes = {}
    for name, given in own.items():
        check_choice(name, [*experiment.axes, *COMMON], f"a parameter of {experiment.name}")
        value = value_of(given, name) if isinstance(given, str) else given
        if value is None or value == [] or value == ():
            continue
        value = list(value) if isinstance(value, tuple) else value
        if not AXES[name].fits(value):
            raise ValueError(f"{name} must be {AXES[name].allowed}, got {shown(value)}")
        if isinstance(value, list):
            unique(value, f"a value of {name}")
        changes[name] = value
    return changes


def _check_arms(plan: Plan) -> None:
    """Refuse arms that no condition has, and two that are trained and read alike."""
    for arm in plan.arms:
        if not any(arm in plan.arms_in(condition) for condition in plan.conditions):
            raise ValueError(
                f"{arm!r} needs batch norm, which the networks of {plan.conditions} have not"
            )
    for condition in plan.conditions:
        arms: dict[tuple[str, tuple[str, ...]], str] = {}
        for arm in plan.arms_in(condition):
            run = plan.reporting(condition, arm, [0])[0]
            other = arms.setdefault((run.key, plan.arms[arm].readouts), arm)
            if other != arm:
                raise ValueError(f"{other!r} and {arm!r} are the same, say one of them")
            unique(run.shifts, "a shift")


def _without_probes(plan: Plan) -> Plan:
    """The plan without those probes that its runs cannot have; what they measure is left out."""
    bare = _changed(plan, {"probes": ()})
    runs = [
        plan.model_copy(update={"experiment": bare}).reporting(condition, arm, [0])[0]
        for condition in plan.conditions
        for arm in plan.arms_in(condition)
    ]
    probes = tuple(
        probe for probe in plan.size.probes if all(_has_probe(run, probe) for run in runs)
    )
    return plan.model_copy(update={"experiment": _changed(plan, {"probes": probes})})


def _has_probe(run: Run, probe: str) -> bool:
    try:
        Run(**run.model_dump() | {"probes": (probe,)})
    except ValueError:
        return False
    return True


def _changed(plan: Plan, size: Mapping[str, Any] | None = None, **fields: Any) -> Experiment:
    """The plan's experiment with other fields, and another size of its task in its profile."""
    experiment = plan.experiment
    if size is not None:
        other = plan.size.model_validate(dict(plan.size) | dict(size))
        tasks = experiment.profiles[plan.profile] | {plan.task: other}
        fields["profiles"] = experiment.profiles | {plan.profile: tasks}
    return Experiment.model_validate(dict(experiment) | fields)


# ---- seeds and updates ---------------------------------------------------------------------------


def _seeds(plan: Plan, seeds: int) -> Experiment:
    """So many report seeds, and tuning seeds as the study has them, or as many."""
    return _changed(plan, {"report": seeds, "tuning": min(seeds, plan.size.tuning)})


def _updates(plan: Plan, updates: int) -> Experiment:
    """So many updates a run, before a condition's factor, however many examples that takes."""
    return _changed(plan, {"steps": updates, "examples": None})


# ---- minibatch sizes -----------------------------------------------------------------------------


def _batch_sizes(plan: Plan, sizes: Sequence[int]) -> Experiment:
    """A condition for each minibatch size, for every arm of the profile."""
    most = SPLIT_SIZES[find(plan.task).source]["train"]
    if max(sizes) > most:
        raise ValueError(
            f"a minibatch must have at most the {most} examples of the training set of "
            f"{plan.task}, got {max(sizes)}"
        )
    conditions = {
        f"n = {size}": Condition(batch_size=size, unit=_unit_at(size, plan.experiment))
        for size in sizes
    }
    size = {"conditions": tuple(conditions), "batch_size": None, "timed": ()}
    return _changed(plan, size, conditions=plan.experiment.conditions | conditions)


def _unit_at(size: int, experiment: Experiment) -> float:
    """The unit of rates at a minibatch size: the study's, between its sizes interpolated (log-log).

    Conditions that change more than size and unit are left out.
    """
    units = {
        condition.batch_size: condition.unit
        for condition in experiment.conditions.values()
        if condition.batch_size
        and condition == Condition(**condition.model_dump(include={"batch_size", "unit", "arms"}))
    }
    if size in units or not units:
        return units.get(size, 1.0)
    sizes = sorted(units)
    logs = np.interp(math.log(size), np.log(sizes), np.log([units[n] for n in sizes]))
    return float(f"{math.exp(logs):.2g}")


# ---- arms: optimisers, schedules, readouts -------------------------------------------------------


def _arms(plan: Plan, names: Sequence[str]) -> Experiment:
    """These arms of the study, under every condition of the profile."""
    for name in names:
        check_choice(name, plan.experiment.arms, "an arm")
    return _compared(plan, {name: plan.experiment.arms[name] for name in names})


def _optimizers(plan: Plan, names: Sequence[str]) -> Experiment:
    return _compared(plan, {name: _arm_like(plan, name, "optimizer") for name in names})


def _schedules(plan: Plan, names: Sequence[str]) -> Experiment:
    return _compared(plan, {name: _arm_like(plan, name, "schedule") for name in names})


def _readouts(plan: Plan, names: Sequence[str]) -> Experiment:
    """These arms of the study, or arms of one readout each."""
    arms = plan.experiment.arms
    return _compared(plan, {name: arms.get(name) or Arm(readouts=(name,)) for name in names})


def _arm_like(plan: Plan, name: str, field: str) -> Arm:
    """The study's arm of that name, or its first arm of the same kind with other options, in the
    unit of that.
    """
    arms = plan.experiment.arms
    if name in arms:
        return arms[name]
    kinds = {read(getattr(arm, field)).name: arm for arm in reversed(arms.values())}
    check_choice(
        read(name).name, [*arms, *kinds], f"an {field}" if field[0] in "aeo" else f"a {field}"
    )
    like = kinds[read(name).name]
    return like.model_copy(update={field: name, "default": None, "at_rate_of": None})


def _compared(plan: Plan, arms: Mapping[str, Arm]) -> Experiment:
    """The experiment with these arms alone, under every condition of the profile."""
    conditions = dict(plan.experiment.conditions)
    for name in plan.conditions:
        if set(arms) - set(conditions[name].arms or arms):
            conditions[name] = conditions[name].model_copy(update={"arms": None})
    every = plan.experiment.arms | arms
    return _changed(plan, {"arms": tuple(arms)}, arms=every, conditions=conditions)


# ---- shifts, rates, range tests ------------------------------------------------------------------


def _shifts(plan: Plan, shifts: Sequence[str]) -> Experiment:
    return _changed(plan, {"shifts": tuple(shifts)})


def _rates(plan: Plan, ends: Sequence[float]) -> Experiment:
    """A grid of as many rates as the study's from the lowest to the highest; conditions in another
    unit are left out.
    """
    low, high = ends
    points = plan.grid.points
    grid = Grid(
        center=math.sqrt(low * high), ratio=(high / low) ** (1 / (points - 1)), points=points
    )
    plain = [name for name in plan.conditions if plan.experiment.conditions[name].unit == 1]
    rates = plan.experiment.rates | {plan.task: grid}
    return _changed(plan, {"conditions": tuple(plain)}, rates=rates)


def _ramps(plan: Plan, lengths: Sequence[int]) -> Experiment:
    return _changed(plan, {"ramps": tuple(lengths)})


def _is_count(value: Any, least: int = 1, most: int = MOST_UPDATES) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(_is_count(item) for item in value)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _are_ends(value: Any) -> bool:
    numbers = isinstance(value, list) and all(
        isinstance(item, int | float) and not isinstance(item, bool) for item in value
    )
    return numbers and len(value) == 2 and 0 < value[0] < value[1] < math.inf


def _names(what: str, example: str, vary: Callable[[Plan, Any], Experiment]) -> Axis:
    return Axis(f"a list of {what}, such as {example}", _are_names, vary)


COMMON = ("seeds", "updates")
AXES = {
    "seeds": Axis(
        f"a whole number from 2 to {FIRST_TUNING_SEED}",
        lambda value: _is_count(value, 2, FIRST_TUNING_SEED),
        _seeds,
    ),
    "updates": Axis(f"a whole number from 1 to {MOST_UPDATES}", _is_count, _updates),
    "batch_sizes": Axis(
        "a list of whole numbers from 1 on, such as [16, 48]", _are_counts, _batch_sizes
    ),
    "optimizers": _names("optimisers", "[sgd, adam, adam(beta1=0.8)]", _optimizers),
    "schedules": _names("schedules", "[linear, cosine, exponential(base=0.9)]", _schedules),
    "readouts": _names("readouts", "[last, ema-5, tail-25]", _readouts),
    "arms": _names("arms", "[no norm, batch norm]", _arms),
    "shifts": _names("shifts", "['shear(severity=2)', 'prior(severity=3)']", _shifts),
    "rates": Axis(
        "the lowest and the highest learning rate, such as [0.001, 1]", _are_ends, _rates
    ),
    "ramps": Axis(
        "a list of lengths of range tests in updates, such as [100, 400]", _are_counts, _ramps
    ),
}
"""Parameter → what it may be and what it varies; `study.yml` says which an experiment has."""
