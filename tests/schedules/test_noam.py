"""Noam's schedule and OpenNMT-tf's wrapper: a tutorial's numbers, a slow reference, laws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadydescent.schedules import (
    constant,
    cosine,
    inverse_sqrt_step,
    inverse_time,
    linear,
    noam,
    steps,
    warm_up,
)

WARMUP = 8000  # OpenNMT-tf's default for its Transformers; the tutorial states it for d = 4 only
SMALLEST = 1e-4


def updates(total):
    return np.arange(1.0, total + 1)


def reference_noam(step, scale, model_dim, warmup_steps):
    """NoamDecay, literally and from 0, as the tutorial's steps 1–7 have it."""
    step = step + 1
    a = 1 / math.sqrt(model_dim)
    b = 1 / math.sqrt(step)
    c = 1 / warmup_steps**1.5 * step
    return scale * a * min(b, c)


def reference_wrapper(schedule, step, step_start, step_duration, minimum_learning_rate):
    """ScheduleWrapper, literally: `schedule` takes a whole step from 0."""
    step = max(step - step_start, 0)
    step //= step_duration
    return max(schedule(step), minimum_learning_rate)


@given(
    scale=st.floats(0.1, 10),
    d_model=st.integers(1, 1024),
    warmup=st.integers(1, 200),
    start=st.integers(0, 40),
    duration=st.integers(1, 9),
    floor=st.floats(0, 0.05),
)
def test_wrapped_noam_is_the_tutorials_formula_from_step_zero_on(
    scale, d_model, warmup, start, duration, floor
):
    def plain(step):
        return reference_noam(step, scale, d_model, warmup)

    wrapped = noam(d_model, warmup, scale).wrapped(start, duration, floor)
    expected = [reference_wrapper(plain, step, start, duration, floor) for step in range(211)]
    np.testing.assert_allclose(wrapped(updates(211)), expected, rtol=1e-12)


INNER = [
    constant(),
    linear(41),
    cosine(41),
    inverse_time(0.3, 5),
    steps([7], [0.1]),
    warm_up(11),
    linear(9).wrapped(3),
]


@given(
    inner=st.sampled_from(INNER),
    start=st.integers(0, 40),
    duration=st.integers(1, 9),
    floor=st.floats(0, 0.9),
)
def test_any_schedule_can_be_wrapped(inner, start, duration, floor):
    wrapped = inner.wrapped(start, duration, floor)
    expected = [
        reference_wrapper(lambda s: inner(s + 1), step, start, duration, floor)
        for step in range(101)
    ]
    np.testing.assert_allclose(wrapped(updates(101)), expected, rtol=1e-13)


@pytest.mark.parametrize("inner", INNER, ids=lambda schedule: schedule.name)
def test_a_wrapper_without_options_changes_nothing(inner):
    np.testing.assert_array_equal(inner.wrapped()(updates(101)), inner(updates(101)))


@pytest.mark.worked("opennmt-tf")
def test_the_tutorials_first_training_step():
    """Logged after the first update, so with step 1.

    Step 2 in the formula, 2.795e−6 before the floor, 1e−4 after.

    It is the rate that the second update takes: the first asked for step 0 and took half of it.
    """
    schedule = noam(d_model=4, warmup=WARMUP, scale=2)
    assert schedule(2) == pytest.approx(2.795e-6, rel=1e-4) and schedule(1) == pytest.approx(
        schedule(2) / 2
    )
    assert schedule.wrapped(floor=SMALLEST)(2) == 1e-4
    assert reference_wrapper(lambda s: reference_noam(s, 2, 4, WARMUP), 1, 0, 1, SMALLEST) == 1e-4


@pytest.mark.slip(17)
def test_the_floor_is_the_larger_of_two_rates_that_are_not_equal():
    """opennmt-tf prints "0.000002795 = 0.0001": the floor is 36 times the rate that it replaces."""
    assert SMALLEST / noam(4, WARMUP, 2)(2) == pytest.approx(35.8, abs=0.05)


@pytest.mark.worked("opennmt-tf")
@pytest.mark.parametrize(("scale", "peak"), [(2, 8.07e-4), (6, 2.42e-3)])
def test_peaks_of_the_tutorials_images(scale, peak):
    """Images 2 and 3, d = 768; their warm-up is not stated, 8000 is assumed."""
    factors = noam(768, WARMUP, scale)(updates(3 * WARMUP))
    assert factors.max() == pytest.approx(peak, rel=5e-4) and factors.argmax() + 1 == WARMUP


@pytest.mark.worked("opennmt-tf")
@pytest.mark.parametrize(
    ("d_model", "scale", "floored"), [(4, 2, 71), (768, 2, 991), (768, 6, 330)]
)
def test_how_long_the_floor_acts_during_warm_up(d_model, scale, floored):
    """As long as t < 1e−4·√d·warmup^(3/2)/scale = 71.6, 991.5, 330.5.

    At d = 4 update 72 is the first above it.
    """
    schedule = noam(d_model, WARMUP, scale)
    raised = schedule.wrapped(floor=SMALLEST)(updates(WARMUP)) > schedule(updates(WARMUP))
    assert raised.sum() == floored and raised[:floored].all()
    assert floored == math.floor(SMALLEST * math.sqrt(d_model) * WARMUP**1.5 / scale)


@pytest.mark.claim("noam-start")
@pytest.mark.worked("opennmt-tf")
def test_a_held_start_holds_the_smallest_rate():
    """Image 4, start_decay_steps = 10 000: held at the floor, then the whole of image 2, later."""
    start, plain = 10_000, noam(768, WARMUP, scale=2)
    held, free = plain.wrapped(start, floor=SMALLEST), plain.wrapped(start)
    assert (held(updates(start + 1)) == SMALLEST).all()
    np.testing.assert_allclose(free(updates(start + 1)), plain(1), rtol=1e-13)
    assert free(updates(200_000)).min() == pytest.approx(plain(1), rel=1e-13)
    np.testing.assert_allclose(
        held(start + updates(3 * WARMUP)), plain.wrapped(floor=SMALLEST)(updates(3 * WARMUP))
    )


@pytest.mark.claim("noam-duration")
@pytest.mark.worked("opennmt-tf")
def test_a_longer_step_stretches_warm_up_and_decay_alike():
    """Image 5, decay_step_duration: every rate lasts that many updates.

    So the peak comes later and stays the same.
    """
    plain = noam(768, WARMUP, scale=2)(updates(2 * WARMUP))
    stretched = noam(768, WARMUP, scale=2).wrapped(0, 3)
    np.testing.assert_allclose(stretched(updates(6 * WARMUP)), np.repeat(plain, 3), rtol=1e-13)


@given(d_model=st.integers(1, 1024), warmup=st.integers(1, 500), scale=st.floats(0.1, 10))
def test_noam_peaks_at_the_end_of_its_warm_up(d_model, warmup, scale):
    """The peak is scale/√(d·warmup) at t = warmup.

    The rates rise strictly before it and fall strictly after it.
    """
    factors = noam(d_model, warmup, scale)(updates(2 * warmup + 1))
    assert factors.argmax() + 1 == warmup
    assert factors.max() == pytest.approx(scale / math.sqrt(d_model * warmup), rel=1e-12)
    assert (np.diff(factors[:warmup]) > 0).all() and (np.diff(factors[warmup - 1 :]) < 0).all()


def test_noam_is_a_linear_warm_up_that_meets_the_inverse_square_root():
    """The two branches meet at t = warmup; from there on the warm-up's length no longer shows."""
    factors, peak = noam(7, 11)(updates(53)), 1 / math.sqrt(7 * 11)
    np.testing.assert_allclose(factors[:11], peak * warm_up(11)(updates(11)))
    np.testing.assert_allclose(factors[10:], inverse_sqrt_step(k=7**-0.5)(updates(53)[10:]))
    np.testing.assert_allclose(factors[12:], noam(7, 13)(updates(53))[12:])


@pytest.mark.claim("noam-scale")
@given(warmup=st.integers(1, 500), longer=st.integers(1, 500))
def test_a_longer_warm_up_lowers_the_peak_and_a_larger_scale_raises_it(warmup, longer):
    """opennmt-tf's "raising the value allows higher rates" holds for scale, not for warm-up.

    It does not say of which; scale is what differs in its images 2 and 3.
    """
    total = 2 * (warmup + longer)
    peaks = [noam(768, steps, 2)(updates(total)).max() for steps in (warmup, warmup + longer)]
    assert (
        peaks[1] / peaks[0] == pytest.approx(math.sqrt(warmup / (warmup + longer)))
        and peaks[1] < peaks[0]
    )
    assert noam(768, warmup, 6)(updates(total)).max() == pytest.approx(3 * peaks[0])


@pytest.mark.claim("noam-warmup")
@given(warmup=st.integers(2, 500), shorter=st.integers(1, 499))
def test_a_shorter_warm_up_raises_the_rate_faster(warmup, shorter):
    """True as arithmetic: the slope of the warm-up is scale/√d·warmup^(−3/2).

    At no update is the rate lower.
    """
    shorter = 1 + shorter % (warmup - 1)
    short, long = (noam(768, steps, 2)(updates(2 * warmup)) for steps in (shorter, warmup))
    assert short[0] / long[0] == pytest.approx((warmup / shorter) ** 1.5) and short[0] > long[0]
    assert (short >= long * (1 - 1e-12)).all()
