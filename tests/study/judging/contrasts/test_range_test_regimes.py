"""Regimes of range tests whose curves were planted."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fabricated import a_run, evidence_of, result, tables
from judged import arms_plan, contrast_of, peak
from steadydescent.lr_search import smoothed
from steadydescent.study.judging.measures.range_tests import (
    CURVE,
    KEPT_POINTS,
    curves_of_length,
    quantiles_of_curves,
    range_test_curves,
)

LENGTH = 121
RAMP = "ramp(low=1e-05, high=10)"


def ramps(losses: dict[int, list[float]]) -> pd.DataFrame:
    """Tables and roster of range tests with these minibatch losses, by seed."""
    some = {"schedule": RAMP, "lr": 1.0, "steps": LENGTH, "readouts": ("last",), "test": False}
    runs = [a_run(seed=seed, **some) for seed in losses]
    probed = lambda run: [("", "loss", i + 1, value) for i, value in enumerate(losses[run.seed])]
    roster = pd.DataFrame({"run": [run.key for run in runs], "condition": "constant"})
    return tables(runs, probed=probed), roster.assign(arm="last", purpose="range test")


def evidence(curves: dict[int, np.ndarray]):
    """A result whose range tests left these smoothed curves, a point an update."""
    plan = arms_plan({"last": {}})
    made = result(plan, peak)
    tests, roster = ramps({seed: [1.0] for seed in curves})
    rows = [
        (key, "last", CURVE, pd.NA, step + 1, value)
        for key, seed in zip(tests.runs.run, tests.runs.seed, strict=True)
        for step, value in enumerate(curves[seed])
    ]
    columns = ["run", "readout", "measure", "batch_size", "step", "value"]
    found = pd.DataFrame(rows, columns=columns).astype({"batch_size": "Int64", "step": "Int64"})
    return evidence_of(
        made._replace(
            runs=pd.concat([made.runs, tests.runs]),
            roster=pd.concat([made.roster, roster]),
            measures=found,
        ),
        plan,
    )


def curve(early: float, end: float, length: int = LENGTH) -> np.ndarray:
    """From 2 by `early` down to rate 1e-3 (step 41 of 121), to 1 at 0.1, then to `end`."""
    rates = np.geomspace(1e-5, 10, LENGTH)
    places = np.log10([1e-5, 1e-3, 1e-1, 10])
    return np.interp(np.log10(rates), places, [2, 2 - early, 1, end])[:length]


def regimes(**options):
    return contrast_of("range test regimes", updates=LENGTH, **options)


def test_the_share_of_the_fall_below_a_rate_is_taken_seed_by_seed():
    early = [0.05, 0.1, 0.02]
    found = evidence({seed: curve(one, 1.5) for seed, one in enumerate(early)})
    estimate = regimes(part="fall below", rate=1e-3).estimate(found, "constant", 0.95)
    shares = [100 * one for one in early]  # of a fall of 1
    expected = stats.ttest_1samp(shares, 0).confidence_interval(0.95)
    assert estimate.value == pytest.approx(np.mean(shares), abs=1e-6)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected), abs=1e-6)
    later = regimes(part="fall below", rate=5.0).estimate(found, "constant", 0.95)
    assert later.value == later.high == 100  # the minimum is behind


def test_the_rise_beyond_the_minimum_is_in_units_of_the_fall_and_never_more():
    """Rises by 0.5 and by 9, and a test that ended before: 50, 100 and 100 %."""
    found = evidence({0: curve(0, 1.5), 1: curve(0, 10), 2: curve(0, 1.2, length=115)})
    estimate = regimes(part="rise beyond").estimate(found, "constant", 0.95)
    assert estimate.value == pytest.approx(250 / 3, abs=1e-6) and estimate.n == 3


def test_tests_that_all_have_the_most_that_counts_have_an_interval_all_the_same():
    """Of 3 tests all had 100 %: that comes about with 2.5 % where each has less with 1 − p, p³ =
    2.5 %; those may have as little as nothing, and the mean is p at least.
    """
    found = evidence({seed: curve(0, 10) for seed in range(3)})
    estimate = regimes(part="rise beyond").estimate(found, "constant", 0.95)
    assert (estimate.value, estimate.high) == (100, 100)
    assert (estimate.low / 100) ** 3 == pytest.approx(0.025)
    assert stats.binomtest(3, 3).proportion_ci(0.95).low == pytest.approx(estimate.low / 100)


def test_a_loss_that_never_falls_has_no_regimes():
    rising = np.linspace(1, 2, LENGTH)
    found = evidence({0: rising, 1: curve(0.1, 2), 2: curve(0.1, 2)})
    assert regimes(part="rise beyond").estimate(found, "constant", 0.95).n == 2
    assert not regimes(part="rise beyond").answerable(evidence({0: rising}), "constant")


def test_rate_belongs_to_the_fall():
    for options in ({"part": "fall below"}, {"part": "rise beyond", "rate": 0.1}):
        with pytest.raises(ValueError, match="rate says below which rate"):
            regimes(**options)


# ---- what a result keeps -------------------------------------------------------------------------


def test_curves_are_smoothed_as_the_rules_do_and_end_at_the_first_loss_that_is_not_finite():
    losses = {0: list(np.linspace(3, 1, LENGTH)), 1: [*np.linspace(3, 1, 50), np.inf, *[1.0] * 50]}
    made, roster = ramps(losses)
    kept = range_test_curves(made, roster)
    by_seed = {
        seed: kept[kept.run == run] for run, seed in zip(made.runs.run, made.runs.seed, strict=True)
    }
    assert len(by_seed[0]) == LENGTH and by_seed[1].step.max() == 50
    whole = list(smoothed(losses[0], 0.9))
    assert by_seed[0].value.tolist() == pytest.approx(whole)
    assert by_seed[0].step.tolist() == list(range(1, LENGTH + 1))
    assert set(kept.measure) == {CURVE} and LENGTH < KEPT_POINTS


def test_quantiles_over_seeds_are_taken_rate_by_rate():
    """Of three curves one ended before the end: the highest of three is missing there."""
    curves = {0: curve(0, 1.5), 1: curve(0.5, 2.0), 2: curve(0, 3.0, length=100)}
    found = quantiles_of_curves(evidence(curves).result, LENGTH)
    assert found.rate.to_numpy() == pytest.approx(np.geomspace(1e-5, 10, LENGTH))
    early = np.quantile([curves[seed][30] for seed in range(3)], [0.1, 0.5, 0.9])
    assert found.loc[30, ["low", "median", "high"]].tolist() == pytest.approx(early.tolist())
    assert found.seeds.tolist() == [3] * 100 + [2] * (LENGTH - 100)
    assert np.isfinite(found["median"]).all() and found.high.isna().tolist()[-1]
    assert quantiles_of_curves(evidence(curves).result, 55).empty
    assert curves_of_length(evidence(curves).result, 55).empty
