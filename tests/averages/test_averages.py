"""Averages: the slides' worked example, closed forms, and what debiasing does and does not do."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steadydescent.averages import (
    SimpleMovingAverage,
    debias,
    decay_for_window,
    ewa,
    mean_length,
    ramped_decay,
    window,
)

DAYS = torch.tensor([40.0, 49.0], dtype=torch.float64)


def averaged(values, beta):
    average = torch.zeros((), dtype=torch.float64)
    for value in values:
        average = ewa(average, value, beta)
    return average


@pytest.mark.worked("uit-slides")
@pytest.mark.slip(1)
def test_slides_worked_example():
    """uit-slides: V₁ = 40·0.02 is printed as 8; it is 0.8. V₂ = 1.764, corrected 40 and 44.5454…"""
    first, second = averaged(DAYS[:1], 0.98), averaged(DAYS, 0.98)
    assert first.item() == pytest.approx(0.8, abs=1e-12)
    assert second.item() == pytest.approx(1.764, abs=1e-12)
    assert debias(first, 0.98, 1).item() == pytest.approx(40.0, abs=1e-12)
    assert debias(second, 0.98, 2).item() == pytest.approx(44.5454545, abs=1e-7)


@pytest.mark.worked("uit-slides")
@pytest.mark.worked("zh-ema")
@pytest.mark.parametrize(("beta", "values"), [(0.9, 10), (0.98, 50), (0.5, 2), (0.999, 1000)])
def test_windows_of_the_sources(beta, values):
    assert decay_for_window(values) == pytest.approx(beta, abs=1e-12)
    assert window(beta) == pytest.approx(values, rel=1e-12)


@given(st.floats(0.0, 0.9999))
def test_window_undoes_the_decay_for_it(beta):
    assert decay_for_window(window(beta)) == pytest.approx(beta, abs=1e-12)


@pytest.mark.slip(9)
@pytest.mark.parametrize("beta", [0.5, 0.9, 0.98, 0.999])
def test_window_counts_values_and_is_no_error(beta):
    """uit-slides: V_t is near the truth "by 1/(1−β)".

    The error on a constant c is β^t·c, in c's unit; it goes to 0.

    1/(1−β) is the number of values that hold 1 − β^(1/(1−β)) of the weight: 75 % at β = 0.5, 63 %
    as β → 1.
    """
    steps = round(20 * window(beta))
    for truth in (40.0, 4.0):
        error = truth - averaged(torch.full((steps,), truth, dtype=torch.float64), beta).item()
        assert error == pytest.approx(beta**steps * truth, abs=1e-12)
        assert error < 1e-5 < window(beta)
    latest = sum((1 - beta) * beta**k for k in range(round(window(beta))))
    assert latest == pytest.approx(1 - beta ** window(beta))
    assert 1 - 1 / math.e < latest <= 0.75


@pytest.mark.claim("averages-smooth")
@pytest.mark.claim("ema-window")
@pytest.mark.slip(15)
@pytest.mark.worked("zh-ema")
@pytest.mark.parametrize(("beta", "values"), [(0.5, 3), (0.9, 19), (0.98, 99), (0.999, 1999)])
def test_simple_average_of_mean_length_has_the_same_lag_and_variance(beta, values):
    """Shares c_k have the lag Σ k·c_k and the variance Σ c_k².

    Those of (1+β)/(1−β) values match, of 1/(1−β) values neither.
    """
    shares = (1 - beta) * beta ** np.arange(40 * window(beta))
    lag, variance = shares @ np.arange(len(shares)), shares @ shares
    assert mean_length(beta) == pytest.approx(values, rel=1e-12)
    assert (values - 1) / 2 == pytest.approx(lag, rel=1e-9) and 1 / values == pytest.approx(
        variance, rel=1e-9
    )
    assert (window(beta) - 1) / 2 < 0.51 * lag and 1 / window(beta) > 1.49 * variance


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=40), st.floats(0.0, 0.99))
def test_average_equals_its_weighted_sum(values, beta):
    t = len(values)
    closed = sum((1 - beta) * beta ** (t - 1 - i) * value for i, value in enumerate(values))
    assert averaged(torch.tensor(values, dtype=torch.float64), beta).item() == pytest.approx(
        closed, abs=1e-9
    )


@given(st.floats(-1e3, 1e3), st.floats(0.0, 0.9999), st.integers(1, 60))
def test_debiased_average_of_a_constant_is_the_constant(value, beta, steps):
    average = averaged(torch.full((steps,), value, dtype=torch.float64), beta)
    assert debias(average, beta, steps).item() == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_debiasing_keeps_its_digits_near_one():
    """1 − β^t in single precision is off by 3·10⁻⁴ at β = 0.9999, t = 2; by expm1 it is not."""
    exact = 1 - np.longdouble(0.9999) ** 2
    assert (1 / debias(torch.tensor(1.0), 0.9999, torch.tensor(2.0))).item() == pytest.approx(
        float(exact), rel=1e-6
    )


@pytest.mark.claim("ewa-bias-correction-early")
@pytest.mark.parametrize(("beta", "steps"), [(0.5, 7), (0.9, 44), (0.98, 229), (0.999, 4613)])
def test_correction_is_within_one_percent_after_its_early_steps(beta, steps):
    """1/(1 − β^t) falls to 1, and to 1.01 by t = ln(0.01/1.01)/ln β: about 4.6 windows."""
    factors = debias(torch.ones(steps + 50, dtype=torch.float64), beta, torch.arange(1, steps + 51))
    assert steps == math.ceil(math.log(0.01 / 1.01) / math.log(beta))
    assert (factors.diff() <= 0).all() and factors[-1] >= 1
    assert factors[0].item() == pytest.approx(1 / (1 - beta))
    assert factors[steps - 2] > 1.01 >= factors[steps - 1]


@pytest.mark.claim("bias-correction-reduces-noise")
def test_bias_correction_multiplies_the_variance():
    """The claim `bias-correction-reduces-noise`, refuted.

    V/(1 − β^t) has (1 − β^t)^−2 times the variance of V.
    """
    values = torch.randn(5, 20_011, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    raw = averaged(values, 0.9)
    assert (debias(raw, 0.9, 5).var() / raw.var()).item() == pytest.approx(
        (1 - 0.9**5) ** -2, rel=1e-9
    )


@pytest.mark.claim("ema-outlier")
def test_one_wild_value_moves_the_average_by_its_share():
    """The claim `ema-outlier`: a value off by δ moves the average by (1 − β)·δ."""
    calm = torch.ones(7, dtype=torch.float64)
    wild = calm.clone()
    wild[-1] += 100
    assert (averaged(wild, 0.98) - averaged(calm, 0.98)).item() == pytest.approx(2.0, abs=1e-9)


@pytest.mark.claim("ema-decay-values")
@pytest.mark.parametrize(
    ("beta", "updates"), [(0.9, 22), (0.99, 230), (0.999, 2_302), (0.9999, 23_025)]
)
def test_first_value_weighs_a_tenth_after_two_point_three_windows(beta, updates):
    """β^t = 1/10 at t = ln 10/−ln β, about 2.3/(1 − β); until then an average follows its start."""
    shares = torch.ones((), dtype=torch.float64)
    for step in range(1, updates + 2):
        shares = ewa(shares, torch.zeros((), dtype=torch.float64), beta)
        assert (shares.item() > 0.1) == (step < updates)
    assert updates * (1 - beta) == pytest.approx(math.log(10), rel=0.05)


def test_each_replica_averages_with_its_own_decay():
    """β of shape [R, 1], zero among them, gives each row what a number gives it alone."""
    betas = [0.0, 0.5, 0.98]
    stream = torch.randn(17, 3, 11, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    together = torch.zeros(3, 11, dtype=torch.float64)
    stacked = torch.tensor(betas, dtype=torch.float64)[:, None]
    for values in stream:
        together = ewa(together, values, stacked)
    corrected = debias(together, stacked, torch.tensor(17))
    for r, beta in enumerate(betas):
        alone = averaged(stream[:, r], beta)
        assert torch.equal(together[r], alone)
        torch.testing.assert_close(corrected[r], debias(alone, beta, 17), rtol=1e-14, atol=0)
    assert torch.equal(corrected[0], stream[-1, 0])


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


@pytest.mark.parametrize("function", [window, mean_length])
@pytest.mark.parametrize("beta", [-0.1, 1.0, float("nan")])
def test_lengths_of_an_average_refuse_what_is_no_decay(function, beta):
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\), got"):
        function(beta)


def simple_averages(values, length):
    average = SimpleMovingAverage(length)
    return torch.stack([average.update(value) for value in values])


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=40), st.integers(1, 12))
def test_simple_average_is_the_mean_of_the_last_values_that_are_there(values, length):
    means = simple_averages(values, length)
    expected = [np.mean(values[max(0, t - length) : t]) for t in range(1, len(values) + 1)]
    np.testing.assert_allclose(means.numpy(), expected, atol=1e-11)


@given(st.floats(-1e3, 1e3), st.integers(1, 12), st.integers(1, 40))
def test_simple_average_of_a_constant_is_the_constant(value, length, steps):
    assert simple_averages([value] * steps, length)[-1].item() == pytest.approx(value, rel=1e-14)


def test_simple_average_over_one_value_is_the_stream_itself():
    stream = torch.randn(13, 3, 5, generator=torch.Generator().manual_seed(4))
    assert torch.equal(simple_averages(stream, 1), stream)


@given(st.integers(0, 40), st.integers(1, 12), st.integers(0, 99))
def test_average_that_is_stored_and_loaded_goes_on_with_the_same_bits(cut, length, seed):
    stream = torch.randn(40, 3, generator=torch.Generator().manual_seed(seed))
    first, second = SimpleMovingAverage(length), SimpleMovingAverage(length)
    before = [first.update(value) for value in stream[:cut]]
    state = first.state_dict()
    first.update(-stream[0])  # the state is a copy: what happens to the first no longer concerns it
    second.load_state_dict(state)
    first.load_state_dict(state)
    for value in stream[cut:]:
        first.update(-value)  # nor does it the second, though both were loaded from one state
    after = [second.update(value) for value in stream[cut:]]
    assert torch.equal(torch.stack(before + after), simple_averages(stream, length))


def test_rounding_errors_of_the_streaming_form_do_not_gather():
    """10⁵ values near 1000 in single precision: this form stays within 16 ulp.

    The plain streaming form drifts.
    """
    length, total = 50, 100_000
    stream = 1000 + torch.randn(total, generator=torch.Generator().manual_seed(5))
    average, naive, ulp = SimpleMovingAverage(length), stream[:length].mean(), 2.0**-14
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), stream.double().cumsum(0)])
    worst = drift = 0.0
    for t, value in enumerate(stream):
        mean = average.update(value)
        if t >= length:
            exact = (sums[t + 1] - sums[t + 1 - length]) / length
            naive = naive + (value - stream[t - length]) / length
            worst, drift = max(worst, abs(mean - exact).item()), abs(naive - exact).item()
    assert worst < 16 * ulp < drift


def test_infinity_is_forgotten_two_windows_after_it_came():
    values = torch.ones(29)
    values[8] = torch.inf
    means = simple_averages(values, 7)
    assert (
        (means[:8] == 1).all() and not means[8:15].isfinite().any() and (means[8 + 14 :] == 1).all()
    )


def test_values_handed_out_are_copies():
    average = SimpleMovingAverage(3)
    average.update(torch.ones(5)).fill_(7)
    assert torch.equal(average.update(torch.ones(5)), torch.ones(5))


def test_simple_average_keeps_no_graph():
    assert not SimpleMovingAverage(2).update(torch.ones(3, requires_grad=True)).requires_grad


def test_simple_average_refuses_by_name_and_stays_as_it_was():
    with pytest.raises(ValueError, match="window must be a whole number of at least 1, got 0"):
        SimpleMovingAverage(0)
    average = SimpleMovingAverage(2)
    with pytest.raises(ValueError, match="there is no average yet"):
        _ = average.value
    average.update(torch.ones(3))
    for wrong, reason in [
        (torch.ones(2), r"\(3,\) of torch.float32, got \(2,\)"),
        (torch.ones(3).double(), "got .* torch.float64"),
        (torch.ones(3, dtype=torch.int64), "floating-point, got torch.int64"),
    ]:
        with pytest.raises(ValueError, match=reason):
            average.update(wrong)
    with pytest.raises(ValueError, match="window of the state must be 2, got 5"):
        average.load_state_dict(SimpleMovingAverage(5).state_dict())
    assert torch.equal(average.value, torch.ones(3)) and average.count == 1


PRECISIONS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (3, 0), (16,), (33,), (3, 5)], ids=str)
@pytest.mark.parametrize("length", [1, 3])
def test_simple_average_of_every_precision_is_the_plain_mean_and_goes_on_from_its_state(
    dtype, shape, length
):
    values = [
        torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
        for seed in range(8)
    ]
    average = SimpleMovingAverage(length)
    for number, value in enumerate(values, start=1):
        average_value = average.update(value.clone().requires_grad_())
        expected = torch.stack(values[max(0, number - length) : number]).double().mean(0)
        assert (
            average_value.dtype == dtype
            and average_value.shape == shape
            and not average_value.requires_grad
        )
        torch.testing.assert_close(
            average_value.double(), expected, rtol=0, atol=8 * torch.finfo(dtype).eps
        )
        resumed, whole = SimpleMovingAverage(length), SimpleMovingAverage(length)
        resumed.load_state_dict(average.state_dict()), whole.load_state_dict(average.state_dict())
        assert (
            torch.equal(resumed.value, average_value)
            and resumed.state_dict()["mean"].dtype == dtype
        )
        assert torch.equal(resumed.update(value), whole.update(value))


@pytest.mark.parametrize(
    "value",
    [torch.ones(2, dtype=dtype) for dtype in (torch.int64, torch.bool, torch.complex64)]
    + [torch.ones(2).to(torch.float8_e4m3fn)],
    ids=lambda value: str(value.dtype),
)
def test_simple_average_refuses_what_has_no_mean_by_name(value):
    average = SimpleMovingAverage(3)
    with pytest.raises(
        ValueError, match=f"values must be floating-point, got {value.dtype}; 16 bits"
    ):
        average.update(value)
    assert average.count == 0 and average.update(torch.ones(2)).tolist() == [1, 1]
    for other in (torch.ones(3), torch.ones(2).double(), torch.ones(2, device="meta")):
        with pytest.raises(
            ValueError, match=r"values must stay (\(2,\) of torch.float32|on cpu), got"
        ):
            average.update(other)
    state = average.state_dict()
    for broken in ({"mean": state["mean"].double()}, {"values": [1, 2]}, {"values": None}):
        with pytest.raises(
            ValueError, match="the state of 1 values must hold the last 3 of them and their mean"
        ):
            average.load_state_dict({**state, **broken})


def test_default_device_elsewhere_changes_nothing():
    """`meta` stands for an accelerator: what is made there by mistake has no values."""
    decays = torch.tensor([0.5, 0.9])

    def averages():
        average, other = SimpleMovingAverage(2), SimpleMovingAverage(2)
        means = [average.update(value).item() for value in (1.0, 3.0, 4.0)]
        other.load_state_dict(average.state_dict())
        steps = (1, torch.tensor(1, device="cpu"))
        return [*means, other.update(6.0).item()], [
            debias(1 - decays, decays, step).tolist() for step in steps
        ]

    usual = averages()
    with torch.device("meta"):
        assert averages() == usual
