"""Rules that read a learning rate off a recorded range test, from one's own loop or a stack.

Each is `rule(rates [T], losses [T], beta=0.9)`. It looks at the curve up to the first loss that is
not finite, smoothed with decay β as in `range_test`, and raises a ValueError where the arrays are
no range test (rates that do not rise, another number of losses, fewer than 3 finite ones, β outside
[0, 1)) or the loss never falls: by no more than 10⁻⁶ of its size, where a constant's rounding would
be read as a descent.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from steadydescent.checks import check_share
from steadydescent.lr_search.random_search import Floats
from steadydescent.lr_search.ranging import smoothed

ROUNDING = 1e-6
"""A fall by no more than this share of the loss is none; single precision rounds by 6·10⁻⁸."""


def steepest(rates: Floats, losses: Floats, beta: float = 0.9) -> float:
    """The rate at which the smoothed loss falls fastest per logarithm of the rate.

    It is looked for before the minimum.     Slopes are central differences. Per logarithm is
    fastai's choice (`steep`); Lightning takes the slope per rate, which is larger by 1/rate at
    small rates and so suggests smaller ones.

    >>> rates = np.geomspace(1e-4, 1, 9)
    >>> losses = np.array([2.0, 2.0, 1.9, 1.5, 0.7, 0.3, 0.2, 0.9, 3.0])
    >>> round(steepest(rates, losses, beta=0.0), 4)
    0.0032
    """
    rates, smooth = _descent(rates, losses, beta)
    return float(rates[np.argmin(np.gradient(smooth, np.log(rates)))])


def middle(rates: Floats, losses: Floats, beta: float = 0.9) -> float:
    """The middle of the descent: the geometric mean of the rates at its start and end (viblo-lr).

    The source marks a point half way down the slope and defines neither end. Ours: it ends at the
    smoothed minimum and starts at the last rate before that at which at most a tenth of the fall
    lies behind.

    >>> rates = np.geomspace(1e-4, 1, 9)
    >>> losses = np.array([2.0, 2.0, 1.9, 1.5, 0.7, 0.3, 0.2, 0.9, 3.0])
    >>> round(middle(rates, losses, beta=0.0), 4)
    0.01
    """
    rates, smooth = _descent(rates, losses, beta)
    start = np.flatnonzero(smooth >= smooth[-1] + 0.9 * (smooth[0] - smooth[-1]))[-1]
    return math.sqrt(rates[start] * rates[-1])


def minimum_tenth(rates: Floats, losses: Floats, beta: float = 0.9) -> float:
    """A tenth of the rate at the smoothed minimum, where the loss is about to rise.

    fastai's `minimum`.

    >>> rates = np.geomspace(1e-4, 1, 9)
    >>> losses = np.array([2.0, 2.0, 1.9, 1.5, 0.7, 0.3, 0.2, 0.9, 3.0])
    >>> round(minimum_tenth(rates, losses, beta=0.0), 4)
    0.01
    """
    return float(_descent(rates, losses, beta)[0][-1]) / 10


def valley(rates: Floats, losses: Floats, beta: float = 0.9) -> float:
    """Half way along the longest falling subsequence of the smoothed losses (howard2020fastai).

    fastai's `valley`. With L the length of the longest strictly falling subsequence and e the index
    of its end (the earliest of several), fastai takes index e − L + ⌊L/3⌋ + ⌊L/6⌋, as though the
    subsequence had no gaps. Its documentation speaks of two thirds of the way; its code stops half
    way, and so do we, to suggest what its users get. (Before that it drops the first tenth of the
    curve and the last five points and smooths with β = 0.98; here the caller decides.)

    >>> rates = np.geomspace(1e-4, 1, 9)
    >>> losses = np.array([2.0, 2.0, 1.9, 1.5, 0.7, 0.3, 0.2, 0.9, 3.0])
    >>> round(valley(rates, losses, beta=0.0), 4)
    0.0032

    Raises:
        ValueError: if fewer than three losses fall one after another, for then the index may lie
            outside the curve.
    """
    rates, smooth = _finite_part(rates, losses, beta)
    lengths, tops = np.ones(len(smooth), dtype=np.int64), smooth.copy()
    for i in range(1, len(smooth)):
        above = np.flatnonzero(smooth[:i] > smooth[i])
        if len(above):
            before = above[np.argmax(lengths[above])]
            lengths[i], tops[i] = lengths[before] + 1, tops[before]
    end, length = int(np.argmax(lengths)), int(lengths.max())
    if length < 3:
        raise ValueError(
            "the smoothed loss must fall at least twice in the range test, "
            f"it fell {length - 1} times"
        )
    _check_fall(tops[end], smooth[end])
    return float(rates[end - length + length // 3 + length // 6])


SUGGESTIONS: dict[str, Callable[..., float]] = {
    "steepest": steepest,
    "middle": middle,
    "minimum-tenth": minimum_tenth,
    "valley": valley,
}
"""Every rule by name."""


def _finite_part(rates: Floats, losses: Floats, beta: float) -> tuple[Floats, Floats]:
    """Rates and smoothed losses up to the first loss that is not finite, `[t]` both, t ≥ 3."""
    rates, losses = _numbers(rates, "rates"), _numbers(losses, "losses")
    check_share(beta, "beta")
    if rates.ndim != 1 or rates.shape != losses.shape:
        raise ValueError(
            f"rates and losses must be of one length, got shapes {rates.shape} and {losses.shape}"
        )
    rising = np.isfinite(rates) & (np.diff(rates, prepend=0.0) > 0)
    if not rising.all():
        first = int(np.argmin(rising))
        raise ValueError(
            f"rates must be positive, finite and rising, got {rates[first]} at index {first}"
        )
    finite = len(losses) if np.isfinite(losses).all() else int(np.argmin(np.isfinite(losses)))
    if finite < 3:
        raise ValueError(
            f"a range test must have at least 3 finite losses to start with, got {finite}"
        )
    return rates[:finite], np.fromiter(smoothed(losses[:finite].tolist(), beta), dtype=np.float64)


def _descent(rates: Floats, losses: Floats, beta: float) -> tuple[Floats, Floats]:
    """Rates and smoothed losses up to the minimum, at least two."""
    rates, smooth = _finite_part(rates, losses, beta)
    lowest = int(np.argmin(smooth))
    _check_fall(smooth[0], smooth[lowest])
    return rates[: lowest + 1], smooth[: lowest + 1]


def _check_fall(top: float, bottom: float) -> None:
    if top - bottom <= ROUNDING * max(abs(top), abs(bottom)):
        raise ValueError(
            "the smoothed loss must fall in the range test, "
            f"but the loss never falls below {top:.6g} by more than rounding; "
            "start from a smaller rate, and see that each step updates the model"
        )


def _numbers(values: ArrayLike, name: str) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor with a graph
        raise ValueError(
            f"{name} must be an array of numbers, got {type(values).__name__}: {error}"
        ) from error
