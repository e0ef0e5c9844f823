"""Rows about batch sizes and small rates against closed forms."""

import math

import pytest

from steadydescent.engine.tasks.noisy_quadratic import expected_loss
from steadydescent.study.judging.exact import EXACT


@pytest.mark.claim("lr-small-precise")
def test_a_tenth_of_the_rate_settles_nearer_by_the_closed_form():
    """√(α/(2−α)); for small α a tenth of the rate settles at 1/√10 of the distance."""
    for row, lr in zip(EXACT["lr-small-precise"](), (1.0, 0.1, 0.01), strict=True):
        ratio = math.sqrt((lr / 10) / (2 - lr / 10) / (lr / (2 - lr)))
        assert row.estimate == pytest.approx(100 * (1 - ratio), rel=1e-9)
    assert row.estimate == pytest.approx(100 * (1 - 1 / math.sqrt(10)), abs=0.2)


@pytest.mark.claim("lr-small-precise")
def test_without_noise_the_small_rate_is_the_one_that_is_farther_off():
    """(1−α)^(2t): after 100 updates α = 0.1 is seven decades of loss below α = 0.01 and more."""
    far, near = (expected_loss("sgd", [lr] * 100, None, 1.0, 0.0, 1.0)[-1] for lr in (0.01, 0.1))
    assert far / near == pytest.approx((0.99 / 0.9) ** 200) and far / near > 1e8


@pytest.mark.claim("batch-noise")
def test_noise_falls_with_the_root_of_n_and_a_little_faster_in_an_epoch():
    with_replacement, without = (row.estimate for row in EXACT["batch-noise"]())
    assert with_replacement == pytest.approx(0.5, rel=1e-12) and 0.5 < without < 0.52


@pytest.mark.claim("batch-memory")
def test_bytes_are_those_of_the_layers_inputs_and_weights():
    """4·(40 + 100 + 100) bytes an example of MNIST-1D, 4·(784 + 128) of Fashion-MNIST."""
    shares = []
    for each, weights, examples in (
        (240, 41 * 100 + 101 * 100 + 101 * 10, 4_000),
        (912, 785 * 128 + 129 * 10, 50_000),
    ):
        shares += [1 - 1 / examples]
        shares += [1 - (3 * weights + each) / (3 * weights + examples * each)]
    found = [row.estimate for row in EXACT["batch-memory"]()]
    assert found == pytest.approx([100 * share for share in shares], rel=1e-12)
