"""Batch norm against torch's own and finite differences; what the slides say of it (slip 8).

The redundant bias.
"""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from activations import BUFFERS, SHAPES, as_trained, generator, normal, shapes
from steadydescent.normalization import (
    ABSORBS_BIAS,
    GHOST,
    KINDS,
    BatchNorm,
    GhostBatchNorm,
    NoisyBatchNorm,
    draw_noise,
    normalizer,
    statistics_momentum,
)

PEERS = {"[B, C]": nn.BatchNorm1d, "[B, C, L]": nn.BatchNorm1d, "[B, C, H, W]": nn.BatchNorm2d}


@shapes
@pytest.mark.parametrize(("eps", "momentum"), [(1e-5, 0.1), (1e-2, 0.37)])
def test_batch_norm_equals_torchs_forward_backward_and_running(axes, eps, momentum):
    ours, theirs = (as_trained(norm(5, eps, momentum)) for norm in (BatchNorm, PEERS[axes]))
    for seed in range(7):
        z = normal(*SHAPES[axes], seed=seed)
        inputs = [z.clone().requires_grad_() for _ in range(2)]
        outputs = [module(x) for module, x in zip((ours, theirs), inputs, strict=True)]
        torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
        for out in outputs:
            (out**3).sum().backward()
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-8, atol=1e-8)
        for name in BUFFERS:
            torch.testing.assert_close(
                getattr(ours, name), getattr(theirs, name), rtol=1e-10, atol=1e-10
            )
    for name in ("weight", "bias"):
        torch.testing.assert_close(
            getattr(ours, name).grad, getattr(theirs, name).grad, rtol=1e-8, atol=1e-8
        )
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(z), theirs(z), rtol=1e-10, atol=1e-10)


def test_defaults_are_torchs():
    ours, theirs = BatchNorm(3), nn.BatchNorm1d(3)
    assert (ours.eps, ours.momentum) == (theirs.eps, theirs.momentum)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize(
    "make", [BatchNorm, lambda c: GhostBatchNorm(c, 2)], ids=["batch", "ghost"]
)
def test_gradients_agree_with_finite_differences(make, training):
    norm = make(3).double().train(training)

    def output(z, weight, bias):
        return functional_call(norm, {"weight": weight, "bias": bias}, (z,))

    tensors = (normal(4, 3, 2), normal(3, seed=1), normal(3, seed=2))
    assert torch.autograd.gradcheck(output, tuple(t.requires_grad_() for t in tensors))


@pytest.mark.parametrize(
    "make",
    [BatchNorm, lambda c: GhostBatchNorm(c, 5), NoisyBatchNorm],
    ids=["batch", "ghost", "noisy"],
)
def test_stacked_running_statistics_are_updated(make):
    """Under vmap, with buffers that are views of one vector, torch's own leaves them alone."""
    module, z = make(3).double(), normal(2, 10, 3)
    draw_noise(module, 10, generator())  # where there is any; it comes after the statistics
    vectors = torch.cat([torch.zeros(2, 3), torch.ones(2, 3)], 1).double()

    def updated(vector, x):
        mean, var = vector.clone().split(3)
        functional_call(module.train(), {"running_mean": mean, "running_var": var}, (x,))
        return mean, var

    mean, var = vmap(updated)(vectors, z)
    parts = z.unflatten(1, (-1, getattr(module, "ghost", 10)))
    torch.testing.assert_close(mean, 0.1 * z.mean(1))
    torch.testing.assert_close(var, 0.9 + 0.1 * parts.var(2).mean(1))


# What the slides say of it


@pytest.mark.slip(8)
def test_normalised_values_have_mean_0_and_variance_1():
    """They are standardised, not kept from it; ε takes a little, σ²/(σ² + ε)."""
    z = normal(101, 5) * torch.tensor([0.01, 0.1, 1, 10, 100])
    normalised = BatchNorm(5).double()(z)
    var = z.var(0, correction=0)
    torch.testing.assert_close(normalised.mean(0), torch.zeros(5).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(normalised.var(0, correction=0), var / (var + 1e-5))


@pytest.mark.slip(8)
def test_gamma_and_beta_are_learned():
    """Gradient descent finds the scale and shift that a target asks for, as it finds weights."""
    norm, z = BatchNorm(3).double(), normal(101, 3)
    scale, shift = torch.tensor([2.0, -1.0, 0.5]).double(), torch.tensor([-3.0, 0.0, 7.0]).double()
    target = (z - z.mean(0)) / z.std(0, correction=0) * scale + shift
    descent = torch.optim.SGD(norm.parameters(), lr=1.0)
    assert {name for name, _ in norm.named_parameters()} == {"weight", "bias"}
    for _ in range(101):
        descent.zero_grad()
        (norm(z) - target).square().mean().backward()
        descent.step()
    torch.testing.assert_close(norm.weight.detach(), scale, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.bias.detach(), shift, rtol=1e-4, atol=1e-4)


@pytest.mark.slip(8)
def test_batch_norm_works_by_minibatch_not_by_epoch():
    """One example, in two minibatches of an epoch, comes out differently.

    Running statistics move at each.
    """
    norm, one = BatchNorm(3).double(), normal(1, 3)
    first, second = (torch.cat([one, normal(6, 3, seed=seed)]) for seed in (1, 2))
    outputs, seen = [], [norm.running_mean.clone()]
    for batch in (first, second):
        outputs.append(norm(batch)[0])
        seen.append(norm.running_mean.clone())
    assert not torch.isclose(*outputs).any()
    assert not torch.isclose(seen[0], seen[1]).any() and not torch.isclose(seen[1], seen[2]).any()
    # an epoch at once is yet another thing
    whole = BatchNorm(3).double()(torch.cat([first, second]))
    assert not torch.isclose(whole[0], outputs[0]).any()


# A bias before it


def layer_and_norm(kind, bias, batch):
    """A layer with bias b or none and a normaliser of its 10 channels, with noise if it has any."""
    linear = nn.Linear(7, 10, bias=bias is not None, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(normal(10, 7))
        if bias is not None:
            linear.bias.copy_(bias)
    model = nn.Sequential(linear, as_trained(normalizer(kind, 10)))
    draw_noise(model, batch, generator(3))
    return model


def trained_once(model, examples):
    """Output, and the gradients of its input and of every parameter."""
    x = normal(examples, 7, seed=4).requires_grad_()
    out = model(x)
    (out**3).sum().backward()
    return out, {"x": x.grad, **{name: p.grad for name, p in model.named_parameters()}}


@pytest.mark.claim("bn-bias-redundant")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_bias_before_normalisation_changes_nothing_where_it_is_said_to(kind):
    """Output and every gradient but its own, which is zero; under the other kinds it does count."""
    models = [layer_and_norm(kind, bias, 2 * GHOST) for bias in (None, normal(10, seed=5))]
    (plain, grads), (biased, with_bias) = (trained_once(model, 2 * GHOST) for model in models)
    own = with_bias.pop("0.bias")
    if kind in ABSORBS_BIAS:
        torch.testing.assert_close(biased, plain, rtol=1e-10, atol=1e-10)
        assert own.abs().max() < 1e-9 * with_bias["0.weight"].abs().max()
        for name, gradient in grads.items():
            torch.testing.assert_close(
                with_bias[name], gradient, rtol=1e-9, atol=1e-9 * gradient.abs().max().item()
            )
    else:
        assert (biased - plain).abs().max() > 0.1 and own.abs().max() > 0.1


@pytest.mark.claim("bn-bias-redundant")
@pytest.mark.parametrize("kind", sorted(ABSORBS_BIAS))
def test_a_bias_shifts_the_running_mean_alone(kind):
    """After t batches from 0 it has taken up 1 − (1−m)^t of b, as m = 1 does at once.

    Then inference is the same.
    """
    b, x, steps = normal(10, seed=5), normal(2 * GHOST, 7, seed=4), 5
    models = [layer_and_norm(kind, bias, 2 * GHOST) for bias in (None, b)]
    for model in models:
        for _ in range(steps):
            model(x)
    plain, biased = (model[1] for model in models)
    torch.testing.assert_close(biased.running_mean - plain.running_mean, (1 - 0.9**steps) * b)
    torch.testing.assert_close(biased.running_var, plain.running_var)
    for model in models:
        with statistics_momentum(model, 1.0):
            model(x)
        model.eval()
    torch.testing.assert_close(models[1](x), models[0](x), rtol=1e-10, atol=1e-10)


def test_network_trained_for_hundreds_of_steps_is_the_one_with_torchs_batch_norm():
    """Weights, γ, β and running statistics at all of 211 steps, odd signals, double precision."""
    torch.manual_seed(0)
    theirs = nn.Sequential(
        nn.Conv1d(2, 7, 3, bias=False), nn.BatchNorm1d(7), nn.ReLU(), nn.Flatten(), nn.Linear(63, 3)
    )
    theirs = theirs.double()
    ours = nn.Sequential(
        deepcopy(theirs[0]), BatchNorm(7).double(), nn.ReLU(), nn.Flatten(), deepcopy(theirs[4])
    )
    optimizers = [
        torch.optim.SGD(model.parameters(), 0.05, momentum=0.9) for model in (ours, theirs)
    ]
    generator = torch.Generator().manual_seed(1)
    for _ in range(211):
        x = torch.randn(13, 2, 11, generator=generator, dtype=torch.float64)
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), (x[:, 0, 0] > 0).long()).backward()
            optimizer.step()
        twin = theirs.state_dict()
        for name, tensor in ours.state_dict().items():
            torch.testing.assert_close(tensor, twin[name], rtol=1e-8, atol=1e-9)
