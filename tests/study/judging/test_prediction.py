"""Prediction intervals for a new task: simulated tasks, and cases that are known by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadydescent.study.judging.headlines import headline
from steadydescent.study.judging.prediction import predicted, variance_between
from steadydescent.study.judging.rows import Row
from steadydescent.study.judging.statistics import student


def covered(tasks: int, between: float, replications: int = 1_500) -> float:
    """How often the interval of some tasks holds the effect on the next, of errors 0.2 to 0.8."""
    rng, hits = np.random.default_rng([tasks, int(10 * between)]), 0
    for _ in range(replications):
        errors, effects = rng.uniform(0.2, 0.8, tasks), rng.normal(2, between, tasks + 1)
        low, high = predicted(rng.normal(effects[:-1], errors), errors)
        hits += low <= effects[-1] <= high
    return hits / replications


@pytest.mark.parametrize("tasks", [5, 8, 12])
def test_a_new_task_lies_in_the_interval_as_often_as_said(tasks):
    """Where tasks vary by more than their errors, as the docstring says."""
    assert 0.91 < covered(tasks, 1.0) < 0.98
    assert 0.93 < covered(tasks, 3.0) < 0.98
    assert covered(tasks, 0.0) > 0.97


def test_known_exactly_the_interval_is_that_of_a_further_draw():
    """Without errors: mean ± t_{K−2}·sd·√(1 + 1/K)."""
    effects = np.array([1.0, 2.0, 4.0, 5.0, 8.0])
    low, high = predicted(effects, np.full(5, 1e-6))
    half = student(0.95, 3) * effects.std(ddof=1) * (1 + 1 / 5) ** 0.5
    assert (low, high) == pytest.approx((4 - half, 4 + half), rel=1e-6)


def test_tasks_that_differ_by_less_than_their_errors_do_not_vary():
    assert variance_between(np.array([1.0, 1.1, 0.9, 1.0, 1.0]), np.full(5, 0.5)) == 0.0


@given(st.floats(-5, 5), st.floats(0.1, 10))
def test_the_interval_moves_and_stretches_with_the_effects(shift, scale):
    effects, errors = np.array([0.3, 1.0, 2.5, -1.0, 0.8]), np.array([0.1, 0.2, 0.3, 0.2, 0.1])
    plain = np.array(predicted(effects, errors))
    moved = np.array(predicted(shift + scale * effects, scale * errors))
    assert moved == pytest.approx(shift + scale * plain, rel=1e-6, abs=1e-6)


def test_four_tasks_predict_nothing():
    with pytest.raises(ValueError, match="a prediction needs at least 5 tasks, got 4"):
        predicted(np.ones(4), np.ones(4))


def rows_of(effects: list[float], **more) -> list[Row]:
    """Primary rows at 95 % with ends one margin around their effects."""
    told = {"id": "c", "scope": "T", "measure": "accuracy", "condition": "", "margin": 2.0}
    told |= {"rule": "superiority", "verdict": "supported", "primary": True, "level": 0.95}
    told |= {"n_seeds": 9} | more
    ends = [(effect - 0.1, effect, effect + 0.1) for effect in effects]
    return [
        Row(task=f"task {n}", ci_low=low, estimate=at, ci_high=high, **told)
        for n, (low, at, high) in enumerate(ends)
    ]


def test_a_headline_of_five_tasks_predicts_a_sixth_in_margins():
    effects = [4.0, 5.0, 6.0, 7.0, 8.0]
    errors = np.full(5, 0.1 / 2 / student(0.95, 8))
    low, high = predicted(np.array(effects) / 2, errors)
    said = headline(rows_of(effects)).sentence
    assert said == (
        "Holds (5 of 5 tasks agree). On a new task, "
        f"{low:.1f} to {high:.1f} margins are predicted (95 %)."
    )
    assert "predicted" not in headline(rows_of(effects[:4])).sentence
