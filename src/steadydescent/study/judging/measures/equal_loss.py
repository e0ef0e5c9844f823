"""Validation accuracy where the training loss of runs is the same."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from steadydescent.study.judging.measures.along import held_from
from steadydescent.study.judging.measures.rows import table
from steadydescent.study.results.store import Result, Tables

TRAINING_LOSS, VALIDATION_ACCURACY = "training-loss", "validation accuracy"


def beside_training_loss(tables: Tables) -> pd.DataFrame:
    """Validation accuracy of the last weights at the steps at which a run's training loss is known,
    as rows of measures.
    """
    looked = tables.measures[tables.measures.measure == TRAINING_LOSS][["run", "step"]]
    curves = tables.curves[tables.curves.readout == "last"]
    both = looked.merge(curves, on=["run", "step"])
    rows = table(list(zip(both.run, both.readout, _named(both), both.accuracy, strict=True)))
    return rows.assign(step=both.step.astype("Int64").to_numpy())


def _named(rows: pd.DataFrame) -> list[str]:
    return [VALIDATION_ACCURACY] * len(rows)


def loss_curves(result: Result | Tables, runs: Iterable[str]) -> pd.DataFrame:
    """Training loss and validation accuracy along training: columns run, step, loss, accuracy."""
    mine = result.measures[result.measures.run.isin(set(runs)) & result.measures.step.notna()]
    parts = [
        mine[mine.measure == name][["run", "step", "value"]].rename(columns={"value": column})
        for name, column in ((TRAINING_LOSS, "loss"), (VALIDATION_ACCURACY, "accuracy"))
    ]
    return parts[0].merge(parts[1], on=["run", "step"]).sort_values(["run", "step"])


def at_loss(curves: pd.DataFrame, level: float) -> pd.DataFrame:
    """Accuracy where each run's training loss falls to a level for good, by linear interpolation,
    and at its end, which stands for a run that never does: columns run, value, end, in percent.
    """
    rows = []
    for run, curve in curves.groupby("run", sort=False):
        steps, accuracy = curve.step.to_numpy(float), curve.accuracy.to_numpy(float)
        when = held_from(steps, curve.loss.to_numpy(float), level, below=True)
        value = accuracy[-1] if when is None else np.interp(when, steps, accuracy)
        rows.append((run, 100 * value, 100 * accuracy[-1]))
    return pd.DataFrame(rows, columns=["run", "value", "end"])
