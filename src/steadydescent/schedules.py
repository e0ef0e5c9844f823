"""Learning-rate schedules as pure functions of the step.

A schedule returns the factor on the peak rate at the 1-based update t of T: the first update
sees t = 1, the last t = T. Functions that feed torch's `LambdaLR`, which counts from 0, pass t + 1.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def constant(step: NDArray[np.float64], total: int) -> NDArray[np.float64]:
    """The peak rate throughout.

    >>> constant(np.array([1.0, 2.0]), 2).tolist()
    [1.0, 1.0]
    """
    return np.ones_like(step)


def linear(step: NDArray[np.float64], total: int) -> NDArray[np.float64]:
    """Linear to zero, 1 − (t−1)/T: torch's `LinearLR(optimizer, 1, 0, T)`.

    The last update still moves, by 1/T of the peak rate; the rate would be 0 at update T + 1.

    >>> linear(np.arange(1.0, 5.0), 4).tolist()
    [1.0, 0.75, 0.5, 0.25]
    """
    return 1 - (step - 1) / total


SCHEDULES: dict[str, Callable[[NDArray[np.float64], int], NDArray[np.float64]]] = {
    "constant": constant,
    "linear": linear,
}


def rates(schedule: str, peak: float, total: int) -> NDArray[np.float64]:
    """Learning rates of a whole run, `[T]`.

    Raises:
        ValueError: for an unknown schedule, a peak that is not a positive finite number, or T < 1.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {sorted(SCHEDULES)}, got {schedule!r}")
    if not (np.isfinite(peak) and peak > 0):
        raise ValueError(f"peak rate must be positive and finite, got {peak}")
    if total < 1:
        raise ValueError(f"total must be at least 1 step, got {total}")
    return peak * SCHEDULES[schedule](np.arange(1.0, total + 1), total)
