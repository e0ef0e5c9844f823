"""What tests of normalisation share: activations of every shape, modules that look trained."""

import pytest
import torch

BUFFERS = ("running_mean", "running_var")
SHAPES = {"[B, C]": (13, 5), "[B, C, L]": (7, 5, 11), "[B, C, H, W]": (3, 5, 7, 11)}
shapes = pytest.mark.parametrize("axes", SHAPES)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64) * 3 + 1


def as_trained(module, seed=0):
    """The module in double precision, its γ and β (and weights) no longer those it began with."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(
                torch.rand(parameter.shape, generator=generator(seed), dtype=torch.float64) + 0.5
            )
    return module
