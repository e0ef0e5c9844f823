"""What a profile of the study runs, and what it leaves out."""

from collections import Counter
from pathlib import Path

from steadydescent.checks import check_choice
from steadydescent.study.paths import EXPERIMENTS, PUBLISHED
from steadydescent.study.planning.claims_fit import check_claims
from steadydescent.study.planning.experiment import PROFILES, load_study
from steadydescent.study.planning.plan import Plan
from steadydescent.study.results.store import RECEIPT, read_receipt

AUTO = "auto"
"""In place of a profile: the one that `profile_for` finds for the machine."""
WITHOUT_GPU = "laptop"


def profile_for(asked: str, device: str, root: Path = PUBLISHED) -> str:
    """The profile that is meant: what was asked for, and for `auto` what the machine is up to.

    With a GPU that is the published profile, so that what is published is reproduced; without one
    it is `laptop`.
    """
    if asked != AUTO:
        return asked
    return published_profile(root) if device == "cuda" else WITHOUT_GPU


def published_profile(root: Path = PUBLISHED) -> str:
    """The profile of most published results; `laptop` where nothing is published.

    Raises:
        DamagedFile: for a result whose receipt is not what was published.
    """
    receipts = (read_receipt(path.parent) for path in sorted(root.glob(f"*/*/{RECEIPT}")))
    found = Counter(str(receipt.get("profile", "")) for receipt in receipts)
    known = {profile: count for profile, count in found.items() if profile in PROFILES}
    return max(known, key=known.__getitem__, default=WITHOUT_GPU)


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
