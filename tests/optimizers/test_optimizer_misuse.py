"""Misuse of the optimisers is refused: another rule's state, misspelt hyper-parameters."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from facade_training import (
    FACADES,
    assert_unchanged,
    every_facade,
    feed,
    identical,
    parameters,
    snapshot,
    walk,
)
from steadydescent.optimizers import SGD, Adam, AdamW, Momentum, RMSProp
from test_optimizer_state import through_a_file


@pytest.mark.parametrize(("source", "target"), itertools.permutations(FACADES.values(), 2))
def test_the_state_of_another_rule_is_refused_and_nothing_changes(source, target):
    params, ours = parameters(), parameters()
    other, optimizer = source(params, 0.1), target(ours, 0.1)
    walk(other, params, range(3))
    walk(optimizer, ours, range(2))
    before = snapshot(optimizer)
    with pytest.raises(
        ValueError, match=rf"{target.__name__} (must have|has no|takes groups of the rule)"
    ):
        optimizer.load_state_dict(through_a_file(other.state_dict()))
    assert_unchanged(optimizer, before)


@every_facade
def test_the_rules_name_goes_with_states_copies_and_groups(facade):
    params = parameters()
    optimizer = facade(params, 0.1)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.1, 37, cycle_momentum=False)
    walk(optimizer, params, range(3))
    scheduler.step()
    twin = copy.deepcopy(optimizer)
    fresh = facade(parameters(), 0.1)
    for other in (twin, fresh):
        other.load_state_dict(through_a_file(optimizer.state_dict()))
        assert other.param_groups[0]["rule"] == optimizer.param_groups[0]["rule"]
    again = facade(optimizer.param_groups, 0.5)  # from groups that schedulers have written to
    assert again.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def test_a_group_of_another_rule_or_of_none_is_refused():
    with pytest.raises(
        ValueError, match=r"AdamW takes groups of the rule 'adamw' alone, got one of 'adam'"
    ):
        AdamW(Adam(parameters()).param_groups)
    nameless = {
        key: value for key, value in Adam(parameters()).param_groups[0].items() if key != "rule"
    }
    state = {"state": {}, "param_groups": [nameless]}
    with pytest.raises(
        ValueError, match="Adam takes groups of the rule 'adam' alone, got one of None"
    ):
        Adam(parameters()).load_state_dict(state)
    assert Adam([nameless]).param_groups[0]["rule"] == "adam"


@pytest.mark.parametrize(
    ("facade", "typo"),
    [
        (Adam, "beta_1"),
        (Momentum, "nu"),
        (RMSProp, "epsilon"),
        (SGD, "weightdecay"),
        (Adam, "maximize"),
        (SGD, "LR"),
    ],
)
def test_a_misspelt_hyper_parameter_is_refused_rather_than_ignored(facade, typo):
    with pytest.raises(
        ValueError, match=rf"{facade.__name__} has no \['{typo}'\]; its hyper-parameters are"
    ):
        facade([{"params": parameters(), typo: 0.5}], lr=0.1)
    optimizer = facade(parameters(), lr=0.1)
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=rf"{facade.__name__} has no \['{typo}'\]"):
        optimizer.add_param_group({"params": parameters(), typo: 0.5})
    assert_unchanged(optimizer, before)


@every_facade
@pytest.mark.parametrize(
    "build",
    [
        lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, 37, cycle_momentum=False),
        lambda optimizer: lr_scheduler.CyclicLR(optimizer, 0.1, 0.2, cycle_momentum=False),
        lambda optimizer: torch.optim.swa_utils.SWALR(optimizer, 0.05),
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 37),
    ],
    ids=["one-cycle", "cyclic", "swa", "cosine"],
)
def test_what_schedulers_write_into_groups_may_stand_in_new_ones(facade, build):
    optimizer = facade(parameters(), 0.1)
    build(optimizer)
    notes = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    optimizer.add_param_group({"params": parameters(), "name": "head", **notes})
    assert optimizer.param_groups[1].items() >= notes.items()


def test_momentum_that_schedulers_cycle_may_be_noted_in_a_group():
    """As `OneCycleLR` and `CyclicLR` write them for optimisers whose momentum they know."""
    group = {"params": parameters(), "max_momentum": 0.95, "base_momentum": 0.85, "lr_scale": 0.5}
    assert Adam([group]).param_groups[0]["max_momentum"] == 0.95


SHAPES = [(), (0,), (1,), (5,), (3,), (2, 3), (3, 2), (6,), (1, 6), (40_000,), (50_000,)]


def trained_pair(facade, shape):
    """An optimiser of two groups that has made a step, and its parameters."""
    params = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(shape))]
    optimizer = facade([{"params": [param]} for param in params], 0.1)
    walk(optimizer, params, [0])
    return optimizer, *params


@every_facade
def test_a_parameter_that_was_resized_is_refused_by_name_before_any_moves(facade):
    for before, after in itertools.permutations(SHAPES, 2):
        optimizer, first, resized = trained_pair(facade, before)
        resized.grad = None
        resized.data = torch.ones(after)
        if optimizer.state_names:
            feed([first, resized], 1)
            held = copy.deepcopy(optimizer.state_dict()), first.clone()
            with pytest.raises(
                ValueError, match=r"parameter 0 of group 1 has the shape .*after a resize"
            ):
                optimizer.step()
            assert identical(held[0], optimizer.state_dict())
            assert torch.equal(first, held[1]) and torch.equal(resized, torch.ones(after))
            del optimizer.state[resized]  # as the sentence says
        feed([first, resized], 1)
        optimizer.step()
        assert optimizer.state[first]["step"] == 2 and resized.isfinite().all()


@every_facade
def test_a_gradient_of_the_shape_before_a_resize_is_refused(facade):
    for before, after in itertools.permutations(SHAPES[:8], 2):
        optimizer, first, resized = trained_pair(facade, before)
        optimizer.state.clear()
        resized.data, held = torch.ones(after), first.clone()
        with pytest.raises(
            ValueError, match=r"parameter 0 of group 1 has the shape .*, its gradient"
        ):
            optimizer.step()
        assert torch.equal(first, held) and not optimizer.state


@every_facade
@pytest.mark.parametrize(
    "change", [lambda kept, key: kept.pop(key), lambda kept, key: kept.update({key: None})]
)
def test_a_slot_that_was_taken_away_is_refused_by_name_before_any_moves(facade, change):
    for slot in ("step", *facade.state_names):
        optimizer, first, other = trained_pair(facade, (3,))
        optimizer.state[other]["mine"] = 1
        change(optimizer.state[other], slot)
        if slot == "step" and "step" not in optimizer.state[other] and not facade.state_names:
            continue  # nothing of SGD's is left: it starts anew
        held = first.clone()
        with pytest.raises(
            ValueError, match=f"the state of parameter 0 of group 1 has no {slot}: delete its entry"
        ):
            optimizer.step()
        assert torch.equal(first, held)


@every_facade
def test_a_users_own_state_may_be_there_before_the_first_step(facade):
    (param,), (other,) = parameters()[:1], parameters()[:1]
    optimizer, plain = facade([param], 0.1), facade([other], 0.1)
    optimizer.state[param]["slow"] = param.detach().clone()
    optimizer = copy.deepcopy(optimizer, {id(param): param})
    walk(optimizer, [param], range(3))
    walk(plain, [other], range(3))
    assert torch.equal(param, other) and optimizer.state[param].keys() == {
        "slow",
        *plain.state[other],
    }


@every_facade
def test_lazily_negated_weights_are_refused_by_name(facade):
    first, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch._neg_view(torch.ones(3)))
    optimizer = facade([first, other], 0.1)
    feed([first, other], 0)
    with pytest.raises(
        ValueError, match=r"parameter 1 of group 0 is negated lazily: give it .*resolve_neg"
    ):
        optimizer.step()
    assert torch.equal(first, torch.ones(2))
