"""Learning rates of a stack: known beforehand, or learned from validation losses on the way.

Axes: R replicas, T updates of the run, k of them.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from steadydescent.schedules import Plateau

Rows = NDArray[np.float64]


class Rates(Protocol):
    """The rates of R replicas; after each update in `observed` they want to see losses `[R]`."""

    observed: frozenset[int]

    def of(self, start: int, stop: int) -> Rows:
        """The rates `[k, R]` of the updates start + 1 … stop."""
        ...

    def observe(self, losses: Rows) -> None:
        """Take in the losses `[R]` on examples kept for this."""
        ...


class PlannedRates:
    """Rates `[T, R]` that are known before the run."""

    def __init__(self, rates: Rows) -> None:
        self.rates = rates
        self.observed: frozenset[int] = frozenset()

    def of(self, start: int, stop: int) -> Rows:
        """The rates `[k, R]` of the updates start + 1 … stop."""
        return self.rates[start:stop]

    def observe(self, losses: Rows) -> None:
        """Nothing that happens changes them."""


class PlateauRates:
    """Rates that fall from their `peaks` `[R]` when a loss, seen `every` so many updates, no longer
    does.
    """

    def __init__(self, plateau: Plateau, peaks: Sequence[float], every: int, steps: int) -> None:
        self.plateau, self.peaks = plateau, np.array(peaks)
        self.observed = frozenset(range(every, steps, every))
        self.state = plateau.init(len(peaks))

    def of(self, start: int, stop: int) -> Rows:
        """The rates `[k, R]` of the updates start + 1 … stop, the same for all until the next
        observation.
        """
        return np.tile(self.peaks * self.plateau.factors(self.state), (stop - start, 1))

    def observe(self, losses: Rows) -> None:
        """Take in the losses `[R]` on examples kept for this."""
        self.state = self.plateau.observe(self.state, losses)
