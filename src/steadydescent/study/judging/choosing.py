"""Choosing a rate and a readout: what candidates are chosen by, and the choice."""

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from steadydescent.study.judging.places import Place
from steadydescent.study.judging.statistics import chosen

TIE, LOST = 1e-6, 1e3
"""Updates that an accuracy of 1, or a height, weighs where rates are chosen by updates to a target:
it settles ties. A run that diverged has lost so much accuracy.
"""


class Candidate(NamedTuple):
    """What tuning chooses among."""

    lr: float
    readout: str
    place: Place


def tuning_scores(runs: pd.DataFrame, finals: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """What rates are chosen by, larger better, on validation data.

    Columns run, readout, accuracy, loss, steps to target. Where no rate arrives at the target, all
    need the same number of updates; the accuracy at the end, or a height, then decides, and a run
    that diverged is the worst.
    """
    validation = finals[finals.split == "validation"]
    table = validation.assign(loss=-validation.loss)[["run", "readout", "accuracy", "loss"]]
    steps = measures[measures.measure == "steps to target"]
    table = table.merge(steps[["run", "readout", "value"]], "left")
    lost = table.run.isin(runs[runs.diverged_at.notna()].run)
    ends = table.accuracy.fillna(table.loss).where(~lost, -LOST)
    return table.assign(**{"steps to target": TIE * ends - table.value}).drop(columns="value")


def by_candidate(
    runs: pd.DataFrame, values: pd.DataFrame, readouts: Iterable[str], column: str
) -> pd.DataFrame:
    """Seeds × candidates (rate, readout), by rate and readout: a column of `values`, which has a
    row a run and readout.
    """
    merged = runs[["run", "lr", "seed"]].merge(values, on="run")
    merged = merged[merged.readout.isin(readouts)]
    return merged.pivot(index="seed", columns=["lr", "readout"], values=column).sort_index(axis=1)


def choose(scores: pd.DataFrame, place: Place) -> Candidate:
    """The best candidate of a table of `by_candidate` on tuning seeds; of equals the lowest rate.

    Raises:
        ValueError: when none has a score.
    """
    if scores.isna().all(axis=None):
        raise ValueError(f"no rate and readout of {place.arm!r} has a score to be chosen by")
    lr, readout = scores.columns[chosen(scores.to_numpy(float))]
    return Candidate(float(lr), str(readout), place)
