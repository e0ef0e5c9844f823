"""Contrasts that are no difference of two tuned arms, each against a truth that was planted."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fabricated import LAPTOP, SMALL_EXPERIMENT, evidence_of, result, tables
from steadydescent.engine.tasks.noisy_quadratic import expected_loss, stationary_variance
from steadydescent.engine.tasks.surfaces import EIGENVALUES
from steadydescent.study.judging.analyses import (
    ANALYSES,
    dense_sweep,
    expected_curve,
    expected_height,
    noise_table,
    suggestions,
)
from steadydescent.study.judging.claims import Contrast
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.regret import contrast as regret_contrast
from steadydescent.study.planning import Experiment, Plan

TASK, LEVEL = "mnist1d-mlp", 0.95
SIZE = LAPTOP | {"ramps": [100, 400]}


def plan_of(arms: dict, task: str = TASK, **fields) -> Plan:
    told = {"arms": arms, "conditions": {"constant": {"schedule": "constant"}}, "secondary": []}
    rates = {
        "rates": {task: {"center": 0.1, "ratio": 2, "points": 5}},
        "profiles": {"laptop": {task: SIZE}},
    }
    return Plan(
        experiment=Experiment(name="toy", **(SMALL_EXPERIMENT | told | rates | fields)),
        task=task,
        profile="laptop",
    )


def analysed(
    name: str,
    evidence: Evidence,
    arm: str = "last",
    against: tuple = (),
    level: float = LEVEL,
    **options,
):
    told = {"conditions": ("constant",), "margins": {TASK: 1.0}, "options": options}
    contrast = Contrast(arm=arm, against=against, analysis=name, **told)
    return ANALYSES[name](evidence, contrast, "constant", level)


def peak(run, readout, split) -> float:
    """Accuracy falls by 2 points a grid step from 0.1, and by seed a little."""
    return 0.7 - 0.02 * abs(np.log2(run.lr / 0.1)) + 1e-3 * (run.seed % 7)


# ---- decades below -------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.1, 1.0, 0.01])
def test_decades_below_are_the_logarithm_of_limit_over_the_tuned_rate(limit):
    evidence = evidence_of(result(plan_of({"last": {}}), peak, half=2), plan_of({"last": {}}))
    found = analysed("decades below", evidence, limit=limit)
    assert found.estimate.value == pytest.approx(np.log10(limit / 0.1)) and found.unit == "decades"
    half = (
        np.log10(2) / 2
    )  # all tuning seeds agree; the best rate is within half a step of the grid
    assert (found.estimate.low, found.estimate.high) == pytest.approx(
        (found.estimate.value - half, found.estimate.value + half)
    )
    assert found.estimate.n == 3


def test_decades_below_have_an_interval_where_tuning_seeds_disagree():
    """Two of three seeds like 0.1, one likes 0.4: the interval holds both, and half a step of the
    grid beyond.
    """
    plan = plan_of({"last": {}})
    torn = lambda run, readout, split: (
        0.7 - 0.02 * abs(np.log2(run.lr / (0.4 if run.seed % 3 == 1 else 0.1)))
    )
    found = analysed(
        "decades below", evidence_of(result(plan, torn, half=2), plan), limit=0.1
    ).estimate
    assert (found.low, found.value, found.high) == pytest.approx(
        (-np.log10(4) - np.log10(2) / 2, 0.0, np.log10(2) / 2)
    )


# ---- noise slope ---------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.5, 0.25])
def test_noise_slope_is_the_planted_power_of_the_batch_size(power):
    """Noise c·n^(−power), c another for each seed, step and rate: the slope is what is left."""

    def probed(run):
        for step in (10, 40):
            scale = (1 + run.seed) * run.lr * step
            yield from (
                ("", "gradient-noise", step, scale * n**-power, n) for n in (1, 4, 16, 64, 1024)
            )
            yield "", "noise-trace", step, 99.0

    plan = plan_of({"last": {}})
    found = analysed("noise slope", evidence_of(result(plan, peak, probed=probed), plan))
    assert (found.estimate.value, found.estimate.low, found.estimate.high) == pytest.approx(
        (power,) * 3
    )
    assert found.estimate.n == 5 and not found.ratio


def test_noise_slope_has_students_interval_over_seeds():
    slopes = [0.48, 0.5, 0.53, 0.49, 0.47]
    probed = lambda run: [
        ("", "gradient-noise", 10, n ** -slopes[run.seed % 5], n) for n in (2, 8, 32)
    ]
    plan = plan_of({"last": {}})
    found = analysed("noise slope", evidence_of(result(plan, peak, probed=probed), plan)).estimate
    assert (found.low, found.high) == pytest.approx(
        stats.ttest_1samp(slopes, 0).confidence_interval(LEVEL)
    )


def test_noise_of_minibatches_is_the_mean_of_its_logarithm_over_training():
    probed = lambda run: [
        ("", "gradient-noise", step, step / n, n) for n in (1, 10) for step in (4, 16)
    ]
    plan = plan_of({"last": {}})
    table = noise_table(evidence_of(result(plan, peak, probed=probed), plan), "constant", "last")
    assert table.groupby("batch_size").noise.mean().tolist() == pytest.approx([8.0, 0.8])  # √(4·16)


# ---- matching window -----------------------------------------------------------------------------


@pytest.mark.parametrize(("ema", "apart"), [(0.02, 0.08), (0.06, 0.0), (0.10, -0.08), (0.04, 0.04)])
def test_matching_window_says_whose_loss_is_nearer(ema, apart):
    """Losses lie 0.04 and 0.16 nats… of accuracies 2 and 10 points below: the nearer one wins by
    the difference.
    """
    plan = plan_of(
        {
            name: {"readouts": [readout]}
            for name, readout in (("ema", "ema-10"), ("short", "tail-10"), ("long", "tail-20"))
        }
    )
    places = {"ema-10": ema, "tail-10": 0.02, "tail-20": 0.10}
    how = lambda run, readout, split: peak(run, "", split) - places[readout]
    evidence = evidence_of(result(plan, how), plan)
    found = analysed("matching window", evidence, "ema", ("short", "long"))
    expected = 2 * (abs(0.10 - ema) - abs(0.02 - ema))  # a loss is −2 times its accuracy here
    assert found.estimate.value == pytest.approx(expected) and found.unit == "nats"
    assert np.sign(round(found.estimate.value, 9)) == np.sign(apart)


# ---- searches and range tests --------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept() -> Evidence:
    """A whole grid with a little noise, tuned and reported everywhere, with two lengths of range
    tests.
    """
    plan = plan_of({"last": {}}, report="everything")
    rng = np.random.default_rng(3)
    made = result(
        plan, lambda run, readout, split: peak(run, readout, split) + 0.002 * rng.normal(), half=2
    )
    ramps = [run for length in plan.size.ramps for run in plan.range_tests(length)]
    rates = {100: 0.05, 400: 0.1}
    extra = tables(ramps)
    rows = [(run.key, "middle", rates[run.steps]) for run in ramps]
    rows += [(run.key, "steepest", 0.4) for run in ramps]
    served = pd.DataFrame({"run": extra.runs.run, "condition": "constant", "arm": "last"})
    parts = made._replace(
        runs=pd.concat([made.runs, extra.runs]),
        roster=pd.concat([made.roster, served.assign(purpose="range test")]),
        finals=pd.concat([made.finals, extra.finals]),
        suggestions=pd.DataFrame(rows, columns=["run", "rule", "rate"]),
    )
    return evidence_of(parts, plan)


def test_dense_sweep_holds_every_rate_in_percent_and_no_range_test(swept):
    sweep = dense_sweep(swept, "constant", "last")
    assert sweep.rates.tolist() == [0.025, 0.05, 0.1, 0.2, 0.4]
    assert sweep.tuning.shape == (3, 5) and sweep.report.shape == (5, 5)
    expected = 70 - 2 * np.abs(np.log2(sweep.rates / 0.1))
    assert sweep.report.mean(axis=0) == pytest.approx(expected + 0.2, abs=0.4)
    assert sweep.tuning.mean(axis=0) == pytest.approx(
        expected + 0.5, abs=0.4
    )  # seeds 10 000 … are 4, 5, 6 modulo 7


def test_search_regret_is_the_contrast_of_two_searches_on_the_sweep(swept):
    found = analysed("search regret", swept, method="log-uniform", than="uniform", trials=3)
    sweep = dense_sweep(swept, "constant", "last")
    again = regret_contrast(sweep, "log-uniform", "uniform", 3, LEVEL, 1_000)
    assert found.estimate == again and found.unit == "pp"
    turned = analysed(
        "search regret", swept, method="uniform", than="log-uniform", trials=3
    ).estimate
    assert turned.value == pytest.approx(-found.estimate.value)


def test_suggestions_say_seed_rule_length_and_rate(swept):
    found = suggestions(swept)
    assert len(found) == 2 * 2 * 5 and set(found.rule) == {"middle", "steepest"}
    assert found[found.rule == "middle"].groupby("length").rate.unique().map(list).to_dict() == {
        100: [0.05],
        400: [0.1],
    }


@pytest.mark.parametrize(
    ("updates", "suggestion", "lost"),
    [(100, "middle", 2), (400, "middle", 0), (400, "steepest", 4)],
)
def test_range_test_loses_what_the_suggested_rate_scores_below_the_best(
    swept, updates, suggestion, lost
):
    """Two points a grid step; above −margin is a good rate, so the loss comes with a minus."""
    found = analysed("range test", swept, updates=updates, suggestion=suggestion).estimate
    assert found.value == pytest.approx(-lost, abs=0.5) and found.low <= found.value <= found.high
    sweep = dense_sweep(swept, "constant", "last")
    rate = {"steepest": 0.4, "middle": {100: 0.05, 400: 0.1}[updates]}[suggestion]
    at = sweep.means[list(sweep.rates).index(rate)]
    assert found.value == pytest.approx(at - sweep.oracle)


# ---- powers of two -------------------------------------------------------------------------------


def test_faster_size_is_the_mean_gain_round_by_round():
    plan = plan_of({"last": {}})
    made = result(plan, peak)
    gains = {0: [4.0, 8.0], 1: [6.0, 10.0], 2: [5.0, 6.0]}
    timed = pd.DataFrame(
        [
            (size, number, 1e-6, gain)
            for number, row in gains.items()
            for size, gain in zip((31, 32, 64), (np.nan, *row), strict=True)
        ],
        columns=["batch_size", "round", "seconds_per_example", "gain"],
    )
    found = analysed("faster size", evidence_of(made._replace(timings=timed), plan))
    expected = stats.ttest_1samp([6.0, 8.0, 5.5], 0).confidence_interval(LEVEL)
    assert (
        found.estimate.value == pytest.approx(6.5) and found.unit == "%" and found.estimate.n == 3
    )
    assert (found.estimate.low, found.estimate.high) == pytest.approx(expected)


# ---- the noisy quadratic -------------------------------------------------------------------------


def quadratic(optimizer: str = "sgd", **size) -> Plan:
    """Arms of the noisy quadratic, 40 updates of batches of 4."""
    arms = {"last": {"readouts": ["last"]}, "tail": {"readouts": ["tail-25"]}}
    runs = {"optimizer": optimizer, "batch_size": 4}
    return plan_of(arms, "noisy-quadratic", runs=runs)


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

    found = analysed("closed form", evidence_of(result(plan, how, half=1), plan), arm)
    expected = stats.ttest_1samp([100 * x for x in off], 0).confidence_interval(LEVEL)
    assert found.unit == "%" and found.estimate.value == pytest.approx(0, abs=1e-6)
    assert (found.estimate.low, found.estimate.high) == pytest.approx(expected, rel=1e-6)


def test_runs_that_lie_higher_than_the_closed_form_say_by_how_much():
    plan = quadratic()
    how = lambda run, name, split: 1.25 * height(run.lr, name)
    assert analysed(
        "closed form", evidence_of(result(plan, how), plan)
    ).estimate.value == pytest.approx(25)


def test_expected_curve_starts_below_the_start_and_ends_at_the_expected_height():
    evidence = evidence_of(result(quadratic(), lambda run, name, split: 1.0), quadratic())
    curve = expected_curve(evidence, "constant", "last", 0.1, "last")
    assert len(curve) == 40 and curve[-1] == expected_height(
        evidence, "constant", "last", 0.1, "last"
    )
    h = np.array(EIGENVALUES)
    first = (
        0.5 * (h * ((1 - 0.1 * h) ** 2 + 0.01 * h / 4)).sum()
    )  # one step of SGD by hand, noise of variance h/4
    assert curve[0] == pytest.approx(first)
    settled = 0.5 * (h * stationary_variance(0.1, h, h / 4)).sum()
    assert curve[-1] > settled  # slow directions have not settled yet


def test_every_analysis_is_tested_here():
    assert set(ANALYSES) == {
        "search regret",
        "range test",
        "decades below",
        "noise slope",
        "matching window",
        "faster size",
        "closed form",
    }
