"""Averages of a stream: simple, exponentially weighted, and ramped; debiasing.

`ewa` and `debias` take floats or tensors and broadcast, so the same line serves one number,
one model's weights `[P]`, or the weights of a whole stack `[R, P]`.
"""

import math
from typing import Any

import torch
from torch import Tensor

from steadydescent.checks import check_count, check_number, check_share

__all__ = [
    "SimpleMovingAverage",
    "debias",
    "decay_for_window",
    "ewa",
    "mean_length",
    "ramped_decay",
    "window",
]


def ewa(average: Tensor, value: Tensor, beta: float | Tensor) -> Tensor:
    """Exponentially weighted average, V_t = β·V_{t−1} + (1−β)·θ_t (uit-slides).

    Shapes: `average` and `value` broadcast to a common shape, which is returned.

    >>> ewa(torch.tensor(0.8), torch.tensor(49.0), 0.98).item()  # 40 °F, then 49 °F
    1.764...
    """
    return beta * average + (1 - beta) * value


def debias(average: Tensor, beta: float | Tensor, step: int | Tensor) -> Tensor:
    """Bias-corrected average, V_t / (1 − β^t), for an average that started from zero (uit-slides).

    1 − β^t is computed as −expm1(t·ln β), which keeps its digits when β is near 1.
    `step` is t ≥ 1, a number or a tensor that broadcasts against `average`.

    >>> debias(torch.tensor(1.764), 0.98, 2).item()
    44.54...
    """
    if isinstance(beta, Tensor):
        steps = torch.as_tensor(step, device=beta.device).double()
        return average / -torch.expm1(steps * beta.double().log()).to(average.dtype)
    if beta == 0:
        return average
    if isinstance(step, Tensor):
        return average / -torch.expm1(step.double() * math.log(beta))
    return average / -math.expm1(step * math.log(beta))


def decay_for_window(window: float) -> float:
    """β whose window 1/(1−β) is `window` steps (uit-slides).

    >>> decay_for_window(50)
    0.98

    Raises:
        ValueError: unless 1 ≤ window < ∞.
    """
    if not 1 <= (steps := check_number(window, "window")) < math.inf:
        raise ValueError(f"window must be at least 1 step and finite, got {window}")
    return 1 - 1 / steps


def window(beta: float) -> float:
    """Number of values that an average with decay β is said to cover, 1/(1−β) (uit-slides, zh-ema).

    A number of values, not an error: the last 1/(1−β) of them hold 1 − β^(1/(1−β)) of the weight,
    about 63 %.

    >>> window(0.98)
    50.0
    """
    return 1 / (1 - check_share(beta, "beta"))


def mean_length(beta: float) -> float:
    """Length of the simple average with the lag and the variance of decay β's, (1+β)/(1−β) values.

    Of k values the simple average lags (k−1)/2 steps behind and keeps 1/k of the variance of noise;
    the exponential one lags β/(1−β) and keeps (1−β)/(1+β). Both agree at this length, almost twice
    the `window`.

    >>> [mean_length(beta) for beta in (0.5, 0.9, 0.98, 0.999)]
    [3.0, 19.0, 99.0, 1999.0]
    """
    beta = check_share(beta, "beta")
    return (1 + beta) / (1 - beta)


def ramped_decay(step: int, cap: float = 0.9999) -> float:
    """TensorFlow's ramp min(cap, (1 + t)/(10 + t)), t = 1 at the first update (opennmt-tf).

    The cap 0.9999 is reached only at t = 89 990; until then the window grows like t/9.

    >>> ramped_decay(1)
    0.18181818181818182
    """
    step = check_count(step, "step")
    return min(check_share(cap, "cap"), (1 + step) / (10 + step))


class SimpleMovingAverage:
    """Mean of the last k values of a stream, SMA_next = SMA + (x_new − x_old)/k (viblo-ema).

    Until k values have come it is the mean of those there are. Values are floats, averaged in
    double precision, or floating-point tensors of one shape, dtype and device, averaged in that
    dtype; k of them are kept, which for weights is k copies of the model. Each update costs the
    same, whatever k.

    Rounding: each streaming update is off by a few units in the last place of the largest value in
    the window, and such errors would gather for ever. So at every k-th update the mean is taken
    afresh from the k values: errors gather over k updates at most, and an infinity or NaN leaves no
    trace later than 2k updates after it came.

    >>> average = SimpleMovingAverage(window=2)
    >>> [average.update(value).item() for value in (40.0, 49.0, 45.0)]
    [40.0, 44.5, 47.0]

    Raises:
        ValueError: unless the window is a whole number of at least 1.
    """

    def __init__(self, window: int) -> None:
        self.window, self.count = check_count(window, "window"), 0
        self._values: Tensor | None = None
        self._mean: Tensor | None = None

    @property
    def value(self) -> Tensor:
        """The mean of the last k values, of their shape; a copy.

        Raises:
            ValueError: before the first update.
        """
        if self._mean is None:
            raise ValueError("there is no average yet; update it with a value first")
        return self._mean.clone()

    @torch.no_grad()
    def update(self, value: float | Tensor) -> Tensor:
        """Take in one value and return the mean, of the value's shape.

        Raises:
            ValueError: for what is no number, or a tensor whose shape, dtype or device is not that
                of the values before, or not floating-point, or of 8 bits, in which nothing can be
                added.
        """
        if not isinstance(value, Tensor):
            value = torch.tensor(check_number(value, "value"), dtype=torch.float64, device="cpu")
        values, mean = self._buffers_for(value)
        place = self.count % self.window
        filled = min(self.count + 1, self.window)
        old = values[place] if self.count >= self.window else mean  # in growing, x̄ + (x − x̄)/t
        self._mean = mean + (value - old) / filled
        values[place] = value
        if place == self.window - 1:
            self._mean = values.mean(0)
        self.count += 1
        return self.value

    def _buffers_for(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The ring `[k, …]` and the mean `[…]`, made at the first value; every other must match."""
        if not value.is_floating_point() or value.element_size() < 2:
            raise ValueError(
                f"values must be floating-point, got {value.dtype}; 16 bits at least can be added"
            )
        if self._values is None or self._mean is None:
            self._values = value.new_zeros(self.window, *value.shape)
            self._mean = torch.zeros_like(value)
        if (value.shape, value.dtype) != (self._mean.shape, self._mean.dtype):
            raise ValueError(
                f"values must stay {tuple(self._mean.shape)} of {self._mean.dtype}, "
                f"got {tuple(value.shape)} of {value.dtype}"
            )
        if value.device != self._mean.device:
            raise ValueError(f"values must stay on {self._mean.device}, got one on {value.device}")
        return self._values, self._mean

    def state_dict(self) -> dict[str, Any]:
        """Window, count and, once there are values, copies of the ring `[k, …]` and of the mean."""
        state: dict[str, Any] = {"window": self.window, "count": self.count}
        if self._values is not None and self._mean is not None:
            state |= {"values": self._values.clone(), "mean": self._mean.clone()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        The next updates give the same bits as if there had been no break.

        Raises:
            ValueError: for what is no state, or the state of an average over another window.
        """
        if not isinstance(state, dict) or not {"window", "count"} <= set(state):
            raise ValueError(f"the state must be a dict with window and count, got {state!r}")
        if state["window"] != self.window:
            raise ValueError(f"window of the state must be {self.window}, got {state['window']}")
        count = check_count(state["count"], "count", least=0)
        values, mean = state.get("values"), state.get("mean")
        if count == 0:
            self.count, self._values, self._mean = 0, None, None
            return
        if (
            not isinstance(values, Tensor)
            or not isinstance(mean, Tensor)
            or (values.shape, values.dtype) != ((self.window, *mean.shape), mean.dtype)
        ):
            raise ValueError(
                f"the state of {count} values must hold the last {self.window} of them "
                "and their mean"
            )
        self.count, self._values, self._mean = count, values.clone(), mean.clone()
