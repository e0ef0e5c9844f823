"""A module's tensors by name, in one walk, against torch's own listings.

The in-place update against the formula.
"""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from noisy_training import network
from steadydescent.weight_averaging import mix
from steadydescent.weight_averaging.named_tensors import live_tensors, mix_in, named_tensors


class Odd(nn.Module):
    """Tied weights, a module twice, absent ones, buffers within and without the state.

    One of the buffers has two names.
    """

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(network(), nn.Linear(7, 5, bias=False), nn.Identity())
        self.again = self.inner[0]
        self.head = parametrizations.weight_norm(nn.Linear(5, 7))
        self.inner[1].weight = self.inner[0][0].weight
        self.absent = None
        self.register_parameter("none", None)
        self.register_buffer("empty", None)
        self.register_buffer("noise", torch.randn(3), persistent=False)
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("counted", self.count)
        self.own = nn.Parameter(torch.randn(2))


def listed_by_torch(module):
    state = module.state_dict(keep_vars=True).keys()
    return [
        *module.named_parameters(),
        *(pair for pair in module.named_buffers() if pair[0] in state),
    ]


@pytest.mark.parametrize(
    "module",
    [
        network(),
        Odd(),
        nn.Transformer(6, 2, 1, 1, 5, batch_first=True),
        torch.jit.script(network()),
        nn.BatchNorm1d(3),
        nn.ReLU(),
    ],
    ids=["small", "odd", "transformer", "scripted", "leaf", "empty"],
)
def test_one_walk_finds_what_torchs_listings_do_in_their_order(module):
    live, listed = live_tensors(module), listed_by_torch(module)
    assert list(live) == [name for name, _ in listed]
    assert all(live[name] is tensor for name, tensor in listed)
    for name, tensor in named_tensors(module).items():
        assert tensor.data_ptr() == live[name].data_ptr() and not tensor.requires_grad


@pytest.mark.parametrize("weight", [0.0, 1e-4, 0.25, 0.75, 1.0, torch.tensor(0.3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_an_update_in_place_is_the_readouts_mix(weight, dtype):
    """The formula's one home is `mix`; torch's `lerp` is the same to rounding."""
    generator = torch.Generator().manual_seed(5)

    def drawn():
        return {
            name: torch.randn(3, 11, generator=generator, dtype=dtype)
            for name in ("mean", "copied", "other")
        }

    averages, values = drawn(), drawn()
    values["other"] = values["other"].t().contiguous().t()  # in another order of memory
    expected = {name: mix(averages[name], values[name], weight) for name in ("mean", "other")}
    addresses = {name: tensor.data_ptr() for name, tensor in averages.items()}
    mix_in(averages, values, weight, {"mean", "other"})
    assert torch.equal(averages["copied"], values["copied"])
    assert {name: tensor.data_ptr() for name, tensor in averages.items()} == addresses
    for name, average in expected.items():
        torch.testing.assert_close(averages[name], average)
        assert weight != 1 or torch.equal(averages[name], values[name])
