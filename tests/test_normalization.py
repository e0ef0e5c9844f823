"""Batch norm against torch's own, forward, backward and running statistics, alone and stacked."""

import pytest
import torch
from torch.func import functional_call, vmap

from steadydescent.normalization import BatchNorm


def pair(channels, peer):
    ours, theirs = BatchNorm(channels).double(), peer(channels).double()
    with torch.no_grad():
        for module in (ours, theirs):
            module.weight.copy_(torch.linspace(0.5, 2, channels))
            module.bias.copy_(torch.linspace(-1, 1, channels))
    return ours, theirs


@pytest.mark.parametrize(
    ("peer", "shape"), [(torch.nn.BatchNorm1d, (13, 5)), (torch.nn.BatchNorm2d, (3, 5, 7, 11))], ids=["1d", "2d"]
)
def test_batch_norm_equals_torchs_forward_backward_and_running(peer, shape):
    ours, theirs = pair(5, peer)
    for seed in range(7):
        z = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3 + 1
        inputs = [z.clone().requires_grad_() for _ in range(2)]
        outputs = [module(x) for module, x in zip((ours, theirs), inputs, strict=True)]
        torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
        for out in outputs:
            (out**3).sum().backward()
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-8, atol=1e-8)
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-8, atol=1e-8)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(z), theirs(z), rtol=1e-10, atol=1e-10)


def test_stacked_running_statistics_are_updated():
    """torch's own, under vmap with buffers that are views of one vector, leaves them as they were and says nothing."""
    module, z = BatchNorm(3).double(), torch.randn(2, 11, 3, dtype=torch.float64)
    vectors = torch.cat([torch.zeros(2, 3), torch.ones(2, 3)], 1).double()

    def updated(vector, x):
        mean, var = vector.clone().split(3)
        functional_call(module.train(), {"running_mean": mean, "running_var": var}, (x,))
        return mean, var

    mean, var = vmap(updated)(vectors, z)
    torch.testing.assert_close(mean, 0.1 * z.mean(1))
    torch.testing.assert_close(var, 0.9 + 0.1 * z.var(1))


def test_one_value_a_channel_is_refused():
    with pytest.raises(ValueError, match=r"at least 2 values a channel, got input \(1, 3\)"):
        BatchNorm(3)(torch.zeros(1, 3))
