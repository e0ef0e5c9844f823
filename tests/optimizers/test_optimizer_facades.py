"""The rules as torch optimisers: against torch's own and the pure rules; in place, in every dtype.

In a script.
"""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from facade_training import FACADES, assert_same, every_facade, feed, parameters, walk
from steadydescent.optimizers import RULES, Adam, Momentum
from torch_twins import CASES, EXACT, TWINS


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


@pytest.mark.parametrize("name", ["rmsprop", "adam", "adamw"])
def test_default_rate_is_torchs(name):
    theirs = {"rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[
        name
    ]
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
        schedule = lr_scheduler.LambdaLR(
            made, [lambda t: 1 / (1 + t), lambda t: 0.95**t, lambda t: float(t < 20)]
        )
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
    """A step is a parameter's own: bias correction starts at its own first gradient."""
    ours, theirs = parameters(), parameters()
    optimizer = Adam(ours, 0.01, weight_decay=0.1)
    twin = torch.optim.Adam(theirs, 0.01, weight_decay=0.1)
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


@every_facade
def test_updates_are_in_place(facade):
    params = parameters()
    view, addresses = params[0].detach()[1], [param.data_ptr() for param in params]
    optimizer = facade(params, 0.1)
    walk(optimizer, params, range(3))
    assert [param.data_ptr() for param in params] == addresses and optimizer.param_groups[0][
        "params"
    ] == params
    assert torch.equal(view, params[0][1]) and all(
        param.requires_grad and param.is_leaf for param in params
    )


@every_facade
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_state_and_weights_keep_the_parameters_dtype(facade, dtype):
    """Also for a parameter without axes, and for an empty one.

    A rate tensor of another dtype would promote the former.
    """
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
        for made in (Adam, torch.optim.Adam):
            param = nn.Parameter(torch.ones(5, dtype=dtype))
            optimizer = made([param], 0.0)
            param.grad = torch.ones_like(param)
            optimizer.step()
            first = optimizer.state[param]["exp_avg_sq"].clone()
            param.grad = torch.zeros_like(param)
            for _ in range(700):
                optimizer.step()
            torch.testing.assert_close(
                optimizer.state[param]["exp_avg_sq"] / first, torch.full_like(first, left)
            )


# A training script


def script(make, dtype=torch.float32, steps=60, autocast=False):
    """Losses and final weights of a small classifier on two rings."""
    generator = torch.Generator().manual_seed(7)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = nn.Sequential(
            nn.Linear(2, 13), nn.Tanh(), nn.Linear(13, 11), nn.Tanh(), nn.Linear(11, 3)
        ).to(dtype)
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
    their_losses, theirs = script(
        lambda params: TWINS[name](list(params), RATES[name], **hyper), torch.float64
    )
    assert losses == pytest.approx(their_losses, rel=1e-9)
    assert_same(ours, theirs, **EXACT)


@pytest.mark.parametrize("name", FACADES)
def test_a_script_under_bfloat16_autocast_trains(name):
    losses, params = script(
        lambda params: FACADES[name](params, RATES[name]), steps=150, autocast=True
    )
    plain, _ = script(lambda params: FACADES[name](params, RATES[name]), steps=150)
    mean = lambda values: sum(values) / len(values)
    assert mean(losses[-20:]) < 0.8 * mean(losses[:20])
    assert mean(losses[-20:]) == pytest.approx(mean(plain[-20:]), rel=0.05) and losses != plain
    assert {param.dtype for param in params} == {torch.float32}
