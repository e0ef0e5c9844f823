"""Normalisation as a newcomer meets it.

Half precision, autocast, torch's checkpoints, odd last batches, refusals.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import vmap

from activations import BUFFERS, generator, normal
from steadydescent.normalization import (
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


def silent(channels):
    """Noisy batch norm whose noise for 13 examples is none."""
    norm = NoisyBatchNorm(channels)
    norm.draws = torch.zeros(2, 14, channels)
    return norm


FORMS = {
    "batch": BatchNorm,
    "ghost": lambda channels: GhostBatchNorm(channels, 13),
    "noisy": silent,
}
forms = pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
halves = pytest.mark.parametrize(
    "half", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"]
)
CLOSE = {torch.bfloat16: 2**-7, torch.float16: 2**-10}
"""Two neighbours of these precisions lie at most so far apart, as a share of themselves."""


# Precision


@forms
@halves
def test_half_precision_comes_out_as_it_came_in_as_from_torchs_batch_norm(make, half):
    """γ, β and running statistics in float32: the same outputs but for a rounding.

    Statistics agree to six digits.
    """
    ours, theirs = make(5), nn.BatchNorm1d(5)
    for seed in range(3):
        z = normal(13, 5, seed=seed).to(half)
        inputs = [z.clone().requires_grad_() for _ in range(2)]
        outputs = [module(x) for module, x in zip((ours, theirs), inputs, strict=True)]
        assert outputs[0].dtype == outputs[1].dtype == half
        torch.testing.assert_close(*outputs, rtol=CLOSE[half], atol=1e-4)
        for out in outputs:
            (out.float() ** 3).sum().backward()
        assert inputs[0].grad.dtype == inputs[1].grad.dtype == half
    for name in BUFFERS:
        assert getattr(ours, name).dtype == torch.float32
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-6)
    ours.eval(), theirs.eval()
    assert ours(z).dtype == half
    torch.testing.assert_close(ours(z), theirs(z), rtol=CLOSE[half], atol=1e-4)


@forms
@halves
def test_modules_in_half_precision_are_as_near_to_the_truth_as_torchs(make, half):
    """γ, β and the running statistics in half precision too, but nothing is computed in it."""
    ours, theirs, truth = make(5).to(half), nn.BatchNorm1d(5).to(half), nn.BatchNorm1d(5).double()
    # far from 0, where a variance in half precision would be far off
    z = (normal(13, 5) + 30).to(half)
    for training in (True, False):
        output, peer, exact = (
            norm.train(training)(z.to(norm.weight.dtype)) for norm in (ours, theirs, truth)
        )
        assert output.dtype == peer.dtype == half
        torch.testing.assert_close(output, exact.to(half), rtol=CLOSE[half], atol=1e-4)
        assert (output - exact).abs().max() <= (peer - exact).abs().max()
        for name in BUFFERS:
            assert getattr(ours, name).dtype == half
            torch.testing.assert_close(
                getattr(ours, name), getattr(theirs, name), rtol=CLOSE[half], atol=1e-4
            )
            # in inference the truth is of the statistics at hand
            getattr(truth, name).copy_(getattr(ours, name))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_and_ghosts_keep_full_and_double_precision(dtype):
    for make in FORMS.values():
        norm = make(5).to(dtype)
        assert (
            norm(normal(13, 5).to(dtype)).dtype
            == norm.eval()(normal(13, 5).to(dtype)).dtype
            == dtype
        )


@forms
def test_outputs_under_autocast_have_the_type_of_torchs(make):
    x = normal(13, 7).float()
    # what autocast makes bfloat16, and what it leaves float32
    for before in (nn.Linear(7, 7), nn.Identity()):
        ours, theirs = make(7), nn.BatchNorm1d(7)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output, expected = ours(before(x)), theirs(before(x))
        assert output.dtype == expected.dtype
        torch.testing.assert_close(output, expected, rtol=2**-7, atol=1e-4)


@forms
def test_a_float32_norm_between_bfloat16_layers_fits(make):
    model = nn.Sequential(nn.Linear(7, 5), make(5), nn.Linear(5, 3)).to(torch.bfloat16)
    model[1].float()
    model(normal(13, 7).to(torch.bfloat16)).sum().backward()
    assert model[1].weight.grad.dtype == torch.float32


def test_whole_numbers_are_refused_not_truncated():
    with pytest.raises(ValueError, match=r"input must be of floating point, got torch\.int64"):
        BatchNorm(3)(torch.arange(15).view(5, 3))


# Torch's checkpoints


def network(norm):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), norm(7), nn.ReLU(), nn.Linear(7, 3))


def test_state_passes_between_our_batch_norm_and_torchs_in_both_directions():
    with torch.random.fork_rng():
        ours, theirs, ours_again = network(BatchNorm), network(nn.BatchNorm1d), network(BatchNorm)
    theirs(normal(11, 5).float())
    state = theirs.state_dict()
    ours.load_state_dict(state)  # strict, as is usual
    assert "1.num_batches_tracked" in state  # the caller's dictionary is left whole
    x = normal(13, 5, seed=1).float()
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    ours_again[1].load_state_dict(theirs[1].state_dict())
    torch.testing.assert_close(ours_again[1].running_var, theirs[1].running_var)
    ours.train()(x)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(theirs(x), ours.eval()(x))
    # as out of a file of tensors, without torch's versions
    theirs.load_state_dict(dict(ours.state_dict()))
    with pytest.raises(RuntimeError, match=r"Unexpected key.*1\.elsewhere"):
        ours.load_state_dict({**state, "1.elsewhere": torch.ones(1)})


# Statistics estimated afresh


def test_ghosts_are_reestimated_from_whole_batches_of_any_size():
    """As of batch norm: inference has no ghosts, and a loader's last batch is divided by none."""
    batches = [normal(count, 5, seed=count).float() for count in (31, 31, 11)]
    with torch.random.fork_rng():
        ghosts, plain = network(lambda c: GhostBatchNorm(c, 6)), network(BatchNorm)
    assert reestimate(ghosts, batches) == reestimate(plain, batches) == 1
    for name in BUFFERS:
        assert torch.equal(getattr(ghosts[1], name), getattr(plain[1], name))
    with pytest.raises(RuntimeError, match="shapes"):
        reestimate(ghosts, [batches[0], normal(13, 4).float()])
    assert ghosts[1].ghost == 6
    with pytest.raises(
        ValueError, match="a batch must be a multiple of ghost = 6 examples, got 31"
    ):
        ghosts.train()(batches[0])  # in training it is what it was


# Refusals


def test_a_ghost_of_one_value_a_channel_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r"at least 2 values a channel, got input \(7, 31\) in ghosts of ghost = 1"
    ):
        GhostBatchNorm(31, 1)(torch.ones(7, 31))
    # of an image two pixels are enough
    assert GhostBatchNorm(31, 1)(torch.ones(7, 31, 2)).shape == (7, 31, 2)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BatchNorm("3"), "channels must be a whole number of at least 1, got '3'"),
        (lambda: BatchNorm(2.5), "channels must be a whole number of at least 1, got 2.5"),
        (lambda: BatchNorm(3, eps="1e-5"), "eps must be a number, got '1e-5'"),
        (lambda: BatchNorm(3, eps=float("inf")), "eps must be positive and finite, got inf"),
        (lambda: BatchNorm(3, momentum="0.1"), "momentum must be a number, got '0.1'"),
        (lambda: BatchNorm(3, momentum=True), "momentum must be a number, got True"),
        (
            lambda: GhostBatchNorm(3, float("nan")),
            "ghost must be a whole number of at least 1, got nan",
        ),
        (lambda: GhostBatchNorm(3, 2.5), "ghost must be a whole number of at least 1, got 2.5"),
        (lambda: NoisyBatchNorm(3, shift="0.5"), "shift must be a number, got '0.5'"),
        (lambda: NoisyBatchNorm(3, scale=None), "scale must be a number, got None"),
        (
            lambda: NoisyBatchNorm(3, spread=float("nan")),
            "spread must be at least 0 and finite, got nan",
        ),
        (
            lambda: normalizer("layer", "3"),
            "channels must be a whole number of at least 1, got '3'",
        ),
        (lambda: normalizer("none", 0), "channels must be a whole number of at least 1, got 0"),
        (
            lambda: noise_shapes(NoisyBatchNorm(3), -1),
            "batch_size must be a whole number of at least 1, got -1",
        ),
        (
            lambda: statistics_momentum(BatchNorm(3), "1").__enter__(),
            "momentum must be a number, got '1'",
        ),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused_by_sentence(make, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        make()


@pytest.mark.parametrize(
    ("batch_size", "random", "sentence"),
    [
        (-1, generator(), "batch_size must be a whole number of at least 1, got -1"),
        (True, generator(), "batch_size must be a whole number of at least 1, got True"),
        (5, None, "generator must be a torch.Generator, got None"),
        (5, 0, "generator must be a torch.Generator, got 0"),
    ],
)
def test_noise_that_cannot_be_drawn_leaves_the_last(batch_size, random, sentence):
    norm = NoisyBatchNorm(3)
    draw_noise(norm, 7, generator())
    draws = norm.draws.clone()
    with pytest.raises(ValueError, match=f"^{sentence}"):
        draw_noise(norm, batch_size, random)
    assert torch.equal(norm.draws, draws)


def test_a_batch_without_noise_drawn_for_it_leaves_the_statistics():
    norm = NoisyBatchNorm(3)
    with pytest.raises(ValueError, match="needs noise for a batch of 5"):
        norm(normal(5, 3).float())
    assert torch.equal(norm.running_mean, torch.zeros(3)) and torch.equal(
        norm.running_var, torch.ones(3)
    )


def test_every_form_prints_the_arguments_it_was_made_with():
    for made in (
        BatchNorm(3, eps=0.01),
        GhostBatchNorm(3, ghost=8, momentum=0.2),
        NoisyBatchNorm(3, shift=0.75, scale=1.5, spread=0.25),
    ):
        assert repr(eval(repr(made))) == repr(made)  # what is printed makes it again
    assert "ghost=8" in repr(GhostBatchNorm(3, 8))
    assert "shift=0.75, scale=1.5, spread=0.25" in repr(NoisyBatchNorm(3, 0.75, 1.5, 0.25))


# Inputs


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("per_feature", [True, False])
def test_features_that_are_not_finite_are_told_from_those_that_never_vary(bad, per_feature):
    x = normal(7, 5)
    x[2, 1] = x[3, 4] = bad
    with pytest.raises(ValueError, match=r"^x must be finite; features \[1, 4\] are not$"):
        moments(x, per_feature)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_pixels_as_bytes_have_the_moments_of_their_numbers(dtype):
    x = torch.randint(0, 256, (101, 5), generator=generator()).to(dtype)
    mean, std = moments(x)
    assert mean.dtype == std.dtype == torch.float32
    np.testing.assert_allclose(mean, x.numpy().mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, x.numpy().std(0), rtol=1e-6)
    assert moments(x, per_feature=False)[0].item() == pytest.approx(x.numpy().mean())


@pytest.mark.parametrize(
    ("x", "got"),
    [
        ([[1.0, 2.0], [3.0, 5.0]], "list"),
        (np.ones((7, 3)), "ndarray"),
        (None, "NoneType"),
        (torch.ones(7, 3) * 1j, ""),
    ],
    ids=["list", "numpy", "None", "complex"],
)
def test_inputs_that_are_no_tensor_of_real_numbers_are_refused(x, got):
    with pytest.raises(
        ValueError, match=rf"^x must be a tensor \[M, D\] of real numbers, got .*{got}"
    ):
        moments(x)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_deviation_that_is_no_scale_is_refused(bad):
    x, std = normal(7, 3), torch.tensor([1.0, bad, 2.0])
    with pytest.raises(ValueError, match=r"^std must be positive and finite, got tensor"):
        standardise(x, torch.zeros(3), std)
    with pytest.raises(ValueError, match=f"^std must be positive and finite, got {bad}"):
        standardise(x, 0.0, bad)


def test_standardising_stacks_and_compiles():
    x, mean, std = normal(2, 7, 3), normal(3), normal(3, seed=1).abs()
    expected = (x - mean) / std
    torch.testing.assert_close(vmap(standardise, in_dims=(0, None, None))(x, mean, std), expected)
    torch.testing.assert_close(torch.compile(standardise, backend="eager")(x, mean, std), expected)
