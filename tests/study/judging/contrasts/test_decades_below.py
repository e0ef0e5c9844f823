"""Decades below a limit, against rates that were planted."""

import numpy as np
import pytest

from fabricated import evidence_of, result
from judged import arms_plan, estimated, peak

HALF_STEP = np.log10(2) / 2
"""The best rate is within half a step of the grid."""


@pytest.mark.parametrize("limit", [0.1, 1.0, 0.01])
def test_decades_below_are_the_logarithm_of_limit_over_the_tuned_rate(limit):
    """All tuning seeds agree."""
    plan = arms_plan({"last": {}})
    made = estimated("decades below", evidence_of(result(plan, peak, half=2), plan), limit=limit)
    assert made.value == pytest.approx(np.log10(limit / 0.1)) and made.n == 3
    ends = made.value - HALF_STEP, made.value + HALF_STEP
    assert (made.low, made.high) == pytest.approx(ends)


def test_decades_below_have_an_interval_where_tuning_seeds_disagree():
    """Two of three seeds like 0.1, one likes 0.4: the interval holds both, and half a step more."""

    def torn(run, readout, split):
        return 0.7 - 0.02 * abs(np.log2(run.lr / (0.4 if run.seed % 3 == 1 else 0.1)))

    plan = arms_plan({"last": {}})
    made = estimated("decades below", evidence_of(result(plan, torn, half=2), plan), limit=0.1)
    expected = (-np.log10(4) - HALF_STEP, 0.0, HALF_STEP)
    assert (made.low, made.value, made.high) == pytest.approx(expected)
