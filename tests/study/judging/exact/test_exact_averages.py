"""Rows about moving averages against closed forms."""

import re

import pytest

from steadydescent.averages import window
from steadydescent.study.judging.exact import EXACT, averages
from steadydescent.weight_averaging.readouts import coefficients, ema_weights


def value(name: str, text: str) -> float:
    """The number that a condition gives after `name`."""
    return float(re.search(rf"{name} ([\d.]+)", text)[1])


@pytest.mark.claim("ewa-bias-correction-early")
def test_the_correction_exceeds_one_by_the_closed_form():
    """1/(1 − β^t) − 1 = β^t/(1 − β^t)."""
    for row in EXACT["ewa-bias-correction-early"]():
        left = value("β =", row.condition) ** value("t =", row.condition)
        assert row.estimate == pytest.approx(100 * left / (1 - left), rel=1e-9)


@pytest.mark.claim("bias-correction-reduces-noise")
def test_the_correction_raises_noise_by_as_much_as_it_exceeds_one():
    for row in EXACT["bias-correction-reduces-noise"]():
        left = value("β =", row.condition) ** value("t =", row.condition)
        assert row.estimate == pytest.approx(-100 * left / (1 - left), rel=1e-9)


@pytest.mark.claim("ema-window")
def test_an_ema_lags_twice_as_far_as_the_mean_over_its_window_and_varies_less():
    for row in EXACT["ema-window"]():
        beta = value("β =", row.condition)
        off = 100 if row.measure.startswith("lag") else -100 * beta / (1 + beta)
        expected = (
            off if row.rule == "equivalence" else -abs(off)
        )  # the mean of (1+β)/(1−β) values is not off at all
        assert row.estimate == pytest.approx(expected, rel=1e-6)


@pytest.mark.claim("ema-outlier")
def test_an_outlier_moves_the_average_by_one_minus_beta_of_itself():
    shares = {value("β =", row.condition): row.estimate for row in EXACT["ema-outlier"]()}
    assert shares == pytest.approx(
        {beta: 100 * (1 - beta) for beta in (0.9, 0.99, 0.999)}, rel=1e-9
    )


@pytest.mark.claim("averages-smooth")
def test_an_average_keeps_one_minus_over_one_plus_beta_of_independent_noise():
    """Of correlated noise (1+βρ)/(1−βρ) times as much: of what lasts, nearly all."""
    rows = EXACT["averages-smooth"]()
    for row in rows:
        beta = value("β =", row.condition)
        rho = value("correlation", row.condition) if "correlation" in row.condition else 0.0
        left = (1 - beta) / (1 + beta) * (1 + beta * rho) / (1 - beta * rho)
        assert row.estimate == pytest.approx(100 * (1 - left), rel=1e-6)
    assert {"correlation" in row.condition for row in rows} == {True, False}
    lasting = averages._left_of_noise(coefficients(ema_weights(400, 0.9)), 0.999)
    assert lasting == pytest.approx(0.99, abs=0.005)


@pytest.mark.claim("ema-decay-values")
def test_the_first_weights_keep_beta_to_the_power_of_the_updates():
    """A tenth after 2.3 windows: 0.9999 needs 23,025 updates, and 0.999 still 2,302."""
    for row in EXACT["ema-decay-values"]():
        beta, updates = value("β =", row.condition), value("run of", row.condition)
        assert row.estimate == pytest.approx(100 * beta**updates, rel=1e-6, abs=1e-9)
        assert (row.verdict == "supported") == (updates > 2.3026 * window(beta))
