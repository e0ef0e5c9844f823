"""What a profile of the study runs, and what it leaves out."""

from steadydescent.checks import check_choice
from steadydescent.study.paths import EXPERIMENTS
from steadydescent.study.planning.claims_fit import check_claims
from steadydescent.study.planning.experiment import PROFILES, load_study
from steadydescent.study.planning.plan import Plan


def plans(profile: str, only: str | None = None) -> list[Plan]:
    """What a profile runs; `only` keeps one experiment, or `experiment/task`."""
    check_choice(profile, PROFILES, "profile")
    study = load_study().values()
    asked = [
        Plan(experiment=experiment, task=task, profile=profile)
        for experiment in study
        for task in experiment.profiles.get(profile, {})
        if only in (None, "", experiment.name, f"{experiment.name}/{task}")
    ]
    if not asked:
        known = [
            name
            for experiment in study
            if (tasks := experiment.profiles.get(profile, {}))
            for name in (experiment.name, *(f"{experiment.name}/{task}" for task in tasks))
        ]
        if not known:
            raise ValueError(f"{EXPERIMENTS / 'study.yml'} has no task in profile {profile!r}")
        check_choice(only, known, f"in profile {profile!r}, only")
    for plan in asked:
        plan.check()
    check_claims(load_study())
    return asked


def left_out(profile: str) -> list[str]:
    """What a profile leaves out, by name: whole tasks, and conditions and arms of a task."""
    missing = []
    for experiment in load_study().values():
        ran = experiment.profiles.get(profile, {})
        for task in sorted({task for tasks in experiment.profiles.values() for task in tasks}):
            if task not in ran:
                missing.append(f"{experiment.name}/{task}")
                continue
            for kind, known in (("conditions", experiment.conditions), ("arms", experiment.arms)):
                gone = [name for name in known if name not in (getattr(ran[task], kind) or known)]
                missing += [f"{experiment.name}/{task} without {', '.join(gone)}"] if gone else []
    return missing
