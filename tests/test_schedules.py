"""Schedules give torch's own rates, at every update of a run."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steadydescent.schedules import SCHEDULES, rates


def torch_rates(end: float, peak: float, total: int) -> list[float]:
    """What torch's LinearLR, from 1 to `end` over `total` updates, hands to each update."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], peak)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, end, total_iters=total)
    seen = []
    for _ in range(total):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize("total", [1, 2, 7, 101])
@pytest.mark.parametrize(("schedule", "end"), [("constant", 1.0), ("linear", 0.0)])
def test_rates_are_those_of_torchs_scheduler(schedule, end, total):
    found = rates(schedule, 0.3, total)
    assert found.shape == (total,)
    np.testing.assert_allclose(found, torch_rates(end, 0.3, total), rtol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(peak=st.floats(1e-6, 1e3), total=st.integers(1, 300))
def test_first_update_has_the_peak_rate_and_none_has_more_or_nothing(schedule, peak, total):
    found = rates(schedule, peak, total)
    assert found[0] == peak and found.max() == peak
    assert (found > 0).all() and (np.diff(found) <= 0).all()


@given(total=st.integers(1, 300))
def test_linear_decay_spends_half_the_constant_budget_and_half_a_step(total):
    """Σ 1 − (t−1)/T = (T + 1)/2."""
    assert rates("linear", 1.0, total).sum() == pytest.approx((total + 1) / 2)


@given(total=st.integers(1, 150))
def test_linear_decay_of_a_run_twice_as_long_agrees_at_the_same_share_of_it(total):
    np.testing.assert_allclose(rates("linear", 0.7, 2 * total)[::2], rates("linear", 0.7, total), rtol=1e-12)


def test_unknown_schedule_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"schedule must be one of \['constant', 'linear'\], got 'cosine'"):
        rates("cosine", 0.1, 5)


@pytest.mark.parametrize("peak", [0.0, -0.1, math.inf, math.nan])
def test_peak_that_is_no_rate_is_refused(peak):
    with pytest.raises(ValueError, match=f"peak rate must be positive and finite, got {peak}"):
        rates("constant", peak, 5)


@pytest.mark.parametrize("total", [0, -3])
def test_run_without_updates_is_refused(total):
    with pytest.raises(ValueError, match=f"total must be at least 1 step, got {total}"):
        rates("linear", 0.1, total)
