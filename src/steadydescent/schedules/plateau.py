"""Lower the rate when a watched value stops improving: the one schedule with a state."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steadydescent.checks import check_count, check_fraction, check_share, check_size
from steadydescent.schedules.schedule import Array


class PlateauState(NamedTuple):
    """What `Plateau` remembers of each of R replicas; all arrays are `[R]`."""

    factor: Array
    """The factor on the peak rate."""
    best: Array
    """The best value observed."""
    bad: NDArray[np.int64]
    """Observations without improvement since the last improvement, reduction or cooldown."""
    cooling: NDArray[np.int64]
    """Observations that the cooldown still lasts."""


@dataclass(frozen=True)
class Plateau:
    """The rate times `factor` after more than `patience` values without improvement (viblo-lr).

    The rule, its hyper-parameters and their defaults are those of torch's `ReduceLROnPlateau`,
    which is the class to use in a loop of one's own; this one keeps R replicas, each on its own,
    and its state is plain data. An improvement beats the best value by `threshold`, of the best
    value (`rel`, meant for positive values) or absolute (`abs`). After a reduction nothing counts
    against a replica for `cooldown` observations. `floor` is the smallest factor on the peak rate,
    torch's `min_lr` over the initial rate.

    Two differences: torch's `eps`, below which it leaves an absolute rate alone, is not here (torch
    with `eps=0`); and a value that is not finite is never an improvement, where torch takes an
    infinite loss of the right sign.

    Raises:
        ValueError: for a factor outside (0, 1), a negative patience or cooldown, a floor outside
            [0, 1), a negative threshold or a relative one of 1 or more, or an unknown mode.

    >>> plateau = Plateau(factor=0.5, patience=1)
    >>> state = plateau.init(replicas=2)
    >>> for values in [[0.9, 0.9], [0.8, 0.9], [0.7, 0.9]]:  # the second replica stands still
    ...     state = plateau.observe(state, np.array(values))
    >>> plateau.factors(state).tolist()
    [1.0, 0.5]
    """

    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: int = 0
    floor: float = 0.0
    mode: Literal["min", "max"] = "min"

    def __post_init__(self) -> None:
        check_fraction(self.factor, "factor")
        check_count(self.patience, "patience", least=0)
        check_count(self.cooldown, "cooldown", least=0)
        check_share(self.floor, "floor")
        if self.threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold_mode must be 'rel' or 'abs', got {self.threshold_mode!r}")
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {self.mode!r}")
        if self.threshold_mode == "rel":
            check_share(self.threshold, "threshold")
        else:
            check_size(self.threshold, "threshold")

    def init(self, replicas: int) -> PlateauState:
        """The state of R replicas before anything is observed: peak rate, no value to beat."""
        count = check_count(replicas, "replicas")
        worst = np.inf if self.mode == "min" else -np.inf
        none = np.zeros(count, dtype=np.int64)
        return PlateauState(
            factor=np.ones(count), best=np.full(count, worst), bad=none, cooling=none
        )

    def factors(self, state: PlateauState) -> Array:
        """The factors on the peak rate, `[R]`, for the updates up to the next observation."""
        return state.factor

    def observe(self, state: PlateauState, values: Array) -> PlateauState:
        """The state after one value of each replica, `[R]`; `state` itself is left as it was.

        Raises:
            ValueError: for values of another shape.
        """
        values = np.asarray(values, dtype=np.float64)
        if values.shape != state.factor.shape:
            raise ValueError(
                f"values must have the shape {state.factor.shape}, one a replica, "
                f"got {values.shape}"
            )
        better = np.isfinite(values) & self._improves(values, state.best)
        cooling = state.cooling > 0
        bad = np.where(better | cooling, 0, state.bad + 1)
        reduce = bad > self.patience
        reduced = np.maximum(state.factor * self.factor, self.floor)
        return PlateauState(
            factor=np.where(reduce, reduced, state.factor),
            best=np.where(better, values, state.best),
            bad=np.where(reduce, 0, bad),
            cooling=np.where(reduce, self.cooldown, state.cooling - cooling),
        )

    def _improves(self, values: Array, best: Array) -> NDArray[np.bool_]:
        sign = -1 if self.mode == "min" else 1
        margin = sign * self.threshold
        bar = best * (1 + margin) if self.threshold_mode == "rel" else best + margin
        return sign * values > sign * bar
