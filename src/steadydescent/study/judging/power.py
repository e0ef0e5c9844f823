"""How many report seeds would decide an open row."""

import math
from typing import Literal

import numpy as np
from scipy import stats
from scipy.special import ndtr

from steadydescent.study.judging.statistics import Array, Estimate, satterthwaite, student
from steadydescent.study.judging.verdicts import DECISIONS, DecisionRule

MOST_REPORT_SEEDS = 100_000
"""Report seeds beyond which nobody runs."""
SPREADS = 500
"""Quantiles of the estimated spread over which a power is averaged."""


def seeds_needed(
    estimate: Estimate, margin: float, rule: DecisionRule, level: float, power: float = 0.8
) -> int | Literal["never"]:
    """The fewest report seeds whose interval decides, with this power, were the estimate the truth.

    Decides: by any word of the rule but open. Seeds are taken as normal, with the estimate's value
    and sd, and the interval is Student's; the estimate's fixed error is in every one. "never" where
    `MOST_REPORT_SEEDS` would not do, as where arms are to be alike and differ by the margin itself,
    or where the fixed error alone reaches further than a decision allows.

    >>> noisy = Estimate(0.0, -1.0, 1.0, sd=1.0, n=5)
    >>> seeds_needed(noisy, 1.0, "superiority", 0.95)
    12
    >>> seeds_needed(noisy._replace(value=1.0), 1.0, "equivalence", 0.95)
    'never'
    >>> seeds_needed(noisy._replace(fixed=0.6), 1.0, "superiority", 0.95)  # 1.96·0.6 > 1
    'never'

    Raises:
        ValueError: for an unknown rule.
    """
    if rule not in DECISIONS:
        raise ValueError(f"rule must be one of {sorted(DECISIONS)}, got {rule!r}")
    decides = lambda n: decided(estimate, n, margin, rule, level) >= power
    enough = 2
    while not decides(enough):
        if enough >= MOST_REPORT_SEEDS:
            return "never"
        enough = min(2 * enough, MOST_REPORT_SEEDS)
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if decides(middle) else (middle, enough)
    return enough


def decided(truth: Estimate, n: int, margin: float, rule: DecisionRule, level: float) -> float:
    """The chance that an interval of n seeds decides by any word but open.

    Given the estimated spread, the mean is normal, and the interval decides where it lies beyond
    some value on either side or near zero; that is averaged over quantiles of the spread, whose
    square is a χ² with n − 1 degrees of freedom. What the fixed error stands for, as the draw of a
    test set, is the same for all n: it widens intervals and moves no mean.
    """
    share = (np.arange(SPREADS) + 0.5) / SPREADS
    error = max(truth.sd, 1e-100) / math.sqrt(n)
    half = _half_widths(truth, error * np.sqrt(stats.chi2.ppf(share, n - 1) / (n - 1)), n, level)
    beyond = {"superiority": half, "at least": half - margin}.get(rule, half + margin)
    below = -half if rule == "superiority" else -half - margin
    near = np.full(SPREADS, -1.0) if rule == "at least" else margin - half
    within = lambda low, high: (
        ndtr((high - truth.value) / error) - ndtr((low - truth.value) / error)
    )
    outside = 1 - within(below, beyond)
    inside = np.where(near > 0, within(-near, near), 0.0)
    return float(np.where(near >= beyond, 1.0, outside + inside).mean())


def _half_widths(truth: Estimate, errors: Array, n: int, level: float) -> Array:
    """Half the widths of intervals whose n seeds give these standard errors, `[SPREADS]`."""
    if not truth.fixed:
        return student(level, n - 1) * errors
    parts = np.stack([errors**2, np.full(len(errors), truth.fixed**2)])
    freedom = satterthwaite(parts, np.array([[n - 1.0], [truth.fixed_freedom]]))
    return stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(parts.sum(axis=0))
