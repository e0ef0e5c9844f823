"""Intervals and verdicts: paired t for means, a bootstrap with the selection inside for tuned arms.

Axes: S seeds, C candidates of an arm (rates × readouts), D bootstrap draws.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
DRAWS = 10_000


class Estimate(NamedTuple):
    """A mean difference with its two-sided interval; `sd` is the standard deviation that n seeds would average."""

    value: float
    low: float
    high: float
    sd: float
    n: int


class Scores(NamedTuple):
    """An arm's candidates: what they are chosen by, and what is reported of the chosen one."""

    tuning: Array  # [S, C] on tuning seeds, validation data
    report: Array  # [S', C] on report seeds, test data

    def chosen(self) -> int:
        """The candidate with the best mean over tuning seeds."""
        return int(self.tuning.mean(axis=0).argmax())


def paired(differences: Array, level: float) -> Estimate:
    """Student's interval for the mean of paired differences, `[S]`.

    Raises:
        ValueError: for fewer than two seeds, which have no spread.
    """
    n = len(differences)
    if n < 2:
        raise ValueError(f"an interval needs at least 2 seeds, got {n}")
    mean, sd = float(differences.mean()), float(differences.std(ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, sd, n)


def tuned(arm: Scores, against: Scores, level: float, seed: int = 0, draws: int = DRAWS) -> Estimate:
    """Interval for (arm, tuned) − (against, tuned), with the choice of candidates made anew in every draw.

    Tuning and report seeds are resampled, the same seeds for both arms since their runs are paired.
    The half-width is Student's quantile (report seeds − 1 degrees of freedom) times the bootstrap's
    standard error, widened by √(n/(n−1)). Two choices were open: (a) percentiles, whose expanded form
    (Hesterberg 2015) needs a quantile of 10⁻⁹ at 5 seeds; (b) this. We use (b).
    """
    n = len(arm.report)
    if n < 2:
        raise ValueError(f"an interval needs at least 2 report seeds, got {n}")
    rng = np.random.default_rng(seed)
    tuning = rng.multinomial(len(arm.tuning), np.full(len(arm.tuning), 1 / len(arm.tuning)), size=draws)  # [D, S]
    report = rng.multinomial(n, np.full(n, 1 / n), size=draws)  # [D, S']
    drawn = _redrawn(arm, tuning, report) - _redrawn(against, tuning, report)
    error = drawn.std(ddof=1) * math.sqrt(n / (n - 1))
    differences = arm.report[:, arm.chosen()] - against.report[:, against.chosen()]
    mean = float(differences.mean())
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * error)
    return Estimate(mean, mean - half, mean + half, error * math.sqrt(n), n)


def _redrawn(scores: Scores, tuning: NDArray[np.int64], report: NDArray[np.int64]) -> Array:
    """The chosen candidate's report mean in each draw, `[D]`; counts `[D, S]` say how often a seed was drawn."""
    choice = (tuning @ scores.tuning).argmax(axis=1)
    means = report @ scores.report / scores.report.shape[0]
    return np.take_along_axis(means, choice[:, None], axis=1)[:, 0]


def verdict(low: float, high: float, margin: float) -> str:
    """The rule: inside ±margin no difference; else above 0 supported; below 0 refuted; else inconclusive.

    Differences are taken in the claimed direction: above 0 is what the source claims.

    >>> verdict(-0.2, 0.3, margin=1.0), verdict(0.4, 2.0, margin=1.0), verdict(-1.5, 2.0, margin=1.0)
    ('no difference', 'supported', 'inconclusive')
    """
    if not (low <= high and margin > 0):
        raise ValueError(f"need low <= high and margin > 0, got {low}, {high}, {margin}")
    if -margin <= low and high <= margin:
        return "no difference"
    return "supported" if low > 0 else "refuted" if high < 0 else "inconclusive"


def overall(verdicts: list[str]) -> str:
    """Over several tasks or conditions: the common verdict, else mixed.

    >>> overall(["supported", "supported"]), overall(["supported", "no difference"]), overall([])
    ('supported', 'mixed', 'not run')
    """
    return "not run" if not verdicts else verdicts[0] if len(set(verdicts)) == 1 else "mixed"


def seeds_needed(sd: float, margin: float, contrasts: int, power: float = 0.8) -> int:
    """Seeds that show a true zero to lie within ±margin with this power, at level 1 − 0.05/k.

    n = ((z_{1−α/2} + z_{1−(1−power)/2})·sd/δ)², 16.7·(sd/δ)² for k = 10 and 80 % (two one-sided tests).

    >>> seeds_needed(1.0, 1.0, contrasts=10)
    17
    """
    z = stats.norm.ppf([1 - confidence_tail(contrasts), 1 - (1 - power) / 2])
    return max(2, math.ceil((z.sum() * sd / margin) ** 2))


def confidence_tail(contrasts: int) -> float:
    """α/2 of one of k primary contrasts that share 5 %."""
    if contrasts < 1:
        raise ValueError(f"contrasts must be at least 1, got {contrasts}")
    return 0.05 / contrasts / 2


def level(contrasts: int) -> float:
    """Two-sided level of one of k primary contrasts, 1 − 0.05/k."""
    return 1 - 2 * confidence_tail(contrasts)
