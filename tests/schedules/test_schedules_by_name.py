"""Schedules by name: rates of a whole run from plain numbers; a sentence refuses a bad option."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadydescent import schedules
from steadydescent.schedules import REQUIRED, SCHEDULES, named, options_of, rates

T, E = 53, 5
BY_NAME = {
    "constant": ({}, schedules.constant()),
    "linear": ({"end": 0.1}, schedules.linear(T, 0.1)),
    "inverse-time": ({"rate": 0.3}, schedules.inverse_time(0.3, E)),
    "exponential": ({"base": 0.95}, schedules.exponential(0.95, E)),
    "inverse-sqrt-epoch": ({"k": 2}, schedules.inverse_sqrt_epoch(E, 2)),
    "inverse-sqrt-step": ({"k": 2}, schedules.inverse_sqrt_step(2)),
    "steps": (
        {"shares": [0.5, 0.75], "factors": [0.1, 0.2]},
        schedules.steps([26, 40], [0.1, 0.2]),
    ),
    "exp-drop": ({"first_epoch": 3, "every_epoch": True}, schedules.exp_drop(3, True, E)),
    "noam": ({"d_model": 7, "warmup": 11, "scale": 2}, schedules.noam(7, 11, 2)),
    "cosine": ({"end": 0.2}, schedules.cosine(T, 0.2)),
    "warmup-linear": ({"warmup_share": 0.2}, schedules.warmup_linear(T, 11)),
    "cooldown": ({"cooldown_share": 0.2}, schedules.cooldown(T, 11)),
    "ramp": ({"low": 1e-5, "high": 0.5}, schedules.ramp(1e-5, 0.5, T)),
}
COUNT_EPOCHS = {"inverse-time", "exponential", "inverse-sqrt-epoch", "exp-drop"}


def test_every_name_is_tried_and_a_plateau_which_needs_a_state_is_none():
    assert set(BY_NAME) == set(SCHEDULES) and "plateau" not in SCHEDULES


@pytest.mark.parametrize("name", BY_NAME)
def test_rates_are_the_peak_times_the_schedule_of_that_name(name):
    options, schedule = BY_NAME[name]
    whole_run = rates(name, 0.3, T, epoch=E, **json.loads(json.dumps(options)))
    assert whole_run.shape == (T,) and whole_run.dtype == np.float64
    np.testing.assert_array_equal(whole_run, 0.3 * schedule(np.arange(1.0, T + 1)))
    np.testing.assert_array_equal(
        whole_run, 0.3 * SCHEDULES[name](total=T, epoch=E, **options)(np.arange(1.0, T + 1))
    )


@pytest.mark.parametrize("name", BY_NAME)
def test_every_schedule_can_be_held_stretched_and_floored_by_name(name):
    options, schedule = BY_NAME[name]
    whole_run = rates(name, 0.3, T, epoch=E, step_start=7, step_duration=3, floor=0.05, **options)
    inner = [1 + max(t - 7, 0) // 3 for t in range(T)]
    np.testing.assert_allclose(
        whole_run, 0.3 * np.array([max(schedule(step), 0.05) for step in inner]), rtol=1e-13
    )


@given(peak=st.floats(1e-6, 1e3), total=st.integers(1, 300), epoch=st.none() | st.integers(1, 50))
def test_constant_and_linear_rates_are_bit_for_bit_those_of_the_published_runs(peak, total, epoch):
    step = np.arange(1.0, total + 1)
    np.testing.assert_array_equal(rates("constant", peak, total, epoch), peak * np.ones(total))
    np.testing.assert_array_equal(
        rates("linear", peak, total, epoch), peak * (1 - (step - 1) / total)
    )


@given(total=st.integers(1, 300))
def test_linear_decay_spends_half_the_constant_budget_and_half_a_step(total):
    """Σ 1 − (t−1)/T = (T + 1)/2."""
    assert rates("linear", 1.0, total).sum() == pytest.approx((total + 1) / 2)


@given(total=st.integers(1, 150), schedule=st.sampled_from(["linear", "cosine"]))
def test_decay_of_a_run_twice_as_long_agrees_at_the_same_share_of_it(total, schedule):
    np.testing.assert_allclose(
        rates(schedule, 0.7, 2 * total)[::2], rates(schedule, 0.7, total), atol=1e-15
    )


@pytest.mark.parametrize("name", BY_NAME)
def test_the_length_of_an_epoch_is_needed_where_epochs_are_counted_and_only_there(name):
    options, _ = BY_NAME[name]
    if name in COUNT_EPOCHS:
        with pytest.raises(
            ValueError, match="epoch, the number of updates in an epoch, must be given"
        ):
            rates(name, 0.3, T, **options)
    else:
        np.testing.assert_array_equal(
            rates(name, 0.3, T, **options), rates(name, 0.3, T, epoch=E, **options)
        )


@pytest.mark.parametrize("name", BY_NAME)
def test_options_say_their_defaults_and_which_are_required(name):
    options, _ = BY_NAME[name]
    allowed = options_of(name)
    assert set(options) <= set(allowed)
    assert list(allowed)[-3:] == ["step_start", "step_duration", "floor"]
    required = {option for option, default in allowed.items() if default is REQUIRED}
    defaults = {option: default for option, default in allowed.items() if default is not REQUIRED}
    needed = {option: options[option] for option in required}
    # defaults said aloud change nothing
    np.testing.assert_array_equal(
        rates(name, 0.3, T, E, **needed, **defaults), rates(name, 0.3, T, E, **needed)
    )


def test_unknown_schedule_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError) as refusal:
        rates("plateau", 0.1, 5)
    assert str(refusal.value) == f"schedule must be one of {sorted(BY_NAME)}, got 'plateau'"


@pytest.mark.parametrize("peak", [0.0, -0.1, math.inf, math.nan])
def test_peak_that_is_no_rate_is_refused(peak):
    with pytest.raises(ValueError, match=f"^peak rate must be positive and finite, got {peak}$"):
        rates("constant", peak, 5)


@pytest.mark.parametrize("total", [0, -3])
def test_run_without_updates_is_refused(total):
    with pytest.raises(
        ValueError, match=f"^total must be a whole number of at least 1, got {total}$"
    ):
        rates("linear", 0.1, total)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        (
            "constant",
            {"rate": 1},
            r"'constant' has no option \['rate'\]; allowed are \['step_start', ",
        ),
        (
            "cosine",
            {"warmup": 5, "ends": 0},
            r"'cosine' has no option \['ends', 'warmup'\]; allowed are \['end', ",
        ),
        (
            "noam",
            {"scale": 2},
            r"'noam' needs the options \['d_model', 'warmup'\]; allowed are \['d_model', ",
        ),
        ("inverse-time", {}, r"'inverse-time' needs the options \['rate'\]"),
        ("linear", {"epoch": 0}, "epoch must be a whole number of at least 1, got 0"),
        ("linear", {"floor": -1}, r"floor must be in \[0, 1\), got -1"),
        ("linear", {"floor": "0.1"}, "floor must be a number, got '0.1'"),
        ("warmup-linear", {"warmup_share": 0}, r"warmup_share must be in \(0, 1\), got 0"),
        (
            "warmup-linear",
            {"warmup_share": 0.001},
            "warmup_share must be some but not all of the 53 updates, got 0.001: 0",
        ),
        ("warmup-linear", {"warmup_share": 1}, r"warmup_share must be in \(0, 1\), got 1"),
        (
            "cooldown",
            {"cooldown_share": 0.999},
            "cooldown_share must be some but not all of the 53 updates, got 0.999",
        ),
        ("cooldown", {"cooldown_share": -0.1}, r"cooldown_share must be in \(0, 1\), got -0.1"),
        (
            "steps",
            {"shares": [0.7, 0.5], "factors": [0.1, 0.1]},
            r"milestones must increase, got \[37, 26\]",
        ),
        (
            "steps",
            {"shares": 0.5, "factors": [0.1]},
            "shares must be a list, one value a milestone, got 0.5",
        ),
        (
            "steps",
            {"shares": [0.5], "factors": 0.1},
            "factors must be a list, one value a milestone, got 0.1",
        ),
    ],
)
def test_bad_option_is_refused_by_name(name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        rates(name, 0.3, T, **options)


def test_a_named_schedule_outlives_its_run():
    """A named schedule is like any other: it composes and plots, and is not tied to `rates`."""
    assert (named("linear", 10) * named("cosine", 10))(6) == pytest.approx(0.25)
