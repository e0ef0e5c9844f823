"""Weight averaging: what each readout gains on the last weights, each at its own tuned rate."""

import pandas as pd
from matplotlib.figure import Figure

from steadydescent.study.book.comparisons.comparison import (
    Comparison,
    draw_intervals,
    interval,
)

LAST = "last"


def gains(comparison: Comparison) -> pd.DataFrame:
    """The gain on the last weights, seed by seed: condition, arm, mean, low, high, seeds.

    Without an arm of last weights under a condition it has no rows.
    """
    rows = []
    for condition in comparison.evidence.conditions:
        arms = comparison.evidence.arms_in(condition)
        for arm in [arm for arm in arms if arm != LAST and LAST in arms]:
            ours, theirs = (comparison.at_tuned(condition, name) for name in (arm, LAST))
            gain = (theirs - ours) if comparison.measure == "height" else (ours - theirs)
            rows.append({"condition": condition, "arm": arm, **interval(gain.dropna())})
    return pd.DataFrame(rows, columns=["condition", "arm", "mean", "low", "high", "seeds"])


def table(comparison: Comparison) -> pd.DataFrame:
    """A row for each condition and arm: chosen readout, tuned rate, score, gain on the last."""
    rows = comparison.tuned[["condition", "arm", "readout", "lr", "mean", "low", "high", "seeds"]]
    gain = gains(comparison)[["condition", "arm", "mean"]].rename(columns={"mean": "gain"})
    rows = rows.rename(columns={"mean": comparison.axis}).merge(gain, "left")
    return comparison.marked(rows.set_index(["condition", "arm"]))


def figure(comparison: Comparison) -> Figure:
    """The gain on the last weights, or the scores where these are no arm, one panel a condition."""
    conditions, gain = comparison.evidence.conditions, gains(comparison)
    drawing, axes = comparison.panels(conditions)
    for ax, condition in zip(axes, conditions, strict=True):
        rows = gain[gain.condition == condition]
        if rows.empty:
            rows = comparison.tuned[comparison.tuned.condition == condition]
        else:
            ax.axvline(0, color="0.5", linewidth=1)
        draw_intervals(ax, rows.arm, rows)
        unit = "" if comparison.measure == "height" else " / pp"
        ax.set_xlabel(comparison.axis if "batch_size" in rows else f"gain on the last{unit}")
    return drawing
