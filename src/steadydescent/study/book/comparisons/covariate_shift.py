"""Batch norm and shift: what each network loses on shifted test data."""

import pandas as pd
from matplotlib.figure import Figure

from steadydescent.study.book.comparisons.comparison import Comparison, interval

SHIFT = ["shift", "severity", "statistics", "batch"]


def shifted(comparison: Comparison) -> pd.DataFrame:
    """Test accuracy in percent on plain and on shifted data, at each network's tuned rate.

    Columns condition, arm, shift ("" for plain data), severity, statistics, batch, mean, low, high,
    seeds, and lost, the mean percentage points below plain data.
    """
    finals = comparison.evidence.result.finals
    tests = finals[finals.split == "test"]
    parts = []
    for row in comparison.tuned.itertuples():
        runs = comparison.evidence.runs(row.condition, row.arm)
        mine = tests[tests.run.isin(runs[runs.lr == row.lr].run) & (tests.readout == row.readout)]
        scores = [
            dict(zip(SHIFT, values, strict=True)) | interval(100 * part.accuracy)
            for values, part in mine.groupby(SHIFT, sort=False, dropna=False)
        ]
        plain = next(score["mean"] for score in scores if score["shift"] == "")
        part = pd.DataFrame(scores).assign(condition=row.condition, arm=row.arm)
        parts.append(part.assign(lost=plain - part["mean"]))
    return pd.concat(parts, ignore_index=True)


def named(rows: pd.DataFrame) -> pd.Series:
    """A row's shift in words: `shear 2`, `shear 2, re-estimated from 10`."""
    names = []
    for shift, severity, statistics, batch in rows[SHIFT].itertuples(index=False):
        anew = ", re-estimated" if statistics == "reestimated" else ""
        few = "" if pd.isna(batch) else f" from {batch}"
        names.append(f"{shift} {severity}{anew}{few}" if shift else "test data")
    return pd.Series(names, rows.index)


def table(comparison: Comparison) -> pd.DataFrame:
    """A row for each kind of test data, a column for each network: accuracy in percent."""
    rows = shifted(comparison)
    rows = rows.assign(data=named(rows))
    wide = rows.pivot_table(index=["condition", "data"], columns="arm", values="mean", sort=False)
    return comparison.marked(wide)


def figure(comparison: Comparison) -> Figure:
    """Accuracy lost under each shift, one line a network, one panel a condition."""
    rows = shifted(comparison)
    rows = rows[rows["shift"] != ""]
    drawing, axes = comparison.panels(comparison.evidence.conditions)
    for ax, condition in zip(axes, comparison.evidence.conditions, strict=True):
        for arm, part in rows[rows.condition == condition].groupby("arm", sort=False):
            ax.plot(part.lost, named(part), "o", label=arm)
        ax.axvline(0, color="0.5", linewidth=1)
        ax.set_xlabel("test accuracy lost / pp")
        ax.margins(y=0.15)
        ax.invert_yaxis()
        ax.legend(title=None, fontsize="small")
    return drawing
