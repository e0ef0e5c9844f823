"""Every plan of the study, its runs made once for all tests, and plans of the small experiment with
other fields.
"""

import copy
from functools import cache

from fabricated import LAPTOP, SMALL_EXPERIMENT
from steadydescent.engine.runs import Run
from steadydescent.study.planning import PROFILES, Experiment, Plan, plans

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


def changed(path: str, value: object) -> dict:
    """The small experiment with one value replaced; `path` is joined by slashes:
    `rates/mnist1d-mlp/ratio`.
    """
    fields = copy.deepcopy(SMALL_EXPERIMENT)
    *parents, last = path.split("/")
    place = fields
    for name in parents:
        place = place[name]
    place[last] = value
    return fields


def plan_of(fields: dict, profile: str = "laptop") -> Plan:
    return Plan(experiment=Experiment(name="toy", **fields), task="mnist1d-mlp", profile=profile)


def varied(
    conditions: dict | None = None, arms: dict | None = None, size: dict | None = None, **fields
) -> Plan:
    """The small experiment with other conditions, arms or fields, on its laptop profile."""
    told = {"conditions": conditions, "arms": arms, "secondary": []}
    told = {name: value for name, value in told.items() if value is not None} | fields
    return plan_of(
        SMALL_EXPERIMENT | told | {"profiles": {"laptop": {"mnist1d-mlp": LAPTOP | (size or {})}}}
    )


def places(plan: Plan) -> list[tuple[str, str]]:
    return [(condition, arm) for condition in plan.conditions for arm in plan.arms_in(condition)]


def is_ramp(run: Run) -> bool:
    return run.schedule.startswith("ramp")
