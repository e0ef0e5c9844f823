"""Measures of runs read off a result's tables."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from steadydescent.engine.shifted_tests import family
from steadydescent.study.judging.measures.measure import (
    FINALS,
    OF_DIVERGED,
    PROBED,
    SEVERITY,
    SHIFTED,
    measure_named,
    single_checkpoints,
)
from steadydescent.study.results.store import Result, Tables


def values(result: Result | Tables, name: str) -> pd.DataFrame:
    """The measure of every report run and readout: columns run, readout, value (in its unit)."""
    scale = measure_named(name).scale
    if name in FINALS:
        split, column = FINALS[name]
        plain = result.finals[(result.finals.split == split) & (result.finals["shift"] == "")]
        table = plain.rename(columns={column: "value"})
    elif match := SHIFTED.fullmatch(name):
        anew, drop = bool(match["anew"]), match["what"] == "drop"
        table = _shifted(result.finals, match["kind"], anew, drop)
    elif readouts := single_checkpoints(name):
        table = _best_single(result.finals, readouts)
    elif name == "generalisation gap":
        table = _gap(result.finals)
    else:
        table = _probed(result.measures, name)
        if name in OF_DIVERGED:
            lost = table.run.isin(result.runs[result.runs.diverged_at.notna()].run)
            table = table.assign(value=table.value.mask(lost, OF_DIVERGED[name]))
    readout = table.readout.replace("", "last")
    return table.assign(value=table.value * scale, readout=readout)[["run", "readout", "value"]]


def _probed(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """A measure at the end of runs; of a probe's points along training the mean, the first left
    out.
    """
    table = rows[rows.measure == PROBED.get(name, name)]
    if name in PROBED and table.step.notna().any():
        later = table.step > table.groupby("run").step.transform("min")
        means = table[later].groupby("run", as_index=False).value.mean()
        return means.assign(readout="last")
    return table


def _gap(finals: pd.DataFrame) -> pd.DataFrame:
    """Training minus test accuracy."""
    plain = finals[finals["shift"] == ""].set_index(["run", "readout"])
    train, test = (plain[plain.split == split].accuracy for split in ("train", "test"))
    return (train - test).dropna().rename("value").reset_index()


def _best_single(finals: pd.DataFrame, readouts: Sequence[str]) -> pd.DataFrame:
    """Test accuracy of the checkpoint that each run's own validation accuracy chooses, of equals
    the first; under the name of each of them, and averages as they are.
    """
    test, validation = _accuracies(finals, "test"), _accuracies(finals, "validation")
    single = [readout for readout in readouts if readout in test]
    if single:
        known = validation.reindex(index=test.index, columns=single).fillna(-np.inf)
        best = known.to_numpy().argmax(axis=1)
        chosen = test[single].to_numpy()[np.arange(len(test)), best]
        test = test.assign(**dict.fromkeys(single, chosen))
    return test.stack().rename("value").reset_index()


def best_single_by_validation(finals: pd.DataFrame, readouts: Sequence[str]) -> pd.DataFrame:
    """Validation accuracy (0 to 1) of the best of these checkpoints, under the name of each of
    them, and of averages as they are: columns run, readout, value.
    """
    validation = _accuracies(finals, "validation")
    single = [readout for readout in readouts if readout in validation]
    best = validation[single].max(axis=1) if single else 0.0
    table = validation.assign(**dict.fromkeys(single, best))
    return table.stack().rename("value").reset_index()


def _accuracies(finals: pd.DataFrame, split: str) -> pd.DataFrame:
    """Runs × readouts."""
    plain = finals[(finals["shift"] == "") & (finals.split == split)]
    return plain.pivot(index="run", columns="readout", values="accuracy")


def _shifted(finals: pd.DataFrame, kind: str, anew: bool, drop: bool) -> pd.DataFrame:
    """Mean accuracy over a kind's shifted test sets that claims are about, or how far it lies below
    the test set's.

    Other severities, and statistics of a few inputs at a time, are shown and bear no verdict.
    """
    asked = (finals["shift"] != "") & (finals.severity == SEVERITY) & finals.batch.isna()
    asked &= finals["shift"].map(family) == kind
    asked &= (finals.statistics == "reestimated") == anew
    mean = finals[asked.fillna(False)].groupby(["run", "readout"]).accuracy.mean()
    if drop:
        plain = finals[(finals.split == "test") & (finals["shift"] == "")]
        mean = plain.set_index(["run", "readout"]).accuracy - mean
    return mean.dropna().rename("value").reset_index()
