"""Normalisation: of inputs, by every kind in every shape and stacked, and what is refused."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from activations import SHAPES, as_trained, generator, normal, shapes
from steadydescent.normalization import (
    ABSORBS_BIAS,
    GHOST,
    KINDS,
    BatchNorm,
    GhostBatchNorm,
    NoisyBatchNorm,
    draw_noise,
    moments,
    normalizer,
    reestimate,
    standardise,
    statistics_momentum,
)

# Inputs


@pytest.mark.slip(2)
@pytest.mark.parametrize("per_feature", [True, False])
def test_only_division_by_the_standard_deviation_gives_unit_variance(per_feature):
    """uit-slides print X/σ², after which the standard deviation is 1/σ."""
    x = normal(101, 5) * torch.tensor([0.1, 0.3, 1, 3, 7])
    sigma = lambda t: t.std(0, correction=0) if per_feature else t.std(correction=0)[None]
    mean, std = moments(x, per_feature)
    torch.testing.assert_close(sigma(standardise(x, mean, std)), torch.ones_like(std))
    torch.testing.assert_close(sigma(standardise(x, mean, std**2)), 1 / sigma(x))


def test_moments_are_the_populations_of_each_feature_or_of_all():
    x = normal(13, 5) * torch.arange(1, 6)
    mean, std = moments(x)
    torch.testing.assert_close(mean, x.sum(0) / 13)
    torch.testing.assert_close(std, ((x - x.sum(0) / 13) ** 2).sum(0).div(13).sqrt())
    mean, std = moments(x, per_feature=False)
    torch.testing.assert_close(mean, x.flatten().mean(0, keepdim=True))
    torch.testing.assert_close(std, x.flatten().std(0, correction=0, keepdim=True))


def test_test_data_are_standardised_by_training_data_alone():
    train, test = normal(13, 5), normal(7, 5, seed=1) + 100
    standardised = standardise(test, *moments(train))
    assert (standardised.mean(0) > 10).all()  # the shift stays to be seen
    torch.testing.assert_close(standardised * moments(train)[1] + moments(train)[0], test)


def test_inputs_without_a_scale_are_refused():
    x = torch.stack([torch.arange(997.0), torch.full((997,), 0.1)], 1)
    with pytest.raises(ValueError, match=r"features \[1\] never vary"):
        moments(x)
    assert moments(x, per_feature=False)[1] > 0
    with pytest.raises(ValueError, match=r"at least 2 examples \[M, D\], got shape \(1, 2\)"):
        moments(x[:1])


# Kinds by name


@pytest.mark.parametrize("kind", KINDS)
@shapes
def test_every_kind_takes_every_shape_and_stacks_with_its_gradients(kind, axes):
    """What vmap and grad give for a stack is what each replica gives alone."""
    channels, batch = 10, 2 * GHOST
    norm = as_trained(normalizer(kind, channels))
    draw_noise(norm, batch, generator())
    names = list(dict(norm.named_parameters()))
    x = normal(3, batch, channels, *SHAPES[axes][2:])
    stack = {name: normal(3, channels, seed=i) for i, name in enumerate(names)}
    running = {name: b.expand(3, *b.shape) for name, b in norm.named_buffers()}

    def loss(parameters, x, buffers):
        fresh = {name: b.clone() for name, b in buffers.items()}
        return (functional_call(norm, {**parameters, **fresh}, (x,)) ** 3).sum()

    both = grad(loss, argnums=(0, 1))
    stacked = vmap(both)(stack, x, running)
    for i in range(3):
        alone = both(
            {name: stack[name][i] for name in names},
            x[i],
            {name: b[i] for name, b in running.items()},
        )
        torch.testing.assert_close(stacked[1][i], alone[1])
        for name in names:
            torch.testing.assert_close(stacked[0][name][i], alone[0][name])


@shapes
def test_layer_norm_is_torchs_over_all_axes_but_the_first(axes):
    """With γ and β by channel."""
    norm, x = as_trained(normalizer("layer", 5)), normal(*SHAPES[axes])
    by_channel = lambda parameter: parameter.view(5, *[1] * (x.dim() - 2))
    expected = nn.functional.layer_norm(x, x.shape[1:]) * by_channel(norm.weight) + by_channel(
        norm.bias
    )
    torch.testing.assert_close(norm(x), expected)


def test_group_norm_is_layer_norm_of_each_group():
    x = normal(13, 25, 7)
    groups = [nn.functional.layer_norm(part, part.shape[1:]) for part in x.split(5, dim=1)]
    torch.testing.assert_close(normalizer("group", 25).double()(x), torch.cat(groups, 1))


def test_groups_are_at_most_five_divide_the_channels_and_hold_more_than_one():
    """Of one value nothing is left: x − μ is 0."""
    group_counts = {
        channels: normalizer("group", channels).num_groups for channels in range(1, 131)
    }
    fits = lambda channels, groups: channels % groups == 0 and channels // groups > 1
    assert group_counts == {
        c: max([1, *(g for g in range(1, 6) if fits(c, g))]) for c in group_counts
    }
    assert [group_counts[channels] for channels in (100, 25, 16, 10, 7, 5)] == [5, 5, 4, 5, 1, 1]


def test_an_unknown_kind_is_refused_with_those_there_are():
    with pytest.raises(
        ValueError,
        match=r"one of \['batch', 'ghost', 'group', .*'noisy-batch', 'none'\], got 'bath'",
    ):
        normalizer("bath", 3)
    assert isinstance(normalizer("none", 3), nn.Identity)
    assert set(KINDS) > ABSORBS_BIAS


# Refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchNorm(0), "channels must be a whole number of at least 1, got 0"),
        (lambda: BatchNorm(3, eps=0.0), "eps must be positive and finite, got 0.0"),
        (lambda: BatchNorm(3, eps=-1e-5), "eps must be positive and finite, got -1e-05"),
        (lambda: BatchNorm(3, eps=float("nan")), "eps must be positive and finite, got nan"),
        (lambda: BatchNorm(3, momentum=1.1), r"momentum must be in \[0, 1\], got 1.1"),
        (lambda: BatchNorm(3, momentum=-0.1), r"momentum must be in \[0, 1\], got -0.1"),
        (lambda: BatchNorm(3, momentum=None), "momentum must be a number, got None"),
        (lambda: GhostBatchNorm(3, 0), "ghost must be a whole number of at least 1, got 0"),
        (lambda: NoisyBatchNorm(3, shift=-0.1), "shift must be at least 0 and finite, got -0.1"),
        (lambda: NoisyBatchNorm(3, spread=-0.1), "spread must be at least 0 and finite, got -0.1"),
        (lambda: NoisyBatchNorm(3, scale=0.9), "scale must be at least 1, got 0.9"),
        (
            lambda: statistics_momentum(BatchNorm(3), 2).__enter__(),
            r"momentum must be in \[0, 1\], got 2",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("norm", "shape", "message"),
    [
        (BatchNorm(3), (1, 3), r"at least 2 values a channel, got input \(1, 3\)"),
        # would be spread over 3 channels
        (BatchNorm(3), (7, 1), r"input must be \[B, 3, …\], got \(7, 1\)"),
        (BatchNorm(3), (3,), r"input must be \[B, 3, …\], got \(3,\)"),
        (GhostBatchNorm(3, 5), (13, 3), "multiple of ghost = 5 examples, got 13"),
        (GhostBatchNorm(3, 5), (0, 3), "multiple of ghost = 5 examples, got 0"),
        (GhostBatchNorm(3, 1), (7, 3), r"at least 2 values a channel, got input \(7, 3\)"),
        (GhostBatchNorm(3, 5), (10, 1), r"input must be \[B, 3, …\], got \(10, 1\)"),
    ],
)
def test_refused_inputs_leave_the_statistics(norm, shape, message):
    with pytest.raises(ValueError, match=message):
        norm(torch.ones(shape))
    assert torch.equal(norm.running_mean, torch.zeros(3)) and torch.equal(
        norm.running_var, torch.ones(3)
    )


def test_default_device_elsewhere_changes_nothing():
    """`meta` stands for an accelerator: what is made there by mistake has no values."""
    x, norms = torch.randn(6, 3), [BatchNorm(3), GhostBatchNorm(3, 2), NoisyBatchNorm(3)]

    def used():
        mean, std = moments(x)
        results = [mean, std, standardise(x, mean, std), standardise(x, 0.5, 2.0)]
        for norm in copy.deepcopy(norms):
            draw_noise(norm, 6, torch.Generator().manual_seed(1))
            results += [norm(x).detach(), norm.eval()(x).detach()]
            reestimate(norm, [x])
            norm.reset_running_stats()
            results += norm.state_dict().values()
        return [result.tolist() for result in results]

    usual = used()
    with torch.device("meta"):
        assert used() == usual
