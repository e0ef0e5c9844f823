"""Random search for a learning rate: uniform, log-uniform, and from coarse to fine (viblo-lr).

Losses are better when lower; a loss that is not finite is the worst there is.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steadydescent.checks import check_count, check_numpy_generator, check_positive, check_size

Floats = NDArray[np.float64]


def uniform(low: float, high: float, count: int, generator: np.random.Generator) -> Floats:
    """`count` rates uniform on [low, high], `[count]`, float64; `low` may be 0.

    On [0, 1] nine in ten lie above 0.1, where good rates are seldom found: hence `log_uniform`
    (viblo-lr).

    >>> uniform(0, 1, 5, np.random.default_rng(0)).round(3).tolist()
    [0.637, 0.27, 0.041, 0.017, 0.813]

    Raises:
        ValueError: unless 0 ≤ low < high < ∞ and count ≥ 1, and for what is no numpy generator.
    """
    check_draw(low, high, count, zero=True)
    return check_numpy_generator(generator).uniform(low, high, count)


def log_uniform(low: float, high: float, count: int, generator: np.random.Generator) -> Floats:
    """`count` rates low·(high/low)^u with u uniform on [0, 1), `[count]`, float64.

    Their logarithms are uniform. Every decade gets the same share: on [10⁻⁵, 1] a fifth (viblo-lr;
    at random rather than on a grid: bergstra2012random).

    >>> log_uniform(1e-5, 1, 5, np.random.default_rng(0)).round(5).tolist()
    [0.0153, 0.00022, 2e-05, 1e-05, 0.11651]

    Raises:
        ValueError: unless 0 < low < high < ∞ and count ≥ 1, and for what is no numpy generator.
    """
    check_draw(low, high, count)
    rates: Floats = low * (high / low) ** check_numpy_generator(generator).random(count)
    # rounding may lift a draw above `high` by a unit in the last place
    return np.minimum(rates, high)


class Search(NamedTuple):
    """Every trial of a search in the order of evaluation, N of them, and how the search closed in.

    `round` `[N]` counts from 1; `rate` `[N]`; `loss` `[N]` as it was measured, finite or not; `low`
    and `high` `[N]` bound the interval that the trial was drawn from.
    `pandas.DataFrame(search._asdict())` is the tidy table.
    """

    round: NDArray[np.int64]
    rate: Floats
    loss: Floats
    low: Floats
    high: Floats

    @property
    def best(self) -> float:
        """The rate with the lowest loss, the earliest of several.

        Raises:
            ValueError: if no trial has a finite loss.
        """
        if not np.isfinite(self.loss).any():
            raise ValueError(f"none of the {len(self.loss)} trials has a finite loss")
        return float(self.rate[np.argmin(_finite_or_worst(self.loss))])


def coarse_to_fine(
    evaluate: Callable[[Floats], Any],
    low: float,
    high: float,
    rounds: int,
    per_round: int,
    generator: np.random.Generator,
) -> Search:
    """Random search whose interval closes in on the low losses, round by round (viblo-lr).

    Round 1 draws log-uniformly from [low, high]. The source says: find the region where low losses
    gather, search it again, and does not define the region. Ours spans the best ⌈per_round/4⌉ of
    *all* trials so far and reaches to the neighbouring trial on either side, for the minimum may
    lie between the best trial and its neighbour. So no interval leaves the one before it, each
    holds the best trials so far and, if the loss has a single valley and no noise, its minimum too.
    Trials without a finite loss bound a region but lie in none; if no trial has one, the interval
    stays.

    `evaluate` gets a round's rates `[per_round]` and returns their losses `[per_round]`, so that a
    stack can train them together. Exactly rounds·per_round rates are evaluated. One round is plain
    log-uniform search.

    >>> def bowl(rates):
    ...     return np.log10(rates / 0.003) ** 2
    >>> search = coarse_to_fine(bowl, 1e-5, 1, 4, 8, np.random.default_rng(0))
    >>> len(search.rate), round(search.best, 4)
    (32, 0.003)

    Raises:
        ValueError: for bounds that are not 0 < low < high < ∞, fewer than 1 round or 1 trial a
            round, what is no numpy generator (all before anything is evaluated), or losses of
            another shape than the rates.
    """
    check_draw(low, high, per_round, "per_round")
    check_count(rounds, "rounds")
    check_numpy_generator(generator)
    trials: list[Search] = []
    for number in range(1, rounds + 1):
        rates = log_uniform(low, high, per_round, generator)
        losses = np.asarray(evaluate(rates), dtype=np.float64)
        if losses.shape != rates.shape:
            raise ValueError(
                f"evaluate must return losses of shape {rates.shape}, got {losses.shape}"
            )
        bounds = (np.full(per_round, low), np.full(per_round, high))
        trials.append(Search(np.full(per_round, number), rates, losses, *bounds))
        so_far = Search(*(np.concatenate(column) for column in zip(*trials, strict=True)))
        low, high = _closer(so_far, low, high, per_round)
    return so_far


def _closer(trials: Search, low: float, high: float, per_round: int) -> tuple[float, float]:
    """The next interval: from the trial below the best ones to the trial above them."""
    best = np.argsort(_finite_or_worst(trials.loss), kind="stable")[: math.ceil(per_round / 4)]
    region = trials.rate[best][np.isfinite(trials.loss[best])]
    if len(region) == 0:
        return low, high
    below, above = trials.rate[trials.rate < region.min()], trials.rate[trials.rate > region.max()]
    return float(below.max(initial=low)), float(above.min(initial=high))


def _finite_or_worst(losses: Floats) -> Floats:
    return np.where(np.isfinite(losses), losses, np.inf)


def check_draw(
    low: float, high: float, count: int, name: str = "count", least: int = 1, zero: bool = False
) -> None:
    """Refuse bounds that are not 0 < low < high < ∞, and a count below `least`.

    Where `zero`, low may be 0; `name` is the count's in the error.
    """
    (check_size if zero else check_positive)(low, "low")
    if not low < check_positive(high, "high"):
        raise ValueError(f"high must be above low = {low}, got {high}")
    check_count(count, name, least)
