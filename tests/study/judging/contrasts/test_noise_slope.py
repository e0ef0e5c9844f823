"""The slope of minibatch noise, against powers that were planted."""

import pytest
from scipy import stats

from fabricated import evidence_of, result
from judged import arms_plan, contrast_of, estimated, peak
from steadydescent.study.judging.contrasts.noise_slope import noise_table


def probed_evidence(probed):
    plan = arms_plan({"last": {}})
    return evidence_of(result(plan, peak, probed=probed), plan)


@pytest.mark.parametrize("power", [0.5, 0.25])
def test_noise_slope_is_the_planted_power_of_the_batch_size(power):
    """Noise c·n^(−power), c another for each seed, step and rate: the slope is what is left."""

    def probed(run):
        for step in (10, 40):
            scale = (1 + run.seed) * run.lr * step
            for n in (1, 4, 16, 64, 1024):
                yield "", "gradient-noise", step, scale * n**-power, n
            yield "", "noise-trace", step, 99.0

    made = estimated("noise slope", probed_evidence(probed))
    assert (made.value, made.low, made.high) == pytest.approx((power,) * 3)
    assert made.n == 5


def test_noise_slope_has_students_interval_over_seeds():
    slopes = [0.48, 0.5, 0.53, 0.49, 0.47]

    def probed(run):
        return [("", "gradient-noise", 10, n ** -slopes[run.seed % 5], n) for n in (2, 8, 32)]

    made = estimated("noise slope", probed_evidence(probed))
    expected = stats.ttest_1samp(slopes, 0).confidence_interval(0.95)
    assert (made.low, made.high) == pytest.approx(expected)


def test_noise_of_minibatches_is_the_mean_of_its_logarithm_over_training():
    def probed(run):
        return [("", "gradient-noise", step, step / n, n) for n in (1, 10) for step in (4, 16)]

    table = noise_table(probed_evidence(probed), "constant", "last")
    expected = [8.0, 0.8]  # √(4·16)
    assert table.groupby("batch_size").noise.mean().tolist() == pytest.approx(expected)


def test_noise_slope_is_not_answered_where_no_probe_looked():
    looked = probed_evidence(lambda run: [("", "gradient-noise", 4, 1.0, 8)])
    plan = arms_plan({"last": {}})
    contrast = contrast_of("noise slope")
    assert contrast.answerable(looked, "constant")
    assert not contrast.answerable(evidence_of(result(plan, peak), plan), "constant")
