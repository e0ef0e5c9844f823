"""The noisy quadratic in closed form: the expected loss of linear rules, readouts, schedules.

On f = ½·Σ h·θ² with gradients h·θ + ξ, ξ of variance v/n and independent from step to step, SGD and
every kind of momentum move (θ, u) linearly, and a readout a ← a + w·(θ − a) is linear too. So the
second moments of s = (θ, u, a) obey E[ss'] ← A·E[ss']·A' + (v/n)·b·b' exactly, and the expected
loss is ½·Σ h·E[a²] (zhang2019which).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# How a rule moves (θ, u): u' = u_row·(θ, u) + u_noise·ξ and θ' = θ_row·(θ, u) + θ_noise·ξ, from α,
# h, the memory β and the step t. Written as the rules are, so that a reader can hold one beside the
# other.


def _sgd(lr: float, h: Array, beta: float, step: int) -> Array:
    return _rows(h, u=(0 * h, 0.0, 0.0), theta=(1 - lr * h, 0.0, -lr))


def _heavy_ball(lr: float, h: Array, beta: float, step: int) -> Array:
    return _rows(h, u=(h, beta, 1.0), theta=(1 - lr * h, -lr * beta, -lr))


def _averaged(lr: float, h: Array, beta: float, step: int) -> Array:
    return _rows(
        h,
        u=((1 - beta) * h, beta, 1 - beta),
        theta=(1 - lr * (1 - beta) * h, -lr * beta, -lr * (1 - beta)),
    )


def _corrected(lr: float, h: Array, beta: float, step: int) -> Array:
    return _averaged(lr / (1 - beta**step), h, beta, step)


def _nesterov(lr: float, h: Array, beta: float, step: int) -> Array:
    return _rows(
        h, u=(h, beta, 1.0), theta=(1 - lr * (1 + beta) * h, -lr * beta**2, -lr * (1 + beta))
    )


def _rows(h: Array, u: tuple, theta: tuple) -> Array:
    """The rule as `[D, 2, 3]`: rows θ' and u', columns θ, u and ξ."""
    return np.stack(
        [np.stack([np.broadcast_to(x, h.shape) for x in row], -1) for row in (theta, u)], -2
    )


LINEAR_RULES: dict[str, Callable[[float, Array, float, int], Array]] = {
    "sgd": _sgd,
    "momentum": _heavy_ball,
    "nesterov": _nesterov,
    "averaged-momentum": _averaged,
    "corrected-momentum": _corrected,
}


def expected_loss(
    optimizer: str,
    rates: ArrayLike,
    weights: ArrayLike | None,
    curvature: ArrayLike,
    variance: ArrayLike,
    start: ArrayLike,
    batch_size: int = 1,
    beta: float = 0.9,
) -> Array:
    """Expected loss of a readout after each update, `[T]`.

    `rates` `[T]` are those of the schedule, `weights` `[T]` the readout's mixing weights (None: the
    last weights); `curvature` h, `variance` v of one draw's gradient noise and `start` θ₀ broadcast
    to `[D]`; `beta` is the rule's μ or β.

    >>> expected_loss("sgd", [0.5, 0.5], None, curvature=1.0, variance=0.0, start=1.0).tolist()
    [0.125, 0.03125]

    Raises:
        ValueError: for a rule that is not linear in the gradient, or weights that are not as many
            as rates.
    """
    if optimizer not in LINEAR_RULES:
        raise ValueError(
            f"optimizer must be one of {sorted(LINEAR_RULES)}, which are linear, got {optimizer!r}"
        )
    alpha = np.asarray(rates, float)
    mixing = np.ones_like(alpha) if weights is None else np.asarray(weights, float)
    if mixing.shape != alpha.shape:
        raise ValueError(f"weights must be as many as the {alpha.size} rates, got {mixing.size}")
    h, v, theta = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(x, float)) for x in (curvature, variance, start))
    )
    # E[ss'] of s = (θ, u, a) for each axis; the readout starts from zero
    moments = np.zeros((h.size, 3, 3))
    moments[:, 0, 0] = theta**2
    losses = np.empty_like(alpha)
    for i, (lr, w) in enumerate(zip(alpha, mixing, strict=True)):
        rule = LINEAR_RULES[optimizer](float(lr), h, beta, i + 1)
        move, noise = np.zeros((h.size, 3, 3)), np.zeros((h.size, 3))
        move[:, :2, :2], noise[:, :2] = rule[..., :2], rule[..., 2]
        move[:, 2], noise[:, 2] = w * move[:, 0], w * noise[:, 0]
        move[:, 2, 2] += 1 - w
        spread = (v / batch_size)[:, None, None] * noise[:, :, None] * noise[:, None, :]
        moments = move @ moments @ move.transpose(0, 2, 1) + spread
        losses[i] = (h * moments[:, 2, 2]).sum() / 2
    return losses


def stationary_variance(
    lr: float, curvature: ArrayLike, variance: ArrayLike, mu: float = 0.0
) -> Array:
    """Variance of θ that heavy-ball momentum settles at; SGD's for μ = 0:

        α·v·(1+μ) / (h·(1−μ)·(2(1+μ) − α·h))        α·v / (h·(2 − α·h)).

    `variance` is that of the minibatch gradient. The rate must stay below 2(1+μ)/h.

    >>> stationary_variance(0.1, 1.0, 1.0).round(4).item()
    0.0526
    """
    h, v = np.asarray(curvature, float), np.asarray(variance, float)
    if not np.all((lr > 0) & (lr * h < 2 * (1 + mu))):
        raise ValueError(
            f"lr must be above 0 and below 2(1+μ)/h = {(2 * (1 + mu) / h).min():.4g}, got {lr}"
        )
    return lr * v * (1 + mu) / (h * (1 - mu) * (2 * (1 + mu) - lr * h))
