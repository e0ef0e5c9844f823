"""Time that powers of two save, against gains that were planted."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fabricated import evidence_of, result
from judged import arms_plan, contrast_of, estimated, peak

GAINS = {0: [4.0, 8.0], 1: [6.0, 10.0], 2: [5.0, 6.0]}
"""Round → gains at sizes 32 and 64, in percent."""


def test_faster_size_is_the_mean_gain_round_by_round():
    plan = arms_plan({"last": {}})
    made = result(plan, peak)
    rows = [
        (size, number, 1e-6, gain)
        for number, gains in GAINS.items()
        for size, gain in zip((31, 32, 64), (np.nan, *gains), strict=True)
    ]
    columns = ["batch_size", "round", "seconds_per_example", "gain"]
    timings = pd.DataFrame(rows, columns=columns)
    evidence = evidence_of(made._replace(timings=timings), plan)
    saved = estimated("faster size", evidence)
    expected = stats.ttest_1samp([6.0, 8.0, 5.5], 0).confidence_interval(0.95)
    assert saved.value == pytest.approx(6.5) and saved.n == 3
    assert (saved.low, saved.high) == pytest.approx(expected)
    contrast = contrast_of("faster size")
    assert contrast.answerable(evidence, "constant")
    assert not contrast.answerable(evidence_of(made, plan), "constant")
