"""Batch norm's statistics estimated afresh: torch's `update_bn`, the data's own moments.

Nothing else changes.
"""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.optim.swa_utils import update_bn

from activations import BUFFERS, as_trained, generator, normal
from steadydescent.normalization import (
    BatchNorm,
    NoisyBatchNorm,
    draw_noise,
    reestimate,
    statistics_momentum,
)


def network(norm=nn.BatchNorm1d):
    return as_trained(
        nn.Sequential(nn.Linear(5, 7), norm(7), nn.ReLU(), nn.Linear(7, 3), norm(3)), seed=1
    )


def batches():
    """Minibatches whose means and spreads differ from one to the next.

    The last is smaller and counts alike.
    """
    return [normal(size, 5, seed=k) * (1 + k) + k for k, size in enumerate((13, 13, 13, 7))]


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, BatchNorm], ids=["torch's", "ours"])
def test_reestimated_statistics_are_those_of_torchs_update_bn(norm):
    ours, theirs = network(norm), network()
    for model in (ours, theirs):
        model(normal(11, 5, seed=9))
    assert reestimate(ours, batches()) == 2
    update_bn(batches(), theirs)
    for layer in (1, 4):
        assert {name for name, _ in ours[layer].named_buffers()} >= set(BUFFERS)
        for name, buffer in ours[layer].named_buffers():  # torch's count of batches among them
            torch.testing.assert_close(buffer, theirs[layer].get_buffer(name))


def test_one_batch_gives_its_exact_moments_and_loaders_pairs_serve():
    z = normal(13, 5, 3)
    for batch in (z, (z, torch.zeros(13)), [z, torch.zeros(13)]):
        norm = BatchNorm(5).double()
        reestimate(norm, [batch], device="cpu")
        torch.testing.assert_close(norm.running_mean, z.transpose(0, 1).flatten(1).mean(1))
        torch.testing.assert_close(norm.running_var, z.transpose(0, 1).flatten(1).var(1))


def test_batches_are_moved_to_the_device_asked_for():
    elsewhere = network(BatchNorm).to("meta")
    assert reestimate(elsewhere, batches(), device="meta") == 2
    with pytest.raises(RuntimeError, match="device"):
        reestimate(elsewhere, batches())


def test_a_layer_used_twice_counts_each_use_as_in_update_bn():
    def shared():
        norm = nn.BatchNorm1d(5)
        return as_trained(nn.Sequential(norm, nn.Linear(5, 5), norm))

    ours, theirs = shared(), shared()
    assert reestimate(ours, batches()) == 1
    update_bn(batches(), theirs)
    for name in BUFFERS:
        torch.testing.assert_close(ours[0].get_buffer(name), theirs[0].get_buffer(name))


def test_a_layer_that_is_not_used_keeps_what_it_had():
    norm = BatchNorm(5).double()
    norm.unused = BatchNorm(3, momentum=0.3)
    norm.unused.running_mean.fill_(7)
    assert reestimate(norm, batches()) == 1
    assert (norm.unused.running_mean == 7).all() and norm.unused.momentum == 0.3


def test_statistics_that_were_lost_to_nan_come_back():
    for norm in (BatchNorm(5).double(), nn.BatchNorm1d(5).double()):
        norm.running_mean.fill_(torch.nan), norm.running_var.fill_(torch.inf)
        reestimate(norm, [z := normal(13, 5)])
        torch.testing.assert_close(norm.running_mean, z.mean(0))
        torch.testing.assert_close(norm.running_var, z.var(0))


def everything(model):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    modes = [part.training for part in model.modules()]
    momenta = [part.momentum for part in model.modules() if hasattr(part, "momentum")]
    return state, gradients, modes, momenta


def half_trained():
    model = network(
        lambda c: BatchNorm(c, momentum=0.3) if c == 7 else nn.BatchNorm1d(c, momentum=None)
    )
    model.append(nn.Dropout(0.5)).register_buffer("other", torch.ones(2))
    model(normal(11, 5)).sum().backward()
    model[1].eval()
    return model


def test_reestimation_leaves_all_else_as_it_was():
    model = half_trained()
    before, random = everything(model), torch.get_rng_state()
    reestimate(model, batches())
    after = everything(model)
    changed = {
        name for name, tensor in before[0].items() if not torch.equal(tensor, after[0][name])
    }
    assert changed == {
        "1.running_mean",
        "1.running_var",
        *(f"4.{n}" for n in (*BUFFERS, "num_batches_tracked")),
    }
    assert all(torch.equal(*pair) for pair in zip(before[1], after[1], strict=True))
    assert before[2:] == after[2:]
    assert torch.equal(torch.get_rng_state(), random)  # dropout was off
    model.train()(normal(11, 5))
    assert everything(model)[3] == before[3]  # no hook is left behind that counts on


def interrupted():
    yield from batches()
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (lambda: iter([*batches(), normal(13, 4)]), RuntimeError, "shapes"),
        (lambda: iter([]), ValueError, "at least one batch, got none"),
        (lambda: normal(13, 5), ValueError, "got one tensor; put it into a list"),
        (interrupted, KeyboardInterrupt, None),
    ],
    ids=["shape", "none", "tensor", "interrupt"],
)
def test_reestimation_that_fails_changes_nothing(bad, error, message):
    model = half_trained()
    before = everything(model)
    with pytest.raises(error, match=message):
        reestimate(model, bad())
    after = everything(model)
    assert all(torch.equal(tensor, after[0][name]) for name, tensor in before[0].items())
    assert before[2:] == after[2:]
    model.train()(normal(11, 5))
    assert everything(model)[3] == before[3]  # no hook is left behind that counts on


def test_a_model_without_running_statistics_is_let_be():
    """Nor is any batch looked at."""
    model = nn.Sequential(
        nn.Linear(5, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.GroupNorm(1, 3)
    )
    assert reestimate(model, (pytest.fail("a batch was taken") for _ in range(1))) == 0


def test_noisy_batch_norm_is_reestimated_without_noise_and_keeps_what_was_drawn():
    noisy, plain = (
        nn.Sequential(norm(5), nn.Linear(5, 3), BatchNorm(3)).double()
        for norm in (NoisyBatchNorm, BatchNorm)
    )
    plain.load_state_dict(noisy.state_dict())
    draw_noise(noisy, 11, generator(1))
    draws, content = noisy[0].draws, noisy[0].draws.clone()
    with pytest.raises(RuntimeError, match="shapes"):
        reestimate(noisy, [*batches(), torch.ones(13, 5, 3).double()])
    assert noisy[0].draws is draws and torch.equal(draws, content)
    assert reestimate(noisy, batches()) == reestimate(plain, batches()) == 2
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(noisy.state_dict()[name], tensor)
    assert noisy[0].draws is draws and torch.equal(draws, content)


def test_a_stack_reestimates_by_the_mean_over_batches():
    """m = 1 and the mean after, or m = 1/k on the way: each replica's as `reestimate` alone."""
    model, data = network(BatchNorm), batches()
    vectors = normal(11, 5) / 3  # each replica has inputs of its own

    def forward(shift, buffers, x):
        fresh = {name: buffer.clone() for name, buffer in buffers.items()}
        functional_call(model.train(), fresh, (x + shift,))
        return fresh

    start = {
        name: buffer.expand(11, *buffer.shape).contiguous()
        for name, buffer in model.named_buffers()
    }
    outputs, on_the_way = [], start
    for k, x in enumerate(data, start=1):
        with statistics_momentum(model, 1.0):
            outputs.append(vmap(forward, in_dims=(0, 0, None))(vectors, start, x))
        with statistics_momentum(model, 1 / k):
            on_the_way = vmap(forward, in_dims=(0, 0, None))(vectors, on_the_way, x)
    assert model[1].momentum == 0.1
    for replica in range(11):
        alone = copy.deepcopy(model)
        reestimate(alone, [x + vectors[replica] for x in data])
        for name, buffer in alone.named_buffers():
            torch.testing.assert_close(
                torch.stack([f[name][replica] for f in outputs]).mean(0), buffer
            )
            torch.testing.assert_close(on_the_way[name][replica], buffer)
