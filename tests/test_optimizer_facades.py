"""The rules as torch optimisers: against torch's own and the pure rules, and all that a training script asks of one."""

import copy
import io
import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from steadydescent.optimizers import (
    RULES,
    SGD,
    Adam,
    AdamW,
    AveragedMomentum,
    CorrectedMomentum,
    Momentum,
    Nesterov,
    RMSProp,
)
from test_optimizers import CASES, EXACT, TWINS

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
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes]


def feed(params, step):
    """Each parameter's gradient of this step, the same for equal parameters."""
    generator = torch.Generator().manual_seed(step)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator, dtype=torch.float64).to(param.dtype)


def walk(optimizer, params, steps):
    for step in steps:
        feed(params, step)
        optimizer.step()


def assert_same(ours, theirs, **tolerance):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.detach(), other.detach(), **(tolerance or {"rtol": 0, "atol": 0}))


def snapshot(optimizer):
    return copy.deepcopy(optimizer.state_dict()), [p.clone() for g in optimizer.param_groups for p in g["params"]]


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


# The arithmetic


def test_every_rule_has_its_facade_and_each_facade_its_own_rule():
    assert {name: facade.rule for name, facade in FACADES.items()} == RULES


@pytest.mark.parametrize(("name", "hyper"), CASES)
def test_facade_equals_torchs_optimizer_at_every_step(name, hyper):
    ours, theirs = parameters(), parameters()
    optimizer = FACADES[name](ours, 0.01, **hyper)
    twin = TWINS[name](theirs, 0.01, **RULES[name].checked(**hyper))
    for step in range(307):
        walk(optimizer, ours, [step])
        walk(twin, theirs, [step])
        assert_same(ours, theirs, **EXACT)


@pytest.mark.parametrize("name", FACADES)
def test_facade_takes_its_rules_steps_to_the_bit(name):
    (ours,) = parameters(shapes=[(3, 11)])
    optimizer, theta = FACADES[name]([ours], 0.03, weight_decay=0.1), ours.detach().clone()
    state = RULES[name].init(theta)
    for step in range(1, 41):
        walk(optimizer, [ours], [step])
        theta, state = RULES[name].update(theta, ours.grad, state, step, 0.03, weight_decay=0.1)
        assert_same([ours], [theta])
    kept = optimizer.state[ours]
    assert kept["step"] == 40 and set(kept) == {"step", *optimizer.state_names}
    assert_same([kept[key] for key in optimizer.state_names], state)


@pytest.mark.parametrize("name", ["rmsprop", "adam", "adamw"])
def test_default_rate_is_torchs(name):
    theirs = {"rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    params = parameters()
    assert FACADES[name](params).defaults["lr"] == theirs(params).defaults["lr"]


def test_groups_with_their_own_rates_hyper_parameters_and_schedules_equal_torchs():
    def built(optimizer, rename):
        params = parameters(shapes=[(3, 11), (7,), (5, 2)])
        groups = [
            {"params": params[:1], "lr": 0.03, "weight_decay": 0.1},
            {"params": params[1:2], "eps": 1e-3, **rename(0.5, 0.9)},
            {"params": params[2:]},
        ]
        made = optimizer(groups, lr=0.01, weight_decay=0.02, **rename(0.8, 0.99))
        schedule = lr_scheduler.LambdaLR(made, [lambda t: 1 / (1 + t), lambda t: 0.95**t, lambda t: float(t < 20)])
        made.register_step_post_hook(lambda *_: schedule.step())
        return made, params

    ours, our_params = built(Adam, lambda one, two: {"beta1": one, "beta2": two})
    theirs, their_params = built(torch.optim.Adam, lambda one, two: {"betas": (one, two)})
    for step in range(53):
        walk(ours, our_params, [step])
        walk(theirs, their_params, [step])
        assert_same(our_params, their_params, **EXACT)
    assert [g["lr"] for g in ours.param_groups] == [g["lr"] for g in theirs.param_groups]


def test_parameters_without_gradient_are_skipped_as_by_torchs_adam():
    """A step is a parameter's own: one that joins late starts its bias correction from its first gradient."""
    ours, theirs = parameters(), parameters()
    optimizer, twin = Adam(ours, 0.01, weight_decay=0.1), torch.optim.Adam(theirs, 0.01, weight_decay=0.1)
    for step in range(61):
        for params, made in ((ours, optimizer), (theirs, twin)):
            feed(params, step)
            params[1].grad = None if step % 3 else params[1].grad
            params[0].grad = None if step == 0 else params[0].grad
            made.step()
        assert_same(ours, theirs, **EXACT)
    assert [optimizer.state[param]["step"] for param in ours] == [60, 21]


@pytest.mark.parametrize(("set_to_none", "steps"), [(True, 1), (False, 2)])
def test_zero_grad_to_none_skips_and_to_zero_steps(set_to_none, steps):
    params = parameters()
    optimizer = Momentum(params, 0.1)
    walk(optimizer, params, [0])
    before = [param.clone() for param in params]
    optimizer.zero_grad(set_to_none=set_to_none)
    optimizer.step()
    assert [optimizer.state[param]["step"] for param in params] == [steps, steps]
    assert torch.equal(params[0], before[0]) == set_to_none


# Memory, dtypes, shapes


@every_facade
def test_updates_are_in_place(facade):
    params = parameters()
    view, addresses = params[0].detach()[1], [param.data_ptr() for param in params]
    optimizer = facade(params, 0.1)
    walk(optimizer, params, range(3))
    assert [param.data_ptr() for param in params] == addresses and optimizer.param_groups[0]["params"] == params
    assert torch.equal(view, params[0][1]) and all(param.requires_grad and param.is_leaf for param in params)


@every_facade
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_state_and_weights_keep_the_parameters_dtype(facade, dtype):
    """Also for a parameter without axes, which a rate tensor of another dtype would promote, and for an empty one."""
    params = parameters(dtype, [(3, 5), (), (0, 7)])
    optimizer = facade(params, torch.tensor(0.5, dtype=torch.float64))
    before = [param.clone() for param in params]
    walk(optimizer, params, range(3))
    for param, old in zip(params, before, strict=True):
        kept = [optimizer.state[param][name] for name in optimizer.state_names]
        assert {(tensor.dtype, tensor.shape) for tensor in (param, *kept)} == {(dtype, old.shape)}
        assert param.isfinite().all() and (param.numel() == 0 or not torch.equal(param, old))


def test_in_bfloat16_a_mean_square_never_forgets_in_torch_and_here():
    """0.999·s rounds back to s, as the docstring warns; in float32 it halves in 693 steps."""
    for dtype, left in ((torch.bfloat16, 1.0), (torch.float32, 0.999**700)):
        for made, key in ((Adam, "square"), (torch.optim.Adam, "exp_avg_sq")):
            param = nn.Parameter(torch.ones(5, dtype=dtype))
            optimizer = made([param], 0.0)
            param.grad = torch.ones_like(param)
            optimizer.step()
            first = optimizer.state[param][key].clone()
            param.grad = torch.zeros_like(param)
            for _ in range(700):
                optimizer.step()
            torch.testing.assert_close(optimizer.state[param][key] / first, torch.full_like(first, left))


# State dicts and copies


def through_a_file(state):
    """As a checkpoint travels: bytes, read back without unpickling anything but tensors and plain containers."""
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
            saved = through_a_file([optimizer.state_dict(), schedule.state_dict(), [p.detach() for p in params]])
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
    assert through_a_file(optimizer.state_dict())["param_groups"][0]["param_names"] == ["weight", "bias"]


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


# Schedulers, hooks, closures


SCHEDULERS = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
    "step": lambda o: lr_scheduler.StepLR(o, 7),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "linear": lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, 41),
    "cosine with restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 11),
    "sequence": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 5), lr_scheduler.PolynomialLR(o, 30)], [5]
    ),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=60, cycle_momentum=False),
    "cycles": lambda o: lr_scheduler.CyclicLR(o, 0.001, 0.1, step_size_up=5, cycle_momentum=False),
}


@pytest.mark.parametrize("build", SCHEDULERS.values(), ids=SCHEDULERS.keys())
@pytest.mark.parametrize("lr", [0.02, torch.tensor(0.02, dtype=torch.float64)], ids=["number", "tensor"])
def test_torchs_schedulers_do_to_ours_what_they_do_to_torchs(build, lr):
    ours, theirs = parameters(), parameters()
    optimizer, twin = Adam(ours, copy.deepcopy(lr)), torch.optim.Adam(theirs, copy.deepcopy(lr))
    schedule, twin_schedule = build(optimizer), build(twin)
    for step in range(41):
        walk(optimizer, ours, [step])
        walk(twin, theirs, [step])
        schedule.step()
        twin_schedule.step()
        assert float(schedule.get_last_lr()[0]) == float(twin_schedule.get_last_lr()[0])
    assert_same(ours, theirs, rtol=1e-8, atol=1e-8)


def test_plateaus_lower_the_rate():
    params = parameters()
    optimizer = Momentum(params, 0.1)
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    for _ in range(5):
        schedule.step(1.0)
    assert optimizer.param_groups[0]["lr"] == 0.05


@every_facade
def test_schedulers_that_would_cycle_the_momentum_refuse_loudly(facade):
    optimizer = facade(parameters(), 0.1)
    with pytest.raises(ValueError, match="cycle_momentum"):
        lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=60)
    with pytest.raises(ValueError, match="cycle_momentum"):
        lr_scheduler.CyclicLR(optimizer, 0.001, 0.1)


@every_facade
def test_a_rate_tensor_is_followed_when_it_is_changed_in_place(facade):
    rate, ours, theirs = torch.tensor(0.0, dtype=torch.float64), parameters(), parameters()
    optimizer = facade(ours, rate)
    walk(optimizer, ours, range(3))
    assert_same(ours, theirs)  # a rate of 0 moves nothing
    rate.fill_(0.1)
    other = facade(theirs, 0.0)
    walk(other, theirs, range(3))
    other.param_groups[0]["lr"] = 0.1
    walk(optimizer, ours, range(3, 7))
    walk(other, theirs, range(3, 7))
    assert_same(ours, theirs, **EXACT)


@every_facade
def test_a_closure_is_called_once_with_gradients_on_and_its_loss_returned(facade):
    (param,) = params = parameters(shapes=[(5,)])
    optimizer, losses = facade(params, 0.01), []

    def closure():
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()
        losses.append(loss)
        return loss

    returned = [optimizer.step(closure) for _ in range(23)]
    assert all(a is b for a, b in zip(returned, losses, strict=True)) and losses[-1] < losses[0]
    assert optimizer.step() is None


def test_hooks_see_every_step_of_their_own_optimizer():
    params, others = parameters(), parameters()
    optimizer, other, seen = Adam(params), AdamW(others), []
    optimizer.register_step_pre_hook(lambda made, *_: seen.append(("before", made.state[params[0]].get("step", 0))))
    optimizer.register_step_post_hook(lambda made, *_: seen.append(("after", made.state[params[0]]["step"])))
    walk(optimizer, params, range(2))
    walk(other, others, range(2))
    assert seen == [("before", 0), ("after", 1), ("before", 1), ("after", 2)]


# Refusals: a sentence, and nothing has changed


BAD = [
    (Adam, {"lr": -0.1}, "lr must be at least 0 and finite, got -0.1"),
    (Adam, {"lr": math.nan}, "lr must be at least 0 and finite, got nan"),
    (SGD, {"lr": math.inf}, "lr must be at least 0 and finite, got inf"),
    (SGD, {"lr": "0.1"}, "lr must be a number, got '0.1'"),
    (SGD, {"lr": torch.tensor(-0.5)}, "lr must be at least 0 and finite, got -0.5"),
    (SGD, {"lr": torch.ones(2)}, r"lr must be a number or a tensor without axes, got one of shape \[2\]"),
    (Adam, {"beta1": 1.0}, r"beta1 must be in \[0, 1\), got 1.0"),
    (Adam, {"eps": -1e-8}, "eps must be at least 0 and finite, got -1e-08"),
    (AdamW, {"beta2": -0.5}, r"beta2 must be in \[0, 1\), got -0.5"),
    (RMSProp, {"beta": 1.5}, r"beta must be in \[0, 1\), got 1.5"),
    (Momentum, {"mu": math.nan}, r"mu must be in \[0, 1\), got nan"),
    (Nesterov, {"weight_decay": -1.0}, "weight_decay must be at least 0 and finite, got -1.0"),
]


@pytest.mark.parametrize(("facade", "bad", "says"), BAD)
def test_a_bad_value_is_refused_by_the_constructor_in_a_group_and_in_an_added_one(facade, bad, says):
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


@pytest.mark.parametrize("key", ["betas", "momentum", "alpha", "dampening", "mu", "beta"])
def test_another_optimizers_hyper_parameter_in_a_group_is_refused_rather_than_ignored(key):
    with pytest.raises(ValueError, match=rf"Adam has no \['{key}'\]; its hyper-parameters are \['beta1', 'beta2'"):
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
    with pytest.raises(ValueError, match=f"parameter {'head' if named else 0} of group 1 is sparse"):
        optimizer.step()
    assert_unchanged(optimizer, before)
    strange = nn.Parameter(complex_grad(second))
    optimizer = facade([first, strange], 0.1)
    first.grad, strange.grad = torch.ones_like(first), torch.ones_like(strange)
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match="parameter 1 of group 0 is complex"):
        optimizer.step()
    assert_unchanged(optimizer, before)


@pytest.mark.parametrize(
    ("source", "change", "says"),
    [
        (torch.optim.Adam, None, r"parameter group of Adam must have \['beta1', 'beta2'\]"),
        (Momentum, None, r"parameter group of Adam must have \['beta1', 'beta2', 'eps'\]"),
        (Adam, lambda saved: saved["param_groups"][0].update(lr=-1.0), "lr must be at least 0 and finite, got -1.0"),
        (Adam, lambda saved: saved["param_groups"][0].update(beta1=2.0), r"beta1 must be in \[0, 1\), got 2.0"),
        (Adam, lambda saved: saved["state"][1].pop("square"), r"state of Adam must have \['square'\]"),
        (
            Adam,
            lambda saved: saved["state"][1].update(mean=torch.ones(1)),
            r"mean must have the shape \[7\], got",
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


# A training script


def script(make, dtype=torch.float32, steps=60, autocast=False):
    """Losses and final weights of a small classifier on two rings."""
    generator = torch.Generator().manual_seed(7)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = nn.Sequential(nn.Linear(2, 13), nn.Tanh(), nn.Linear(13, 11), nn.Tanh(), nn.Linear(11, 3)).to(dtype)
    x = torch.randn(301, 2, generator=generator, dtype=dtype)
    y = (x.norm(dim=1) * 1.5).long().clamp(max=2)
    optimizer = make(model.parameters())
    schedule, losses = lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + 0.01 * step)), []
    for _ in range(steps):
        batch = torch.randint(301, (53,), generator=generator)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses, list(model.parameters())


RATES = {
    "sgd": 0.3,
    "momentum": 0.03,
    "nesterov": 0.03,
    "averaged-momentum": 0.3,
    "corrected-momentum": 0.3,
    "rmsprop": 0.01,
    "adam": 0.01,
    "adamw": 0.01,
}


@pytest.mark.parametrize("name", FACADES)
def test_a_script_with_a_schedule_trains_as_with_torchs_optimizer(name):
    losses, ours = script(lambda params: FACADES[name](params, RATES[name]), torch.float64)
    hyper = RULES[name].hyper
    their_losses, theirs = script(lambda params: TWINS[name](list(params), RATES[name], **hyper), torch.float64)
    assert losses == pytest.approx(their_losses, rel=1e-9)
    assert_same(ours, theirs, **EXACT)


@pytest.mark.parametrize("name", FACADES)
def test_a_script_under_bfloat16_autocast_trains(name):
    losses, params = script(lambda params: FACADES[name](params, RATES[name]), steps=150, autocast=True)
    plain, _ = script(lambda params: FACADES[name](params, RATES[name]), steps=150)
    mean = lambda values: sum(values) / len(values)
    assert mean(losses[-20:]) < 0.8 * mean(losses[:20])
    assert mean(losses[-20:]) == pytest.approx(mean(plain[-20:]), rel=0.05) and losses != plain
    assert {param.dtype for param in params} == {torch.float32}
