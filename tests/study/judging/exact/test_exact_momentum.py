"""Rows about momentum against closed forms."""

import math

import pytest

from steadydescent.study.judging.exact import EXACT


@pytest.mark.claim("momentum-correction-10-steps")
def test_ten_steps_leave_54_percent_and_a_share_s_is_met_at_the_logarithm_of_s_over_one_plus_s():
    excess, ten, one = (row.estimate for row in EXACT["momentum-correction-10-steps"]())
    assert excess == pytest.approx(100 * 0.9**10 / (1 - 0.9**10)) and excess == pytest.approx(
        53.5, abs=0.05
    )
    assert (
        [ten, one]
        == [math.ceil(math.log(s / (1 + s)) / math.log(0.9)) for s in (0.1, 0.01)]
        == [23, 44]
    )


@pytest.mark.claim("momentum-small-batches")
def test_at_equal_speed_momentum_calms_only_where_the_rate_is_near_its_limit_at_every_batch_size():
    """Fall = 1 − (1+μ)(2−a)/(2(1+μ)−a(1−μ)) with a = α·h: about a·μ/(1+μ), and no n in it."""
    *falls, slow, fast = EXACT["momentum-small-batches"]()
    closed = [1 - 1.9 * (2 - a) / (3.8 - 0.1 * a) for a in (0.01, 0.1, 1.0)]
    assert [row.estimate for row in falls] == pytest.approx([100 * share for share in closed])
    assert falls[0].estimate == pytest.approx(100 * 0.01 * 0.9 / 1.9, rel=0.01)
    assert slow.estimate == pytest.approx(0, abs=1e-9) == fast.estimate
