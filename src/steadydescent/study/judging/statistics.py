"""Intervals: paired t for means, an average over tunings for tuned arms.

Axes: S tuning seeds, S' report seeds, C candidates of an arm (rates × readouts), D draws.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Statistic = Literal["mean", "log mean", "log sd"]
TUNING_DRAWS = 10_000
PRIMARY_PLACES = 200
"""Primary rows for which the book has room, fixed for good: their intervals hold together with
95 % (Bonferroni), and none depends on how many there are.
"""
# over seeds, […, S', C] to […, C]
OVER_SEEDS: dict[str, Callable[[Array], Array]] = {
    "mean": lambda scores: scores.mean(axis=-2),
    "log mean": lambda scores: np.log(scores.mean(axis=-2)),
    "log sd": lambda scores: np.log(scores.std(axis=-2, ddof=1)),
}


class Estimate(NamedTuple):
    """A mean difference with its two-sided interval.

    `sd` is the standard deviation that n seeds would average, `fixed` a standard error that the
    interval holds besides and no number of seeds lessens, of `fixed_freedom` degrees of freedom.
    """

    value: float
    low: float
    high: float
    sd: float
    n: int
    fixed: float = 0.0
    fixed_freedom: float = math.inf

    def turned(self) -> "Estimate":
        """The estimate of the opposite difference."""
        return self._replace(value=-self.value, low=-self.high, high=-self.low)

    def widened(self, variance: float, freedom: float, level: float) -> "Estimate":
        """The estimate with a further, independent variance of so many degrees of freedom.

        Student's interval has (Σv)²/Σ(v²/freedom) degrees of freedom (Satterthwaite), with
        sd²/n and n − 1 for the seeds.

        >>> plain = Estimate(0.0, -1.0, 1.0, sd=1.0, n=4)
        >>> round(plain.widened(0.75, freedom=1_000, level=0.95).high, 3)  # √(1/4 + 3/4) and t
        2.012
        """
        seeds = self.sd**2 / self.n
        if not variance:
            return self
        own = satterthwaite(np.array([seeds, variance]), np.array([self.n - 1, freedom]))
        half = student(level, float(own)) * math.sqrt(seeds + variance)
        return self._replace(
            low=self.value - half,
            high=self.value + half,
            fixed=math.sqrt(variance),
            fixed_freedom=freedom,
        )


class Scores(NamedTuple):
    """An arm's candidates: what they are chosen by, and what is reported of the chosen one.

    `tuning` `[S, C]` is validation data of tuning seeds, `report` `[S', C]` test data of report
    seeds. `validation` `[S', C]` is what report seeds would be chosen by; no rows: unknown.
    """

    tuning: Array
    report: Array
    validation: Array = np.empty((0, 0))

    def chosen(self) -> int:
        """The candidate that tuning chooses."""
        return chosen(self.tuning)


class Side(NamedTuple):
    """What counts, with its sign, to a sum of tuned scores: the best of some candidates.

    With `groups`, a number for each candidate, the worst of the groups' best ones instead.
    """

    scores: Scores
    sign: float = 1.0
    groups: tuple[int, ...] = ()

    @property
    def weights(self) -> Array:
        """Signed shares of the redraws that each candidate is chosen in, `[C]`."""
        return self.sign * shares(self.scores, self.groups)


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
    draws: int = TUNING_DRAWS,
    statistic: Statistic = "mean",
) -> Estimate:
    """Interval for (arm, tuned) − (against, tuned), were tuning done afresh.

    The value is the expected difference. A draw is another tuning: as many seeds as tuning had,
    from all that have validation scores, the same for both arms since their runs are paired. Each
    arm's best candidate on them is chosen, and the statistic of its report scores taken; the value
    is the mean difference over draws. A seed pulls on it by its own scores, averaged over draws,
    and by its part in the choice, cov(times drawn, difference drawn); Σ pull² is the variance
    (Efron 2014), except that the two never cancel: a crash that lowers a score also steers the
    choice away from it, and would seem to do no harm. The interval is Student's with S' − 1 degrees
    of freedom; with one candidate an arm, the paired one.

    The other choice was the difference at the candidates that tuning chose, with the bootstrap's
    standard error: one unlucky choice shifts all of that interval, which is half as wide again.
    `simulated_worlds` measures this one.

    `statistic`, over the report seeds of a candidate: "mean"; "log mean", whose differences are
    logarithms of ratios; "log sd", the same for the spread over seeds. Value and interval are on
    that scale.

    Raises:
        ValueError: for too few seeds, an unknown statistic, or scores that have no such statistic.
    """
    return combined((Side(arm), Side(against, -1.0)), level, seed, draws, statistic)


def combined(
    sides: Sequence[Side],
    level: float,
    seed: int = 0,
    draws: int = TUNING_DRAWS,
    statistic: Statistic = "mean",
) -> Estimate:
    """Interval for a signed sum of what tuning chooses of several sides, as `tuned` has it for two:
    all are chosen anew on the same redraws.

    Raises:
        ValueError: as `tuned` does.
    """
    _check([side.scores for side in sides], statistic)
    first = sides[0].scores
    tuning, report = len(first.tuning), len(first.report)
    counts = _redraws(tuning + len(first.validation), tuning, draws, seed)
    parts = [(side.sign, *_chosen(side, counts, statistic)) for side in sides]
    each = np.sum([sign * values for sign, values, _ in parts], axis=0)  # [S']
    drawn = np.sum([sign * values for sign, _, values in parts], axis=0)  # [D]
    value = float(each.mean())
    own = (each - value) / report
    # cov(times drawn, sum drawn), of every seed in the pool
    choice = (drawn - drawn.mean()) @ counts / draws
    variance = _product(own, own) + _product(choice[:tuning], choice[:tuning])
    if len(first.validation):
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


def satterthwaite(variances: Array, freedoms: Array) -> Array:
    """Degrees of freedom of a sum of independent variances with their own, (Σv)²/Σ(v²/f), along
    the first axis.
    """
    return np.asarray(variances.sum(axis=0) ** 2 / (variances**2 / freedoms).sum(axis=0))


def _check(sides: Sequence[Scores], statistic: str) -> None:
    if statistic not in OVER_SEEDS:
        raise ValueError(f"statistic must be one of {sorted(OVER_SEEDS)}, got {statistic!r}")
    for kind, scores, needed in (
        ("tuning", sides[0].tuning, 2),
        ("report", sides[0].report, 3 if statistic == "log sd" else 2),
    ):
        if len(scores) < needed:
            raise ValueError(
                f"an interval for the {statistic} needs at least {needed} {kind} seeds, "
                f"got {len(scores)}"
            )
    seeds = [tuple(len(table) for table in scores) for scores in sides]
    if len(set(seeds)) > 1 or seeds[0][2] not in (0, len(sides[0].report)):
        raise ValueError(
            "arms must be scored on the same seeds (tuning, report, validation on report), "
            f"got {seeds}"
        )
    choosing = [table for s in sides for table in (s.tuning, s.validation)]
    if not all(np.isfinite(table).all() for table in choosing):
        raise ValueError(
            "tuning and validation scores must be finite numbers; count a diverged run as guessing"
        )


@lru_cache(maxsize=2)
def _redraws(pool: int, tuning: int, draws: int, seed: int) -> Array:
    """How often each of the seeds in the pool is drawn, `[D, S]`, when `tuning` of them are."""
    generator, alike = np.random.default_rng(seed), np.full(pool, 1 / pool)
    counts = generator.multinomial(tuning, alike, size=draws).astype(float)
    counts.setflags(write=False)
    return counts


def shares(
    scores: Scores, groups: Sequence[int] = (), seed: int = 0, draws: int = TUNING_DRAWS
) -> Array:
    """The share of the redraws of `tuned` that each candidate is chosen in, `[C]`, sum 1; with
    `groups` as the worst of the groups' best (`Side`).

    >>> shares(Scores(np.array([[1.0, 2.0], [1.0, 3.0]]), np.zeros((2, 2)))).tolist()
    [0.0, 1.0]
    """
    tuning = len(scores.tuning)
    counts = _redraws(tuning + len(scores.validation), tuning, draws, seed)
    choices = _choices(Side(scores, groups=tuple(groups)), counts)
    return np.bincount(choices, minlength=scores.tuning.shape[1]) / draws


def _choices(side: Side, counts: Array) -> NDArray[np.int64]:
    """The candidate that each draw chooses, `[D]`."""
    known = side.scores.tuning
    if len(side.scores.validation):
        known = np.concatenate([known, side.scores.validation])
    sums = counts @ known
    if not side.groups:
        return sums.argmax(axis=1)
    places = [np.flatnonzero(np.array(side.groups) == group) for group in sorted({*side.groups})]
    best = np.stack([mine[sums[:, mine].argmax(axis=1)] for mine in places], axis=1)  # [D, groups]
    worst = np.take_along_axis(sums, best, axis=1).argmin(axis=1)
    return best[np.arange(len(best)), worst]


def _chosen(side: Side, counts: Array, statistic: Statistic) -> tuple[Array, Array]:
    """What each draw chooses: pseudo-values averaged over draws, `[S']`; the statistic, `[D]`."""
    used, choice = np.unique(_choices(side, counts), return_inverse=True)
    values = pseudo_values(side.scores.report[:, used], statistic)
    return values @ (np.bincount(choice) / len(counts)), values.mean(axis=0)[choice]


def pseudo_values(report: Array, statistic: Statistic) -> Array:
    """Each seed's share in a statistic of `[S', C]` scores, `[S', C]`.

    n·θ − (n − 1)·θ₋ᵢ, shifted to the mean θ. Of a mean they are the scores themselves; of other
    statistics they serve as such (for variances: Miller 1968).
    """
    theta, n = OVER_SEEDS[statistic], len(report)
    needed = "positive" if statistic == "log mean" else "finite"
    wrong = report[~np.isfinite(report) | ((report <= 0) & (statistic == "log mean"))]
    if wrong.size:
        raise ValueError(
            f"report scores must be {needed} numbers for the {statistic}, got {wrong[0]}"
        )
    if statistic == "mean":
        return report
    # row i: every seed but i
    others = np.nonzero(~np.eye(n, dtype=bool))[1].reshape(n, n - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = n * theta(report) - (n - 1) * theta(report[others])
    if not np.isfinite(values).all():
        raise ValueError(
            f"the {statistic} needs report scores that differ with any one seed left out, "
            "got equal ones"
        )
    return values - values.mean(axis=0) + theta(report)


def confidence_tail(contrasts: int) -> float:
    """α/2 of one of k contrasts that share 5 %."""
    if contrasts < 1:
        raise ValueError(f"contrasts must be at least 1, got {contrasts}")
    return 0.05 / contrasts / 2


def level(contrasts: int) -> float:
    """Two-sided level of one of k contrasts that share 5 %, 1 − 0.05/k."""
    return 1 - 2 * confidence_tail(contrasts)


def level_of(primary: bool) -> float:
    """The level of a row's interval: that of one of all places, or 95 % for a secondary row.

    >>> round(level_of(primary=True), 6), level_of(primary=False)
    (0.99975, 0.95)
    """
    return level(PRIMARY_PLACES if primary else 1)
