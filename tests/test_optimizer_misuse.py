"""Misuse of the optimisers: another rule's state, and misspelt hyper-parameters, are refused by a sentence."""

import copy
import itertools

import pytest
import torch
from torch.optim import lr_scheduler

from facade_training import FACADES, assert_unchanged, every_facade, parameters, snapshot, walk
from steadydescent.optimizers import SGD, Adam, AdamW, Momentum, RMSProp
from test_optimizer_state import through_a_file


@pytest.mark.parametrize(("source", "target"), itertools.permutations(FACADES.values(), 2))
def test_the_state_of_another_rule_is_refused_and_nothing_changes(source, target):
    params, ours = parameters(), parameters()
    other, optimizer = source(params, 0.1), target(ours, 0.1)
    walk(other, params, range(3))
    walk(optimizer, ours, range(2))
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=rf"{target.__name__} (must have|has no|takes groups of the rule)"):
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
    with pytest.raises(ValueError, match=r"AdamW takes groups of the rule 'adamw' alone, got one of 'adam'"):
        AdamW(Adam(parameters()).param_groups)
    nameless = {key: value for key, value in Adam(parameters()).param_groups[0].items() if key != "rule"}
    state = {"state": {}, "param_groups": [nameless]}
    with pytest.raises(ValueError, match="Adam takes groups of the rule 'adam' alone, got one of None"):
        Adam(parameters()).load_state_dict(state)
    assert Adam([nameless]).param_groups[0]["rule"] == "adam"


@pytest.mark.parametrize(
    ("facade", "typo"),
    [(Adam, "beta_1"), (Momentum, "nu"), (RMSProp, "epsilon"), (SGD, "weightdecay"), (Adam, "maximize"), (SGD, "LR")],
)
def test_a_misspelt_hyper_parameter_is_refused_rather_than_ignored(facade, typo):
    with pytest.raises(ValueError, match=rf"{facade.__name__} has no \['{typo}'\]; its hyper-parameters are"):
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
