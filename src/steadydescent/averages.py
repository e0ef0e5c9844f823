"""Averages of a stream: simple, exponentially weighted, and ramped; debiasing.

Every function takes floats or tensors and broadcasts, so the same line serves one number,
one model's weights `[P]`, or the weights of a whole stack `[R, P]`.
"""

import math

import torch
from torch import Tensor


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
        return average / -torch.expm1(torch.as_tensor(step).double() * beta.double().log()).to(average.dtype)
    if beta == 0:
        return average
    if isinstance(step, Tensor):
        return average / -torch.expm1(step.double() * math.log(beta))
    return average / -math.expm1(step * math.log(beta))


def decay_for_window(window: float) -> float:
    """β whose window 1/(1−β) is `window` steps (uit-slides).

    >>> decay_for_window(50)
    0.98
    """
    if not window >= 1:
        raise ValueError(f"window must be at least 1 step, got {window}")
    return 1 - 1 / window


def ramped_decay(step: int, cap: float = 0.9999) -> float:
    """TensorFlow's ramp min(cap, (1 + t)/(10 + t)), t = 1 at the first update (opennmt-tf).

    The cap 0.9999 is reached only at t = 89 990; until then the window grows like t/9.

    >>> ramped_decay(1)
    0.18181818181818182
    """
    if step < 1:
        raise ValueError(f"step must be at least 1, got {step}")
    return min(check_decay(cap, "cap"), (1 + step) / (10 + step))


def check_decay(beta: float, name: str = "beta") -> float:
    """Return `beta` if it is in [0, 1), else raise a ValueError that names it."""
    if not 0 <= beta < 1:
        raise ValueError(f"{name} must be in [0, 1), got {beta}")
    return beta
