"""Choosing a rate and a readout: what candidates are chosen by, and the choice.

Updates to a target have candidates of their own: a rate that loses more than `MOST_LOST` of its
runs, of tuning and report seeds together, is none, however fast the others arrive. A run is lost
that diverged, or climbed above its surface's ceiling (`measures.ceiling`): it was thrown across the
target, and another throw misses.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from steadydescent.study.judging.measures import HIGHEST_POINT, ceiling
from steadydescent.study.judging.places import Place
from steadydescent.study.judging.statistics import chosen
from steadydescent.study.results.roster import SETTINGS

TIE, LOST = 1e-6, 1e3
"""Updates that an accuracy of 1, or a height, weighs where rates are chosen by updates to a target:
it settles ties. A run that diverged has lost so much accuracy.
"""
MOST_LOST = 0.05
BY_STEPS = "steps to target"
OF_A_RATE = [*SETTINGS, "lr"]


class Candidate(NamedTuple):
    """What tuning chooses among."""

    lr: float
    readout: str
    place: Place


def tuning_scores(runs: pd.DataFrame, finals: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """What rates are chosen by, larger better, on validation data.

    Columns run, readout, accuracy, loss, steps to target. Where no rate arrives at the target, all
    need the same number of updates; the accuracy at the end, or a height, then decides, and a run
    that diverged is the worst. Rates that lose runs have no score in steps to target.
    """
    validation = finals[finals.split == "validation"]
    table = validation.assign(loss=-validation.loss)[["run", "readout", "accuracy", "loss"]]
    steps = measures[measures.measure == "steps to target"]
    table = table.merge(steps[["run", "readout", "value"]], "left")
    diverged = table.run.isin(runs[runs.diverged_at.notna()].run)
    ends = table.accuracy.fillna(table.loss).where(~diverged, -LOST)
    out = lost_rates(runs, measures)
    lost = runs.merge(out[out.excluded], on=OF_A_RATE).run
    steps = (TIE * ends - table.value).where(~table.run.isin(lost))
    return table.assign(**{BY_STEPS: steps}).drop(columns="value")


def lost_rates(runs: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """How many runs each rate loses, and whether it is excluded from steps to target.

    Columns: the settings, lr, runs, diverged, above (its surface's ceiling, without having
    diverged), excluded.
    """
    counted = runs[runs.run.isin(measures[measures.measure == BY_STEPS].run)]
    highest = measures[measures.measure == HIGHEST_POINT].set_index("run").value
    tops = counted.task.map(lambda task: np.inf if (top := ceiling(task)) is None else top)
    diverged = counted.diverged_at.notna()
    above = ~diverged & (counted.run.map(highest).astype(float) > tops.astype(float))
    told = counted[OF_A_RATE].assign(runs=1, diverged=diverged, above=above)
    sums = told.groupby(OF_A_RATE, sort=False, as_index=False).sum()
    lost = (sums.diverged + sums.above) / sums.runs
    return sums.assign(excluded=(lost > MOST_LOST).astype(bool))


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
    if not scored(scores):
        raise ValueError(f"no rate and readout of {place.arm!r} has a score to be chosen by")
    lr, readout = scores.columns[chosen(scores.to_numpy(float))]
    return Candidate(float(lr), str(readout), place)


def scored(scores: pd.DataFrame) -> bool:
    """Whether any candidate has a score to be chosen by."""
    return not scores.isna().all(axis=None)
