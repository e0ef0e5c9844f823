"""State dicts and copies of the optimisers: training goes on to the bit, or they are refused."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from facade_training import (
    assert_same,
    assert_unchanged,
    every_facade,
    identical,
    parameters,
    snapshot,
    walk,
)
from steadydescent.optimizers import Adam, Momentum


def through_a_file(state):
    """As a checkpoint travels: bytes, of which only tensors and containers are unpickled."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@every_facade
def test_training_continues_from_a_state_dict_to_the_bit(facade):
    def built():
        params = parameters()
        optimizer = facade(params, 0.05, weight_decay=0.01)
        return params, optimizer, lr_scheduler.CosineAnnealingLR(optimizer, 37)

    params, optimizer, schedule = built()
    for step in range(37):
        if step == 17:
            saved = through_a_file(
                [optimizer.state_dict(), schedule.state_dict(), [p.detach() for p in params]]
            )
        walk(optimizer, params, [step])
        schedule.step()
    resumed, other, other_schedule = built()
    other_schedule.load_state_dict(saved[1])
    other.load_state_dict(saved[0])
    for param, value in zip(resumed, saved[2], strict=True):
        param.data.copy_(value)
    for step in range(17, 37):
        walk(other, resumed, [step])
        other_schedule.step()
    assert_same(resumed, params)
    assert identical(other.state_dict(), optimizer.state_dict())


@every_facade
@pytest.mark.parametrize("target", [torch.float32, torch.bfloat16, "meta"])
def test_loaded_state_moves_to_the_parameters_dtype_or_device(facade, target):
    params = parameters()
    optimizer = facade(params, 0.05)
    walk(optimizer, params, range(5))
    moved = [nn.Parameter(param.detach().to(target)) for param in params]
    other = facade(moved, 0.05)
    other.load_state_dict(optimizer.state_dict())
    for param, old in zip(moved, params, strict=True):
        assert other.state[param]["step"] == 5
        for name in optimizer.state_names:
            kept, source = other.state[param][name], optimizer.state[old][name]
            assert (kept.dtype, kept.device, kept.shape) == (param.dtype, param.device, param.shape)
            assert target == "meta" or torch.equal(kept, source.to(target))
    walk(optimizer, params, [5])  # what was loaded is a copy
    assert all(other.state[param]["step"] == 5 for param in moved)


def test_named_parameters_keep_their_names_in_the_state_dict():
    model = nn.Linear(3, 2)
    optimizer = Adam(model.named_parameters())
    assert through_a_file(optimizer.state_dict())["param_groups"][0]["param_names"] == [
        "weight",
        "bias",
    ]


@every_facade
def test_a_deep_copy_continues_on_its_own(facade):
    params = parameters()
    optimizer = facade(params, 0.05)
    walk(optimizer, params, range(5))
    twin_params, twin = copy.deepcopy((params, optimizer))
    frozen = [param.clone() for param in twin_params]
    walk(optimizer, params, range(5, 11))
    assert_same(twin_params, frozen)
    walk(twin, twin_params, range(5, 11))
    assert_same(twin_params, params)


@pytest.mark.parametrize(
    ("source", "change", "says"),
    [
        (torch.optim.NAdam, None, r"parameter group of Adam must have \['beta1', 'beta2'\]"),
        (torch.optim.RAdam, None, r"parameter group of Adam must have \['beta1', 'beta2'\]"),
        (Momentum, None, r"parameter group of Adam must have \['beta1', 'beta2', 'eps'\]"),
        (
            Adam,
            lambda saved: saved["param_groups"][0].update(lr=-1.0),
            "lr must be at least 0 and finite, got -1.0",
        ),
        (
            Adam,
            lambda saved: saved["param_groups"][0].update(betas=(2.0, 0.9)),
            r"beta1 must be in \[0, 1\), got 2.0",
        ),
        (Adam, lambda saved: saved["state"][1].pop("exp_avg_sq"), r"must have \['exp_avg_sq'\]"),
        (
            Adam,
            lambda saved: saved["param_groups"][0].update(betas=[0.9]),
            r"betas must hold 2 numbers, got \[0.9\]",
        ),
        (
            Adam,
            lambda saved: saved["state"][1].update(step=2.5),
            "step must be a whole number of at least 0, got 2.5",
        ),
        (
            Adam,
            lambda saved: saved["state"][1].update(exp_avg=[1.0]),
            "exp_avg must be a tensor, got list",
        ),
        (
            Adam,
            lambda saved: saved["state"][1].update(exp_avg=1.0),
            "exp_avg must be a tensor, got float",
        ),
        (
            Adam,
            lambda saved: saved["state"].update({1: 3}),
            "state of a parameter must be a dict, got int",
        ),
        (
            Adam,
            lambda saved: saved["state"][1].update(exp_avg=torch.ones(7, device="meta")),
            "state on the meta device holds no values",
        ),
        (
            Adam,
            lambda saved: saved["param_groups"][0].update(lr=torch.tensor(1)),
            "floating-point tensor, got one of int64",
        ),
        (
            Adam,
            lambda saved: saved["state"][1].update(exp_avg=torch.ones(1)),
            r"exp_avg must have the shape \[7\], got",
        ),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused_and_nothing_changes(source, change, says):
    params, ours = parameters(), parameters()
    other, optimizer = source(params, lr=0.1), Adam(ours)
    walk(other, params, range(3))
    walk(optimizer, ours, range(2))
    saved, before = other.state_dict(), snapshot(optimizer)
    if change:
        change(saved)
    with pytest.raises(ValueError, match=says):
        optimizer.load_state_dict(saved)
    assert_unchanged(optimizer, before)
    walk(optimizer, ours, [2])
