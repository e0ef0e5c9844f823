"""Parameter groups and gradients that the optimisers refuse, by a sentence and unchanged."""

import math
import operator

import pytest
import torch
from torch import nn

from facade_training import assert_same, assert_unchanged, every_facade, parameters, snapshot, walk
from steadydescent.optimizers import SGD, Adam, AdamW, Momentum, Nesterov, RMSProp

BAD = [
    (Adam, {"lr": -0.1}, "lr must be at least 0 and finite, got -0.1"),
    (Adam, {"lr": math.nan}, "lr must be at least 0 and finite, got nan"),
    (SGD, {"lr": math.inf}, "lr must be at least 0 and finite, got inf"),
    (SGD, {"lr": "0.1"}, "lr must be a number, got '0.1'"),
    (SGD, {"lr": torch.tensor(-0.5)}, "lr must be at least 0 and finite, got -0.5"),
    (
        SGD,
        {"lr": torch.ones(2)},
        r"lr must be a number or a tensor without axes, got one of shape \[2\]",
    ),
    (
        SGD,
        {"lr": torch.tensor(1)},
        "lr must be a number or a floating-point tensor, got one of int64",
    ),
    (
        Adam,
        {"lr": torch.tensor(True)},
        "lr must be a number or a floating-point tensor, got one of bool",
    ),
    (
        RMSProp,
        {"lr": torch.tensor(1, dtype=torch.uint8)},
        "a floating-point tensor, got one of uint8",
    ),
    (Adam, {"lr": torch.tensor(1j)}, "a floating-point tensor, got one of complex64"),
    (Adam, {"beta1": 1.0}, r"beta1 must be in \[0, 1\), got 1.0"),
    (Adam, {"eps": -1e-8}, "eps must be at least 0 and finite, got -1e-08"),
    (AdamW, {"beta2": -0.5}, r"beta2 must be in \[0, 1\), got -0.5"),
    (RMSProp, {"beta": 1.5}, r"beta must be in \[0, 1\), got 1.5"),
    (Momentum, {"mu": math.nan}, r"mu must be in \[0, 1\), got nan"),
    (Nesterov, {"weight_decay": -1.0}, "weight_decay must be at least 0 and finite, got -1.0"),
]


@pytest.mark.parametrize(("facade", "bad", "says"), BAD)
def test_a_bad_value_is_refused_by_the_constructor_in_a_group_and_in_an_added_one(
    facade, bad, says
):
    with pytest.raises(ValueError, match=says):
        facade(parameters(), **{"lr": 0.1, **bad})
    with pytest.raises(ValueError, match=says):
        facade([{"params": parameters(), **bad}], lr=0.1)
    params = parameters()
    optimizer = facade(params, 0.1)
    walk(optimizer, params, range(2))
    before, group = snapshot(optimizer), {"params": iter(parameters()), **bad}
    with pytest.raises(ValueError, match=says):
        optimizer.add_param_group(group)
    assert_unchanged(optimizer, before)
    assert len(list(group["params"])) == 2  # not even the group's parameters were looked at


@pytest.mark.parametrize(("facade", "bad", "says"), BAD)
def test_a_bad_value_put_into_a_group_later_is_refused_before_anything_moves(facade, bad, says):
    two = [parameters(), parameters()]
    optimizer, params = facade([{"params": params} for params in two], 0.1), two[0] + two[1]
    walk(optimizer, params, range(2))
    optimizer.param_groups[1].update(bad)
    before = [param.clone() for param in params]
    for _ in range(2):  # it stays refused
        with pytest.raises(ValueError, match=f"parameter group 1: .*{says}"):
            walk(optimizer, params, [2])
    assert_same(params, before)
    assert {state["step"] for state in optimizer.state.values()} == {2}
    (name,) = bad
    optimizer.param_groups[1][name] = optimizer.param_groups[0][name]
    walk(optimizer, params, [2])


WORDS = {
    "betas": (0.5, 0.6),
    "momentum": 0.5,
    "alpha": 0.5,
    "maximize": True,
    "amsgrad": True,
    "Weight_Decay": 0.1,
}


@every_facade
@pytest.mark.parametrize("word", WORDS)
def test_torchs_words_put_into_a_group_later_are_refused_rather_than_ignored(facade, word):
    params = parameters()
    optimizer = facade(params, 0.1)
    walk(optimizer, params, range(2))
    optimizer.param_groups[0] |= {"maximize": None, "lr_mult": 2.0}  # which ask for nothing
    walk(optimizer, params, [2])
    held = [param.clone() for param in params]
    optimizer.param_groups[0][word] = WORDS[word]
    with pytest.raises(
        ValueError, match=rf"parameter group 0: {facade.__name__} has no \['{word}'\]"
    ):
        walk(optimizer, params, [3])
    assert_same(params, held)


def test_what_a_group_lacks_is_said_at_the_step():
    params = parameters()
    optimizer = Adam(params)
    optimizer.param_groups.append({"params": parameters(), "lr": 0.1})
    with pytest.raises(
        ValueError, match=r"parameter group 1: a parameter group of Adam must have \['beta1'"
    ):
        walk(optimizer, params, [0])


@every_facade
def test_the_users_dict_is_the_group_as_with_torch(facade):
    groups = [{"params": parameters()}, {"params": parameters(), "lr": 0.1}]
    optimizer = facade(groups[:1], 0.1)
    optimizer.add_param_group(groups[1])
    assert all(map(operator.is_, optimizer.param_groups, groups))
    groups[1]["lr"] = 0.0
    held = [param.clone() for param in groups[1]["params"]]
    walk(optimizer, groups[0]["params"] + groups[1]["params"], range(2))
    assert_same(groups[1]["params"], held)


@pytest.mark.parametrize("key", ["betas", "momentum", "alpha", "dampening", "mu", "beta"])
def test_another_optimizers_hyper_parameter_in_a_group_is_refused_rather_than_ignored(key):
    with pytest.raises(
        ValueError, match=rf"Adam has no \['{key}'\]; its hyper-parameters are \['beta1', 'beta2'"
    ):
        Adam([{"params": parameters(), key: 0.5}])
    Adam([{"params": parameters(), "name": "a group's own notes are fine"}])


def test_hyper_parameters_go_by_name_so_that_torchs_order_cannot_slip_in():
    with pytest.raises(TypeError, match="positional"):
        SGD(parameters(), 0.1, 0.9)  # torch's third is the momentum, ours the weight decay


def test_an_added_group_takes_part_with_the_optimizers_own_defaults():
    ours, late = parameters(), parameters()
    optimizer = Momentum(ours, 0.1, mu=0.5)
    walk(optimizer, ours, range(3))
    optimizer.add_param_group({"params": late, "lr": 0.2})
    assert {k: v for k, v in optimizer.param_groups[1].items() if k != "params"} == {
        "lr": 0.2,
        "mu": 0.5,
        "weight_decay": 0.0,
        "rule": "momentum",
    }
    walk(optimizer, ours + late, [3])
    assert [optimizer.state[param]["step"] for param in ours + late] == [4, 4, 1, 1]


def test_torchs_own_refusals_still_stand():
    params = parameters()
    with pytest.raises(ValueError, match="more than one parameter group"):
        Adam([{"params": params}, {"params": params[:1]}])
    with pytest.raises(ValueError, match="empty parameter list"):
        Adam([])
    with pytest.raises(TypeError, match="param_group must be a dict"):
        Adam(params).add_param_group(parameters())


def sparse(param):
    return torch.sparse_coo_tensor([[0]], param.new_ones(1), param.shape, check_invariants=True)


def complex_grad(param):
    return torch.complex(param.detach(), param.detach())


@every_facade
@pytest.mark.parametrize("named", [True, False])
def test_sparse_and_complex_gradients_are_refused_by_name_before_any_parameter_moves(facade, named):
    first, second = parameters(shapes=[(3, 11), (7,)])
    groups = [{"params": [first]}, {"params": [second]}]
    if named:
        groups = [{"params": [("body", first)]}, {"params": [("head", second)]}]
    optimizer = facade(groups, 0.1)
    walk(optimizer, [first, second], range(2))
    before = snapshot(optimizer)
    second.grad = sparse(second)
    with pytest.raises(
        ValueError, match=f"parameter {'head' if named else 0} of group 1 is sparse"
    ):
        optimizer.step()
    assert_unchanged(optimizer, before)
    strange = nn.Parameter(complex_grad(second))
    optimizer = facade([first, strange], 0.1)
    first.grad, strange.grad = torch.ones_like(first), torch.ones_like(strange)
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match="parameter 1 of group 0 is complex"):
        optimizer.step()
    assert_unchanged(optimizer, before)
