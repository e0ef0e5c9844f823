"""What a claim may be about: measures of a run's readout, from the tables of a result."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from steadydescent.checks import check_choice
from steadydescent.engine.probes import churn, probe_of, quantities
from steadydescent.engine.shifted_tests import Shift, family
from steadydescent.study.judging.statistics import Statistic
from steadydescent.study.results.store import Result, Tables
from steadydescent.weight_averaging import Readout

SEVERITY = 3
"""Claims about shifted test data are about this one."""
EARLY = (5, 10, 20, 50)
"""Percent of a run after which averages are looked at, where its curve has a point there."""


@dataclass(frozen=True)
class Measure:
    """One number of each run's readout, and how arms are compared by it.

    `statistic` says what of the seeds is compared: their means, the ratio of their means (`log
    mean`) or of their standard deviations (`log sd`); ratios are shown as factors. Rates are tuned
    by `tuned_by`, on validation data.
    """

    name: str
    unit: str
    higher: bool = True
    statistic: Statistic = "mean"
    tuned_by: str = "accuracy"
    scale: float = 1.0

    @property
    def ratio(self) -> bool:
        return self.statistic != "mean"


_POINTS = Measure("", "pp", scale=100)
MEASURES = {
    measure.name: measure
    for measure in (
        replace(_POINTS, name="accuracy"),
        replace(_POINTS, name="training accuracy"),
        replace(_POINTS, name="calibration error", higher=False),
        replace(_POINTS, name="churn", higher=False),
        replace(_POINTS, name="accuracy at equal training loss"),
        Measure("seed spread", "×", higher=False, statistic="log sd", scale=100),
        Measure("loss", "nats", higher=False),
        Measure("training loss", "nats", higher=False),
        Measure("height", "", higher=False, tuned_by="loss"),
        Measure(
            "steps to target", "×", higher=False, statistic="log mean", tuned_by="steps to target"
        ),
        Measure(
            "examples to target",
            "×",
            higher=False,
            statistic="log mean",
            tuned_by="steps to target",
        ),
        *(
            Measure(quantity.claim, quantity.unit, quantity.higher, quantity.statistic)
            for quantity in quantities()
            if quantity.claim
        ),
    )
}
_FINALS = {
    "accuracy": ("test", "accuracy"),
    "seed spread": ("test", "accuracy"),
    "training accuracy": ("train", "accuracy"),
    "calibration error": ("test", "calibration_error"),
    "loss": ("test", "loss"),
    "height": ("test", "loss"),
    "training loss": ("train", "loss"),
}
_PROBED = {quantity.claim: quantity.name for quantity in quantities() if quantity.claim}
_NEEDS = {claim: probe for claim, name in _PROBED.items() if (probe := probe_of(name))} | {
    "accuracy at equal training loss": "training-loss",
    "churn": "predictions",
}
"""The probe that a measure follows from, where it follows from one."""
_SHIFTED = re.compile(
    r"(?P<what>accuracy|drop) under (?P<kind>covariate|prior|concept) shift"
    r"(?P<anew>, re-estimated)?"
)
_EARLY = re.compile(rf"validation accuracy at (?P<percent>{'|'.join(map(str, EARLY))}) %")


def measure_named(name: str) -> Measure:
    """The measure of that name; `drop under prior shift, re-estimated` and `validation accuracy at
    10 %` are some.

    Raises:
        ValueError: for an unknown one.
    """
    if found := _SHIFTED.fullmatch(name):
        return replace(_POINTS, name=name, higher=found["what"] == "accuracy")
    if _EARLY.fullmatch(name):
        return replace(_POINTS, name=name)
    return MEASURES[
        check_choice(name, sorted(MEASURES), "a measure that is not under a shift, nor early,")
    ]


def measured(name: str, probes: Sequence[str], shifts: Sequence[str], curve_points: int) -> bool:
    """Whether report runs with these probes, shifts and points along training have the measure."""
    if match := _EARLY.fullmatch(name):
        return int(match["percent"]) * curve_points % 100 == 0
    if match := _SHIFTED.fullmatch(name):
        return any(_asked(shift) == (match["kind"], bool(match["anew"])) for shift in shifts)
    return name not in _NEEDS or _NEEDS[name] in probes


def values(result: Result | Tables, name: str) -> pd.DataFrame:
    """The measure of every report run and readout: columns run, readout, value (in its unit)."""
    scale = measure_named(name).scale
    if name in _FINALS:
        split, column = _FINALS[name]
        plain = result.finals[(result.finals.split == split) & (result.finals["shift"] == "")]
        table = plain.rename(columns={column: "value"})
    elif match := _SHIFTED.fullmatch(name):
        anew, drop = bool(match["anew"]), match["what"] == "drop"
        table = _shifted(result.finals, match["kind"], anew, drop)
    else:
        table = _probed(result.measures, name)
    readout = table.readout.replace("", "last")
    return table.assign(value=table.value * scale, readout=readout)[["run", "readout", "value"]]


def _probed(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """A measure at the end of runs; of a probe's points along training the mean, the first left
    out.
    """
    table = rows[rows.measure == _PROBED.get(name, name)]
    if name in _PROBED and table.step.notna().any():
        later = table.step > table.groupby("run").step.transform("min")
        means = table[later].groupby("run", as_index=False).value.mean()
        return means.assign(readout="last")
    return table


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


def _asked(text: str) -> tuple[str, bool] | None:
    """Kind of a shift that claims are about, and whether statistics are re-estimated; None for any
    other.
    """
    shift = Shift.parse(text)
    if shift.severity != SEVERITY or shift.batch is not None:
        return None
    return family(shift.kind), shift.reestimated


def kept(tables: Tables, roster: pd.DataFrame, target: float | None, by_loss: bool) -> pd.DataFrame:
    """What a result keeps: what probes measured on report runs, and what follows from curves and
    predictions.

    Args:
        tables: of the result's runs.
        roster: whom the runs serve.
        target: what "steps to target" count to, if anything.
        by_loss: whether the target is a height, as a surface has, and not an accuracy.
    """
    report = tables.runs[tables.runs.test].run
    probed = tables.measures[tables.measures.run.isin(report) & (tables.measures.measure != "loss")]
    parts = [probed, derived(tables, target, by_loss), at_equal_loss(tables, roster)]
    parts = [part for part in (*parts, churned(tables)) if len(part)]
    rows = pd.concat(parts, ignore_index=True) if parts else table()
    return rows.drop_duplicates(["run", "readout", "measure", "batch_size", "step"])


def derived(tables: Tables, target: float | None, by_loss: bool) -> pd.DataFrame:
    """Measures of runs that follow from their curves: steps and examples to a target, and accuracy
    on the way.
    """
    curves = tables.curves.sort_values("step")
    rows = []
    runs = tables.runs.set_index("run")
    for (run, readout), curve in curves.groupby(["run", "readout"], sort=False):
        steps, batch_size = int(runs.steps[run]), int(runs.batch_size[run])
        if target is not None and readout == "last":
            column = "loss" if by_loss else "accuracy"
            needed = first_reached(
                curve.step.to_numpy(), curve[column].to_numpy(), target, by_loss, steps
            )
            rows += [
                (run, readout, "steps to target", needed),
                (run, readout, "examples to target", needed * batch_size),
            ]
        if Readout.parse(readout).average_along and not by_loss:
            near = curve[(100 * curve.step / steps).round().isin(EARLY)]
            rows += [
                (run, readout, f"validation accuracy at {round(100 * step / steps)} %", accuracy)
                for step, accuracy in zip(near.step, near.accuracy, strict=True)
            ]
    return table(rows)


def table(rows: Sequence[tuple[Any, ...]] = ()) -> pd.DataFrame:
    """Measures at the end of runs as rows of a result: run, readout, measure, value; they belong to
    no minibatch size and no step.
    """
    whole = pd.array([None] * len(rows), "Int64")
    made = pd.DataFrame(rows, columns=["run", "readout", "measure", "value"])
    made = made.assign(batch_size=whole, step=whole).astype({"value": float})
    return made[["run", "readout", "measure", "batch_size", "step", "value"]]


def first_reached(
    steps: np.ndarray, values: np.ndarray, target: float, below: bool, total: int
) -> float:
    """The step at which a curve first reaches a target, by linear interpolation; the run's length
    if it never does.

    >>> first_reached(np.array([10, 20]), np.array([0.2, 0.6]), 0.4, below=False, total=20)
    15.0
    """
    reached = np.flatnonzero(values <= target if below else values >= target)
    if not len(reached):
        return float(total)
    i = int(reached[0])
    if i == 0:
        return float(steps[0])
    share = (target - values[i - 1]) / (values[i] - values[i - 1])
    return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))


def at_equal_loss(tables: Tables, roster: pd.DataFrame) -> pd.DataFrame:
    """Accuracy where the training loss has fallen to what the slowest arm of any condition reaches
    at its best.
    """
    training = tables.measures[tables.measures.measure == "training-loss"]
    if training.empty:
        return table()
    ends = training.sort_values("step").groupby("run").value.last()
    report = roster[roster.purpose == "report"].merge(tables.runs[["run", "lr"]], on="run")
    means = report.assign(end=report.run.map(ends)).groupby(["condition", "arm", "lr"]).end.mean()
    level = means.groupby(["condition", "arm"]).min().max()
    return accuracy_at_loss(tables, float(level))


def accuracy_at_loss(tables: Tables, loss: float) -> pd.DataFrame:
    """Validation accuracy where a run's training loss first falls to a level; the last one if it
    never does.
    """
    training = tables.measures[tables.measures.measure == "training-loss"]
    curves = tables.curves[tables.curves.readout == "last"].set_index(["run", "step"]).accuracy
    rows = []
    for run, part in training.sort_values("step").groupby("run", sort=False):
        total = int(part.step.max())
        when = first_reached(
            part.step.to_numpy(float), part.value.to_numpy(), loss, below=True, total=total
        )
        accuracy = curves[run]
        rows.append(
            (
                run,
                "last",
                "accuracy at equal training loss",
                np.interp(when, accuracy.index, accuracy),
            )
        )
    return table(rows)


def churned(tables: Tables) -> pd.DataFrame:
    """Churn of report runs of the same settings, as each seed's share in it: 2·mean_j d(i, j) −
    mean over all pairs.

    d(i, j) is the share of test examples on which two seeds disagree. Pairs share seeds and are not
    independent; these pseudo-values of the mean over pairs are nearly so, and their mean is that
    mean.
    """
    rows = []
    settings = ["task", "optimizer", "schedule", "batch_size", "steps", "lr"]
    runs = tables.runs[tables.runs.test]
    merged = tables.predictions.merge(runs[["run", "seed", *settings]], on="run")
    for (readout, *_), part in merged.sort_values("seed").groupby(
        ["readout", *settings], sort=False
    ):
        if (count := len(part)) < 2:
            continue
        apart = np.array(
            [[churn(a, b) if a is not b else 0.0 for b in part.classes] for a in part.classes]
        )
        shares = 2 * apart.sum(1) / (count - 1) - apart.sum() / (count * (count - 1))
        rows += [
            (run, readout, "churn", share) for run, share in zip(part.run, shares, strict=True)
        ]
    return table(rows)
