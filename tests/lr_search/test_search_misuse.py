"""Learning-rate search and averages in clumsy hands: a sentence names every misuse."""

import math
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from rate_searches import quadratic, rng
from steadydescent.averages import (
    SimpleMovingAverage,
    decay_for_window,
    mean_length,
    ramped_decay,
    window,
)
from steadydescent.lr_search import (
    SUGGESTIONS,
    coarse_to_fine,
    log_uniform,
    ramp,
    range_test,
    rate_step,
    restored,
    set_rate,
    uniform,
    valley,
)

NOT_NUMBERS = ["1", None, True, [1.0], torch.tensor(0.5)]
each_rule = pytest.mark.parametrize("suggest", SUGGESTIONS.values(), ids=SUGGESTIONS)

# Suggestions


@each_rule
@pytest.mark.parametrize("beta", [0.0, 0.9, 0.98])
@pytest.mark.parametrize("constant", [2.3025, math.log(10), -7.1, 1e-30, 0.0, 1e12])
def test_a_loss_that_never_changes_has_no_suggestion(suggest, constant, beta):
    test = range_test(lambda rate: constant, 1e-4, 1, 50)
    with pytest.raises(
        ValueError, match=r"the smoothed loss must fall (in|at least twice in) the range test"
    ):
        suggest(*test, beta)


@each_rule
def test_single_precision_noise_about_a_constant_is_no_descent(suggest):
    losses = (
        np.nextafter(np.full(61, 2.3025, np.float32), np.float32(0))
        + rng(3).integers(-2, 3, 61) * 2.0**-22
    )
    with pytest.raises(ValueError, match="the loss never falls below"):
        suggest(ramp(1e-4, 1, 61), losses)


@each_rule
def test_a_fall_above_rounding_is_a_descent_whatever_explodes_after_it(suggest):
    rates = ramp(1e-4, 1, 61)
    falling = 1.0 - 1e-4 * np.arange(51) / 50
    whole = np.append(falling, 1e30 * np.arange(1, 11))
    cut = np.append(falling, 2.0 + np.arange(10))
    assert suggest(rates, whole, 0.0) == suggest(rates, cut, 0.0)


def test_valley_follows_the_fall_of_its_subsequence_not_one_elsewhere():
    """Forty falls by rounding alone, a rise, and one true drop above them: no longest fall."""
    losses = np.concatenate([1.0 - 1e-12 * np.arange(40), [5.0, 2.0]])
    with pytest.raises(ValueError, match="the loss never falls below 1 by more than rounding"):
        valley(ramp(1e-4, 1, 42), losses, 0.0)


@each_rule
@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf, 1e-9])
def test_a_bad_rate_is_named_alone(suggest, wrong):
    rates = ramp(1e-4, 1, 997)
    rates[500] = wrong
    with pytest.raises(ValueError, match=f"positive, finite and rising, got {wrong} at index 500$"):
        suggest(rates, -np.arange(997.0))


@each_rule
def test_what_is_no_curve_is_named(suggest):
    rates, losses = ramp(1e-4, 1, 7), -np.arange(7.0)
    for call, reason in [
        (lambda: suggest("a", losses), "rates must be an array of numbers, got str"),
        (lambda: suggest(rates, ["x"] * 7), "losses must be an array of numbers, got list"),
        (
            lambda: suggest(rates, torch.ones(7, requires_grad=True)),
            "losses must be an array of numbers, got Tensor",
        ),
        (lambda: suggest(None, None), r"of one length, got shapes \(\) and \(\)"),
        (lambda: suggest(rates, losses, "0.9"), "beta must be a number, got '0.9'"),
    ]:
        with pytest.raises(ValueError, match=reason):
            call()


# The range test


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (None, "step must return the loss, got None"),
        ("2.3", "step must return the loss, got '2.3'"),
        (True, "step must return the loss, got True"),
        (torch.ones(3), r"step must return the loss, one number, got shape \(3,\)"),
    ],
)
def test_step_must_return_a_loss(returned, reason):
    with pytest.raises(ValueError, match=reason):
        range_test(lambda rate: returned, 1e-3, 1, 5)


def test_a_loss_with_its_graph_is_taken_silently():
    weight = torch.tensor(1.5, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        test = range_test(lambda rate: 2 * weight, 1e-3, 1, 5)
    assert test.losses.tolist() == [3.0] * 5
    assert range_test(lambda rate: np.float32(1.5), 1e-3, 1, 5).losses.tolist() == [1.5] * 5


def test_minibatches_that_run_out_say_at_which_step():
    model = nn.Linear(5, 3)
    optimizer, batches = torch.optim.SGD(model.parameters(), lr=0.1), iter(torch.ones(2, 7, 5))
    before = model.weight.clone()
    with (
        pytest.raises(RuntimeError, match="the mini-batches ran out at step 3 of 5"),
        restored(model, optimizer),
    ):
        range_test(rate_step(optimizer, lambda: model(next(batches)).square().mean()), 1e-3, 1, 5)
    assert torch.equal(model.weight, before)


def test_arguments_of_the_range_test_are_refused_by_their_own_names():
    never = lambda rate: pytest.fail("trained before the arguments were checked")
    good = {"low": 1e-3, "high": 1.0, "steps": 5, "divergence": 4.0, "beta": 0.9}
    for name in good:
        for wrong in [*NOT_NUMBERS, math.nan]:
            with pytest.raises(ValueError, match=rf"^{name} must "):
                range_test(never, **{**good, name: wrong})
    with pytest.raises(ValueError, match=r"^steps must be a whole number of at least 2, got 2.5$"):
        range_test(never, 1e-3, 1, 2.5)
    assert len(range_test(quadratic(), np.float64(1e-3), np.int64(1), np.int64(5)).rates) == 5


@pytest.mark.parametrize(
    ("value", "got"), [(0.3, "0.3"), (None, "None"), (torch.ones(3), r"\(3,\)")]
)
def test_loss_that_cannot_be_differentiated_is_named(value, got):
    step = rate_step(torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1), lambda: value)
    with pytest.raises(
        ValueError, match=f"loss must return one number to differentiate, as a tensor, got {got}"
    ):
        step(0.1)


def test_swapped_or_missing_models_and_optimizers_are_named():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for enter, reason in [
        (lambda: restored(optimizer, model).__enter__(), "model must be an nn.Module, got SGD"),
        (
            lambda: restored(model, None).__enter__(),
            "optimizer must be a torch.optim.Optimizer, got None",
        ),
        (
            lambda: rate_step(None, lambda: torch.ones(())),
            "optimizer must be a torch.optim.Optimizer, got None",
        ),
    ]:
        with pytest.raises(ValueError, match=reason):
            enter()


class Ignores(torch.optim.SGD):
    def step(self, closure=None):
        super().step()


class Lacks(torch.optim.SGD):
    def step(self):
        super().step()


@pytest.mark.parametrize("kind", [Ignores, Lacks])
def test_an_optimizer_that_ignores_or_lacks_a_closure_is_named_and_moves_nothing(kind):
    model = nn.Linear(2, 1)
    optimizer = kind(model.parameters(), lr=0.1, weight_decay=0.0)
    before = model.weight.detach().clone()
    model(torch.ones(3, 2)).sum().backward()  # an old gradient
    with pytest.raises(
        ValueError, match=rf"^{kind.__name__}\.step must (take a|call its) closure, .* by hand$"
    ):
        range_test(
            rate_step(optimizer, lambda: model(torch.ones(3, 2)).square().mean()), 1e-3, 1, 5
        )
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
@pytest.mark.parametrize(
    "take", [lambda o: set_rate(o, 0.5), lambda o: rate_step(o, None)], ids=["set", "step"]
)
def test_rates_that_are_tensors_of_whole_numbers_are_refused_and_none_is_changed(take, dtype):
    parameters = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([{"params": [p]} for p in parameters], lr=0.1)
    optimizer.param_groups[1]["lr"] = torch.ones((), dtype=dtype)  # as resumed ones may be
    with pytest.raises(
        ValueError,
        match=rf"^lr of parameter group 1 must be a number or .* got a tensor of {dtype};",
    ):
        take(optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.1 and optimizer.param_groups[1]["lr"].item() == 1


def test_groups_added_after_the_step_was_made_are_named():
    first, second = nn.Linear(2, 1), nn.Linear(2, 1)
    optimizer = torch.optim.SGD(first.parameters(), lr=0.1)
    step = rate_step(optimizer, lambda: first(torch.ones(3, 2)).square().mean())
    optimizer.add_param_group({"params": second.parameters()})
    with pytest.raises(
        ValueError, match=r"the 1 parameter groups that it had .*, got 2; call rate_step after"
    ):
        step(0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1]


# Random search


@pytest.mark.parametrize("wrong", [None, 0, np.random, np.random.RandomState(0), torch.Generator()])
def test_draws_take_a_numpy_generator_alone(wrong):
    never = lambda rates: pytest.fail("evaluated before the generator was checked")
    before = np.random.get_state()[1].copy()
    for call in (
        lambda: uniform(0, 1, 3, wrong),
        lambda: log_uniform(1e-3, 1, 3, wrong),
        lambda: coarse_to_fine(never, 1e-3, 1, 2, 3, wrong),
    ):
        with pytest.raises(ValueError, match=r"generator must be a numpy.random.Generator, got"):
            call()
    assert np.array_equal(before, np.random.get_state()[1])


def test_arguments_of_random_search_are_refused_by_name():
    never = lambda rates: pytest.fail("evaluated before the arguments were checked")
    for wrong in [*NOT_NUMBERS, math.nan, 2.5]:
        for name in ("rounds", "per_round"):
            with pytest.raises(
                ValueError, match=f"^{name} must be a whole number of at least 1, got"
            ):
                coarse_to_fine(
                    never,
                    **{"low": 1e-3, "high": 1, "rounds": 2, "per_round": 3, name: wrong},
                    generator=rng(),
                )
        with pytest.raises(ValueError, match=r"^count must be a whole number of at least 1, got"):
            uniform(0, 1, wrong, rng())
    for wrong in NOT_NUMBERS:
        for name in ("low", "high"):
            with pytest.raises(
                ValueError, match=f"^{name} must be a number, got {re.escape(repr(wrong))}"
            ):
                log_uniform(**{"low": 1e-3, "high": 1, name: wrong}, count=3, generator=rng())


# Averages


@pytest.mark.parametrize("wrong", [*NOT_NUMBERS, math.nan, math.inf])
def test_lengths_and_decays_of_averages_are_refused_by_name(wrong):
    for function, name in [(decay_for_window, "window"), (window, "beta"), (mean_length, "beta")]:
        with pytest.raises(ValueError, match=rf"^{name} must be "):
            function(wrong)
    with pytest.raises(ValueError, match=r"^step must be a whole number of at least 1, got"):
        ramped_decay(wrong)
    with pytest.raises(ValueError, match=r"^cap must be "):
        ramped_decay(5, wrong)
    with pytest.raises(ValueError, match=r"^window must be a whole number of at least 1, got"):
        SimpleMovingAverage(wrong)


@pytest.mark.parametrize("wrong", ["1", None, True, [1.0]])
def test_simple_average_takes_numbers_and_tensors_alone(wrong):
    average = SimpleMovingAverage(3)
    average.update(2)
    with pytest.raises(ValueError, match=f"value must be a number, got {re.escape(repr(wrong))}"):
        average.update(wrong)
    assert average.count == 1 and average.update(np.float32(4)).item() == 3.0


def test_broken_state_of_a_simple_average_is_refused_and_changes_nothing():
    average, other = SimpleMovingAverage(3), SimpleMovingAverage(3)
    for value in (2.0, 5.0):
        average.update(value), other.update(value + 1)
    good = other.state_dict()
    for wrong, reason in [
        (None, "the state must be a dict with window and count, got None"),
        ({}, r"the state must be a dict with window and count, got \{\}"),
        ({**good, "count": -4}, "count must be a whole number of at least 0, got -4"),
        ({**good, "count": 1.5}, "count must be a whole number of at least 0, got 1.5"),
        (
            {"window": 3, "count": 4},
            "the state of 4 values must hold the last 3 of them and their mean",
        ),
        ({**good, "values": torch.zeros(2)}, "the state of 2 values must hold the last 3"),
    ]:
        with pytest.raises(ValueError, match=reason):
            average.load_state_dict(wrong)
        assert average.count == 2 and average.value.item() == 3.5
    average.load_state_dict(good)
    assert average.value.item() == 4.5
    average.load_state_dict(SimpleMovingAverage(3).state_dict())
    with pytest.raises(ValueError, match="there is no average yet"):
        _ = average.value
    assert average.update(7.0).item() == 7.0
