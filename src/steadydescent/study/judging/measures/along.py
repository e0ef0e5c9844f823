"""Measures that follow from a run's curve: when it arrives at a target, and how high it climbs."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from steadydescent.study.judging.measures.measure import EARLY
from steadydescent.study.judging.measures.rows import table
from steadydescent.study.results.store import Tables
from steadydescent.weight_averaging import Readout

ARRIVAL, HIGHEST_POINT = "arrival at the target", "highest point"
"""1 for a run that holds its target to the end, else 0; the height that a run on a surface reaches.
"""


def derived(tables: Tables, target: float | None, by_loss: bool) -> pd.DataFrame:
    """Measures of runs that follow from their curves: updates and examples to a target, whether it
    is held, the highest point on a surface, and accuracy on the way.

    A run that does not hold the target to its end, or diverged, counts with its whole length.
    """
    curves = tables.curves.sort_values("step")
    step, accuracy, loss = (curves[name].to_numpy() for name in ("step", "accuracy", "loss"))
    runs = {run.run: run for run in tables.runs.itertuples()}
    rows: list[tuple[Any, ...]] = []
    # places of rows and not tables: there are thousands of curves
    for (run, readout), at in curves.groupby(["run", "readout"], sort=False).indices.items():
        values = loss[at] if by_loss else accuracy[at]
        if target is not None and readout == "last":
            needed = held_from(step[at], values, target, by_loss)
            rows += [(run, readout, *row) for row in _to_target(runs[run], needed)]
        if by_loss and readout == "last":
            rows.append((run, readout, HIGHEST_POINT, _highest(values)))
        if Readout.parse(readout).average_along and not by_loss:
            rows += [(run, readout, *row) for row in _early(runs[run].steps, step[at], values)]
    return table(rows)


def _to_target(run: Any, needed: float | None) -> Iterator[tuple[str, float]]:
    """What a run that holds the target from an update on, or never, needs to it."""
    arrives = needed is not None and pd.isna(run.diverged_at)
    updates = float(needed) if needed is not None and arrives else float(run.steps)
    yield "steps to target", updates
    yield "examples to target", updates * int(run.batch_size)
    yield ARRIVAL, float(arrives)


def _highest(heights: np.ndarray) -> float:
    """The largest finite height; divergence is noted apart."""
    finite = heights[np.isfinite(heights)]
    return float(finite.max()) if len(finite) else np.nan


def _early(steps: int, along: np.ndarray, accuracies: np.ndarray) -> Iterator[tuple[str, float]]:
    """Accuracies at the points of a curve that are early."""
    percents = np.round(100 * along.astype(float) / steps)
    for percent, accuracy in zip(percents, accuracies, strict=True):
        if percent in EARLY:
            yield f"validation accuracy at {percent:.0f} %", accuracy


def held_from(steps: np.ndarray, values: np.ndarray, target: float, below: bool) -> float | None:
    """The step from which a curve holds a target to its end: its last crossing, by linear
    interpolation. None for a curve that does not end at the target.

    A first hit would reward a step that is thrown across the target and away again.

    >>> held_from(np.array([10, 20, 30, 40]), np.array([0.5, 0.2, 0.6, 0.7]), 0.4, below=False)
    25.0
    """
    missed = np.flatnonzero(~(values <= target if below else values >= target))
    if not len(missed):
        return float(steps[0])
    i = int(missed[-1])
    if i == len(values) - 1:
        return None
    if not np.isfinite(values[i]):
        return float(steps[i + 1])
    share = (target - values[i]) / (values[i + 1] - values[i])
    return float(steps[i] + share * (steps[i + 1] - steps[i]))
