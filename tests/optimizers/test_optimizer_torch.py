"""torch's optimisers and ours in each other's place.

States go both ways; torch's own tables of inputs; what it refuses.
"""

import copy
import itertools
import sys
import types
import unittest

import pytest
import torch
from torch import nn

from facade_training import FACADES, assert_same, assert_unchanged, feed, parameters, snapshot, walk
from steadydescent.optimizers import SGD, Adam, AdamW, AveragedMomentum, Momentum, Nesterov, RMSProp
from test_optimizer_state import through_a_file
from torch_twins import CASES, EXACT, TWINS

SHARED = ["sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw"]
"""Rules that torch has, too."""


def twin_of(name, params, lr, **hyper):
    return TWINS[name](params, lr, **FACADES[name].rule.checked(**hyper))


def copied(params):
    return [nn.Parameter(param.detach().clone()) for param in params]


def what_it_computes(group):
    return {
        key: value
        for key, value in group.items()
        if key not in ("params", "foreach", "fused", "rule")
    }


@pytest.mark.parametrize(("name", "hyper"), [case for case in CASES if case[0] in SHARED])
def test_a_run_goes_on_from_torchs_state_in_ours_and_from_ours_in_torchs(name, hyper):
    straight, theirs = parameters(), parameters()
    whole, first = twin_of(name, straight, 0.05, **hyper), twin_of(name, theirs, 0.05, **hyper)
    walk(whole, straight, range(15))
    walk(first, theirs, range(5))
    ours = copied(theirs)
    middle = FACADES[name](ours, 0.7, **dict.fromkeys(hyper, 0.5))  # the state brings its own
    middle.load_state_dict(through_a_file(first.state_dict()))
    walk(middle, ours, range(5, 10))
    back = copied(ours)
    last = type(first)(back, 0.7)
    last.load_state_dict(through_a_file(middle.state_dict()))
    walk(last, back, range(10, 15))
    assert_same(back, straight, **EXACT)
    assert [*map(what_it_computes, last.param_groups)] == [
        *map(what_it_computes, whole.param_groups)
    ]
    if name in ("rmsprop", "adam", "adamw"):  # torch's SGD does not count
        assert [state["step"] for state in middle.state.values()] == [10, 10]


@pytest.mark.parametrize("name", SHARED)
def test_groups_with_their_own_values_names_and_notes_go_both_ways(name):
    def groups(rate):
        first, second = parameters()
        return [
            {"params": [("body", first)], "lr": rate, "layer_decay": 0.8},
            {"params": [("head", second)], "weight_decay": 0.1, "is_bias": True},
        ]

    hyper = dict(FACADES[name].rule.hyper)
    theirs = TWINS[name](groups(0.3), 0.05, **hyper)
    ours = FACADES[name](groups(0.7), 0.9)
    ours.load_state_dict(theirs.state_dict())
    notes = [
        {
            key: group.get(key)
            for key in ("lr", "weight_decay", "layer_decay", "is_bias", "param_names")
        }
        for group in ours.param_groups
    ]
    decays = hyper["weight_decay"]
    assert notes == [
        {
            "lr": 0.3,
            "weight_decay": decays,
            "layer_decay": 0.8,
            "is_bias": None,
            "param_names": ["body"],
        },
        {
            "lr": 0.05,
            "weight_decay": 0.1,
            "layer_decay": None,
            "is_bias": True,
            "param_names": ["head"],
        },
    ]
    back = TWINS[name](groups(0.9), 0.9, **hyper)
    back.load_state_dict(ours.state_dict())
    assert [*map(what_it_computes, back.param_groups)] == [
        *map(what_it_computes, theirs.param_groups)
    ]


O = torch.optim  # noqa: E741
OTHERS = [
    (Adam, lambda p: O.Adam(p, amsgrad=True), "amsgrad': True"),
    (Adam, lambda p: O.Adam(p, maximize=True), "maximize': True"),
    (Adam, lambda p: O.AdamW(p), "decoupled_weight_decay': True"),
    (AdamW, lambda p: O.Adam(p), "decoupled_weight_decay': False"),
    (AdamW, lambda p: O.AdamW(p, amsgrad=True), "amsgrad': True"),
    (SGD, lambda p: O.SGD(p, 0.1, momentum=0.9), "momentum': 0.9"),
    (SGD, lambda p: O.SGD(p, 0.1, maximize=True), "maximize': True"),
    (Momentum, lambda p: O.SGD(p, 0.1), "momentum': 0"),
    (Momentum, lambda p: O.SGD(p, 0.1, momentum=0.9, dampening=0.5), "dampening': 0.5"),
    (Momentum, lambda p: O.SGD(p, 0.1, momentum=0.9, nesterov=True), "nesterov': True"),
    (Nesterov, lambda p: O.SGD(p, 0.1, momentum=0.9), "nesterov': False"),
    (RMSProp, lambda p: O.RMSprop(p, centered=True), "centered': True"),
    (RMSProp, lambda p: O.RMSprop(p, momentum=0.5), "momentum': 0.5"),
    (RMSProp, lambda p: O.RMSprop(p, maximize=True), "maximize': True"),
    (
        AveragedMomentum,
        lambda p: O.SGD(p, 0.1, momentum=0.9, dampening=0.9),
        "must have \\['beta'\\]",
    ),
    (Adam, lambda p: O.NAdam(p), "must have \\['beta1', 'beta2'\\]"),
    (Adam, lambda p: O.RAdam(p), "must have \\['beta1', 'beta2'\\]"),
    (Adam, lambda p: O.Adamax(p), "must have \\['beta1', 'beta2'\\]"),
    (RMSProp, lambda p: O.Rprop(p), "must have \\['beta', 'eps', 'weight_decay'\\]"),
    (RMSProp, lambda p: O.ASGD(p), "must have \\['beta', 'eps'\\]"),
    (SGD, lambda p: O.Adam(p), "SGD has no \\['betas', 'eps'\\]"),
    (RMSProp, lambda p: O.RMSprop(p, alpha=1.5), r"beta must be in \[0, 1\), got 1.5"),
]


@pytest.mark.parametrize(("facade", "make", "says"), OTHERS)
def test_the_state_of_another_rule_of_torchs_is_refused_and_nothing_changes(facade, make, says):
    theirs, ours = parameters(), parameters()
    other, optimizer = make(theirs), facade(ours, 0.1)
    walk(other, theirs, range(2))
    walk(optimizer, ours, range(3))
    before, groups = snapshot(optimizer), [*optimizer.param_groups]
    with pytest.raises(ValueError, match=says):
        optimizer.load_state_dict(other.state_dict())
    assert_unchanged(optimizer, before)
    assert all(map(lambda a, b: a is b, optimizer.param_groups, groups))


@pytest.mark.parametrize(
    "flags", [{"foreach": True}, {"fused": True}, {"foreach": False}, {"fused": False}]
)
def test_how_torchs_optimizer_computed_does_not_matter(flags):
    theirs, ours = parameters(torch.float32), parameters(torch.float32)
    other, optimizer = O.Adam(theirs, **flags), Adam(ours)
    walk(other, theirs, range(2))
    optimizer.load_state_dict(other.state_dict())
    assert [state["step"] for state in optimizer.state.values()] == [2, 2] and not set(flags) & set(
        optimizer.param_groups[0]
    )


def test_hyper_parameters_that_are_tensors_in_torch_are_numbers_here():
    betas = (torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.75, dtype=torch.float64))
    optimizer = Adam(parameters())
    optimizer.load_state_dict(O.Adam(parameters(), betas=betas, lr=torch.tensor(0.25)).state_dict())
    group = optimizer.param_groups[0]
    assert (group["beta1"], group["beta2"], group["lr"].item()) == (0.5, 0.75, 0.25)


FORMER = {
    "momentum_buffer": "velocity",
    "square_avg": "square",
    "exp_avg": "mean",
    "exp_avg_sq": "square",
}


@pytest.mark.parametrize("name", FACADES)
def test_states_that_were_saved_before_they_had_torchs_names_are_still_taken(name):
    params = parameters()
    optimizer = FACADES[name](params, 0.05, weight_decay=0.1)
    walk(optimizer, params, range(5))
    saved = {
        "state": {
            number: {FORMER.get(key, key): value for key, value in optimizer.state[param].items()}
            for number, param in enumerate(params)
        },
        "param_groups": [{**group, "params": [0, 1]} for group in optimizer.param_groups],
    }
    ours = copied(params)
    other = FACADES[name](ours, 0.7)
    other.load_state_dict(through_a_file(saved))
    walk(optimizer, params, range(5, 9))
    walk(other, ours, range(5, 9))
    assert_same(ours, params)


# torch's own tables


def tables():
    """torch's table of optimisers, each with inputs.

    Its module wants `expecttest`, of which tables need nothing.
    """
    if "expecttest" not in sys.modules:
        stand_in = types.ModuleType("expecttest")
        stand_in.TestCase = unittest.TestCase
        sys.modules["expecttest"] = stand_in
    return pytest.importorskip("torch.testing._internal.common_optimizers", exc_type=ImportError)


def translated(cls, given):
    """Facade and arguments that do what torch's class does with these arguments.

    None where no rule here does.
    """
    given = {key: value for key, value in given.items() if value is not None and value is not False}
    flat = {key: value for key, value in given.items() if key in ("lr", "eps", "weight_decay")}
    rest = {key: value for key, value in given.items() if key not in flat}
    if cls in (O.Adam, O.AdamW):
        flat |= dict(zip(("beta1", "beta2"), rest.pop("betas", ()), strict=False))
        facade = Adam if cls is O.Adam else AdamW
    elif cls is O.RMSprop:
        flat |= {"beta": rest.pop("alpha")} if "alpha" in rest else {}
        facade = RMSProp
    else:
        flat |= {"mu": rest.pop("momentum")} if "momentum" in rest else {}
        facade = SGD if "mu" not in flat else Nesterov if rest.pop("nesterov", False) else Momentum
        flat.setdefault("lr", 1e-3)
    return (facade, flat) if not rest else None


@pytest.mark.parametrize("cls", [O.SGD, O.Adam, O.AdamW, O.RMSprop])
def test_torchs_own_inputs_give_what_torchs_class_gives_or_are_refused(cls):
    (info,) = [info for info in tables().optim_db if info.optim_cls is cls]
    inputs = info.optim_inputs_func(device="cpu")
    assert len(inputs) >= 5
    taken = 0
    for given in inputs:
        theirs = parameters()
        twin = cls(theirs, **copy.deepcopy(given.kwargs))
        walk(twin, theirs, range(3))
        if (ours := translated(cls, given.kwargs)) is None:
            for facade in FACADES.values():
                with pytest.raises(ValueError, match=r"is torch.s|has no|must have|takes groups"):
                    facade(parameters(), 0.1).load_state_dict(twin.state_dict())
            continue
        taken += 1
        params = parameters()
        optimizer = ours[0](params, **copy.deepcopy(ours[1]))
        walk(optimizer, params, range(3))
        # a rate that is a float32 tensor is rounded
        assert_same(params, theirs, rtol=1e-7, atol=1e-9)
    assert taken >= 3


@pytest.mark.parametrize("cls", [O.SGD, O.Adam, O.AdamW, O.RMSprop])
def test_what_torchs_classes_refuse_ours_refuse(cls):
    (info,) = [info for info in tables().optim_db if info.optim_cls is cls]
    cases = info.optim_error_inputs_func(device="cpu", dtype=torch.float32)
    assert len(cases) >= 7
    for case in cases:
        given, error = case.optimizer_error_input, case.error_type
        named = translated(
            cls, {key: value for key, value in given.kwargs.items() if key not in ("foreach",)}
        )
        facade, arguments = named or (FACADES[cls.__name__.lower()], given.kwargs)
        if "foreach" in given.kwargs:
            arguments = {**arguments, "foreach": given.kwargs["foreach"]}
        if facade in (SGD, Momentum, RMSProp) and "momentum" in given.kwargs:
            facade, arguments = Momentum, {"lr": 0.01, "mu": given.kwargs["momentum"]}
        arguments = {"lr": 0.01, **arguments}
        if error is UserWarning:
            with pytest.warns(UserWarning, match=case.error_regex):
                facade(given.params, **arguments)
        else:
            with pytest.raises(error):
                facade(given.params, **arguments)


# Built anew, in wrappers and with flags


@pytest.mark.parametrize("facade", FACADES.values(), ids=FACADES)
def test_an_optimizer_is_built_anew_from_its_class_and_defaults(facade):
    params = parameters()
    optimizer = facade(params, 0.05, weight_decay=0.1)
    loaded = copy.deepcopy(optimizer)
    loaded.load_state_dict(optimizer.state_dict())  # torch writes into the defaults
    for made in (optimizer, loaded):
        again = type(made)(parameters(), **made.defaults)
        assert {**again.param_groups[0], "params": None} == {
            **optimizer.param_groups[0],
            "params": None,
        }
        made.add_param_group({"params": parameters(), "lr": 0.3, "note": 1})
        twin = type(made)(
            [{**group, "params": copied(group["params"])} for group in made.param_groups], 0.7
        )
        assert [group["lr"] for group in twin.param_groups] == [0.05, 0.3]


@pytest.mark.parametrize(
    ("facade", "flag"),
    itertools.product(
        FACADES.values(),
        ["foreach", "fused", "maximize", "capturable", "differentiable", "amsgrad"],
    ),
)
def test_flags_of_torchs_may_ask_for_nothing(facade, flag):
    for nothing in (None, False):
        facade(parameters(), 0.1, **{flag: nothing})
        assert (
            facade([{"params": parameters(), flag: nothing}], 0.1).param_groups[0][flag] is nothing
        )
    with pytest.raises(ValueError, match=rf"has no \['{flag}'\].*may be None or False"):
        facade(parameters(), 0.1, **{flag: True})
    with pytest.raises(ValueError, match=rf"has no \['{flag}'\].*may be None or False"):
        facade([{"params": parameters(), flag: True}], 0.1)


NOTES = {
    "layer_decay": 0.8,
    "freeze": False,
    "lr_mult": 1.0,
    "weight_decay_mult": 0.0,
    "layer_id": 3,
    "lr_scale": 0.5,
    "group_name": "head",
    "is_bias": True,
    "fix_step": False,
    "decay": 0.1,
    "eta": 0.1,
    "lr_decay": 0.9,
    "warmup": 5,
    "initial_lr": 0.1,
    "max_momentum": 0.9,
    "no_decay": True,
    "tags": ("a", "b"),
    "meta": {"a": 1},
    "l1": 0.1,
}


@pytest.mark.parametrize("facade", FACADES.values(), ids=FACADES)
def test_users_own_keys_travel(facade):
    optimizer = facade([{"params": parameters(), **NOTES}], 0.1)
    other = facade(parameters(), 0.1)
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    for made in (optimizer, other, copy.deepcopy(optimizer), facade(optimizer.param_groups, 0.1)):
        assert made.param_groups[0].items() >= NOTES.items()


@pytest.mark.parametrize(
    ("facade", "key", "meant"),
    [
        (Adam, "betas", "'beta1' and 'beta2'"),
        (Momentum, "momentum", "'mu'"),
        (AveragedMomentum, "momentum", "'beta'"),
        (RMSProp, "alpha", "'beta'"),
        (RMSProp, "epsilon", "'eps'"),
        (Adam, "beta_1", "'beta1'"),
        (Adam, "weigth_decay", "'weight_decay'"),
        (Adam, "weightdecay", "'weight_decay'"),
        (AdamW, "Weight_Decay", "'weight_decay'"),
        (Momentum, "momentun", "'mu'"),
        (Momentum, "nu", "'mu'"),
        (SGD, "LR", "'lr'"),
        (SGD, "learning_rate", "'lr'"),
    ],
)
def test_names_that_would_go_unheeded_are_refused_with_the_one_that_was_meant(facade, key, meant):
    value = (0.9, 0.99) if key == "betas" else 0.5
    refusal = rf"{facade.__name__} has no \['{key}'\]"
    says = rf"{refusal}; its hyper-parameters are .*; '{key}' may mean {meant}"
    with pytest.raises(ValueError, match=says):
        facade([{"params": parameters(), key: value}], 0.1)
    with pytest.raises(TypeError, match=says):
        facade(parameters(), 0.1, **{key: value})


def test_a_users_number_is_no_misspelt_hyper_parameter_of_another_rule():
    for facade in (SGD, Momentum, Nesterov, Adam, AdamW):
        assert facade([{"params": parameters(), "meta": 3}], 0.1).param_groups[0]["meta"] == 3
    with pytest.raises(ValueError, match="'meta' may mean 'beta'"):
        RMSProp([{"params": parameters(), "meta": 3}], 0.1)


def test_torchs_names_are_refused_whatever_they_hold():
    for value in (None, False, "0.9", {}):
        with pytest.raises(ValueError, match=r"Momentum has no \['momentum'\]"):
            Momentum([{"params": parameters(), "momentum": value}], 0.1)


# Parameters of every life


@pytest.mark.filterwarnings(
    "ignore:optimizer contains a parameter group with duplicate:UserWarning"
)
@pytest.mark.parametrize("name", FACADES)
def test_a_parameter_given_twice_is_updated_twice_one_after_the_other(name):
    (twice, new), (once, other) = parameters(), parameters()
    ours, theirs = FACADES[name]([twice], 0.05), FACADES[name]([once], 0.05)
    walk(ours, [twice], [7])
    walk(theirs, [once], [7])
    ours, saved = FACADES[name]([new, twice, new, twice, new], 0.05), ours.state[twice]
    ours.state[twice].update(saved)  # not as far as the other one
    theirs = [FACADES[name]([param], 0.05) for param in (once, other)]
    theirs[0].state[once].update(
        {k: v.clone() if torch.is_tensor(v) else v for k, v in saved.items()}
    )
    for step in range(3):
        feed([twice, new], step)
        feed([once, other], step)
        ours.step()
        for optimizer, times in zip(theirs, (2, 3), strict=True):
            for _ in range(times):
                optimizer.step()
    assert_same([twice, new], [once, other])
    assert (ours.state[twice]["step"], ours.state[new]["step"]) == (7, 9)


@pytest.mark.parametrize("facade", FACADES.values(), ids=FACADES)
def test_lazy_parameters_join_when_they_are_made(facade):
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1))
    optimizer, early = facade(model.parameters(), 0.1), nn.Linear(3, 1)
    optimizer.step()
    fresh = facade(
        [
            nn.Parameter(torch.ones(3, 2)),
            *nn.Linear(2, 3).parameters(),
            nn.Parameter(torch.ones(1)),
        ],
        0.1,
    )
    for param in fresh.param_groups[0]["params"]:
        param.grad = torch.ones_like(param)
    fresh.step()
    with pytest.raises(
        (ValueError, RuntimeError), match="lazy module's parameter: run the module once"
    ):
        optimizer.load_state_dict(fresh.state_dict())
    model(torch.ones(2, 5)).sum().backward()
    before = [param.detach().clone() for param in model.parameters()]
    optimizer.step()
    assert not any(map(torch.equal, before, model.parameters())) and early is not None
    assert {state["step"] for state in optimizer.state.values()} == {1}


def test_tied_frozen_parametrised_and_late_weights_train_as_with_torchs_class():
    def trained(make):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(4, 4), nn.Linear(4, 4), nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        )
        model[1].weight = model[0].weight
        model[1].bias.requires_grad_(False)
        optimizer, late = make(model.parameters()), nn.Linear(4, 1)
        for step in range(9):
            if step == 4:
                optimizer.add_param_group({"params": late.parameters(), "lr": 0.01})
            optimizer.zero_grad()
            late(model(torch.ones(3, 4))).square().sum().backward()
            optimizer.step()
        return [*model.parameters(), *late.parameters()]

    assert_same(
        trained(lambda p: Adam(p, 0.05)), trained(lambda p: O.Adam(p, 0.05)), rtol=1e-4, atol=1e-5
    )
