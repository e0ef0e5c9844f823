"""What the tests of the torch optimisers share: parameters, their gradients, steps, comparisons."""

import copy

import pytest
import torch
from torch import nn

from steadydescent.optimizers import (
    SGD,
    Adam,
    AdamW,
    AveragedMomentum,
    CorrectedMomentum,
    Momentum,
    Nesterov,
    RMSProp,
)

FACADES = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "averaged-momentum": AveragedMomentum,
    "corrected-momentum": CorrectedMomentum,
    "rmsprop": RMSProp,
    "adam": Adam,
    "adamw": AdamW,
}
SHAPES = [(3, 11), (7,)]
every_facade = pytest.mark.parametrize("facade", FACADES.values(), ids=FACADES.keys())


def parameters(dtype=torch.float64, shapes=SHAPES):
    generator = torch.Generator().manual_seed(3)
    return [
        nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))
        for shape in shapes
    ]


def feed(params, step):
    """Each parameter's gradient of this step, the same for equal parameters."""
    generator = torch.Generator().manual_seed(step)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator, dtype=torch.float64).to(
            param.dtype
        )


def walk(optimizer, params, steps):
    for step in steps:
        feed(params, step)
        optimizer.step()


def assert_same(ours, theirs, **tolerance):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            one.detach(), other.detach(), **(tolerance or {"rtol": 0, "atol": 0})
        )


def snapshot(optimizer):
    return copy.deepcopy(optimizer.state_dict()), [
        p.clone() for g in optimizer.param_groups for p in g["params"]
    ]


def assert_unchanged(optimizer, before):
    state, params = snapshot(optimizer)
    assert_same(params, before[1])
    assert identical(state, before[0])


def identical(one, other):
    """Whether two state dicts are equal to the bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(identical(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(identical, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
