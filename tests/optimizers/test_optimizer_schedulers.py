"""The optimisers under torch's schedulers, with rate tensors, closures and hooks."""

import copy

import pytest
import torch
from torch.optim import lr_scheduler

from facade_training import assert_same, every_facade, parameters, walk
from steadydescent.optimizers import Adam, AdamW, Momentum
from torch_twins import EXACT

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
@pytest.mark.parametrize(
    "lr", [0.02, torch.tensor(0.02, dtype=torch.float64)], ids=["number", "tensor"]
)
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


def test_a_rate_that_a_scheduler_has_lowered_to_just_below_zero_stops_nothing():
    """`LinearLR` multiplies, and ends at -3e-17."""
    lowest = 0.0
    for total in range(2, 20):
        params = parameters()
        optimizer = Adam(params, 0.3)
        schedule = lr_scheduler.LinearLR(optimizer, 0.7, 0.0, total)
        for step in range(total + 1):
            walk(optimizer, params, [step])
            schedule.step()
        lowest = min(lowest, optimizer.param_groups[0]["lr"])
        copy.deepcopy(optimizer).load_state_dict(optimizer.state_dict())
    assert -1e-15 < lowest < 0


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
    optimizer.register_step_pre_hook(
        lambda made, *_: seen.append(("before", made.state[params[0]].get("step", 0)))
    )
    optimizer.register_step_post_hook(
        lambda made, *_: seen.append(("after", made.state[params[0]]["step"]))
    )
    walk(optimizer, params, range(2))
    walk(other, others, range(2))
    assert seen == [("before", 0), ("after", 1), ("before", 1), ("after", 2)]
