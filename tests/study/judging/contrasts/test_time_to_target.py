"""Times to a target: planted examples times planted seconds."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fabricated import evidence_of, result
from judged import arms_plan, contrast_of
from steadydescent.study.judging import measures

SMALL = {"arm": "last", "condition": "small"}
SIZES = {"large": 100, "small": 50}
CONDITIONS = {name: {"batch_size": size} for name, size in SIZES.items()}
HITS = {"tune_by": ["accuracy", "steps to target"], "targets": {"mnist1d-mlp": 0.5}}


def times(rounds: dict[int, tuple[float, float]]) -> pd.DataFrame:
    """Seconds an example at 50 and at 100, by round."""
    rows = [
        (size, number, seconds, np.nan)
        for number, both in rounds.items()
        for size, seconds in zip((50, 100), both, strict=True)
    ]
    return pd.DataFrame(rows, columns=["batch_size", "round", "seconds_per_example", "gain"])


def evidence(rounds):
    """Small minibatches need 1000 examples and some by seed, large ones 3000 and some."""
    plan = arms_plan(
        {"last": {"readouts": ["last"]}}, conditions=CONDITIONS, curve_points=2, **HITS
    )
    made = result(plan, lambda run, *_: 0.7 - 0.1 * abs(np.log2(run.lr / 0.1)))
    size, seed = (
        made.measures.run.map(made.runs.set_index("run")[c]) for c in ("batch_size", "seed")
    )
    examples = np.where(size == 50, 1_000 + 10 * (seed - 1_000), 3_000 - 20 * (seed - 1_000))
    asked = made.measures.measure == "examples to target"
    planted = made.measures.assign(value=made.measures.value.where(~asked, examples))
    return evidence_of(made._replace(measures=planted, timings=times(rounds)), plan)


def contrast(better: bool = True):
    told = {"conditions": ["large"], "measure": "time to target", "better": better}
    return contrast_of("time to target", SMALL, against="last", **told)


def test_times_are_examples_times_seconds_and_both_spread():
    """Three times the examples at half the time: 1.5 times as slow. Half-widths by hand."""
    rounds = {0: (2e-6, 1e-6), 1: (2.2e-6, 1e-6), 2: (1.8e-6, 1e-6)}
    found = evidence(rounds)
    small, large = 1_000 + 10 * np.arange(5), 3_000 - 20 * np.arange(5)
    logs = np.log([2.0, 2.2, 1.8])
    estimate = contrast().estimate(found, "large", 0.95)
    assert estimate.value == pytest.approx(math.log(large.mean() / small.mean()) - logs.mean())
    by_seed = large / large.mean() - small / small.mean()  # near enough to the jackknife's
    parts = [(by_seed.var(ddof=1) / 5, 4), (logs.var(ddof=1) / 3, 2)]
    total = sum(part for part, _ in parts)
    freedom = total**2 / sum(part**2 / n for part, n in parts)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(total)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.02)
    assert contrast(better=False).estimate(found, "large", 0.95).value == -estimate.value
    assert contrast().ratio and contrast().unit == "×"
    said = contrast().remarks(found, "large")
    assert said.censored_share == 0.0 and said.decides and said.test_set_sampled is None


def test_a_size_that_was_not_timed_twice_gives_no_answer():
    for rounds, why in (({0: (2e-6, 1e-6)}, "1 rounds"), ({}, "was not timed")):
        found = evidence(rounds)
        assert not contrast().answerable(found, "large")
        assert why in contrast().remarks(found, "large").reason


def test_equal_sizes_differ_by_their_examples_alone():
    found = evidence({0: (2e-6, 1e-6), 1: (9e-6, 1e-6)})
    told = {"conditions": ["large"], "better": True}
    same = contrast_of("time to target", "last", against="last", **told)
    assert same.estimate(found, "large", 0.95).value == 0.0
    assert measures.ARRIVAL in set(found.result.measures.measure)
