"""Decay schedules: the shape of each, and what it reaches at its own tuned peak rate."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from steadydescent import schedules
from steadydescent.engine.data import SPLIT_SIZES
from steadydescent.engine.settings import read
from steadydescent.engine.tasks import find
from steadydescent.study.book.comparisons.comparison import Comparison, draw_intervals


def table(comparison: Comparison) -> pd.DataFrame:
    """A row for each condition and schedule: peak rate, score, and how far behind the best."""
    rows = comparison.tuned
    best = rows.groupby("condition")["mean"].transform("max")
    rows = rows.assign(behind=best - rows["mean"])
    columns = ["schedule", "steps", "lr", "mean", "low", "high", "behind", "seeds"]
    rows = rows.set_index(["condition", "arm"])[columns]
    return comparison.marked(rows.rename(columns={"lr": "peak rate", "mean": comparison.axis}))


def shape(schedule: str, steps: int, epoch: int) -> np.ndarray | None:
    """A schedule's rates as shares of the highest, `[T]`; None for one that watches the training.

    `epoch` is the number of updates an epoch.

    >>> shape("linear", 4, epoch=2).tolist()
    [1.0, 0.75, 0.5, 0.25]
    """
    name, options = read(schedule)
    if name not in schedules.SCHEDULES:
        return None
    rates = schedules.rates(name, 1.0, steps, epoch=epoch, **options)
    return rates / rates.max()


def figure(comparison: Comparison) -> Figure:
    """Shapes over the run, then one panel a condition with what each schedule reaches."""
    conditions = comparison.evidence.conditions
    drawing, (left, *axes) = comparison.panels(["shapes", *conditions])
    for row in comparison.tuned.drop_duplicates("schedule").itertuples():
        examples = SPLIT_SIZES[find(row.task).source]["train"]
        rates = shape(row.schedule, row.steps, max(1, examples // row.batch_size))
        if rates is not None:
            left.plot(100 * np.arange(1, row.steps + 1) / row.steps, rates, label=row.arm)
    left.set(xlabel="update, % of the run", ylabel="share of the peak rate")
    left.legend(title=None, fontsize="small")
    for ax, condition in zip(axes, conditions, strict=True):
        rows = comparison.tuned[comparison.tuned.condition == condition]
        draw_intervals(ax, rows.arm, rows)
        ax.set_xlabel(comparison.axis)
    return drawing
