"""The noise of minibatch gradients against its closed form, and how SGD swings with the rate."""

import math

import numpy as np
import pytest
import torch

from steadydescent.minibatches import IndexStream, noise_factor


def per_example_gradients(examples=211, features=5):
    """Least squares, ½(x·w − y)² at w = 0: the gradients −y·x, `[m, P]`, centred."""
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(examples, features, generator=generator, dtype=torch.float64)
    y = x.sum(1) + torch.randn(examples, generator=generator, dtype=torch.float64)
    gradients = -y[:, None] * x
    return gradients - gradients.mean(0)


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 13, 53, 208, 211])
def test_noise_of_the_gradient_is_the_closed_form(batch_size, replacement):
    """Mean square over 5 003 minibatches of a least-squares gradient against σ²/n, times
    (m−n)/(m−1) in epochs.
    """
    gradients, draws = per_example_gradients(), 5_003
    batches = IndexStream(211, batch_size, seed=3, replacement=replacement).take(draws)
    noise = torch.cat([gradients[part].mean(1) for part in batches.split(500)])
    measured = noise.square().sum(1)
    expected = (
        noise_factor(211, batch_size, replacement=replacement) * gradients.square().sum(1).mean()
    )
    error = (measured.std() / math.sqrt(len(measured))).item()
    assert abs(measured.mean() - expected).item() < 4 * error + 1e-20


@pytest.mark.claim("batch-noise")
def test_noise_of_the_gradient_falls_with_the_root_of_the_batch_size():
    """The law behind `batch-noise`: log-log slope −½ ± 0.02, measured on draws with replacement."""
    gradients, sizes = per_example_gradients(), [1, 2, 4, 8, 16, 32, 64]
    stds = []
    for size in sizes:
        batches = IndexStream(211, size, seed=size, replacement=True).take(6000)
        stds.append(gradients[batches].mean(1).square().sum(1).mean().sqrt().item())
    slope = np.polyfit(np.log(sizes), np.log(stds), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.02)


def test_all_examples_at_once_have_no_noise():
    batch = IndexStream(211, 211, seed=4).take(3)
    assert per_example_gradients()[batch].mean(1).abs().max() < 1e-15
    assert (
        noise_factor(211, 211, replacement=False) == 0
        and noise_factor(1, 1, replacement=False) == 0
    )
    assert noise_factor(211, 211, replacement=True) == 1 / 211


def test_one_example_has_all_the_variance_and_more_have_less():
    for replacement in (False, True):
        for examples in range(2, 61):
            factors = [
                noise_factor(examples, n, replacement=replacement) for n in range(1, examples + 1)
            ]
            assert factors[0] == 1 and factors == sorted(set(factors), reverse=True)


def test_a_larger_rate_makes_sgd_swing_more_not_less():
    """Read as one higher rate, uit-slides' cure for the oscillation makes it worse.

    On h·(θ − x_i)²/2 at n = 1 the stationary variance is

    α²h²s²/(1 − (1 − αh)²), with s² the variance of the x_i: it grows with α and vanishes with it.
    Here h = 2; 4 standard errors over 4 000 lanes.
    """
    curvature, lanes = 2.0, 4_001
    x = torch.randn(23, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    x = (x - x.mean()) / x.std(correction=0)
    before = 0.0
    for rate in (0.02, 0.1, 0.4, 0.9):
        steps = math.ceil(12 / (rate * curvature)) if rate * curvature < 1 else 40
        draws = x[IndexStream(23, 1, seed=10, replacement=True).take(steps * lanes)].view(
            steps, lanes
        )
        theta = torch.zeros(lanes, dtype=torch.float64)
        for sample in draws:
            theta = theta - rate * curvature * (theta - sample)
        expected = (rate * curvature) ** 2 / (1 - (1 - rate * curvature) ** 2)
        squares = theta.square()
        assert abs(squares.mean() - expected) < 4 * squares.std() / math.sqrt(lanes)
        assert before < expected
        before = expected
