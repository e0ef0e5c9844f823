"""Heights on the noisy quadratic, against the closed form and against runs off it by a share."""

from functools import cache

import numpy as np
import pytest
from scipy import stats

from fabricated import evidence_of, result
from judged import arms_plan, estimated
from steadydescent.engine.tasks.noisy_quadratic import expected_loss, stationary_variance
from steadydescent.engine.tasks.surfaces import EIGENVALUES
from steadydescent.study.judging.contrasts.closed_form import expected_curve, expected_height
from steadydescent.study.planning import Plan


def quadratic(optimizer: str = "sgd") -> Plan:
    """Arms of the noisy quadratic, 40 updates of batches of 4."""
    arms = {"last": {"readouts": ["last"]}, "tail": {"readouts": ["tail-25"]}}
    return arms_plan(arms, "noisy-quadratic", runs={"optimizer": optimizer, "batch_size": 4})


@cache
def height(lr: float, readout: str, optimizer: str = "sgd") -> float:
    """The expected loss at the end, by the formula and weights written out."""
    weights = None if readout == "last" else [0.0] * 30 + [1 / k for k in range(1, 11)]
    eigenvalues = np.array(EIGENVALUES)
    return float(expected_loss(optimizer, [lr] * 40, weights, eigenvalues, eigenvalues, 1.0, 4)[-1])


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
@pytest.mark.parametrize(("arm", "readout"), [("last", "last"), ("tail", "tail-25")])
def test_closed_form_agrees_with_runs_that_have_the_expected_height(optimizer, arm, readout):
    plan = quadratic(optimizer)
    off = [0.01, -0.01, 0.02, -0.02, 0.0]

    def how(run, name, split):
        return height(run.lr, name, optimizer) * (1 + off[run.seed % 5])

    made = estimated("closed form", evidence_of(result(plan, how, half=1), plan), arm)
    expected = stats.ttest_1samp([100 * x for x in off], 0).confidence_interval(0.95)
    assert made.value == pytest.approx(0, abs=1e-6)
    assert (made.low, made.high) == pytest.approx(expected, rel=1e-6)


def test_runs_that_lie_higher_than_the_closed_form_say_by_how_much():
    plan = quadratic()

    def how(run, name, split):
        return 1.25 * height(run.lr, name)

    made = estimated("closed form", evidence_of(result(plan, how), plan))
    assert made.value == pytest.approx(25)


def test_expected_curve_starts_below_the_start_and_ends_at_the_expected_height():
    evidence = evidence_of(result(quadratic(), lambda run, name, split: 1.0), quadratic())
    at = ("constant", "last", 0.1, "last")
    curve = expected_curve(evidence, *at)
    assert len(curve) == 40 and curve[-1] == expected_height(evidence, *at)
    h = np.array(EIGENVALUES)
    # one step of SGD by hand, noise of variance h/4
    first = 0.5 * (h * ((1 - 0.1 * h) ** 2 + 0.01 * h / 4)).sum()
    assert curve[0] == pytest.approx(first)
    settled = 0.5 * (h * stationary_variance(0.1, h, h / 4)).sum()
    assert curve[-1] > settled  # slow directions have not settled yet
