"""The range test against a quadratic's closed form.

What it does to a model and its optimiser is undone.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from rate_searches import bounds, quadratic, rng
from steadydescent.lr_search import ramp, range_test, rate_step, restored, set_rate, smoothed
from steadydescent.optimizers import SGD


@given(bounds, st.integers(2, 40))
def test_ramp_rises_by_the_same_factor_from_end_to_end(limits, steps):
    rates, (low, high) = ramp(*limits, steps), limits
    assert rates[0] == low and rates[-1] == high and rates.shape == (steps,)
    np.testing.assert_allclose(
        rates, low * (high / low) ** (np.arange(steps) / (steps - 1)), rtol=1e-9
    )


@pytest.mark.parametrize("curvature", [0.3, 3.0, 70.0])
def test_quadratic_diverges_from_the_rate_two_over_its_curvature(curvature):
    """The loss falls at every step below α = 2/h, where |1 − αh| < 1, and rises after it."""
    test = range_test(quadratic(curvature), 1e-4, 1e3, 71, divergence=math.inf)
    turn = int(np.argmin(test.losses))
    assert test.rates[turn - 1] < 2 / curvature <= test.rates[turn] and len(test.losses) == 71
    assert (np.diff(test.losses[: turn + 1]) < 0).all() and (np.diff(test.losses[turn:]) > 0).all()


@pytest.mark.parametrize("divergence", [1.5, 4.0])
def test_test_stops_at_the_first_smoothed_loss_above_its_multiple_of_the_lowest(divergence):
    whole = range_test(quadratic(), 1e-4, 1e3, 71, divergence=math.inf)
    early = range_test(quadratic(), 1e-4, 1e3, 71, divergence=divergence)
    smooth = np.array(list(smoothed(whole.losses, 0.9)))
    above = smooth > divergence * np.minimum.accumulate(smooth)
    assert len(early.losses) == np.argmax(above) + 1 < 71 and np.array_equal(
        early.losses, whole.losses[: len(early.losses)]
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_test_stops_at_a_loss_that_is_not_finite_and_keeps_it(bad):
    losses = iter([3.0, 2.0, bad, 1.0])
    test = range_test(lambda rate: next(losses), 1e-3, 1, 4, divergence=math.inf)
    assert (
        test.losses[:2].tolist() == [3.0, 2.0]
        and not math.isfinite(test.losses[2])
        and len(test.rates) == 3
    )


def test_falling_loss_below_zero_is_no_divergence():
    """A log-likelihood may be negative, where four times the lowest lies below it."""
    losses = iter([1.0, -1.0, -2.0, -3.0, -2.0, 7.0, 8.0])
    assert range_test(lambda rate: next(losses), 1e-3, 1, 7, beta=0.0).losses[-1] == 7.0


def test_smoothing_is_the_weighted_mean_of_the_losses_so_far():
    losses = rng(2).normal(size=23)
    for beta in (0.0, 0.5, 0.98):
        weights = [beta ** np.arange(t, -1, -1.0) for t in range(23)]
        expected = [np.average(losses[: t + 1], weights=weights[t]) for t in range(23)]
        np.testing.assert_allclose(list(smoothed(losses, beta)), expected, rtol=1e-12)


# Models and torch's optimisers


class Small(nn.Module):
    """What a range test may disturb: batch-norm statistics, dropout, a buffer outside the state."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Dropout(0.3), nn.Linear(7, 3)
        )
        self.layers[3].eval()
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.seen += len(x)
        return self.layers(x)


def trained(seed=0):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model, data = Small(), torch.randn(11, 5)
        optimizer = torch.optim.Adam(
            [
                {"params": model.layers[0].parameters()},
                {"params": model.layers[3].parameters(), "lr": 0.02},
            ],
            lr=0.01,
        )
        for _ in range(3):
            rate_step(optimizer, lambda: model(data).square().mean())(0.01)
    return model, optimizer, data


def everything(model, optimizer):
    tensors = [
        *model.parameters(),
        *model.buffers(),
        *(p.grad for p in model.parameters()),
        torch.get_rng_state(),
    ]
    slots = [
        (key, value) for state in optimizer.state.values() for key, value in sorted(state.items())
    ]
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    copies = [None if t is None else t.detach().clone() for t in tensors]
    return (
        copies,
        [(key, value.clone()) for key, value in slots],
        groups,
        [m.training for m in model.modules()],
    )


def same(left, right):
    """Bitwise equality through lists, tuples and tensors."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


@pytest.mark.parametrize("interrupt", [False, True])
def test_model_and_optimizer_leave_the_test_as_they_came(interrupt):
    model, optimizer, data = trained()
    before, calls = everything(model, optimizer), 0

    def loss():
        nonlocal calls
        calls += 1
        if interrupt and calls == 9:
            raise KeyboardInterrupt
        return model(data).square().mean()

    try:
        with restored(model, optimizer):
            model.eval().train()
            range_test(rate_step(optimizer, loss), 1e-4, 10, 31, divergence=math.inf)
            assert not same(before, everything(model, optimizer))
    except KeyboardInterrupt:
        assert interrupt
    assert calls == (9 if interrupt else 31)
    assert same(before, everything(model, optimizer))


def test_training_goes_on_as_if_there_had_been_no_test():
    (one, first, data), (other, second, _) = trained(), trained()
    with restored(one, first):
        range_test(rate_step(first, lambda: one(data).square().mean()), 1e-4, 10, 13)
    for model, optimizer in ((one, first), (other, second)):
        with torch.random.fork_rng([]):
            torch.manual_seed(8)
            for _ in range(5):
                optimizer.zero_grad()
                model(data).square().mean().backward()
                optimizer.step()
    assert same(everything(one, first), everything(other, second))


def test_optimizer_without_slots_yet_has_none_after_the_test():
    model = nn.Linear(5, 3)
    optimizer = torch.optim.Adam(model.parameters())
    with restored(model, optimizer):
        rate_step(optimizer, lambda: model(torch.ones(2, 5)).square().mean())(0.1)
        assert optimizer.state
    assert not optimizer.state and model.weight.grad is None


def test_rate_step_is_a_plain_update_at_that_rate_and_keeps_the_groups_ratio():
    model, optimizer, data = trained()
    other, plain, _ = trained()
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        first_loss = rate_step(optimizer, lambda: model(data).square().mean())(0.5)
        torch.manual_seed(1)
        plain.param_groups[0]["lr"], plain.param_groups[1]["lr"] = 0.5, 1.0
        plain.zero_grad()
        loss = other(data).square().mean()
        loss.backward()
        plain.step()
    assert first_loss == loss.item()
    assert same([*model.parameters()], [*other.parameters()])
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 1.0]


def test_rate_may_be_a_tensor_of_the_optimizer():
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=torch.tensor(0.1))
    rate_step(optimizer, lambda: weight.sum())(0.5)
    assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor) and torch.equal(
        weight, torch.full((3,), 0.5)
    )


def test_parameters_that_would_not_be_restored_are_refused():
    model, stray = nn.Linear(5, 3), nn.Parameter(torch.ones(2))
    with (
        pytest.raises(ValueError, match="model's parameters alone, got 1 that are not"),
        restored(model, torch.optim.SGD([*model.parameters(), stray], lr=0.1)),
    ):
        pytest.fail("let in")


def test_optimizer_without_a_rate_gives_no_ratio():
    with pytest.raises(ValueError, match="lr must not be 0"):
        rate_step(torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.0), lambda: torch.ones(()))


# Taking a rate over


def two_groups(kind, first=0.1, second=0.2, as_tensor=False):
    rates = [torch.tensor(rate) if as_tensor else rate for rate in (first, second)]
    return kind([{"params": [nn.Parameter(torch.ones(2))], "lr": rate} for rate in rates], lr=1.0)


def rates_of(optimizer, key="lr"):
    return [float(group[key]) for group in optimizer.param_groups]


each_kind = pytest.mark.parametrize("kind", [SGD, torch.optim.SGD, torch.optim.Adam])
each_form = pytest.mark.parametrize("as_tensor", [False, True], ids=["numbers", "tensors"])


@each_kind
@each_form
def test_a_rate_that_is_set_keeps_ratios_and_tensors_and_adds_nothing(kind, as_tensor):
    optimizer = two_groups(kind, as_tensor=as_tensor)
    before = [group["lr"] for group in optimizer.param_groups]
    keys = [set(group) for group in optimizer.param_groups]
    for rate in (0.03, 7.0, 1e-9):
        set_rate(optimizer, rate)
        assert rates_of(optimizer) == pytest.approx([rate, 2 * rate])
    assert [set(group) for group in optimizer.param_groups] == keys
    if as_tensor:
        assert all(
            group["lr"] is tensor
            for group, tensor in zip(optimizer.param_groups, before, strict=True)
        )


SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda t: 0.5**t),
    "LambdaLR in the middle": lambda o: lr_scheduler.LambdaLR(o, lambda t: 0.5**t, last_epoch=2),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.5),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 7),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.ConstantLR(o)], milestones=[2]
    ),
    "ReduceLROnPlateau": lr_scheduler.ReduceLROnPlateau,
}


@each_kind
@each_form
@pytest.mark.parametrize("name", SCHEDULERS)
def test_on_a_resumed_optimizer_the_next_scheduler_starts_from_the_rate_that_was_set(
    name, kind, as_tensor
):
    """As on a fresh optimiser that was made with these rates, update for update."""
    scheduled, resumed = (two_groups(kind, as_tensor=as_tensor) for _ in range(2))
    lr_scheduler.LambdaLR(scheduled, lambda t: 0.9)
    resumed.load_state_dict(scheduled.state_dict())
    assert "initial_lr" in resumed.param_groups[0]
    set_rate(resumed, 0.01)
    fresh = two_groups(kind, 0.01, 0.02, as_tensor)
    if "middle" in name:
        for group in fresh.param_groups:
            group["initial_lr"] = float(group["lr"])
    curves = []
    for optimizer in (resumed, fresh):
        scheduler, curve = SCHEDULERS[name](optimizer), []
        for _ in range(4):
            curve.append(rates_of(optimizer))
            optimizer.step()
            scheduler.step(*[1.0] if name == "ReduceLROnPlateau" else [])
        curves.append(curve)
    np.testing.assert_allclose(*curves, rtol=1e-6)


@each_form
def test_what_a_scheduler_remembers_is_no_rate_tensor_of_the_optimizer_and_rate_step_leaves_it(
    as_tensor,
):
    optimizer = two_groups(torch.optim.SGD, as_tensor=as_tensor)
    lr_scheduler.LambdaLR(optimizer, lambda t: 1.0)
    rate_step(optimizer, lambda: sum(group["params"][0].sum() for group in optimizer.param_groups))(
        0.5
    )
    assert rates_of(optimizer) == [0.5, 1.0] and rates_of(optimizer, "initial_lr") == pytest.approx(
        [0.1, 0.2]
    )
    set_rate(optimizer, 0.01)
    assert rates_of(optimizer, "initial_lr") == rates_of(optimizer) == pytest.approx([0.01, 0.02])
    lr_scheduler.LambdaLR(optimizer, lambda t: 0.5)
    assert rates_of(optimizer) == pytest.approx([0.005, 0.01])
    assert rates_of(optimizer, "initial_lr") == pytest.approx([0.01, 0.02])


def test_default_device_elsewhere_changes_nothing():
    """`meta` stands for an accelerator: what is made there by mistake has no values."""

    def searched(model, optimizer, data):
        with restored(model, optimizer):
            test = range_test(rate_step(optimizer, lambda: model(data).square().mean()), 1e-4, 1, 9)
        set_rate(optimizer, 0.03)
        losses = [*test.losses, *smoothed([4.0, 2.0, 2.0], 0.5)]
        return losses, rates_of(optimizer), everything(model, optimizer)

    one, other = trained(), trained()
    usual = searched(*one)
    with torch.device("meta"):
        assert same(usual, searched(*other))
