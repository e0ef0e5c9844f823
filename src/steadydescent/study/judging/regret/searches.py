"""Searches replayed on a dense sweep, and what they give away."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from steadydescent.checks import check_count, check_numpy_generator
from steadydescent.lr_search import log_uniform, uniform
from steadydescent.study.judging.regret.expected import (
    FIRST_ROUNDS,
    Bounds,
    FirstRounds,
    bounds_within,
    closer,
    closing_in_shares,
    random_shares,
)
from steadydescent.study.judging.regret.sweep import (
    Sweep,
    checked_table,
    interval_of_parts,
    of_report,
    of_tuning,
    seeds_of,
)
from steadydescent.study.judging.statistics import Array, Estimate

METHODS = {"uniform": uniform, "log-uniform": log_uniform, "coarse-to-fine": log_uniform}
"""Method → the law that its trials, or those of its first round, are drawn from."""
TRIALS = (1, 2, 3, 5, 9, 15, 25)
REGRET_QUANTILES = {"q10": 0.1, "median": 0.5, "q90": 0.9}
DRAWN_SEARCHES = 4_000


class _Searches(NamedTuple):
    """The random numbers of D searches, so that they can be repeated.

    The first n rows are searches of n trials. `rates` `[N, D]`, those of a second round still on
    the whole interval; `nearest` `[N, D]` the sweep's rates nearest to them; `seeds` `[N, D]`
    tuning seeds.
    """

    method: str
    rates: Array
    nearest: NDArray[np.int64]
    seeds: NDArray[np.int64]
    low: float
    high: float

    def winners(self, sweep: Sweep) -> Array:
        """The rate of each search's best trial, `[D]`, the earliest of several."""
        rates, scores = self.rates, sweep.tuning[self.seeds, self.nearest]
        if self.method == "coarse-to-fine":
            coarse, fine = np.split(np.arange(len(rates)), [math.ceil(len(rates) / 2)])
            low, high = closer(rates[coarse], scores[coarse], self.low, self.high)
            share = np.log(rates[fine] / self.low) / math.log(self.high / self.low)
            finer = low * (high / low) ** share
            rates = np.concatenate([rates[coarse], finer])
            scores[fine] = sweep.tuning[self.seeds[fine], sweep.nearest(finer)]
        return rates[scores.argmax(axis=0), np.arange(rates.shape[1])]


def _known(method: str) -> str:
    if method not in METHODS:
        raise ValueError(f"method must be one of {list(METHODS)}, got {method!r}")
    return method


def _searches(
    sweep: Sweep,
    method: str,
    trials: int,
    draws: int,
    generator: np.random.Generator,
    bounds: Bounds | None,
) -> _Searches:
    _known(method)
    shape = check_count(trials, "trials"), check_count(draws, "draws")
    low, high = bounds_within(sweep, bounds, trials)
    # apart, so that fewer trials are the first of more
    places, seeds = check_numpy_generator(generator).spawn(2)
    rates = METHODS[method](low, high, math.prod(shape), places).reshape(shape)
    drawn = seeds.integers(len(sweep.tuning), size=shape)
    return _Searches(method, rates, sweep.nearest(rates), drawn, low, high)


def searched(
    sweep: Sweep,
    method: str,
    trials: int,
    draws: int,
    generator: np.random.Generator,
    bounds: Bounds | None = None,
) -> Array:
    """The rates that D searches of N trials each choose, `[D]`; `Sweep.regret` says what they give
    away.

    Trials are drawn from [low, high], by default the sweep's ends, uniformly or log-uniformly; or
    log-uniformly in two rounds from coarse to fine, ⌈N/2⌉ and ⌊N/2⌋ trials, as
    `lr_search.coarse_to_fine` closes in (viblo-lr). A trial is one network: the validation score of
    one random tuning seed at the nearest rate on a logarithmic scale. Interpolating between two
    networks would take out up to half the variance that a search has to live with; the price of the
    nearest is that no search can be finer than the sweep. The best score wins.

    >>> sweep = Sweep([0.001, 0.01, 0.1, 1], tuning=[[80, 90, 85, 10]], report=[[80, 90, 85, 10]])
    >>> generator = np.random.default_rng(0)
    >>> chosen = searched(sweep, "log-uniform", trials=3, draws=5, generator=generator)
    >>> sweep.regret(chosen).tolist()
    [5.0, 0.0, 5.0, 0.0, 0.0]

    Raises:
        ValueError: for an unknown method, fewer than 1 trial or draw, bounds that are not
            0 < low < high or reach beyond the sweep, and for what is no numpy generator.
    """
    return _searches(sweep, method, trials, draws, generator, bounds).winners(sweep)


def regrets(
    sweep: Sweep,
    methods: Sequence[str] = tuple(METHODS),
    trials: Sequence[int] = TRIALS,
    draws: int = DRAWN_SEARCHES,
    seed: int = 0,
    bounds: Bounds | None = None,
) -> pd.DataFrame:
    """Method × trials: the mean `regret` of D searches in pp, and quantiles over searches.

    These are `q10`, `median` and `q90`. Every cell starts from the same random numbers; with more
    trials a random search goes on where it was.
    """
    rows = []
    for method in methods:
        for number in trials:
            generator = np.random.default_rng(seed)
            lost = sweep.regret(searched(sweep, method, number, draws, generator, bounds))
            quantiles = np.quantile(lost, list(REGRET_QUANTILES.values()))
            spread = dict(zip(REGRET_QUANTILES, quantiles, strict=True))
            rows.append({"method": method, "trials": number, "regret": lost.mean(), **spread})
    return pd.DataFrame(rows)


def search_gain(
    sweep: Sweep,
    method: str,
    against: str,
    trials: int,
    level: float,
    seed: int = 0,
    bounds: Bounds | None = None,
    draws: int = FIRST_ROUNDS,
) -> Estimate:
    """Expected regret of `against` − expected regret of `method` at equal trials, in pp: above 0
    `method` is better.

    The expectation over searches is exact; only first rounds of coarse-to-fine searches are drawn,
    `draws` of them, the same for every set of tuning seeds. The variance has two parts: tuning
    seeds by the jackknife (each left out once), report seeds by their scores, in which the value is
    linear. See `interval_of_parts` for the interval.

    Raises:
        ValueError: for what `searched` refuses, fewer than 2 tuning or report seeds, and a level
            outside (0, 1).
    """
    value, parts = gain_and_parts(sweep, method, against, trials, seed, bounds, draws)
    return interval_of_parts(value, parts, level)


def gain_and_parts(
    sweep: Sweep,
    method: str,
    against: str,
    trials: int,
    seed: int = 0,
    bounds: Bounds | None = None,
    draws: int = FIRST_ROUNDS,
) -> tuple[float, list[tuple[float, int]]]:
    """The value of `search_gain`, and the parts of its variance with their numbers of seeds."""
    seeds_of(sweep)
    better, worse = (
        _law(sweep, one, trials, bounds_within(sweep, bounds, trials), seed, draws)
        for one in (method, against)
    )
    shares = better(None) - worse(None)
    without = [better(i) - worse(i) for i in range(len(sweep.tuning))]
    parts = [of_tuning(np.array(without) @ sweep.means), of_report(sweep, shares)]
    return float(shares @ sweep.means), parts


def _law(
    sweep: Sweep, method: str, trials: int, bounds: Bounds, seed: int, draws: int
) -> Callable[[int | None], Array]:
    """Tuning seed to leave out, or None → the chance that a search chooses each rate, `[G]`."""
    if _known(method) != "coarse-to-fine":
        logarithmic = METHODS[method] is log_uniform
        return lambda left_out: random_shares(sweep, logarithmic, trials, bounds, left_out)
    first = FirstRounds.drawn(sweep, math.ceil(trials / 2), bounds, seed, draws)
    fewer = first.first_quarter()
    return lambda left_out: closing_in_shares(
        sweep, first if left_out is None else fewer, trials, bounds, left_out
    )


def best_of_k(
    tuning: ArrayLike, report: ArrayLike, ks: Sequence[int], single: bool = False
) -> pd.DataFrame:
    """Expected report `score` of the best of k candidates drawn without replacement.

    `sd` is that over what was drawn. With the C candidates in order of tuning score, the j-th best
    is the best of a random k with probability binom(C − j, k − 1) / binom(C, k). So this is exact,
    and unbiased for k ≤ C (tang2020showing), where drawing with replacement is not. The candidate
    is chosen by its mean over tuning seeds; `single`: by one random tuning seed, the same for all
    k. `tuning` `[S, C]`, `report` `[S', C]`; ties go to the earlier candidate.

    >>> best_of_k([[1, 2, 3]], [[10, 20, 60]], ks=[1, 2, 3]).score.round(2).tolist()
    [30.0, 46.67, 60.0]

    Raises:
        ValueError: for tables that are not finite or not of one width, and k outside 1 … C.
    """
    tuning = checked_table(tuning, "tuning")
    count = tuning.shape[1]
    means = checked_table(report, "report", count).mean(axis=0)
    scores = tuning if single else tuning.mean(axis=0)[None]
    ordered = means[np.argsort(-scores, axis=1, kind="stable")]
    rows = []
    for k in ks:
        if check_count(k, "k") > count:
            raise ValueError(f"k must be at most the number of candidates, {count}, got {k}")
        ways = [math.comb(count - j, k - 1) / math.comb(count, k) for j in range(1, count + 1)]
        weights = np.array(ways)
        score = float((ordered @ weights).mean())
        sd = math.sqrt(((ordered - score) ** 2 @ weights).mean())
        rows.append({"k": k, "score": score, "sd": sd})
    return pd.DataFrame(rows)
