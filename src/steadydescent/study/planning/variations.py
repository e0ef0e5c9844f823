"""One's own variation of an experiment: other minibatch sizes, optimisers, … than the study's.

A notebook's parameters say it. `study.yml` names the axes of each experiment; `seeds` and `updates`
go with all of them. A variation is a plan like any other, whose runs are trained, tuned and stored
alike; what it changes stands in `Plan.own`, and its results lie in a folder of their own.
"""

from collections.abc import Mapping
from typing import Any

from steadydescent.checks import check_choice
from steadydescent.engine.runs import Run
from steadydescent.study.planning.axes import AXES, COMMON, changed
from steadydescent.study.planning.claims_fit import check_claims
from steadydescent.study.planning.experiment import Experiment, Parameters, load_study
from steadydescent.study.planning.plan import Plan
from steadydescent.study.yaml_files import unique, value_in_words, value_of


def plan_of(experiment: str, task: str, profile: str, device: str = "auto", **own: Any) -> Plan:
    """The study's plan, or one's own variation of it where a parameter says something else.

    Raises: ValueError: for an unknown word, and as `varied`.
    """
    Parameters(experiment=experiment, task=task, profile=profile, device=device)
    check_claims(load_study())
    studied = load_study()[experiment]
    plan = Plan(experiment=studied, task=task, profile=profile)
    changes = {
        name: value
        for name, value in stated(studied, own).items()
        if _vary(plan, {name: value}) != studied
    }
    varying = varied(studied, task, profile, **changes)
    return plan.model_copy(update={"experiment": varying, "own": changes})


def varied(experiment: Experiment, task: str, profile: str, **own: Any) -> Experiment:
    """The experiment as `own` varies it on one task in one profile; equal to it where it does not.

    Probes that its runs cannot have are left out, and what they measure with them.

    Raises: ValueError: for a parameter that the experiment has not, or a value that is not allowed,
        with name, value and what is allowed.
    """
    plan = Plan(experiment=experiment, task=task, profile=profile)
    changes = stated(experiment, own)
    varying = _vary(plan, changes)
    if varying == experiment:
        return experiment
    plan, words = plan.model_copy(update={"experiment": varying}), in_words(changes)
    bare = plan.model_copy(update={"experiment": changed(plan, {"probes": ()})})
    bare.check(words)
    try:
        _check_arms(bare)
    except ValueError as error:
        raise ValueError(f"{words}: {error}") from None
    return changed(plan, {"probes": _possible_probes(plan, bare)})


def in_words(own: Mapping[str, Any]) -> str:
    """What a variation changes.

    >>> in_words({"batch_sizes": [16, 48], "seeds": 4})
    'batch_sizes=[16, 48], seeds=4'
    """
    return ", ".join(f"{name}={value!r:.200}" for name, value in own.items())


def _vary(plan: Plan, changes: Mapping[str, Any]) -> Experiment:
    """The plan's experiment as these parameters make it, unchecked as a whole."""
    for name, value in changes.items():
        try:
            varying = AXES[name].vary(plan, value)
        except ValueError as error:
            raise ValueError(f"{in_words({name: value})}: {error}") from None
        plan = plan.model_copy(update={"experiment": varying})
    return plan.experiment


def stated(experiment: Experiment, own: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that say something, as plain data.

    Text is read as YAML: papermill hands on lists as text.

    Raises: ValueError: as `varied`.
    """
    changes = {}
    for name, given in own.items():
        value = value_of(given, name) if isinstance(given, str) else given
        if value is None or value == [] or value == ():
            continue
        check_choice(name, [*experiment.axes, *COMMON], f"a parameter of {experiment.name}")
        value = list(value) if isinstance(value, tuple) else value
        if not AXES[name].fits(value):
            raise ValueError(f"{name} must be {AXES[name].allowed}, got {value_in_words(value)}")
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
                raise ValueError(f"{other!r} and {arm!r} are the same; name one of them")
            unique(run.shifts, "a shift")


def _possible_probes(plan: Plan, bare: Plan) -> tuple[str, ...]:
    """Those of a plan's probes that all its runs can have; `bare` is the same plan without any."""
    runs = [
        bare.reporting(condition, arm, [0])[0]
        for condition in bare.conditions
        for arm in bare.arms_in(condition)
    ]
    return tuple(probe for probe in plan.size.probes if all(_has_probe(run, probe) for run in runs))


def _has_probe(run: Run, probe: str) -> bool:
    try:
        Run(**run.model_dump() | {"probes": (probe,)})
    except ValueError:
        return False
    return True
