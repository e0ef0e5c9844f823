"""Rows about learning rates against closed forms."""

import math
import re

import pytest

from steadydescent.study.judging.exact import EXACT


def value(name: str, text: str) -> float:
    """The number that a condition gives after `name`."""
    return float(re.search(rf"{name} ([\d.]+)", text)[1])


@pytest.mark.claim("noam-warmup")
def test_the_slope_of_a_warm_up_goes_with_its_length_to_the_power_of_minus_three_halves():
    for row in EXACT["noam-warmup"]():
        warmup = value("warm-up", row.condition)
        assert row.estimate == pytest.approx(100 * ((8000 / warmup) ** 1.5 - 1), rel=1e-9)


@pytest.mark.claim("noam-scale")
def test_the_peak_is_proportional_to_the_scale():
    for row in EXACT["noam-scale"]():
        scale = value("scale", row.condition)
        assert row.estimate == pytest.approx(100 * (scale / 2 - 1), rel=1e-9)


@pytest.mark.claim("noam-start")
def test_a_start_delays_the_peak_by_as_much_and_holds_the_smallest_rate():
    assert [row.estimate for row in EXACT["noam-start"]()] == [0, 0, 0, 0]


@pytest.mark.claim("noam-duration")
def test_a_duration_of_k_makes_warm_up_and_fall_k_times_as_long():
    """k·8000 updates; half the peak is reached at four times that."""
    for row in EXACT["noam-duration"]():
        longer = 100 * (value("duration", row.condition) - 1)
        assert row.estimate == pytest.approx(longer, abs=0.02)


@pytest.mark.claim("decay-formulas")
def test_what_the_listed_decays_leave_and_when_a_tenth_is_left():
    """0.95^epoch is at a tenth after 45 epochs, 0.99^epoch after 230, e⁻¹ taken once never."""
    left = [row.estimate for row in EXACT["decay-formulas"]()]
    assert left == pytest.approx(
        [100 * 0.95**100, 100 * 0.99**100, 100 / math.e, 100 * math.exp(-91)], rel=1e-9
    )
    assert [math.ceil(math.log(0.1) / math.log(base)) for base in (0.95, 0.99)] == [45, 230]
