"""Averages: the slides' worked example, closed forms, and what debiasing does and does not do."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steadydescent.averages import debias, decay_for_window, ewa, ramped_decay

DAYS = torch.tensor([40.0, 49.0], dtype=torch.float64)


def averaged(values, beta):
    average = torch.zeros((), dtype=torch.float64)
    for value in values:
        average = ewa(average, value, beta)
    return average


def test_slides_worked_example():
    """uit-slides: V₁ = 40·0.02 is printed as 8; it is 0.8. V₂ = 1.764, corrected 40 and 44.5454…"""
    first, second = averaged(DAYS[:1], 0.98), averaged(DAYS, 0.98)
    assert first.item() == pytest.approx(0.8, abs=1e-12)
    assert second.item() == pytest.approx(1.764, abs=1e-12)
    assert debias(first, 0.98, 1).item() == pytest.approx(40.0, abs=1e-12)
    assert debias(second, 0.98, 2).item() == pytest.approx(44.5454545, abs=1e-7)


@pytest.mark.parametrize(("beta", "window"), [(0.9, 10), (0.98, 50), (0.5, 2), (0.999, 1000)])
def test_windows_of_the_sources(beta, window):
    assert decay_for_window(window) == pytest.approx(beta, abs=1e-12)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=40), st.floats(0.0, 0.99))
def test_average_equals_its_weighted_sum(values, beta):
    t = len(values)
    closed = sum((1 - beta) * beta ** (t - 1 - i) * value for i, value in enumerate(values))
    assert averaged(torch.tensor(values, dtype=torch.float64), beta).item() == pytest.approx(closed, abs=1e-9)


@given(st.floats(-1e3, 1e3), st.floats(0.0, 0.9999), st.integers(1, 60))
def test_debiased_average_of_a_constant_is_the_constant(value, beta, steps):
    average = averaged(torch.full((steps,), value, dtype=torch.float64), beta)
    assert debias(average, beta, steps).item() == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_debiasing_keeps_its_digits_near_one():
    """1 − β^t in single precision is off by 3·10⁻⁴ at β = 0.9999, t = 2; through expm1 it is not."""
    exact = 1 - np.longdouble(0.9999) ** 2
    assert (1 / debias(torch.tensor(1.0), 0.9999, torch.tensor(2.0))).item() == pytest.approx(float(exact), rel=1e-6)


def test_bias_correction_multiplies_the_variance():
    """The claim `bias-correction-reduces-noise`, refuted: V/(1 − β^t) has (1 − β^t)^−2 times the variance of V."""
    values = torch.randn(5, 20_011, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    raw = averaged(values, 0.9)
    assert (debias(raw, 0.9, 5).var() / raw.var()).item() == pytest.approx((1 - 0.9**5) ** -2, rel=1e-9)


def test_one_wild_value_moves_the_average_by_its_share():
    """The claim `ema-outlier`: a value off by δ moves the average by (1 − β)·δ."""
    calm = torch.ones(7, dtype=torch.float64)
    wild = calm.clone()
    wild[-1] += 100
    assert (averaged(wild, 0.98) - averaged(calm, 0.98)).item() == pytest.approx(2.0, abs=1e-9)


def test_ramp_starts_at_two_elevenths_and_reaches_its_cap_after_ninety_thousand_steps():
    assert ramped_decay(1) == 2 / 11
    first = next(t for t in range(89_900, 90_100) if ramped_decay(t) == 0.9999)
    assert first == 89_990


@pytest.mark.parametrize("cap", [-0.1, 1.0, 1.5])
def test_decay_outside_its_range_is_refused_by_name(cap):
    with pytest.raises(ValueError, match=rf"cap must be in \[0, 1\), got {cap}"):
        ramped_decay(1, cap)


@pytest.mark.parametrize("window", [0.5, float("nan")])
def test_window_below_one_step_is_refused(window):
    with pytest.raises(ValueError, match="window must be at least 1 step"):
        decay_for_window(window)
