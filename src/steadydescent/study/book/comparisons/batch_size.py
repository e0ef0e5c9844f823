"""Batch size: what each size reaches at its own tuned rate, and how soon."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from steadydescent.study.book.comparisons.comparison import Comparison

SOON = ("steps to target", "examples to target")


def table(comparison: Comparison) -> pd.DataFrame:
    """A row for each size and arm: tuned rate, score, updates and examples to the target."""
    columns = ["batch_size", "condition", "arm", "steps", "lr", "mean", "low", "high", "seeds"]
    rows = comparison.tuned[columns].rename(columns={"mean": comparison.axis})
    for measure in SOON:
        if comparison.has(measure):
            rows[measure] = comparison.mean_of(measure).round()
    sizes = rows.sort_values("batch_size", kind="stable")
    return comparison.marked(sizes.set_index(["batch_size", "condition", "arm"]))


def figure(comparison: Comparison) -> Figure:
    """The score, and the updates to the target, against the minibatch size."""
    measures = [comparison.measure, *(name for name in SOON[:1] if comparison.has(name))]
    drawing, axes = comparison.panels(measures)
    for ax, measure in zip(axes, measures, strict=True):
        first = measure == comparison.measure
        rows = comparison.tuned if first else _means(comparison, measure)
        for name, line in rows.groupby(_lines(rows), sort=False):
            part = line.sort_values("batch_size")
            errors = [part["mean"] - part.low, part.high - part["mean"]] if first else None
            ax.errorbar(part.batch_size, part["mean"], errors, marker="o", capsize=3, label=name)
        ax.set(xlabel="minibatch size", ylabel=comparison.axis if first else measure)
        ax.set_xscale("log", base=2)
        ax.set_xticks(sorted(set(rows.batch_size)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    axes[0].legend(title=None, fontsize="small")
    return drawing


def _means(comparison: Comparison, measure: str) -> pd.DataFrame:
    return comparison.tuned.assign(mean=comparison.mean_of(measure))


def _lines(rows: pd.DataFrame) -> pd.Series:
    """What tells lines apart but their size: the arm, and schedule and task where they differ."""
    differing = [name for name in ("schedule", "task") if rows[name].nunique() > 1]
    return rows[["arm", *differing]].agg(", ".join, axis=1)
