"""The study: what `experiments/study.yml` says, as checked data, and the runs it asks for."""

from steadydescent.study.planning.experiment import (
    FIRST_TUNING_SEED,
    PROFILES,
    Arm,
    Condition,
    Experiment,
    Grid,
    Parameters,
    Settings,
    Size,
    load_study,
)
from steadydescent.study.planning.plan import EXTENSIONS, RAMP, Plan, left_out, plans

__all__ = [
    "EXTENSIONS",
    "FIRST_TUNING_SEED",
    "PROFILES",
    "RAMP",
    "Arm",
    "Condition",
    "Experiment",
    "Grid",
    "Parameters",
    "Plan",
    "Settings",
    "Size",
    "left_out",
    "load_study",
    "plans",
]
