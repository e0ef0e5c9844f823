"""Momentum: its correction after ten steps, and the noise that it takes out."""

import numpy as np
import torch

from steadydescent.engine.tasks.noisy_quadratic import stationary_variance
from steadydescent.optimizers.rules import RULES
from steadydescent.study.judging.exact.number import MATTERS, Exact
from steadydescent.weight_averaging.readouts import Weights


def after_ten_steps() -> list[Exact]:
    """Corrected over uncorrected update under a constant gradient; "about 10" is up to 15."""
    excess = 100 * (_lengths("corrected-momentum", 100) / _lengths("averaged-momentum", 100) - 1)
    tenth, measure = float(excess[9]), "excess of the corrected step"
    rows = [Exact("step 10, β = 0.9", measure, tenth, MATTERS, "%", "equivalence")]
    for share in (10, 1):
        first, measure = float(1 + np.argmax(excess <= share)), f"first step within {share} %"
        rows.append(Exact("β = 0.9", measure, first, 15.0, "steps", "equivalence"))
    return rows


def noise_at_equal_speed(mu: float = 0.9) -> list[Exact]:
    """Variance that the weights settle at under momentum, against SGD at equal α/(1−μ).

    That is the same rate α for both where the gradient is averaged, as the slides do; heavy-ball
    momentum has α·(1−μ). The ratio (1+μ)·(2−αh)/(2(1+μ)−α(1−μ)h) has no n: the batch size divides
    both variances alike.
    """
    rows, measure = [], "fall of the weights' variance"
    for rate in (0.01, 0.1, 1.0):
        fall = _fall_of_variance(rate, mu, batch_size=8)
        rows.append(Exact(f"α·h = {rate}, n = 8", measure, fall, MATTERS, "%", "superiority"))
    for rate in (0.01, 1.0):
        small, large = (_fall_of_variance(rate, mu, batch_size=n) for n in (8, 512))
        when = f"α·h = {rate}, n = 8 less n = 512"
        rows.append(Exact(when, measure, small - large, MATTERS, "pp", "superiority"))
    return rows


def _fall_of_variance(rate: float, mu: float, batch_size: int) -> float:
    """In percent, for curvature 1 and one draw's gradient variance 1."""
    noise = 1 / batch_size
    sgd = stationary_variance(rate, 1.0, noise)
    with_momentum = stationary_variance(rate * (1 - mu), 1.0, noise, mu)
    return float(100 * (1 - with_momentum / sgd))


def _lengths(rule: str, steps: int) -> Weights:
    """Length of each update of a kind of momentum, `[steps]`.

    At rate 1 and β = 0.9, all gradients being 1.
    """
    theta = torch.zeros((), dtype=torch.float64)
    state, path = RULES[rule].init(theta), [0.0]
    for t in range(1, steps + 1):
        theta, state = RULES[rule].update(theta, torch.ones_like(theta), state, t, 1.0, beta=0.9)
        path.append(theta.item())
    return -np.diff(path)
