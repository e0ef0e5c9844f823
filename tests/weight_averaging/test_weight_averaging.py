"""Readouts: closed forms of their mixing weights, reductions to each other, torch's classes, the
tutorials' loops.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from steadydescent.averages import debias, ewa
from steadydescent.weight_averaging import (
    KINDS,
    Debiased,
    Ramped,
    Readout,
    TailMean,
    checkpoint_weights,
    coefficients,
    ema_weights,
    mix,
    parse,
    ramped_weights,
    snapshot_weights,
    tail_weights,
)
from steadydescent.weight_averaging.readouts import READOUTS, STATISTICS

TRAJECTORY = torch.randn(41, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def read(weights, values=TRAJECTORY):
    average = torch.zeros_like(values[0])
    for weight, value in zip(weights, values, strict=True):
        average = mix(average, value, float(weight))
    return average


def test_debiased_ema_as_a_running_average_equals_ewa_then_debias():
    average = torch.zeros(7, dtype=torch.float64)
    for value in TRAJECTORY:
        average = ewa(average, value, 0.93)
    torch.testing.assert_close(
        read(ema_weights(41, 0.93)), debias(average, 0.93, 41), rtol=1e-12, atol=1e-12
    )


def test_started_ema_is_the_debiased_one_with_a_share_of_the_first_weights():
    """timm's and zh-ema's EMA starts at θ₀; our `ema-start` reads it from the debiased one."""
    first = torch.full((7,), 5.0, dtype=torch.float64)
    started = first
    for value in TRAJECTORY:
        started = ewa(started, value, 1 - 1 / (0.3 * 41))
    readout, weights = parse("ema-start-30", 41)
    torch.testing.assert_close(
        mix(read(weights), first, readout.start_share(41)), started, rtol=1e-12, atol=1e-12
    )


def test_started_ema_equals_torchs_averaged_model():
    model = torch.nn.Linear(3, 2)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average.update_parameters(model)  # torch's first call copies: that is θ₀
    ours = model.weight.detach().clone()
    for seed in range(17):
        with torch.no_grad():
            model.weight.copy_(torch.randn(2, 3, generator=torch.Generator().manual_seed(seed)))
        average.update_parameters(model)
        ours = ewa(ours, model.weight.detach(), 0.9)
    torch.testing.assert_close(ours, average.module.weight.detach(), rtol=1e-6, atol=1e-6)


def test_tail_mean_equals_torchs_swa():
    model = torch.nn.Linear(7, 1, bias=False).double()
    average = AveragedModel(model)
    for value in TRAJECTORY[-13:]:
        with torch.no_grad():
            model.weight.copy_(value[None])
        average.update_parameters(model)
    torch.testing.assert_close(
        read(tail_weights(41, 13)), average.module.weight.detach()[0], rtol=1e-12, atol=1e-12
    )


def test_ramp_equals_opennmts_loop():
    shadow = TRAJECTORY[0].clone()
    for step, value in enumerate(TRAJECTORY[1:], start=2):
        decay = 1 - min(0.9999, (1.0 + step) / (10.0 + step))
        shadow = shadow - (shadow - value) * decay
    torch.testing.assert_close(read(ramped_weights(41)), shadow, rtol=1e-12, atol=1e-12)


def test_checkpoint_mean_equals_opennmts_sum_of_shares():
    """Zeros, then value/number added for each of the last two checkpoints."""
    total = torch.zeros(7, dtype=torch.float64)
    for step in (41, 36):
        total += TRAJECTORY[step - 1] / 2
    torch.testing.assert_close(read(checkpoint_weights(41, 2, 5)), total, rtol=1e-12, atol=1e-12)


def test_checkpoint_average_of_one_is_the_last_weights():
    assert torch.equal(read(checkpoint_weights(41, 1, 5)), TRAJECTORY[-1])


@pytest.mark.parametrize(("name", "step"), [("at-100", 41), ("at-50", 20), ("at-2", 1)])
def test_snapshot_is_the_weights_after_that_step_whatever_came_before_and_after(name, step):
    readout, weights = parse(name, 41)
    assert torch.equal(read(weights), TRAJECTORY[step - 1])
    assert coefficients(weights).tolist() == [float(t == step) for t in range(1, 42)]
    assert (readout.accumulator, readout.statistics) == (readout, "averaged")
    assert readout.one_step and readout.start_share(41) == 0


def test_snapshot_at_the_end_is_a_checkpoint_mean_of_one():
    assert np.array_equal(snapshot_weights(41, 41), checkpoint_weights(41, 1, 5))


def test_tail_of_one_is_the_last_weights_and_of_all_is_the_mean():
    assert torch.equal(read(tail_weights(41, 1)), TRAJECTORY[-1])
    torch.testing.assert_close(
        read(tail_weights(41, 41)), TRAJECTORY.mean(0), rtol=1e-12, atol=1e-12
    )


def test_checkpoints_at_every_step_are_the_tail_mean():
    assert np.allclose(
        coefficients(checkpoint_weights(41, 9, 1)), coefficients(tail_weights(41, 9))
    )


def test_ema_without_memory_is_the_last_weights():
    torch.testing.assert_close(read(ema_weights(41, 0.0)), TRAJECTORY[-1], rtol=1e-12, atol=1e-12)


@pytest.mark.slip(15)
@pytest.mark.claim("ema-window")
@pytest.mark.parametrize("beta", [0.5, 0.9, 0.98])
def test_ema_has_lag_and_variance_of_a_mean_of_one_plus_beta_over_one_minus_beta(beta):
    """zh-ema's slip: β matches the mean of the past (1+β)/(1−β) values in lag and variance, not of
    1/(1−β).
    """
    share = coefficients(ema_weights(4_000, beta))
    values = (1 + beta) / (1 - beta)
    lag = (share[::-1] * np.arange(4_000)).sum()
    assert lag == pytest.approx((values - 1) / 2, rel=1e-6)
    assert (share**2).sum() == pytest.approx(1 / values, rel=1e-6)


NAMES = st.sampled_from(
    ["at-50", "ema-2", "ema-30", "ema-ramp", "tail-25", "checkpoints-2", "checkpoints-8"]
)


@given(NAMES, st.integers(60, 500))
def test_coefficients_sum_to_one_and_none_is_negative(name, total):
    share = coefficients(parse(name, total)[1])
    assert share.sum() == pytest.approx(1.0, abs=1e-9)
    assert (share >= 0).all()


@given(NAMES)
def test_coefficients_are_what_the_running_average_computes(name):
    weights = parse(name, 60)[1]
    values = torch.randn(60, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    expected = torch.from_numpy(coefficients(weights)) @ values
    torch.testing.assert_close(read(weights, values), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "steps", "sentence"),
    [
        ("ema-0.5", 100, "window must be at least 1 step"),
        ("tail-0", 100, "length must be a whole number of at least 1, got 0"),
        ("checkpoints-30", 100, "has no 30 checkpoints"),
        ("checkpoints-2.5", 100, "unknown readout"),
        ("at-0", 100, "step must be a whole number of at least 1, got 0"),
        ("at-0.4", 100, "step must be a whole number of at least 1, got 0"),
        ("at-101", 100, "step must be at most the 100 steps of the run, got 101"),
        ("at-", 100, "unknown readout 'at-'"),
        ("ema-10.0", 100, "unknown readout 'ema-10.0'"),
        ("ema-1e1", 100, "unknown readout"),
        ("tail-inf", 100, "unknown readout"),
        ("tail-nan", 100, "unknown readout"),
        ("ema-10/averaged", 100, "unknown readout"),
        ("ema-10/", 100, "unknown readout"),
        ("last-3", 100, "unknown readout"),
        ("ema-ramp-3", 100, "unknown readout"),
        ("swa", 100, "'swa'"),
        ("ema-x", 100, "'ema-x'"),
    ],
)
def test_bad_readouts_are_refused_by_name(name, steps, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse(name, steps)


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("kind", READOUTS)
def test_a_readout_has_one_text_and_comes_back_from_it(kind, statistics):
    for number in (3, 12.5) if READOUTS[kind].number == "PERCENT" else (7,):
        readout = Readout(kind, float(number) if READOUTS[kind].number else None, statistics)
        assert Readout.parse(readout.text) == readout
        assert Readout.parse(readout.text).accumulator.statistics == "averaged"
    assert KINDS.count(kind) >= 1


def test_arrays_of_weights_are_the_sequences_that_averages_of_a_module_take():
    """One formula each: to the bit, but for the debiased one, whose powers numpy rounds."""
    steps = range(1, 98)
    assert ramped_weights(97, 0.9).tolist() == [Ramped(0.9)(step) for step in steps]
    assert tail_weights(97, 53).tolist()[44:] == [TailMean(45)(step) for step in steps][44:]
    np.testing.assert_allclose(
        ema_weights(97, 0.93), [Debiased(0.93)(step) for step in steps], rtol=1e-15
    )
