"""What searches choose on average, worked out rather than drawn.

Trials of a search are independent and identically distributed once their law is fixed, so the law
of the best of N follows from that of one: P(best ≤ v) = P(one ≤ v)^N. The second round of a
coarse-to-fine search is such a search on the interval that its first round leaves; only first
rounds are drawn, and they by a Sobol sequence. V different scores among the S·G of a sweep.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from steadydescent.lr_search.random_search import check_draw
from steadydescent.study.judging.regret.sweep import Sweep
from steadydescent.study.judging.statistics import Array

Bounds = tuple[float, float]
FIRST_ROUNDS = 2**18
"""First rounds drawn of a coarse-to-fine search; a quarter where a tuning seed is left out."""
AT_ONCE = 2_048
"""First rounds that are worked on together, to bound the memory."""


def bounds_within(sweep: Sweep, bounds: Bounds | None, trials: int) -> Bounds:
    """The ends of a search's range, by default the sweep's.

    Raises:
        ValueError: for bounds that are not 0 < low < high, or reach beyond the sweep.
    """
    edges = float(sweep.rates[0]), float(sweep.rates[-1])
    low, high = edges if bounds is None else bounds
    check_draw(low, high, trials)
    if low < edges[0] or high > edges[1]:
        raise ValueError(
            f"bounds must lie within the sweep's rates {edges}, got {(low, high)}; sweep further"
        )
    return low, high


def chances(sweep: Sweep, low: Array, high: Array, logarithmic: bool) -> Array:
    """The chance that a rate drawn from [low, high] `[D]` is nearest to each of the sweep's, `[D,
    G]`.
    """
    inner = np.sqrt(sweep.rates[1:] * sweep.rates[:-1])
    scale = np.log if logarithmic else np.asarray
    ends = np.concatenate([[0.0], inner, [np.inf]])
    places = scale(np.clip(ends, low[:, None], high[:, None]))
    return np.diff(places, axis=1) / (scale(high) - scale(low))[:, None]


class _Ranked(NamedTuple):
    """Tuning scores by rank: `rank` `[S, G]` among the V different ones, without the seed that is
    left out; `networks` `[G, V]` the share of a rate's networks with each."""

    rank: NDArray[np.int64]
    networks: Array

    @staticmethod
    def of(tuning: Array, left_out: int | None = None) -> "_Ranked":
        """Of the scores `[S, G]`; the networks of a seed that is left out count nowhere."""
        different, places = np.unique(tuning, return_inverse=True)
        kept = places.reshape(tuning.shape)[np.arange(len(tuning)) != left_out]
        rates = np.arange(tuning.shape[1])
        networks = np.zeros((len(rates), len(different)))
        np.add.at(networks, (rates, kept), 1.0)
        return _Ranked(kept, networks / len(kept))

    def best_of(self, chance: Array, trials: int, above: NDArray[np.int64]) -> tuple[Array, Array]:
        """How often the best of N trials at rates of these chances `[D, G]` is of each rate and
        beats the rank `above` `[D]`, `[D, G]`; and how often it does not, `[D]`.

        Of equal scores the earliest wins, so that they share by their chances.
        """
        lowest = int(above.min()) + 1  # what no search beats is in no column
        one = chance @ self.networks[:, lowest:]
        never = chance @ self.networks[:, :lowest].sum(axis=1)
        below = np.cumsum(np.concatenate([never[:, None], one], axis=1), axis=1)
        below = _power(np.minimum(below, 1.0), trials)
        at = above - lowest + 1
        wins = np.diff(below, axis=1)
        wins[np.arange(wins.shape[1]) < at[:, None]] = 0.0
        each = np.divide(wins, one, out=np.zeros_like(wins), where=one > 0)
        return chance * (each @ self.networks[:, lowest:].T), below[np.arange(len(at)), at]


def _power(base: Array, exponent: int) -> Array:
    """The same as `**`, by squaring, which is five times as fast."""
    if exponent == 1:
        return base
    root = _power(base, exponent // 2)
    return root * root * base if exponent % 2 else root * root


def random_shares(
    sweep: Sweep, logarithmic: bool, trials: int, bounds: Bounds, left_out: int | None = None
) -> Array:
    """The exact chance that a random search of N trials chooses each rate of the sweep, `[G]`.

    `left_out` is a tuning seed to go without.

    >>> sweep = Sweep([0.01, 0.1, 1], tuning=[[1, 3, 2]], report=[[1, 3, 2]])
    >>> random_shares(sweep, True, 2, (0.01, 1)).round(4).tolist()
    [0.0625, 0.75, 0.1875]
    """
    low, high = (np.array([end]) for end in bounds)
    chance, nothing = chances(sweep, low, high, logarithmic), np.array([-1])
    return _Ranked.of(sweep.tuning, left_out).best_of(chance, trials, nothing)[0][0]


class FirstRounds(NamedTuple):
    """First rounds of D coarse-to-fine searches, drawn once for every set of tuning seeds.

    `rates` `[N, D]`; `nearest` `[N, D]` the sweep's rates; `places` `[N, D]` in [0, 1):
    a trial's place among the scores of all tuning seeds at its rate, from the worst. So a seed more
    or less changes scores a little and no rate, and differences between sets of seeds are smooth.
    """

    rates: Array
    nearest: NDArray[np.int64]
    places: Array

    @staticmethod
    def drawn(sweep: Sweep, trials: int, bounds: Bounds, seed: int, draws: int) -> "FirstRounds":
        """First rounds of N trials."""
        sobol = qmc.Sobol(2 * trials, rng=np.random.default_rng(seed))
        shares, places = sobol.random(draws).T.reshape(2, trials, draws)
        low, high = bounds
        rates = np.minimum(low * (high / low) ** shares, high)
        return FirstRounds(rates, sweep.nearest(rates), places)

    def first_quarter(self) -> "FirstRounds":
        """A quarter of them: what the differences between tuning seeds are taken on."""
        few = self.rates.shape[1] // 4
        return FirstRounds(self.rates[:, :few], self.nearest[:, :few], self.places[:, :few])


def closing_in_shares(
    sweep: Sweep, first: FirstRounds, trials: int, bounds: Bounds, left_out: int | None = None
) -> Array:
    """The chance that a coarse-to-fine search of N trials chooses each rate of the sweep, `[G]`:
    the mean over first rounds, each with its exact second round.

    `left_out` is a tuning seed to go without.
    """
    ranked, fine = _Ranked.of(sweep.tuning, left_out), trials - len(first.rates)
    in_order = np.sort(ranked.rank, axis=0)
    ranks = in_order[(first.places * len(in_order)).astype(np.int64), first.nearest]
    low, high = closer(first.rates, ranks, *bounds)
    best = ranks.argmax(axis=0), np.arange(ranks.shape[1])
    at, above = first.nearest[best], ranks[best]
    # by the first round's best rate, whose law is exact: post-stratification
    found = np.zeros((len(sweep.rates), len(sweep.rates)))
    for part in np.array_split(np.argsort(above, kind="stable"), math.ceil(len(at) / AT_ONCE)):
        ends = firsts = np.eye(len(found))[at[part]]
        if fine:
            chance = chances(sweep, low[part], high[part], logarithmic=True)
            finer, stays = ranked.best_of(chance, fine, above[part])
            ends = finer + firsts * stays[:, None]
        found += firsts.T @ ends
    seen = np.bincount(at, minlength=len(found))
    law = random_shares(sweep, True, len(first.rates), bounds, left_out) * (seen > 0)
    return law / law.sum() @ (found / np.maximum(seen, 1)[:, None])


def closer(
    rates: Array, scores: NDArray[np.number], low: float, high: float
) -> tuple[Array, Array]:
    """Each search's interval for its second round, `[D]` both, as `lr_search.coarse_to_fine` has.

    `rates` and `scores` (or their ranks) are those of the first round, `[N, D]`.
    """
    best = np.argsort(-scores, axis=0, kind="stable")[: math.ceil(len(rates) / 4)]
    region = np.take_along_axis(rates, best, axis=0)
    below = np.where(rates < region.min(axis=0), rates, low).max(axis=0)
    return below, np.where(rates > region.max(axis=0), rates, high).min(axis=0)
