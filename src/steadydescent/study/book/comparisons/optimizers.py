"""Optimisers: which rule comes first once every rule has its own rate."""

import pandas as pd
from matplotlib.figure import Figure

from steadydescent.study.book.comparisons.comparison import Comparison, draw_intervals


def ranked(comparison: Comparison, condition: str) -> pd.DataFrame:
    """The arms under a condition, the best first: `tuned` with a column rank from 1 on."""
    rows = comparison.tuned[comparison.tuned.condition == condition]
    rows = rows.sort_values("mean", ascending=comparison.measure == "height", kind="stable")
    return rows.assign(rank=range(1, len(rows) + 1))


def table(comparison: Comparison) -> pd.DataFrame:
    """A row for each condition and rule, by rank: tuned rate, score, updates to the target."""
    rows = pd.concat([ranked(comparison, name) for name in comparison.evidence.conditions])
    if comparison.has("steps to target"):
        rows["steps to target"] = comparison.mean_of("steps to target").round()
    rows = rows.drop(columns=["task", "schedule", "batch_size", "steps", "readout"])
    rows = rows.rename(columns={"mean": comparison.axis})
    return comparison.marked(rows.set_index(["condition", "rank"]))


def figure(comparison: Comparison) -> Figure:
    """The rules by rank, one panel a condition, with 95 % intervals."""
    drawing, axes = comparison.panels(comparison.evidence.conditions)
    for ax, condition in zip(axes, comparison.evidence.conditions, strict=True):
        rows = ranked(comparison, condition)
        draw_intervals(ax, rows.arm, rows)
        ax.set_xlabel(comparison.axis)
    return drawing
