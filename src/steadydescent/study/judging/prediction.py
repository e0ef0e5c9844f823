"""What the tasks of a study say of a task that is not among them: a prediction interval.

Axis: K tasks, taken as drawn from many. Their effects vary with variance τ² around a mean μ.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from steadydescent.study.judging.statistics import Array, student

FEWEST_TASKS = 5
"""Fewer tasks say next to nothing of how tasks vary."""


class Prediction(NamedTuple):
    """Between which values the effect on a new task lies, with a stated probability."""

    low: float
    high: float


def predicted(effects: Array, errors: Array, level: float = 0.95) -> Prediction:
    """The interval for the effect on a new task, from effects and their standard errors, `[K]`.

    μ ± t·√(τ² + se(μ)²), with the quantile of Student's t with K − 2 degrees of freedom (Higgins,
    Thompson & Spiegelhalter 2009), μ being weighted by 1/(error² + τ²). An interval of 95 % holds
    92 to 97 % where tasks vary by more than their errors, which is so here; where they vary by
    about as much it holds about 90 %, for τ is then often estimated as 0.

    Raises:
        ValueError: for fewer than `FEWEST_TASKS` tasks.
    """
    if len(effects) < FEWEST_TASKS:
        raise ValueError(f"a prediction needs at least {FEWEST_TASKS} tasks, got {len(effects)}")
    tau2 = variance_between(effects, errors)
    weights = 1 / (errors**2 + tau2)
    mean = float(weights @ effects / weights.sum())
    half = student(level, len(effects) - 2) * math.sqrt(tau2 + 1 / weights.sum())
    return Prediction(mean - half, mean + half)


def variance_between(effects: Array, errors: Array) -> float:
    """τ² by Paule & Mandel (1982): that at which Σ weight·(effect − μ)² is its expectation, K − 1;
    0 where it is less without any.
    """

    def excess(tau2: float) -> float:
        weights = 1 / (errors**2 + tau2)
        mean = weights @ effects / weights.sum()
        return float(weights @ (effects - mean) ** 2) - (len(effects) - 1)

    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, len(effects) * float(np.var(effects, ddof=1)) + 1e-12))
