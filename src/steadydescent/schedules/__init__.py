"""Learning-rate schedules: pure functions of the step. Imports `checks` alone.

`functions` has the formulas, each with its source; `schedule` says what a schedule is and how
schedules are joined, multiplied and wrapped; `plateau` has the one with a state, since it watches
a value; `by_name` builds them from a study file's names and options.

A schedule returns the factor on the peak rate at the 1-based update t of T: the first update
sees t = 1, the last t = T. Functions that feed torch's `LambdaLR`, which counts from 0, pass t + 1.
"""

from steadydescent.schedules.by_name import REQUIRED, SCHEDULES, named, options_of, rates
from steadydescent.schedules.functions import (
    constant,
    cooldown,
    cosine,
    exp_drop,
    exponential,
    inverse_sqrt_epoch,
    inverse_sqrt_step,
    inverse_time,
    linear,
    noam,
    ramp,
    steps,
    warm_up,
    warmup_linear,
)
from steadydescent.schedules.plateau import Plateau, PlateauState
from steadydescent.schedules.schedule import Schedule

__all__ = [
    "REQUIRED",
    "SCHEDULES",
    "Plateau",
    "PlateauState",
    "Schedule",
    "constant",
    "cooldown",
    "cosine",
    "exp_drop",
    "exponential",
    "inverse_sqrt_epoch",
    "inverse_sqrt_step",
    "inverse_time",
    "linear",
    "named",
    "noam",
    "options_of",
    "ramp",
    "rates",
    "steps",
    "warm_up",
    "warmup_linear",
]
