"""Ghost batch norm against parts, noisy batch norm against a loop and its distributions."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.func import functional_call, vmap

from activations import BUFFERS, SHAPES, as_trained, generator, normal, shapes
from steadydescent.normalization import (
    BatchNorm,
    GhostBatchNorm,
    NoisyBatchNorm,
    draw_noise,
    noise_shapes,
)

# Ghosts


@shapes
def test_ghosts_are_batches_normalised_on_their_own(axes):
    """Outputs, gradients and running statistics are those of a batch norm for each part."""
    ghost, *rest = SHAPES[axes]
    ghosts = as_trained(GhostBatchNorm(5, ghost, momentum=0.3))
    parts = [as_trained(BatchNorm(5, momentum=0.3)) for _ in range(4)]
    for seed in range(3):
        z = normal(4 * ghost, *rest, seed=seed)
        one, other = z.clone().requires_grad_(), z.clone().requires_grad_()
        out = ghosts(one)
        separate = torch.cat([p(c) for p, c in zip(parts, other.split(ghost), strict=True)])
        torch.testing.assert_close(out, separate)
        (out**3).sum().backward(), (separate**3).sum().backward()
        torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(ghosts.weight.grad, sum(part.weight.grad for part in parts))
    torch.testing.assert_close(ghosts.bias.grad, sum(part.bias.grad for part in parts))
    for name in BUFFERS:
        torch.testing.assert_close(
            getattr(ghosts, name), torch.stack([getattr(p, name) for p in parts]).mean(0)
        )


@shapes
def test_one_ghost_as_large_as_the_batch_is_batch_norm_and_inference_has_no_ghosts(axes):
    ghost, batch = as_trained(GhostBatchNorm(5, SHAPES[axes][0])), as_trained(BatchNorm(5))
    z = normal(*SHAPES[axes])
    torch.testing.assert_close(ghost(z), batch(z))
    ghost.eval(), batch.eval()
    batch.load_state_dict(ghost.state_dict())
    assert torch.equal(ghost(z[:2]), batch(z[:2]))


# Noise


def drawn(batch, *channels, seed=0, **amplitudes):
    """Noisy batch norm with noise for a batch."""
    layer = NoisyBatchNorm(*channels, **amplitudes).double()
    draw_noise(layer, batch, generator(seed))
    return layer


def test_noise_scales_and_shifts_the_normalised_values_as_drawn():
    """By a plain loop: m = shift·u + spread·v and s = 1 + (scale − 1)·|u| + spread·v."""
    noisy, plain = drawn(5, 3, shift=0.7, scale=1.9, spread=0.2), BatchNorm(3).double()
    z = normal(5, 3, 2)
    m, s = noisy.draws
    normalised, out = plain(z), noisy(z)
    for i in range(5):
        for c in range(3):
            shift = 0.7 * m[0, c] + 0.2 * m[1 + i, c]
            scale = 1 + 0.9 * abs(s[0, c]) + 0.2 * s[1 + i, c]
            torch.testing.assert_close(out[i, c], scale * normalised[i, c] + shift)
    for name in BUFFERS:
        # of the input, before this layer's noise
        assert torch.equal(getattr(noisy, name), getattr(plain, name))


def test_draws_of_zero_no_amplitude_and_inference_are_batch_norm():
    z, plain = normal(5, 3), BatchNorm(3).double()
    loud, still = drawn(5, 3), drawn(5, 3, shift=0.0, scale=1.0, spread=0.0)
    expected = plain(z)
    assert not torch.isclose(loud(z), expected).any()
    torch.testing.assert_close(still(z), expected)
    loud.draws = torch.zeros_like(loud.draws)
    loud.reset_running_stats()
    torch.testing.assert_close(loud(z), expected)
    for norm in (loud, still, plain):
        norm.eval()
    # of any size
    assert torch.equal(loud(z[:2]), plain(z[:2])) and torch.equal(still(z[:2]), plain(z[:2]))


def test_noise_brings_back_shift_and_scale_that_batch_norm_took_away_within_its_amplitudes():
    """A channel's mean moves by U(−shift, shift), its deviation by U(1, scale), each step.

    This is without spread.
    """
    layer, z = NoisyBatchNorm(997, shift=0.7, scale=1.9, spread=0.0).double(), normal(13, 997)
    normalised, random, moves = BatchNorm(997).double()(z), generator(2), []
    for _ in range(3):
        draw_noise(layer, 13, random)
        out = layer(z).detach()
        moves += [out.mean(0), (out.std(0) / normalised.std(0)).detach()]
        assert stats.kstest(moves[-2], stats.uniform(-0.7, 1.4).cdf).pvalue > 0.001
        assert stats.kstest(moves[-1], stats.uniform(1, 0.9).cdf).pvalue > 0.001
    between = np.corrcoef(torch.stack(moves)) - np.eye(6)  # of shifts, scales and steps
    assert abs(between).max() < 4.5 / 997**0.5


def test_every_example_is_shaken_on_its_own_about_its_channels_shift():
    """m is U(μ − r, μ + r), μ ~ U(−n, n) by channel: variances n²/3 between and r²/3 within."""
    layer, n, r = drawn(101, 499, seed=2), 0.5, 0.1
    z = torch.zeros(101, 499, dtype=torch.float64)
    z[0] = 1e-9  # so that only the shift is left
    m = layer(z)[1:].detach()
    assert m.mean(0).var() == pytest.approx(n**2 / 3 + r**2 / 300, rel=0.1)
    assert m.var(0).mean() == pytest.approx(r**2 / 3, rel=0.05)


def test_noise_comes_from_its_generator_alone_and_is_no_state():
    before = torch.get_rng_state()
    (one, other) = [nn.Sequential(*map(NoisyBatchNorm, (3, 3))) for _ in range(2)]
    for model in (one, other):
        draw_noise(model, 5, random := generator(7))
    assert all(torch.equal(a.draws, b.draws) for a, b in zip(one, other, strict=True))
    assert not torch.isclose(one[0].draws, one[1].draws).any()
    draw_noise(other, 5, random)
    assert not torch.isclose(one[0].draws, other[0].draws).any()
    assert torch.equal(torch.get_rng_state(), before)
    assert set(one[0].state_dict()) == {"weight", "bias", *BUFFERS}


def test_training_without_noise_for_this_batch_is_refused():
    layer = NoisyBatchNorm(3)
    with pytest.raises(
        ValueError, match=r"needs noise for a batch of 5, got draws of shape \(2, 0, 3\)"
    ):
        layer(torch.ones(5, 3))
    draw_noise(layer, 7, generator())
    with pytest.raises(
        ValueError, match=r"needs noise for a batch of 5, got draws of shape \(2, 8, 3\)"
    ):
        layer(torch.ones(5, 3))


def test_stacked_replicas_feel_each_its_own_noise():
    model = nn.Sequential(
        nn.Linear(3, 5), NoisyBatchNorm(5), nn.ReLU(), nn.Linear(5, 2), NoisyBatchNorm(2)
    ).double()
    x = normal(7, 3)
    wanted = noise_shapes(model, 7)
    assert wanted == {"1.draws": (2, 8, 5), "4.draws": (2, 8, 2)}
    assert noise_shapes(model[1], 7) == {"draws": (2, 8, 5)}
    draws = {
        name: torch.rand(11, *s, generator=generator(), dtype=torch.float64) * 2 - 1
        for name, s in wanted.items()
    }
    running = {
        name: buffer.expand(11, *buffer.shape)
        for name, buffer in model.named_buffers()
        if name not in draws
    }

    def output(buffers, noise):
        return functional_call(
            model, {**{name: b.clone() for name, b in buffers.items()}, **noise}, (x,)
        )

    pick = lambda tensors, i: {name: tensor[i] for name, tensor in tensors.items()}
    stacked = vmap(output)(running, draws)
    alone = torch.stack([output(pick(running, i), pick(draws, i)) for i in range(11)])
    torch.testing.assert_close(stacked, alone)
    assert not torch.isclose(stacked[0], stacked[1]).all()
