"""The study: what `experiments/study.yml` says, as checked data, and the runs it asks for.

Experiments and plans, one's own variations of them, how runs are cut into stacks, and what all of
it costs. It may use the techniques, the engine, results and judging; it trains nothing.
"""

from steadydescent.study.planning.experiment import (
    FIRST_TUNING_SEED,
    PROFILES,
    Arm,
    Checked,
    Condition,
    Experiment,
    Grid,
    Names,
    Parameters,
    Settings,
    Size,
    load_study,
)
from steadydescent.study.planning.plan import EXTENSIONS, RAMP, Plan, Trajectory, left_out, plans

__all__ = [
    "EXTENSIONS",
    "FIRST_TUNING_SEED",
    "PROFILES",
    "RAMP",
    "Arm",
    "Checked",
    "Condition",
    "Experiment",
    "Grid",
    "Names",
    "Parameters",
    "Plan",
    "Settings",
    "Size",
    "Trajectory",
    "left_out",
    "load_study",
    "plans",
]
