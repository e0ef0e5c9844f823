"""Schedules give torch's own rates, at every update of a run.

Worked numbers, laws, and how schedules compose.
"""

import dataclasses
import math
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from steadydescent import schedules

mpl.use("Agg")
EPOCH = 5
EVERY = {
    "constant": schedules.constant(),
    "linear": schedules.linear(53),
    "cosine": schedules.cosine(53),
    "inverse_time": schedules.inverse_time(0.3, EPOCH),
    "exponential": schedules.exponential(0.95, EPOCH),
    "inverse_sqrt_epoch": schedules.inverse_sqrt_epoch(EPOCH),
    "inverse_sqrt_step": schedules.inverse_sqrt_step(),
    "steps": schedules.steps([7, 31], [0.5, 0.1]),
    "exp_drop once": schedules.exp_drop(3, every_epoch=False, epoch=EPOCH),
    "exp_drop every epoch": schedules.exp_drop(3, every_epoch=True, epoch=EPOCH),
    "cooldown": schedules.cooldown(53, 17),
    "noam": schedules.noam(7, 11),
    "warm_up": schedules.warm_up(11),
    "warmup_linear": schedules.warmup_linear(53, 11),
    "ramp": schedules.ramp(1e-5, 1.0, 53),
}
RISING = {"noam", "warm_up", "warmup_linear", "ramp"}
lengths = st.integers(1, 300)


def updates(total):
    return np.arange(1.0, total + 1)


def torch_rates(make, peak, total, every=1):
    """What torch's scheduler hands to each of `total` updates, stepped after every `every`-th."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], peak)
    scheduler, seen = make(optimizer), []
    for update in range(1, total + 1):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if update % every == 0:
            scheduler.step()
    return seen


TORCH = {
    "linear": (schedules.linear(37), lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, 37)),
    "linear to an end": (
        schedules.linear(29, end=0.1),
        lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, 29),
    ),
    "cosine": (schedules.cosine(37), lambda o: lr_scheduler.CosineAnnealingLR(o, 37)),
    "cosine to an end": (
        schedules.cosine(37, end=0.2),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 37, 0.2 * 0.3),
    ),
    "steps": (
        schedules.steps([5, 6, 23], [0.1] * 3),
        lambda o: lr_scheduler.MultiStepLR(o, [5, 6, 23], 0.1),
    ),
    "warm_up": (schedules.warm_up(11), lambda o: lr_scheduler.LinearLR(o, 1 / 11, 1.0, 10)),
    "ramp": (
        schedules.ramp(1e-4, 1.0, 37) * schedules.constant(),
        lambda o: lr_scheduler.LambdaLR(o, lambda count: 10 ** (-4 + 4 * count / 36)),
    ),
    "one after another": (
        schedules.warm_up(11).then(11, schedules.linear(26)),
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o, 1 / 11, 1.0, 10), lr_scheduler.LinearLR(o, 1.0, 0.0, 26)],
            [11],
        ),
    ),
    "three, one after another": (
        schedules.warm_up(5).then(5, schedules.constant()).then(13, schedules.cosine(24)),
        lambda o: lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.LinearLR(o, 1 / 5, 1.0, 4),
                lr_scheduler.ConstantLR(o, 1.0),
                lr_scheduler.CosineAnnealingLR(o, 24),
            ],
            [5, 13],
        ),
    ),
    "product": (
        schedules.linear(37) * schedules.steps([11], [0.5]),
        lambda o: lr_scheduler.ChainedScheduler(
            [lr_scheduler.LinearLR(o, 1.0, 0.0, 37), lr_scheduler.MultiStepLR(o, [11], 0.5)], o
        ),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_factors_are_those_of_torchs_scheduler(name):
    schedule, make = TORCH[name]
    np.testing.assert_allclose(
        0.3 * schedule(updates(37)), torch_rates(make, 0.3, 37), rtol=1e-9, atol=1e-15
    )


@pytest.mark.claim("decay-formulas")
def test_exponential_decay_is_torchs_times_one_more_base():
    """The sources count epochs from 1, torch's ExponentialLR from 0."""
    theirs = torch_rates(lambda o: lr_scheduler.ExponentialLR(o, 0.95), 0.3, 37, every=EPOCH)
    np.testing.assert_allclose(
        0.3 * schedules.exponential(0.95, EPOCH)(updates(37)), 0.95 * np.array(theirs)
    )


@pytest.mark.parametrize("name", EVERY)
def test_lambda_lr_hands_every_update_its_own_factor(name):
    """LambdaLR counts from 0, the schedule from 1.

    The rates stay plain floats, which checkpoints can hold.
    """
    schedule = EVERY[name]
    theirs = torch_rates(lambda o: lr_scheduler.LambdaLR(o, schedule.for_lambda_lr()), 0.3, 53)
    np.testing.assert_allclose(theirs, 0.3 * schedule(updates(53)), rtol=1e-12)
    assert {type(rate) for rate in theirs} == {float}


@pytest.mark.parametrize("name", EVERY)
def test_a_schedule_is_elementwise_and_leaves_its_input_alone(name):
    steps = np.random.default_rng(3).permutation(updates(7 * 3 * 5)).reshape(7, 3, 5)
    before = steps.copy()
    factors = EVERY[name](steps)
    assert factors.shape == (7, 3, 5) and factors.dtype == np.float64 and (steps == before).all()
    assert (
        factors[4, 2, 3] == pytest.approx(EVERY[name](steps[4, 2, 3]), rel=1e-13)
        and type(EVERY[name](2)) is float
    )
    np.testing.assert_array_equal(EVERY[name](steps.astype(np.int64)), factors)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("step", [0, 0.5, -1.0, math.nan, np.array([3.0, 0.0])])
def test_step_before_the_first_update_is_refused(name, step):
    with pytest.raises(ValueError, match="step must be at least 1, the first update, got"):
        EVERY[name](step)


def test_a_schedule_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EVERY["linear"].formula = np.ones_like


@pytest.mark.parametrize("name", sorted(set(EVERY) - RISING))
def test_decay_never_rises_and_never_exceeds_the_peak(name):
    factors = EVERY[name](updates(53))
    assert (np.diff(factors) <= 1e-15).all() and factors[0] <= 1 and (factors > 0).all()


@pytest.mark.parametrize("name", ["linear", "cosine", "cooldown", "warmup_linear"])
def test_past_the_runs_end_the_rate_stays_at_zero(name):
    assert EVERY[name](53) > 0
    np.testing.assert_allclose(EVERY[name](np.array([54, 55, 1000])), 0, atol=1e-16)


@pytest.mark.worked("uit-slides")
def test_slides_inverse_time_decay():
    printed = 0.2 * schedules.inverse_time(1, EPOCH)(updates(4 * EPOCH)).reshape(4, EPOCH)
    np.testing.assert_allclose(
        printed, np.repeat([[0.1], [0.2 / 3], [0.05], [0.04]], EPOCH, axis=1), rtol=1e-15
    )


@pytest.mark.slip(11)
def test_linear_decay_is_not_inverse_time_decay():
    """viblo-lr calls 1/(1 + rate·epoch) linear.

    Linear decay falls by equal amounts, and to nothing.
    """
    straight = schedules.linear(4)(updates(4))
    inverse = schedules.inverse_time(1, epoch=1)(updates(4))
    np.testing.assert_allclose(np.diff(straight), -1 / 4)
    np.testing.assert_allclose(np.diff(1 / inverse), 1)  # its inverse is what is linear
    assert schedules.linear(4)(5) == 0 and schedules.inverse_time(1, epoch=1)(1e9) > 0


@pytest.mark.slip(11)
def test_torchs_linear_lr_ramps_up_unless_told_otherwise():
    theirs = torch_rates(lr_scheduler.LinearLR, 0.3, 7)
    np.testing.assert_allclose(theirs, 0.3 * np.array([5, 7, 9, 11, 13, 15, 15]) / 15, rtol=1e-9)


@pytest.mark.slip(12)
@pytest.mark.parametrize(
    ("schedule", "compounded"),
    [
        (schedules.inverse_time(1, epoch=1), lambda n: 1 / math.factorial(n + 1)),
        (schedules.exponential(0.99, epoch=1), lambda n: 0.99 ** (n * (n + 1) / 2)),
        (schedules.inverse_sqrt_epoch(epoch=1), lambda n: math.factorial(n) ** -0.5),
    ],
)
def test_a_decay_that_is_run_as_printed_compounds(schedule, compounded):
    """viblo-lr prints lr = f(epoch)·lr.

    As code this multiplies all factors so far; α = f(epoch)·α₀ is meant.
    """
    lr = 0.2
    for epoch in range(1, 14):
        lr = schedule(epoch) * lr
        assert lr == pytest.approx(0.2 * compounded(epoch), rel=1e-12)
    assert lr < 0.5 * 0.2 * schedule(13)


@given(total=lengths, at=st.integers(1, 300))
def test_cosine_is_point_symmetric_about_its_middle(total, at):
    """f(t) + f(T + 2 − t) = 1: it starts at 1, ends at 0, and spends (T + 1)/2 as linear decay."""
    at = 1 + at % total
    cosine = schedules.cosine(total)
    assert cosine(at) + cosine(total + 2 - at) == pytest.approx(1, abs=1e-12)
    assert cosine(updates(total)).sum() == pytest.approx(
        schedules.linear(total)(updates(total)).sum()
    )


@given(total=st.integers(2, 300), share=st.floats(0, 1, exclude_max=True))
def test_no_joint_jumps(total, share):
    """Warm-up meets decay at the peak, and the plateau its cooldown: no step exceeds a slope."""
    part = 1 + int(share * (total - 1))
    joined = schedules.warmup_linear(total, part)
    assert (
        np.abs(np.diff(joined(updates(total + 2)))).max()
        <= max(1 / part, 1 / (total - part)) + 1e-12
    )
    assert joined(part) == joined(part + 1) == 1
    cooled = schedules.cooldown(total, part)(updates(total + 2))
    assert (
        np.abs(np.diff(cooled)).max() <= 1 / part + 1e-12
        and (cooled[: total - part + 1] == 1).all()
    )
    assert cooled[total - 1] == pytest.approx(1 / part)


@given(total=st.integers(2, 300), share=st.floats(0, 1, exclude_max=True))
def test_a_cooldown_by_the_root_is_one_minus_the_root_of_what_has_passed(total, share):
    length = 1 + int(share * (total - 1))
    factors = schedules.cooldown(total, length, power=0.5)(updates(total + 3))
    passed = np.clip(np.arange(total + 3) - (total - length), 0, length) / length
    np.testing.assert_allclose(factors, 1 - np.sqrt(passed), atol=1e-15)
    assert factors[total:].tolist() == [0, 0, 0]


@given(low=st.floats(1e-8, 1e-2), high=st.floats(0.1, 100), total=st.integers(2, 300))
def test_ramp_rises_by_one_ratio_from_low_to_high(low, high, total):
    factors = schedules.ramp(low, high, total)(updates(total + 1))
    assert factors[0] == low and factors[-2:] == pytest.approx(high)
    np.testing.assert_allclose(
        np.diff(np.log(factors[:-1])), math.log(high / low) / (total - 1), rtol=1e-6
    )


@pytest.mark.claim("decay-formulas")
@given(first=st.integers(1, 9), epoch=st.integers(1, 13))
def test_the_two_readings_of_times_e_to_the_minus_one(first, epoch):
    """Before epoch n neither acts; in epoch n they agree.

    Then (a) stays and (b) falls by e⁻¹ in every epoch.
    """
    once, every = (
        schedules.exp_drop(first, reading, epoch)(updates(12 * epoch)) for reading in (False, True)
    )
    start = (first - 1) * epoch
    assert (once[:start] == 1).all() and (every[:start] == 1).all()
    np.testing.assert_allclose(once[start:], math.exp(-1))
    np.testing.assert_allclose(every[start : start + epoch], math.exp(-1))
    np.testing.assert_allclose(every[start + epoch :], every[start:-epoch] / math.e)


def test_dropping_every_epoch_from_the_first_is_exponential_decay():
    drop = schedules.exp_drop(1, every_epoch=True, epoch=EPOCH)
    np.testing.assert_allclose(
        drop(updates(37)), schedules.exponential(math.exp(-1), EPOCH)(updates(37))
    )


def test_dropping_once_is_one_step_by_hand():
    once, by_hand = EVERY["exp_drop once"], schedules.steps([2 * EPOCH], [math.exp(-1)])
    np.testing.assert_allclose(once(updates(37)), by_hand(updates(37)))


def test_inverse_square_root_of_epochs_of_one_update_is_that_of_steps():
    factors = schedules.inverse_sqrt_epoch(epoch=1, k=3)(updates(37))
    np.testing.assert_allclose(factors, schedules.inverse_sqrt_step(k=3)(updates(37)))
    np.testing.assert_allclose(factors**-2, updates(37) / 9)


@given(
    first=st.sampled_from(sorted(EVERY)),
    second=st.sampled_from(sorted(EVERY)),
    at=st.integers(1, 60),
)
def test_composition_against_a_loop(first, second, at):
    """`then` restarts the second clock; a product runs both on one clock."""
    a, b = EVERY[first], EVERY[second]
    joined = [a(t) if t <= at else b(t - at) for t in range(1, 54)]
    np.testing.assert_allclose(a.then(at, b)(updates(53)), joined, rtol=1e-13)
    np.testing.assert_allclose(
        (a * b)(updates(53)), [a(t) * b(t) for t in range(1, 54)], rtol=1e-13
    )


def test_a_schedule_times_a_number_is_refused():
    with pytest.raises(TypeError, match="unsupported operand"):
        schedules.linear(5) * 2


def test_plot_draws_the_factors_on_the_axes_it_is_given_or_on_its_own():
    ax = schedules.linear(7).plot(7)
    assert schedules.noam(4, 3).plot(11, ax) is ax
    linear, noam = ax.get_lines()
    np.testing.assert_array_equal(
        linear.get_xydata(), np.stack([updates(7), schedules.linear(7)(updates(7))], axis=1)
    )
    assert len(noam.get_xdata()) == 11 and [line.get_label() for line in (linear, noam)] == [
        "linear",
        "Noam, warm-up 3",
    ]
    mpl.pyplot.close(ax.figure)


def test_schedules_need_no_matplotlib():
    check = "assert 'matplotlib' not in sys.modules"
    code = f"import sys, steadydescent.schedules as s; s.linear(3)(1); {check}"
    subprocess.run([sys.executable, "-c", code], check=True)
