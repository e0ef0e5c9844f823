"""Which average is kept: the sequence of mixing weights w_1, w_2, … as a function of the update's
number.

    a_t = a_{t−1} + w_t·(θ_t − a_{t−1}),  a_0 = θ_0

`EMA` and `Shadow` take any function of t = 1, 2, … that gives weights in [0, 1]; these are the
usual ones. A weight of 1 forgets all that was before. `readouts` makes arrays of the same
sequences, for runs of a known length.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from torch import Tensor

from steadydescent.averages import ramped_decay
from steadydescent.checks import check_count, check_share

Mixing = Callable[[int], float]
"""Number t = 1, 2, … of an update → its mixing weight w_t in [0, 1]."""


@dataclass(frozen=True)
class Started:
    """Fixed decay from the first weights on: w_t = 1 − β (viblo-ema, zh-ema; timm's `ModelEmaV2`,
    torch's EMA).

    θ_0 keeps the share β^t. A window of n steps is β = `averages.decay_for_window(n)`. When the
    batch grows by κ, the same memory in examples is β^κ (busbridge2023scale).

    Raises:
        ValueError: for β outside [0, 1).

    >>> Started(0.75)(1), Started(0.75)(1000)
    (0.25, 0.25)
    """

    beta: float

    def __post_init__(self) -> None:
        check_share(self.beta, "beta")

    def __call__(self, step: int) -> float:
        return 1 - self.beta


def debiased_weight(beta: float, step: Any, library: Any = math) -> Any:
    """w_t = (1−β)/(1−β^t), whose denominator −expm1(t·ln β) keeps its digits when β is near 1.

    `step` is a number t; with numpy as the `library` it may be an array of them.

    >>> debiased_weight(0.98, 2)
    0.5050...
    """
    if beta == 0:
        return 1.0
    return (1 - beta) / -library.expm1(step * library.log(beta))


@dataclass(frozen=True)
class Debiased:
    """Bias-corrected: w_t = (1−β)/(1−β^t), the first update copies the weights (uit-slides;
    morales2024exponential).

    The same as V_t/(1−β^t) of an average that started from zero: θ_0 has no share.

    Raises:
        ValueError: for β outside [0, 1).

    >>> Debiased(0.98)(1), Debiased(0.98)(2)
    (1.0, 0.5050...)
    """

    beta: float

    def __post_init__(self) -> None:
        check_share(self.beta, "beta")

    def __call__(self, step: int) -> float:
        if step == 1:
            return 1.0  # the quotient rounds, to above 1 for some β
        return debiased_weight(self.beta, step)


@dataclass(frozen=True)
class Ramped:
    """TensorFlow's ramp: w_t = 1 − min(cap, (1+t)/(10+t)), but w_1 = 1 (opennmt-tf).

    Two starts are in use: (a) the first update copies the weights (opennmt-tf, which makes its
    average after the first step); (b) w_1 = 9/11 mixes them with θ_0 (an average made before the
    first step). We use (a).

    Raises:
        ValueError: for a cap outside [0, 1).

    >>> Ramped()(1), Ramped()(2), Ramped(cap=0.5)(1000)
    (1.0, 0.75, 0.5)
    """

    cap: float = 0.9999

    def __post_init__(self) -> None:
        check_share(self.cap, "cap")

    def __call__(self, step: int) -> float:
        return 1.0 if step == 1 else 1 - ramped_decay(step, self.cap)


@dataclass(frozen=True)
class TailMean:
    """Mean of all weights from update `start` on: w_t = 1/(t − start + 1), until then 1, the last
    weights.

    From the first update on it is the mean of polyak1992acceleration; updated once an epoch, late
    in training, it is SWA (izmailov2018averaging; torch's `AveragedModel` as it comes).

    Raises:
        ValueError: for a start that is no whole number of at least 1.

    >>> [TailMean(start=3)(step) for step in (1, 2, 3, 4)]
    [1.0, 1.0, 1.0, 0.5]
    """

    start: int = 1

    def __post_init__(self) -> None:
        check_count(self.start, "start")

    def __call__(self, step: int) -> float:
        return 1 / max(step - self.start + 1, 1)


def as_mixing(mixing: float | Mixing, name: str) -> Mixing:
    """A function of the step as it is; a number β stands for `Started(β)`; errors call it by
    `name`.
    """
    if isinstance(mixing, type):
        raise ValueError(
            f"{name} must be a number or a function, got the class {mixing.__name__}; "
            "give it its values"
        )
    return mixing if callable(mixing) else Started(check_share(mixing, name))


def weight_at(mixing: Mixing, step: int) -> float:
    """The weight of update `step`; a ValueError if it is outside [0, 1]."""
    weight = mixing(step)
    if not isinstance(weight, Real | Tensor) or not 0 <= weight <= 1:
        raise ValueError(f"mixing must give weights in [0, 1], got {weight} at update {step}")
    return weight
