"""Schedules as a newcomer meets them.

Text for numbers, functions for schedules, and torch's LambdaLR, which counts from 0.
"""

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from steadydescent.schedules import (
    Plateau,
    Schedule,
    constant,
    cooldown,
    linear,
    named,
    rates,
    steps,
    warmup_linear,
)

T = 53


@pytest.mark.parametrize("step", ["10", None, True, ["1", "2"], np.array([True]), 1j], ids=repr)
def test_a_step_that_is_no_number_is_refused(step):
    """numpy would read "10" as 10.0 and True as 1.0."""
    with pytest.raises(
        ValueError, match=r"^step must be a number or an array of numbers, got "
    ) as refusal:
        linear(10)(step)
    assert repr(step) in str(refusal.value)


@pytest.mark.parametrize(
    "step", [[1, 2, 3], range(1, 4), (1.0, 2.0, 3.0), torch.arange(1, 4), np.float32([1, 2, 3])]
)
def test_numbers_in_a_row_are_taken_from_wherever_they_come(step):
    np.testing.assert_array_equal(linear(4)(step), [1.0, 0.75, 0.5])


def descent():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], lr=0.1)


def test_a_schedule_given_to_torchs_lambda_lr_as_it_is_says_what_to_give():
    sentence = (
        r"^step must be at least 1, the first update, got 0; "
        r"give LambdaLR, which counts from 0, `schedule\.for_lambda_lr\(\)`$"
    )
    with pytest.raises(ValueError, match=sentence):
        LambdaLR(descent(), linear(10))
    optimizer = descent()
    LambdaLR(optimizer, linear(10).for_lambda_lr())
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Schedule("10", "ten"),
            "formula must be a function of the update number, got '10'",
        ),
        (
            lambda: Schedule(0.1, "tenth"),
            "formula must be a function of the update number, got 0.1",
        ),
        (lambda: Schedule(np.ones_like, None), "name must be a text, got None"),
        (
            lambda: constant().then(3, np.ones_like),
            r"other must be a Schedule, got <function ones_like.*\(function, n",
        ),
        (lambda: constant().then(3, "cosine"), "other must be a Schedule, got 'cosine'"),
        (
            lambda: constant().then("3", linear(3)),
            "at must be a whole number of at least 1, got '3'",
        ),
        (lambda: steps(5, [0.1]), "milestones must be a list, one value a milestone, got 5"),
        (lambda: steps("5", [0.1]), "milestones must be a list, one value a milestone, got '5'"),
        (
            lambda: steps(torch.tensor(5), [0.1]),
            r"milestones must be a list, one value a milestone, got tensor\(5\)",
        ),
        (lambda: steps([5], None), "factors must be a list, one value a milestone, got None"),
        (lambda: steps([5], ["0.1"]), "factors must be a number, got '0.1'"),
        (
            lambda: named("cosine", total="10"),
            "total must be a whole number of at least 1, got '10'",
        ),
        (
            lambda: named("cosine", total=None),
            "total must be a whole number of at least 1, got None",
        ),
        (
            lambda: named("cosine", total=10.0),
            "total must be a whole number of at least 1, got 10.0",
        ),
        (
            lambda: named("exponential", 10, epoch="2", base=0.9),
            "epoch must be a whole number of at least 1, got '2'",
        ),
        (
            lambda: named("steps", 10, shares="0.5", factors=[0.1]),
            "shares must be a list, .* got '0.5'",
        ),
        (
            lambda: named("exp-drop", 10, epoch=2, first_epoch=2, every_epoch="yes"),
            "every_epoch must be true or false, got 'yes'",
        ),
        (lambda: rates("cosine", "0.1", 10), "peak rate must be a number, got '0.1'"),
        (lambda: rates("cosine", None, 10), "peak rate must be a number, got None"),
        (lambda: rates("cosine", True, 10), "peak rate must be a number, got True"),
        (lambda: rates("cosine", [0.1], 10), r"peak rate must be a number, got \[0.1\]"),
        (
            lambda: rates("cosine", 0.1, "10"),
            "total must be a whole number of at least 1, got '10'",
        ),
        (
            lambda: Plateau(threshold="0.1", threshold_mode="abs"),
            "threshold must be a number, got '0.1'",
        ),
        (
            lambda: Plateau(threshold=-1, threshold_mode="abs"),
            "threshold must be at least 0 and finite, got -1",
        ),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused_by_sentence(make, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        make()


def test_milestones_out_of_numpy_are_lists_as_well():
    factors = [steps(values, [0.5, 0.1])(4) for values in ([2, 3], (2, 3), np.array([2, 3]))]
    assert factors == pytest.approx([0.05] * 3)


@pytest.mark.parametrize(
    ("by_name", "by_length"),
    [
        (named("warmup-linear", T, warmup_share=0.1), warmup_linear(T, warmup=5)),
        (named("cooldown", T, cooldown_share=0.3), cooldown(T, length=16)),
        (named("steps", T, shares=[0.1, 0.3], factors=[0.5, 0.1]), steps([5, 16], [0.5, 0.1])),
    ],
)
def test_shares_of_the_run_are_lengths_rounded_to_updates(by_name, by_length):
    """round(0.1 · 53) = 5 and round(0.3 · 53) = 16, as the docstring of `named` says of shares."""
    np.testing.assert_array_equal(by_name(np.arange(1, T + 1)), by_length(np.arange(1, T + 1)))
