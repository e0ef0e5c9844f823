"""The axes that experiments may be varied along: what a parameter may be, and what it varies."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from steadydescent.checks import check_choice
from steadydescent.engine.data import SPLIT_SIZES
from steadydescent.engine.settings import read
from steadydescent.engine.tasks import find
from steadydescent.study.planning.experiment import (
    MOST_SEEDS,
    Arm,
    Condition,
    Experiment,
    Grid,
)
from steadydescent.study.planning.plan import Plan
from steadydescent.weight_averaging import Readout

MOST_UPDATES = 10**7


class Axis(NamedTuple):
    """What a parameter may be, in words and as a check, and the experiment that it makes."""

    allowed: str
    fits: Callable[[Any], bool]
    vary: Callable[[Plan, Any], Experiment]


def changed(plan: Plan, size: Mapping[str, Any] | None = None, **fields: Any) -> Experiment:
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
    return changed(plan, {"report": seeds, "tuning": min(seeds, plan.size.tuning)})


def _updates(plan: Plan, updates: int) -> Experiment:
    """So many updates a run, before a condition's factor, however many examples that takes."""
    return changed(plan, {"steps": updates, "examples": None})


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
    return changed(plan, size, conditions=plan.experiment.conditions | conditions)


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
        check_choice(name, plan.experiment.arms, "arm")
    return _compared(plan, {name: plan.experiment.arms[name] for name in names})


def _optimizers(plan: Plan, names: Sequence[str]) -> Experiment:
    return _compared(plan, {name: _arm_like(plan, name, "optimizer") for name in names})


def _schedules(plan: Plan, names: Sequence[str]) -> Experiment:
    return _compared(plan, {name: _arm_like(plan, name, "schedule") for name in names})


def _readouts(plan: Plan, names: Sequence[str]) -> Experiment:
    """These arms of the study, or arms of one readout each."""
    arms = plan.experiment.arms
    own = {name: Arm(readouts=(Readout.parse(name).text,)) for name in names if name not in arms}
    return _compared(plan, {name: own.get(name) or arms[name] for name in names})


def _arm_like(plan: Plan, name: str, field: str) -> Arm:
    """The study's arm of that name, or its first arm of the same kind with other options.

    It has the unit of that arm.
    """
    arms = plan.experiment.arms
    if name in arms:
        return arms[name]
    kinds = {read(getattr(arm, field)).name: arm for arm in reversed(arms.values())}
    check_choice(read(name).name, dict.fromkeys([*arms, *kinds]), field)
    like = kinds[read(name).name]
    return like.model_copy(update={field: name, "default": None, "at_rate_of": None})


def _compared(plan: Plan, arms: Mapping[str, Arm]) -> Experiment:
    """The experiment with these arms alone, under every condition of the profile."""
    conditions = dict(plan.experiment.conditions)
    for name in plan.conditions:
        if set(arms) - set(conditions[name].arms or arms):
            conditions[name] = conditions[name].model_copy(update={"arms": None})
    every = {**plan.experiment.arms, **arms}
    return changed(plan, {"arms": tuple(arms)}, arms=every, conditions=conditions)


# ---- shifts, rates, range tests ------------------------------------------------------------------


def _shifts(plan: Plan, shifts: Sequence[str]) -> Experiment:
    return changed(plan, {"shifts": tuple(shifts)})


def _rates(plan: Plan, ends: Sequence[float]) -> Experiment:
    """A grid of as many rates as the study's, from the lowest to the highest.

    Conditions in another unit are left out.
    """
    low, high = ends
    points = plan.grid.points
    grid = Grid(
        center=math.sqrt(low * high), ratio=(high / low) ** (1 / (points - 1)), points=points
    )
    plain = [name for name in plan.conditions if plan.experiment.conditions[name].unit == 1]
    rates = plan.experiment.rates | {plan.task: grid}
    return changed(plan, {"conditions": tuple(plain)}, rates=rates)


def _ramps(plan: Plan, lengths: Sequence[int]) -> Experiment:
    return changed(plan, {"ramps": tuple(lengths)})


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
        f"a whole number from 2 to {MOST_SEEDS}",
        lambda value: _is_count(value, 2, MOST_SEEDS),
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
