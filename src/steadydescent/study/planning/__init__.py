"""The study: what `experiments/study.yml` says, as checked data, and the runs it asks for.

Experiments and plans, one's own variations of them, how runs are cut into stacks, and what all of
it costs. It may use the techniques, the engine, results and judging; it trains nothing.
"""

from steadydescent.study.planning.experiment import (
    FIRST_REPORT_SEED,
    FIRST_TUNING_SEED,
    MOST_SEEDS,
    PROFILES,
    Arm,
    Condition,
    Experiment,
    Grid,
    Parameters,
    Recipe,
    Size,
    load_study,
)
from steadydescent.study.planning.plan import EXTENSIONS, RAMP, Plan
from steadydescent.study.planning.profiles import (
    AUTO,
    left_out,
    plans,
    profile_for,
    published_profile,
)
from steadydescent.study.planning.variations import plan_of, varied

__all__ = [
    "AUTO",
    "EXTENSIONS",
    "FIRST_REPORT_SEED",
    "FIRST_TUNING_SEED",
    "MOST_SEEDS",
    "PROFILES",
    "RAMP",
    "Arm",
    "Condition",
    "Experiment",
    "Grid",
    "Parameters",
    "Plan",
    "Recipe",
    "Size",
    "left_out",
    "load_study",
    "plan_of",
    "plans",
    "profile_for",
    "published_profile",
    "varied",
]
