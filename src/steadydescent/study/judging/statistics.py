"""Intervals and verdicts: paired t for means, an average over tunings for tuned arms.

Axes: S tuning seeds, S' report seeds, C candidates of an arm (rates × readouts), D draws.
"""

import math
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Statistic = Literal["mean", "log mean", "log sd"]
Rule = Literal["superiority", "equivalence", "at least"]
DRAWS = 10_000
STATISTICS: dict[str, Callable[[Array], Array]] = {  # over seeds, […, S', C] to […, C]
    "mean": lambda scores: scores.mean(axis=-2),
    "log mean": lambda scores: np.log(scores.mean(axis=-2)),
    "log sd": lambda scores: np.log(scores.std(axis=-2, ddof=1)),
}


class Estimate(NamedTuple):
    """A mean difference with its two-sided interval; `sd` is the standard deviation that n seeds
    would average.
    """

    value: float
    low: float
    high: float
    sd: float
    n: int


class Scores(NamedTuple):
    """An arm's candidates: what they are chosen by, and what is reported of the chosen one."""

    tuning: Array  # [S, C] on tuning seeds, validation data
    report: Array  # [S', C] on report seeds, test data
    validation: Array = np.empty(
        (0, 0)
    )  # [S', C] on report seeds, what they would be chosen by; no rows: unknown

    def chosen(self) -> int:
        """The candidate that tuning chooses."""
        return chosen(self.tuning)


def chosen(tuning: Array) -> int:
    """The candidate with the best mean over tuning seeds, `[S, C]`; of equals the first, and never
    one without a score.
    """
    means = tuning.mean(axis=0)
    return int(np.where(np.isnan(means), -np.inf, means).argmax())


def paired(differences: Array, level: float) -> Estimate:
    """Student's interval for the mean of paired differences, `[S]`.

    Raises:
        ValueError: for fewer than two seeds, which have no spread.
    """
    n = len(differences)
    if n < 2:
        raise ValueError(f"an interval needs at least 2 seeds, got {n}")
    mean, sd = float(differences.mean()), float(differences.std(ddof=1))
    half = student(level, n - 1) * sd / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, sd, n)


def tuned(
    arm: Scores,
    against: Scores,
    level: float,
    seed: int = 0,
    draws: int = DRAWS,
    statistic: Statistic = "mean",
) -> Estimate:
    """Interval for (arm, tuned) − (against, tuned): the expected difference, were tuning done
    afresh.

    A draw is another tuning: as many seeds as tuning had, from all that have validation scores, the
    same for both arms since their runs are paired. Each arm's best candidate on them is chosen, and
    the statistic of its report scores taken; the value is the mean difference over draws. A seed
    pulls on it by its own scores, averaged over draws, and by its part in the choice, cov(times
    drawn, difference drawn); Σ pull² is the variance (Efron 2014), except that the two never
    cancel: a crash that lowers a score also steers the choice away from it, and would seem to do no
    harm. The interval is Student's with S' − 1 degrees of freedom; with one candidate an arm, the
    paired one.

    The other choice was the difference at the candidates that tuning chose, with the bootstrap's
    standard error: one unlucky choice shifts all of that interval, which is half as wide again.
    `planted` measures this one.

    `statistic`, over the report seeds of a candidate: "mean"; "log mean", whose differences are
    logarithms of ratios; "log sd", the same for the spread over seeds. Value and interval are on
    that scale.

    Raises:
        ValueError: for too few seeds, an unknown statistic, or scores that have no such statistic.
    """
    _check(arm, against, statistic)
    tuning, report = len(arm.tuning), len(arm.report)
    counts = _redraws(tuning + len(arm.validation), tuning, draws, seed)
    ours, theirs = _chosen(arm, counts, statistic), _chosen(against, counts, statistic)
    each, drawn = ours[0] - theirs[0], ours[1] - theirs[1]  # [S'], [D]
    value = float(each.mean())
    own = (each - value) / report
    choice = (
        (drawn - drawn.mean()) @ counts / draws
    )  # cov(times drawn, difference drawn), of every seed in the pool
    variance = _product(own, own) + _product(choice[:tuning], choice[:tuning])
    if len(arm.validation):
        part = choice[tuning:]
        variance += _product(part, part) + max(0.0, 2 * _product(own, part))
    half = student(level, report - 1) * math.sqrt(variance)
    return Estimate(value, value - half, value + half, math.sqrt(report * variance), report)


def _product(pulls: Array, others: Array) -> float:
    """n/(n − 1)·Σ pull·other, as n seeds' own mean is what they are compared with."""
    return float(pulls @ others) * len(pulls) / (len(pulls) - 1)


@cache
def student(level: float, freedom: float) -> float:
    """The quantile that Student's t leaves outside ± it with probability 1 − level."""
    return float(stats.t.ppf((1 + level) / 2, freedom))


def _check(arm: Scores, against: Scores, statistic: str) -> None:
    if statistic not in STATISTICS:
        raise ValueError(f"statistic must be one of {sorted(STATISTICS)}, got {statistic!r}")
    for kind, scores, needed in (
        ("tuning", arm.tuning, 2),
        ("report", arm.report, 3 if statistic == "log sd" else 2),
    ):
        if len(scores) < needed:
            raise ValueError(
                f"an interval for the {statistic} needs at least {needed} {kind} seeds, got {len(scores)}"
            )
    seeds = [tuple(len(table) for table in scores) for scores in (arm, against)]
    if seeds[0] != seeds[1] or seeds[0][2] not in (0, len(arm.report)):
        raise ValueError(
            f"arms must be scored on the same seeds (tuning, report, validation on report), got {seeds}"
        )
    if not all(
        np.isfinite(table).all() for s in (arm, against) for table in (s.tuning, s.validation)
    ):
        raise ValueError(
            "tuning and validation scores must be finite numbers; count a diverged run as guessing"
        )


@lru_cache(maxsize=2)
def _redraws(pool: int, tuning: int, draws: int, seed: int) -> Array:
    """How often each of the seeds in the pool is drawn, `[D, S]`, when `tuning` of them are."""
    counts = (
        np.random.default_rng(seed)
        .multinomial(tuning, np.full(pool, 1 / pool), size=draws)
        .astype(float)
    )
    counts.setflags(write=False)
    return counts


def _chosen(scores: Scores, counts: Array, statistic: Statistic) -> tuple[Array, Array]:
    """Of what each draw chooses: pseudo-values averaged over draws, `[S']`, and the statistic
    drawn, `[D]`.
    """
    known = (
        np.concatenate([scores.tuning, scores.validation])
        if len(scores.validation)
        else scores.tuning
    )
    used, choice = np.unique((counts @ known).argmax(axis=1), return_inverse=True)
    values = pseudo_values(scores.report[:, used], statistic)
    return values @ (np.bincount(choice) / len(counts)), values.mean(axis=0)[choice]


def pseudo_values(report: Array, statistic: Statistic) -> Array:
    """Each seed's share in a statistic of `[S', C]` scores: n·θ − (n − 1)·θ₋ᵢ, shifted to the mean
    θ, `[S', C]`.

    Of a mean they are the scores themselves; of other statistics they serve as such (for variances:
    Miller 1968).
    """
    theta, n = STATISTICS[statistic], len(report)
    needed = "positive" if statistic == "log mean" else "finite"
    wrong = report[~np.isfinite(report) | ((report <= 0) & (statistic == "log mean"))]
    if wrong.size:
        raise ValueError(
            f"report scores must be {needed} numbers for the {statistic}, got {wrong[0]}"
        )
    if statistic == "mean":
        return report
    others = np.nonzero(~np.eye(n, dtype=bool))[1].reshape(n, n - 1)  # row i: every seed but i
    with np.errstate(divide="ignore", invalid="ignore"):
        values = n * theta(report) - (n - 1) * theta(report[others])
    if not np.isfinite(values).all():
        raise ValueError(
            f"the {statistic} needs report scores that differ with any one seed left out, got equal ones"
        )
    return values - values.mean(axis=0) + theta(report)


def verdict(low: float, high: float, margin: float, rule: Rule = "superiority") -> str:
    """The word for an interval of a difference in the claimed direction, above 0 being what the
    source claims.

    Superiority, the claim that an arm is better
        inside ±margin no difference; else above 0 supported; below 0 refuted; else inconclusive.
    Equivalence, the claim that arms are alike
        inside ±margin supported; wholly outside refuted; else inconclusive.
    At least, the claim that an arm is not worse by the margin
        above −margin supported; below it refuted; else inconclusive.

    >>> verdict(-0.2, 0.3, margin=1.0), verdict(0.4, 2.0, margin=1.0), verdict(-1.5, 2.0, margin=1.0)
    ('no difference', 'supported', 'inconclusive')
    >>> [verdict(low, 0.3, 1.0, "equivalence") for low in (-0.2, -1.5)], verdict(-0.2, 3.0, 1.0, "at least")
    (['supported', 'inconclusive'], 'supported')
    """
    if not (low <= high and margin > 0):
        raise ValueError(f"need low <= high and margin > 0, got {low}, {high}, {margin}")
    inside = -margin <= low and high <= margin
    if rule == "superiority":
        return "no difference" if inside else _word(low > 0, high < 0)
    if rule == "equivalence":
        return _word(inside, low > margin or high < -margin)
    if rule == "at least":
        return _word(low > -margin, high < -margin)
    raise ValueError(f"rule must be one of {sorted(get_args(Rule))}, got {rule!r}")


def _word(supported: bool, refuted: bool) -> str:
    return "supported" if supported else "refuted" if refuted else "inconclusive"


def overall(verdicts: list[str]) -> str:
    """Over several tasks or conditions: the common verdict, else mixed.

    >>> overall(["supported", "supported"]), overall(["supported", "no difference"]), overall([])
    ('supported', 'mixed', 'not run')
    """
    return "not run" if not verdicts else verdicts[0] if len(set(verdicts)) == 1 else "mixed"


def seeds_needed(sd: float, margin: float, contrasts: int, power: float = 0.8) -> int:
    """Seeds that show a true zero to lie within ±margin with this power, at level 1 − 0.05/k.

    n = ((z_{1−α/2} + z_{1−(1−power)/2})·sd/δ)², 16.7·(sd/δ)² for k = 10 and 80 % (two one-sided
    tests).

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
