"""The noisy quadratic: the closed form against simulation with the rules themselves, and against
textbook formulas.
"""

import numpy as np
import pytest
import torch

from steadydescent.engine.tasks.noisy_quadratic import (
    LINEAR_RULES,
    expected_loss,
    stationary_variance,
)
from steadydescent.optimizers.rules import RULES as UPDATES
from steadydescent.schedules import rates
from steadydescent.weight_averaging.readouts import (
    checkpoint_weights,
    ema_weights,
    mix,
    tail_weights,
)

H = np.array([1.0, 0.3, 0.05])
V = np.array([0.5, 0.2, 0.9])


def simulated(optimizer, lr, weights, batch_size, replicas=4_001):
    """Losses of a readout, [T, R], by the library's rule on real noise."""
    generator = torch.Generator().manual_seed(3)
    h, std = torch.tensor(H), torch.tensor(V / batch_size).sqrt()
    theta = torch.full((replicas, 3), 2.0, dtype=torch.float64)
    state, average, losses = UPDATES[optimizer].init(theta), torch.zeros_like(theta), []
    for t, (rate, weight) in enumerate(zip(lr, weights, strict=True), start=1):
        grad = h * theta + std * torch.randn(theta.shape, generator=generator, dtype=torch.float64)
        theta, state = UPDATES[optimizer].update(
            theta, grad, state, torch.tensor(t), torch.tensor(rate)
        )
        average = mix(average, theta, float(weight))
        losses.append((h * average**2).sum(1) / 2)
    return torch.stack(losses)


READOUTS = {
    "last": np.ones(60),
    "ema": ema_weights(60, 0.9),
    "tail": tail_weights(60, 23),
    "checkpoints": checkpoint_weights(60, 3, 7),
}


@pytest.mark.parametrize("optimizer", sorted(LINEAR_RULES))
@pytest.mark.parametrize(
    ("readout", "schedule"),
    [("last", "constant"), ("ema", "constant"), ("tail", "linear"), ("checkpoints", "linear")],
)
def test_simulation_with_the_rules_lies_within_its_error_of_the_closed_form(
    optimizer, readout, schedule
):
    """Every linear rule, every kind of readout, constant and decayed; 4.5 standard errors."""
    lr, weights = rates(schedule, 0.3, 60), READOUTS[readout]
    exact = expected_loss(optimizer, lr, weights, H, V, 2.0, batch_size=2)
    losses = simulated(optimizer, lr, weights, 2)
    for t in (1, 17, 43, 59):
        if weights[: t + 1].any():
            error = losses[t].std() / losses.shape[1] ** 0.5
            assert losses[t].mean().item() == pytest.approx(
                exact[t], abs=4.5 * error.item() + 1e-12
            )


def test_gradient_descent_without_noise_shrinks_each_axis_by_one_minus_rate_times_curvature():
    exact = expected_loss("sgd", np.full(9, 0.4), None, H, 0.0, 2.0)
    closed = [(H * (2 * (1 - 0.4 * H) ** t) ** 2).sum() / 2 for t in range(1, 10)]
    np.testing.assert_allclose(exact, closed, rtol=1e-12)


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.9])
def test_long_constant_rate_settles_at_the_stationary_variance(mu):
    exact = expected_loss("momentum", np.full(4_000, 0.05), None, H, V, 1.0, beta=mu)
    np.testing.assert_allclose(
        exact[-1], (H * stationary_variance(0.05, H, V, mu)).sum() / 2, rtol=1e-6
    )


@pytest.mark.claim("lr-small-precise")
def test_noise_that_is_left_grows_with_the_rate_and_falls_with_the_batch():
    assert stationary_variance(0.2, 1.0, 1.0) > 2 * stationary_variance(0.1, 1.0, 1.0)
    assert stationary_variance(0.1, 1.0, 1.0 / 7) == pytest.approx(
        stationary_variance(0.1, 1.0, 1.0) / 7
    )


@pytest.mark.claim("momentum-small-batches")
def test_momentum_at_the_same_effective_rate_leaves_nearly_the_same_noise():
    """Heavy ball at α(1−μ) against SGD at α: equal as α·h → 0; momentum does not average the noise
    away.
    """
    small = 1e-4
    ratio = stationary_variance(small * 0.1, 1.0, 1.0, 0.9) / stationary_variance(small, 1.0, 1.0)
    assert ratio == pytest.approx(1.0, abs=1e-3)


def test_ema_of_a_stationary_walk_has_the_variance_of_a_filtered_autoregression():
    """Var a = Var θ·(1−β)/(1+β)·(1+ρβ)/(1−ρβ), ρ = 1 − αh."""
    lr, beta = 0.05, 0.95
    total = 3_000
    exact = expected_loss("sgd", np.full(total, lr), ema_weights(total, beta), H, V, 0.0)[-1]
    rho = 1 - lr * H
    closed = (
        stationary_variance(lr, H, V)
        * (1 - beta)
        / (1 + beta)
        * (1 + rho * beta)
        / (1 - rho * beta)
    )
    assert exact == pytest.approx((H * closed).sum() / 2, rel=1e-6)


def test_tail_mean_of_a_stationary_walk_has_the_variance_of_a_mean_of_correlated_values():
    lr, k, total = 0.05, 211, 3_000
    exact = expected_loss("sgd", np.full(total, lr), tail_weights(total, k), H, V, 0.0)[-1]
    rho = 1 - lr * H
    closed = (
        stationary_variance(lr, H, V)
        / k
        * ((1 + rho) / (1 - rho) - 2 * rho * (1 - rho**k) / (k * (1 - rho) ** 2))
    )
    assert exact == pytest.approx((H * closed).sum() / 2, rel=1e-6)


def test_averaged_momentum_at_ten_times_the_rate_is_heavy_ball_here_too():
    lr = np.linspace(0.1, 0.01, 50)
    np.testing.assert_allclose(
        expected_loss("averaged-momentum", 10 * lr, None, H, V, 1.0),
        expected_loss("momentum", lr, None, H, V, 1.0),
        rtol=1e-12,
    )


def test_what_is_not_linear_or_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="which are linear, got 'adam'"):
        expected_loss("adam", [0.1], None, 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="as many as the 2 rates, got 1"):
        expected_loss("sgd", [0.1, 0.1], [1.0], 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"below 2\(1\+μ\)/h = 2, got 2.5"):
        stationary_variance(2.5, 1.0, 1.0)
