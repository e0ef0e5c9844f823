"""Learning-rate search: what missing the best rate costs, and where range tests would send one."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from steadydescent.study.book.comparisons.comparison import Comparison, interval
from steadydescent.study.book.plots import rate_curves


def by_rate(comparison: Comparison, condition: str, arm: str) -> pd.DataFrame:
    """An arm's score at every rate that report seeds ran: lr, mean, low, high, seeds."""
    report = comparison.evidence.report(condition, arm, comparison.measure)
    readout = comparison.evidence.chosen(condition, arm).readout
    rates = [lr for lr, name in report.columns if name == readout]
    return pd.DataFrame([{"lr": lr, **interval(report[lr, readout])} for lr in rates])


def suggested(comparison: Comparison) -> pd.DataFrame:
    """The median rate that each rule suggests after range tests of each length: rule, steps, lr."""
    result = comparison.evidence.result
    rows = result.suggestions.merge(result.runs[["run", "steps"]], on="run")
    return rows.groupby(["rule", "steps"], sort=False).rate.median().rename("lr").reset_index()


def table(comparison: Comparison) -> pd.DataFrame:
    """The best rate and the rates that range tests suggest: score at the nearest rate, and regret.

    Under the first condition, whose rates a search would look through.
    """
    condition = comparison.evidence.conditions[0]
    rates = by_rate(comparison, condition, comparison.evidence.arms_in(condition)[0])
    tuned = comparison.tuned.iloc[0]
    first = pd.DataFrame([{"rule": "whole sweep", "steps": tuned.steps, "lr": tuned.lr}])
    rows = pd.concat([first, suggested(comparison)], ignore_index=True)
    logs = np.log(rates.lr.to_numpy())
    nearest = [int(np.abs(logs - np.log(lr)).argmin()) for lr in rows.lr]
    score = rates["mean"].to_numpy()[nearest]
    rows = rows.assign(nearest=rates.lr.to_numpy()[nearest], score=score)
    rows = rows.assign(regret=rates["mean"].max() - score)
    return comparison.marked(rows.rename(columns={"score": comparison.axis}))


def figure(comparison: Comparison) -> Figure:
    """The score against the rate, and the rates that range tests suggest, one panel a condition."""
    drawing, axes = comparison.panels(comparison.evidence.conditions)
    rate_curves(comparison.evidence, axes, measure=comparison.measure)
    longest = suggested(comparison).groupby("rule", sort=False).last()
    for place, (rule, row) in enumerate(longest.iterrows(), start=1):
        axes[0].axvline(row.lr, color=f"C{place}", linestyle="--", label=f"{rule}")
    axes[0].legend(title=None, fontsize="small")
    return drawing
