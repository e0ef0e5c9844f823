"""How good a search for a learning rate is, judged on a dense sweep: the accuracy that the rate it finds gives away.

Nothing is trained here. A search is replayed on the networks of the sweep, as often as one likes.
Axes: G rates of a sweep, S tuning seeds, S' report seeds, N trials of a search, D searches, C candidates.
Scores are in percent, better when higher; regrets in percentage points (pp), better when lower.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from steadydescent.checks import check_count, check_fraction, check_numpy_generator
from steadydescent.lr_search import log_uniform, uniform
from steadydescent.lr_search.random_search import check_draw
from steadydescent.statistics import Array, Estimate

Bounds = tuple[float, float]
METHODS = {"uniform": uniform, "log-uniform": log_uniform, "coarse-to-fine": log_uniform}
"""Method → the law that its trials, or those of its first round, are drawn from."""
TRIALS = (1, 2, 3, 5, 9, 15, 25)
QUANTILES = {"q10": 0.1, "median": 0.5, "q90": 0.9}
DRAWS, RESAMPLES = 4_000, 1_000


@dataclass(frozen=True, eq=False)
class Sweep:
    """Scores of a dense sweep in percent: `rates` `[G]`, `tuning` `[S, G]` (validation), `report` `[S', G]` (test).

    regret(rate) = mean report score of the oracle − mean report score at the rate, in pp. Three oracles were open:
    (a) the highest report mean: the highest of noisy means lies above the best true mean (by 0.44 pp for 25 equal
    rates, 20 seeds and a standard deviation of 1 pp), so every rate would seem to give that away; (b) the highest of
    smoothed means, which needs a bandwidth and rounds off the cliff where training diverges; (c) cross-fitting: tuning
    seeds choose the rate, report seeds score it. We use (c): no score that chooses is reported. The oracle is what all
    S·G tuning networks would have chosen, so that a lucky rate may have a regret below 0. Differences of regrets are
    the same under all three.

    >>> sweep = Sweep([0.01, 0.1, 1], tuning=[[90, 94, 10]], report=[[89, 93, 10], [91, 92, 10]])
    >>> sweep.best, sweep.oracle
    (1, 92.5)

    Raises:
        ValueError: for rates that are not positive, finite and rising, or tables that are not finite or not `[·, G]`.
    """

    rates: Array
    tuning: Array
    report: Array

    def __post_init__(self) -> None:
        rates = np.asarray(self.rates, dtype=np.float64)
        if rates.ndim != 1 or len(rates) < 2 or not (np.isfinite(rates) & (np.diff(rates, prepend=0.0) > 0)).all():
            raise ValueError(f"rates must be at least 2, positive, finite and rising, got {rates}")
        object.__setattr__(self, "rates", rates)
        for name in ("tuning", "report"):
            object.__setattr__(self, name, _table(getattr(self, name), name, len(rates)))

    @cached_property
    def means(self) -> Array:
        """Mean report scores, `[G]`."""
        return self.report.mean(axis=0)

    @cached_property
    def best(self) -> int:
        """The oracle's rate: the index with the best mean tuning score, the lowest rate of several."""
        return int(self.tuning.mean(axis=0).argmax())

    @property
    def oracle(self) -> float:
        """The mean report score of the rate that all tuning seeds choose."""
        return float(self.means[self.best])

    def nearest(self, rates: Array) -> NDArray[np.int64]:
        """The index of the nearest rate of the sweep on a logarithmic scale; beyond its ends, the end."""
        return np.searchsorted(np.sqrt(self.rates[1:] * self.rates[:-1]), rates)

    def regret(self, rates: Array) -> Array:
        """Regret in pp of rates that a search trained: that of the nearest rate of the sweep."""
        return self.oracle - self.means[self.nearest(rates)]

    def interpolated_regret(self, rates: Array) -> Array:
        """Regret in pp between the sweep's rates, linear in log rate; beyond its ends, that of the end."""
        return self.oracle - np.interp(np.log(rates), np.log(self.rates), self.means)

    def resampled(self, generator: np.random.Generator) -> "Sweep":
        """The sweep with as many tuning and report seeds, drawn with replacement."""
        again = lambda table: table[generator.integers(len(table), size=len(table))]
        return Sweep(self.rates, again(self.tuning), again(self.report))


class _Searches(NamedTuple):
    """The random numbers of D searches, so that they can be repeated; the first n rows are searches of n trials."""

    method: str
    rates: Array  # [N, D]; those of a second round still on the whole interval
    cells: NDArray[np.int64]  # [N, D] the nearest rates of the sweep
    seeds: NDArray[np.int64]  # [N, D] tuning seeds
    low: float
    high: float

    def winners(self, sweep: Sweep) -> Array:
        """The rate of each search's best trial, `[D]`, the earliest of several."""
        rates, scores = self.rates, sweep.tuning[self.seeds, self.cells]
        if self.method == "coarse-to-fine":
            coarse, fine = np.split(np.arange(len(rates)), [math.ceil(len(rates) / 2)])
            low, high = _closer(rates[coarse], scores[coarse], self.low, self.high)
            finer = low * (high / low) ** (np.log(rates[fine] / self.low) / math.log(self.high / self.low))
            rates = np.concatenate([rates[coarse], finer])
            scores[fine] = sweep.tuning[self.seeds[fine], sweep.nearest(finer)]
        return rates[scores.argmax(axis=0), np.arange(rates.shape[1])]


def _searches(
    sweep: Sweep, method: str, trials: int, draws: int, generator: np.random.Generator, bounds: Bounds | None
) -> _Searches:
    if method not in METHODS:
        raise ValueError(f"method must be one of {list(METHODS)}, got {method!r}")
    shape = check_count(trials, "trials"), check_count(draws, "draws")
    edges = float(sweep.rates[0]), float(sweep.rates[-1])
    low, high = edges if bounds is None else bounds
    check_draw(low, high, trials)
    if low < edges[0] or high > edges[1]:
        raise ValueError(f"bounds must lie within the sweep's rates {edges}, got {(low, high)}; sweep further")
    places, seeds = check_numpy_generator(generator).spawn(2)  # apart, so that fewer trials are the first of more
    rates = METHODS[method](low, high, math.prod(shape), places).reshape(shape)
    return _Searches(method, rates, sweep.nearest(rates), seeds.integers(len(sweep.tuning), size=shape), low, high)


def _closer(rates: Array, scores: Array, low: float, high: float) -> tuple[Array, Array]:
    """Each search's interval for its second round, `[D]` both, found as `lr_search.coarse_to_fine` finds it."""
    best = np.argsort(-scores, axis=0, kind="stable")[: math.ceil(len(rates) / 4)]
    region = np.take_along_axis(rates, best, axis=0)
    below = np.where(rates < region.min(axis=0), rates, low).max(axis=0)
    return below, np.where(rates > region.max(axis=0), rates, high).min(axis=0)


def searched(
    sweep: Sweep, method: str, trials: int, draws: int, generator: np.random.Generator, bounds: Bounds | None = None
) -> Array:
    """The rates that D searches of N trials each choose, `[D]`; `Sweep.regret` says what they give away.

    Trials are drawn from [low, high], by default the sweep's ends, uniformly or log-uniformly; or log-uniformly in
    two rounds from coarse to fine, ⌈N/2⌉ and ⌊N/2⌋ trials, as `lr_search.coarse_to_fine` closes in (viblo-lr).
    A trial is one network: the validation score of one random tuning seed at the nearest rate on a logarithmic scale.
    Interpolating between two networks would take out up to half the variance that a search has to live with; the price
    of the nearest is that no search can be finer than the sweep. The best score wins.

    >>> sweep = Sweep([0.001, 0.01, 0.1, 1], tuning=[[80, 90, 85, 10]], report=[[80, 90, 85, 10]])
    >>> chosen = searched(sweep, "log-uniform", trials=3, draws=5, generator=np.random.default_rng(0))
    >>> sweep.regret(chosen).tolist()
    [5.0, 0.0, 5.0, 0.0, 0.0]

    Raises:
        ValueError: for an unknown method, fewer than 1 trial or draw, bounds that are not 0 < low < high or reach
            beyond the sweep, and for what is no numpy generator.
    """
    return _searches(sweep, method, trials, draws, generator, bounds).winners(sweep)


def regrets(
    sweep: Sweep,
    methods: Sequence[str] = tuple(METHODS),
    trials: Sequence[int] = TRIALS,
    draws: int = DRAWS,
    seed: int = 0,
    bounds: Bounds | None = None,
) -> pd.DataFrame:
    """Method × trials: the mean `regret` of D searches in pp, and its quantiles `q10`, `median`, `q90` over searches.

    Every cell starts from the same random numbers; with more trials a random search goes on where it was.
    """
    rows = []
    for method in methods:
        for number in trials:
            found = sweep.regret(searched(sweep, method, number, draws, np.random.default_rng(seed), bounds))
            spread = dict(zip(QUANTILES, np.quantile(found, list(QUANTILES.values())), strict=True))
            rows.append({"method": method, "trials": number, "regret": found.mean(), **spread})
    return pd.DataFrame(rows)


def contrast(
    sweep: Sweep,
    method: str,
    against: str,
    trials: int,
    level: float,
    draws: int = DRAWS,
    seed: int = 0,
    resamples: int = RESAMPLES,
    bounds: Bounds | None = None,
) -> Estimate:
    """Mean regret of `against` − mean regret of `method` at equal trials, in pp: above 0 `method` is better.

    Tuning and report seeds are resampled, and the same D searches repeated in every resample. The half-width is
    Student's quantile (n − 1 degrees of freedom) times the bootstrap's standard error, widened by √(n/(n−1)), with the
    Monte Carlo error of D searches added. n is the smaller number of seeds: with the number of report seeds instead,
    20 beside 5 tuning seeds, nominal 95 % intervals held the truth in 89 % of 150 simulated sweeps.

    Raises:
        ValueError: for what `searched` refuses, fewer than 2 tuning or report seeds, and a level outside (0, 1).
    """
    pair = [_searches(sweep, m, trials, draws, np.random.default_rng(seed), bounds) for m in (against, method)]

    def gains(sweep: Sweep) -> Array:
        worse, better = (sweep.regret(searches.winners(sweep)) for searches in pair)
        return worse - better

    n, found, generator = _seeds(sweep), gains(sweep), np.random.default_rng([seed, 1])
    again = np.array([gains(sweep.resampled(generator)).mean() for _ in range(check_count(resamples, "resamples", 2))])
    return _estimate(found.mean(), again, n, level, monte_carlo=found.var() / draws)


def best_of_k(tuning: ArrayLike, report: ArrayLike, ks: Sequence[int], single: bool = False) -> pd.DataFrame:
    """Expected report `score` of the best of k candidates drawn without replacement, and its `sd` over what was drawn.

    With the C candidates in order of tuning score, the j-th best is the best of a random k with probability
    binom(C − j, k − 1) / binom(C, k). So this is exact, and unbiased for k ≤ C (tang2020showing), where drawing with
    replacement is not. The candidate is chosen by its mean over tuning seeds; `single`: by one random tuning seed, the
    same for all k. `tuning` `[S, C]`, `report` `[S', C]`; ties go to the earlier candidate.

    >>> best_of_k([[1, 2, 3]], [[10, 20, 60]], ks=[1, 2, 3]).score.round(2).tolist()
    [30.0, 46.67, 60.0]

    Raises:
        ValueError: for tables that are not finite or not of one width, and k outside 1 … C.
    """
    tuning = _table(tuning, "tuning")
    count = tuning.shape[1]
    means = _table(report, "report", count).mean(axis=0)
    ordered = means[np.argsort(-(tuning if single else tuning.mean(axis=0)[None]), axis=1, kind="stable")]
    rows = []
    for k in ks:
        if check_count(k, "k") > count:
            raise ValueError(f"k must be at most the number of candidates, {count}, got {k}")
        weights = np.array([math.comb(count - j, k - 1) / math.comb(count, k) for j in range(1, count + 1)])
        score = float((ordered @ weights).mean())
        rows.append({"k": k, "score": score, "sd": math.sqrt(((ordered - score) ** 2 @ weights).mean())})
    return pd.DataFrame(rows)


def range_test_regret(sweep: Sweep, suggestions: pd.DataFrame) -> pd.DataFrame:
    """The rows `seed`, `rule`, `length`, `rate` of `suggestions` with their `regret` in pp, interpolated in log rate.

    `outside` marks rates beyond the sweep, whose regret is that of its end and so only a guess.

    Raises:
        ValueError: for missing columns, no rows, two rates of one seed, rule and length, and rates that are not
            positive and finite.
    """
    columns = ["seed", "rule", "length", "rate"]
    if missing := [name for name in columns if name not in suggestions]:
        raise ValueError(f"suggestions must have the columns {columns}, got none named {missing}")
    if suggestions.empty or suggestions.duplicated(columns[:3]).any():
        raise ValueError("suggestions must hold one rate for each seed, rule and length, and at least one row")
    rates = suggestions.rate.to_numpy(dtype=np.float64)
    if not (fine := np.isfinite(rates) & (rates > 0)).all():
        seed, rule, length, rate = suggestions.iloc[int(np.argmin(fine))][columns]
        where = f"seed {seed}, rule {rule!r}, length {length}"
        raise ValueError(f"rate must be positive and finite, got {rate} ({where}); count tests without one apart")
    outside = (rates < sweep.rates[0]) | (rates > sweep.rates[-1])
    return suggestions.assign(regret=sweep.interpolated_regret(rates), outside=outside)


def range_test_estimates(
    sweep: Sweep, suggestions: pd.DataFrame, level: float, seed: int = 0, resamples: int = RESAMPLES
) -> dict[tuple[Hashable, Hashable], Estimate]:
    """(rule, length) → the mean regret of its suggestions in pp, `suggestions` as in `range_test_regret`.

    Seeds of the range test, report seeds and, for the oracle's choice, tuning seeds are resampled, independently.
    The interval is made as in `contrast`; n is the smallest of the three numbers of seeds.

    Raises:
        ValueError: for what `range_test_regret` refuses, fewer than 2 seeds of a kind, and a level outside (0, 1).
    """
    found = {}
    for (rule, length), rows in range_test_regret(sweep, suggestions).groupby(["rule", "length"], dropna=False):
        rates, generator = rows.rate.to_numpy(dtype=np.float64), np.random.default_rng(seed)
        n, again = min(_seeds(sweep), len(rates)), np.empty(check_count(resamples, "resamples", 2))
        if n < 2:
            raise ValueError(f"an interval needs at least 2 seeds, got 1 of rule {rule!r} and length {length}")
        for i in range(resamples):
            drawn = generator.choice(rates, len(rates))
            again[i] = sweep.resampled(generator).interpolated_regret(drawn).mean()
        found[rule, length] = _estimate(rows.regret.mean(), again, n, level)
    return found


def _estimate(value: float, again: Array, n: int, level: float, monte_carlo: float = 0.0) -> Estimate:
    """Student's interval around `value`, its standard error from resampled values, widened by √(n/(n−1))."""
    error = math.sqrt(again.var(ddof=1) * n / (n - 1) + monte_carlo)
    half = float(stats.t.ppf((1 + check_fraction(level, "level")) / 2, n - 1)) * error
    return Estimate(float(value), float(value) - half, float(value) + half, error * math.sqrt(n), n)


def _seeds(sweep: Sweep) -> int:
    """The smaller number of seeds, at least 2."""
    if (n := min(len(sweep.tuning), len(sweep.report))) < 2:
        raise ValueError(f"an interval needs at least 2 tuning and 2 report seeds, got {n} of a kind")
    return n


def _table(values: ArrayLike, name: str, width: int | None = None) -> Array:
    """A finite table of seeds × candidates, of the given width."""
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not table.size or width not in (None, table.shape[1]):
        wanted = "[seeds, candidates]" if width is None else f"[seeds, {width}]"
        raise ValueError(f"{name} must be a table {wanted}, got shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError(f"{name} must be finite, got {table[~np.isfinite(table)][0]}; a diverged run counts at chance")
    return table
