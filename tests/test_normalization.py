"""Normalisation against torch's own modules, closed forms, and the same thing done part by part; alone and stacked."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.optim.swa_utils import update_bn

from steadydescent.normalization import (
    ABSORBS_BIAS,
    KINDS,
    BatchNorm,
    GhostBatchNorm,
    NoisyBatchNorm,
    draw_noise,
    moments,
    noise_shapes,
    normalizer,
    reestimate,
    standardise,
    statistics_momentum,
)


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3 + 1


def with_slope_and_shift(*modules):
    with torch.no_grad():
        for module in modules:
            module.weight.copy_(torch.linspace(0.5, 2, len(module.weight)))
            module.bias.copy_(torch.linspace(-1, 1, len(module.bias)))
    return [module.double() for module in modules]


@pytest.mark.parametrize(
    ("peer", "shape"),
    [(nn.BatchNorm1d, (13, 5)), (nn.BatchNorm1d, (13, 5, 7)), (nn.BatchNorm2d, (3, 5, 7, 11))],
    ids=["1d", "1d signals", "2d"],
)
@pytest.mark.parametrize(("eps", "momentum"), [(1e-5, 0.1), (1e-2, 0.37)])
def test_batch_norm_equals_torchs_forward_backward_and_running(peer, shape, eps, momentum):
    ours, theirs = with_slope_and_shift(BatchNorm(5, eps, momentum), peer(5, eps, momentum))
    for seed in range(7):
        inputs = [seeded(*shape, seed=seed).requires_grad_() for _ in range(2)]
        outputs = [module(x) for module, x in zip((ours, theirs), inputs, strict=True)]
        torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
        for out in outputs:
            (out**3).sum().backward()
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-8, atol=1e-8)
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-10, atol=1e-10)
    for name in ("weight", "bias"):
        torch.testing.assert_close(getattr(ours, name).grad, getattr(theirs, name).grad, rtol=1e-8, atol=1e-8)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(inputs[0]), theirs(inputs[0]), rtol=1e-10, atol=1e-10)


def test_batch_norms_gradient_is_that_of_finite_differences():
    (norm,) = with_slope_and_shift(BatchNorm(3))
    assert torch.autograd.gradcheck(lambda z: norm(z) ** 3, seeded(5, 3).requires_grad_())


def test_stacked_running_statistics_are_updated():
    """torch's own, under vmap with buffers that are views of one vector, leaves them as they were and says nothing."""
    module, z = BatchNorm(3).double(), seeded(2, 11, 3)
    vectors = torch.cat([torch.zeros(2, 3), torch.ones(2, 3)], 1).double()

    def updated(vector, x):
        mean, var = vector.clone().split(3)
        functional_call(module.train(), {"running_mean": mean, "running_var": var}, (x,))
        return mean, var

    mean, var = vmap(updated)(vectors, z)
    torch.testing.assert_close(mean, 0.1 * z.mean(1))
    torch.testing.assert_close(var, 0.9 + 0.1 * z.var(1))


@pytest.mark.claim("bn-bias-redundant")
def test_a_bias_before_batch_norm_changes_nothing_and_learns_nothing():
    """The claim `bn-bias-redundant`: same output, same gradients, none for the bias; in inference once the running
    mean has taken it in."""
    z, bias = seeded(13, 5), seeded(5, seed=1).requires_grad_()
    shifted, plain = with_slope_and_shift(BatchNorm(5, momentum=1.0), BatchNorm(5, momentum=1.0))
    inputs = [z.clone().requires_grad_() for _ in range(2)]
    with_bias, without = shifted(inputs[0] + bias), plain(inputs[1])
    torch.testing.assert_close(with_bias, without, rtol=1e-10, atol=1e-10)
    for out in (with_bias, without):
        (out**3).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(shifted.weight.grad, plain.weight.grad, rtol=1e-8, atol=1e-8)
    assert bias.grad.abs().max() < 1e-10 * inputs[0].grad.abs().max()
    shifted.eval(), plain.eval()
    torch.testing.assert_close(shifted(z + bias), plain(z), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_kinds_said_to_absorb_a_bias_do_and_the_others_do_not(kind):
    norm, z, bias = normalizer(kind, 10).double(), seeded(50, 10), torch.linspace(-3, 3, 10, dtype=torch.float64)
    noise = lambda: draw_noise(norm, 50, torch.Generator().manual_seed(1))
    noise()
    plain = norm(z)
    noise()
    assert torch.allclose(norm(z + bias), plain, atol=1e-8) == (kind in ABSORBS_BIAS)


@pytest.mark.slip(8)
def test_batch_norm_makes_the_standard_distribution_learns_its_parameters_and_works_by_minibatch():
    """uit-slides: z is normalised to avoid the standard normal, γ and β are hyper-parameters, once an epoch."""
    norm = BatchNorm(5, eps=1e-12).double()
    z = seeded(101, 5)
    first = norm(z[:50])
    torch.testing.assert_close(first.mean(0), torch.zeros(5).double(), rtol=0, atol=1e-10)
    torch.testing.assert_close(first.var(0, correction=0), torch.ones(5).double(), rtol=1e-8, atol=0)
    assert not torch.allclose(norm(z[50:])[:1], first[:1])  # another minibatch, other statistics
    assert not torch.allclose(norm(z)[:50], first)  # the same examples in other company
    before = [p.detach().clone() for p in norm.parameters()]
    optimizer = torch.optim.SGD(norm.parameters(), 0.1)
    (norm(z) ** 2 * seeded(101, 5, seed=2)).sum().backward()
    optimizer.step()
    assert all(not torch.equal(p, old) for p, old in zip(norm.parameters(), before, strict=True))


def test_ghosts_are_batches_normalised_on_their_own():
    ghosts, whole = with_slope_and_shift(GhostBatchNorm(5, ghost=7), BatchNorm(5))
    for shape in ((21, 5), (21, 5, 3)):
        z = seeded(*shape)
        torch.testing.assert_close(ghosts(z), torch.cat([whole(part) for part in z.split(7)]), rtol=1e-10, atol=1e-10)


def test_ghosts_running_statistics_are_the_mean_over_ghosts():
    ghosts, z = GhostBatchNorm(5, ghost=7, momentum=0.3).double(), seeded(21, 5)
    ghosts(z)
    parts = torch.stack(z.split(7))
    torch.testing.assert_close(ghosts.running_mean, 0.3 * parts.mean(1).mean(0))
    torch.testing.assert_close(ghosts.running_var, 0.7 + 0.3 * parts.var(1).mean(0))


def test_one_ghost_as_large_as_the_batch_is_batch_norm_and_inference_has_no_ghosts():
    ghosts, whole = with_slope_and_shift(GhostBatchNorm(5, ghost=21), BatchNorm(5))
    z = seeded(21, 5)
    torch.testing.assert_close(ghosts(z), whole(z), rtol=1e-12, atol=1e-12)
    ghosts.eval(), whole.eval()
    torch.testing.assert_close(ghosts(z[:4]), whole(z[:4]), rtol=1e-12, atol=1e-12)


def test_ghosts_stack():
    module, z = GhostBatchNorm(3, ghost=4).double(), seeded(2, 12, 3)
    buffers = {name: torch.stack([b, b]) for name, b in module.named_buffers()}
    stacked = vmap(lambda b, x: functional_call(module, {n: v.clone() for n, v in b.items()}, (x,)))(buffers, z)
    torch.testing.assert_close(stacked[1], module(z[1]))


def noisy(channels, batch_size, seed=3, **amplitudes):
    module = NoisyBatchNorm(channels, **amplitudes).double()
    draw_noise(module, batch_size, torch.Generator().manual_seed(seed))
    return module


def test_noise_of_no_amplitude_is_batch_norm_and_inference_has_no_noise():
    z = seeded(13, 5)
    still, plain = noisy(5, 13, shift=0, scale=1, spread=0), BatchNorm(5).double()
    torch.testing.assert_close(still(z), plain(z), rtol=1e-12, atol=1e-12)
    loud = noisy(5, 13)
    assert not torch.allclose(loud(z), plain(z))
    loud.eval(), plain.eval()
    loud.running_mean.copy_(plain.running_mean), loud.running_var.copy_(plain.running_var)
    torch.testing.assert_close(loud(z), plain(z), rtol=1e-12, atol=1e-12)


def test_noise_brings_back_shift_and_scale_that_batch_norm_took_away_within_its_amplitudes():
    """Per channel the mean moves by m ~ U(−shift, shift) and the deviation by s ~ U(1, scale), new ones each step."""
    n, channels = 997, 41
    z, found = seeded(n, channels), []
    for seed in range(20):
        out = noisy(channels, n, seed)(z).detach()
        found.append(torch.stack([out.mean(0), out.std(0, correction=0)]))
    means, deviations = torch.stack(found, 1)
    assert means.abs().max() <= 0.5 + 0.02 and means.abs().max() > 0.45
    assert means.std() == pytest.approx(0.5 / math.sqrt(3), rel=0.1)
    assert deviations.min() > 0.99 and deviations.max() < 1.27
    assert deviations.mean() == pytest.approx(1.125, abs=0.02)
    assert not torch.allclose(means[0], means[1])


def test_stacked_replicas_feel_each_its_own_noise():
    module, z = NoisyBatchNorm(3).double(), seeded(2, 11, 3)
    (shape,) = noise_shapes(nn.Sequential(module), 11).values()
    draws = 2 * torch.rand(2, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 1
    running = {name: torch.stack([b, b]) for name, b in module.named_buffers() if name != "draws"}
    call = lambda buffers, d, x: functional_call(
        module, {**{n: b.clone() for n, b in buffers.items()}, "draws": d}, (x,)
    )
    stacked = vmap(call)(running, draws, z)
    for r in (0, 1):
        module.draws = draws[r]
        torch.testing.assert_close(stacked[r], module(z[r]))


def test_noise_is_no_part_of_the_state():
    assert set(noisy(3, 5).state_dict()) == {"weight", "bias", "running_mean", "running_var"}


@pytest.mark.parametrize("per_feature", [True, False])
@pytest.mark.slip(2)
def test_only_division_by_the_standard_deviation_gives_unit_variance(per_feature):
    """uit-slides print X/σ²; the standard deviation σ is meant."""
    x = seeded(101, 7)
    mean, std = moments(x, per_feature)
    right, printed = standardise(x, mean, std), (x - mean) / std**2
    spread = lambda t: t.var(0, correction=0) if per_feature else t.var(correction=0)[None]
    torch.testing.assert_close(spread(right), torch.ones_like(std))
    torch.testing.assert_close(spread(printed), 1 / std**2)
    torch.testing.assert_close(standardise(x[:3], mean, std) * std + mean, x[:3])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), BatchNorm(7), nn.ReLU(), nn.Dropout(0.5), nn.Linear(7, 3), nn.BatchNorm1d(3))


def test_reestimated_statistics_are_those_of_torchs_update_bn():
    """On torch's modules its own function does the same; the tail after ours is compared with torch's throughout."""
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3), nn.BatchNorm1d(3)).double()
    ours = nn.Sequential(theirs[0], BatchNorm(7), theirs[2], theirs[3], nn.BatchNorm1d(3)).double()
    batches = seeded(68, 5).split(13)  # the last batch is smaller and counts alike
    update_bn(batches, theirs)
    reestimate(ours, batches)
    for place in (1, 4):
        for name in ("running_mean", "running_var"):
            expected, found = getattr(theirs[place], name), getattr(ours[place], name)
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_reestimating_on_one_full_batch_gives_the_moments_of_the_data():
    norm, z = BatchNorm(5).double(), seeded(101, 5)
    reestimate(norm, [z])
    torch.testing.assert_close(norm.running_mean, z.mean(0))
    torch.testing.assert_close(norm.running_var, z.var(0))


def test_reestimating_leaves_all_else_as_it_was():
    model = network()
    model[3].eval(), model[1].requires_grad_(False)
    parameters = [p.detach().clone() for p in model.parameters()]
    flags, momenta = [m.training for m in model.modules()], (model[1].momentum, model[5].momentum)
    reestimate(model, seeded(26, 5).float().split(13))
    assert all(torch.equal(p, old) and p.grad is None for p, old in zip(model.parameters(), parameters, strict=True))
    assert [m.training for m in model.modules()] == flags and (model[1].momentum, model[5].momentum) == momenta


def test_a_batch_that_fails_leaves_statistics_and_flags_as_they_were():
    model = network().eval()
    model[1].running_mean.fill_(7.0)
    with pytest.raises(RuntimeError):
        reestimate(model, [torch.randn(13, 5), torch.randn(13, 4)])
    assert (model[1].running_mean == 7).all() and not any(m.training for m in model.modules())
    with pytest.raises(ValueError, match="at least one batch, got none"):
        reestimate(model, [])
    assert (model[1].running_mean == 7).all() and model[1].momentum == 0.1


def test_statistics_momentum_of_one_stacks():
    """The engine's way: every batch's own statistics, to be averaged."""
    module, z = BatchNorm(3).double(), seeded(2, 11, 3)

    def own(x):
        mean, var = torch.full((3,), 5.0).double(), torch.full((3,), 5.0).double()
        functional_call(module.train(), {"running_mean": mean, "running_var": var}, (x,))
        return mean, var

    with statistics_momentum(module, 1.0):
        mean, var = torch.stack([own(z[0])[0], own(z[1])[0]]), torch.stack([own(z[0])[1], own(z[1])[1]])
    torch.testing.assert_close(mean, z.mean(1))
    torch.testing.assert_close(var, z.var(1))
    assert module.momentum == 0.1


def test_layer_norm_is_torchs_over_all_axes_but_the_first():
    z = seeded(3, 10, 7)
    expected = nn.functional.layer_norm(z, z.shape[1:])
    torch.testing.assert_close(normalizer("layer", 10).double()(z), expected)
    flat = seeded(3, 10)
    torch.testing.assert_close(normalizer("layer", 10).double()(flat), nn.LayerNorm(10).double()(flat))


@pytest.mark.parametrize(("channels", "groups"), [(100, 5), (25, 5), (16, 4), (7, 1)])
def test_group_norms_groups_divide_the_channels(channels, groups):
    assert normalizer("group", channels).num_groups == groups


def test_batch_norm_of_one_example_has_no_gradient_to_give_and_is_refused():
    with pytest.raises(ValueError, match=r"at least 2 values a channel, got input \(1, 3\)"):
        BatchNorm(3)(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="at least 2 values a channel"):
        GhostBatchNorm(3, ghost=1)(torch.zeros(4, 3))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: BatchNorm(0), "channels must be at least 1, got 0"),
        (lambda: BatchNorm(3, eps=0.0), "eps must be above 0, got 0.0"),
        (lambda: BatchNorm(3, momentum=1.1), r"momentum must be in \[0, 1\], got 1.1"),
        (lambda: GhostBatchNorm(3, ghost=0), "ghost must be at least 1 example, got 0"),
        (lambda: GhostBatchNorm(3, ghost=4)(torch.zeros(6, 3)), "multiple of ghost = 4 examples, got 6"),
        (lambda: NoisyBatchNorm(3, scale=0.5), "scale at least 1"),
        (lambda: NoisyBatchNorm(3)(torch.zeros(6, 3)), "needs noise for a batch of 6"),
        (lambda: normalizer("instance", 3), "kind must be one of .* got 'instance'"),
        (lambda: moments(torch.zeros(1, 3)), "at least 2 examples"),
        (lambda: moments(torch.tensor([[1.0, 2.0], [1.0, 3.0]])), r"features \[0\] never vary"),
    ],
)
def test_bad_input_is_refused_by_name(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
