"""The noisy quadratic, where theory is exact: measured losses beside the closed form."""

import numpy as np
import pandas as pd

from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.book.chapters.results import Results
from steadydescent.study.judging.contrasts.closed_form import expected_curve
from steadydescent.study.judging.evidence import Evidence

TASK = "noisy-quadratic"
READOUTS = {"last": "last", "tail": "tail-25", "ema": "ema-10"}
"""Arm → the readout of it that is drawn."""
ERRORS = 3.0
"""Standard errors on either side of a mean."""


def table_of_heights(evidence: Evidence) -> pd.DataFrame:
    """Final losses: condition, readout, lr, measured with low and high, and the closed form."""
    rows = []
    for condition in evidence.conditions:
        for arm, readout in READOUTS.items():
            heights = evidence.report(condition, arm, "height")
            for lr in sorted(heights.columns.get_level_values("lr").unique()):
                own = heights[lr, readout]
                half = ERRORS * own.std(ddof=1) / len(own) ** 0.5
                theory = expected_curve(evidence, condition, arm, lr, readout)[-1]
                ends = {"low": own.mean() - half, "high": own.mean() + half, "closed form": theory}
                where = {"condition": condition, "readout": readout, "lr": lr}
                rows.append(where | {"measured": own.mean()} | ends)
    return pd.DataFrame(rows)


def draw_quadratic(name: str, results: Results) -> None:
    """Measured losses with intervals over the closed form, a panel a condition."""
    if TASK not in results:
        chapter_figures.not_run(name)
        return
    table = table_of_heights(results[TASK].evidence)
    inside = int(table["closed form"].between(table.low, table.high).sum())
    figures.figure(
        name,
        lambda axes: _panels(axes, table),
        data=table,
        results=[results[TASK].id],
        size=(8.4, 3.6),
        ncols=2,
        sharey=True,
        alt="Final loss on the noisy quadratic, measured and in closed form, "
        f"{len(table)} points; {inside} of {len(table)} intervals hold the closed form.",
        caption="Final loss on the noisy quadratic: lines are the closed form, points are "
        f"measured with intervals of three standard errors; {inside} of {len(table)} hold the "
        "closed form.",
    )


def _panels(axes: np.ndarray, table: pd.DataFrame) -> None:
    for ax, (condition, part) in zip(axes, table.groupby("condition", sort=False), strict=True):
        for readout, own in part.groupby("readout", sort=False):
            (line,) = ax.plot(own.lr, own["closed form"], label=f"{readout}, closed form")
            around = [own.measured - own.low, own.high - own.measured]
            ax.errorbar(own.lr, own.measured, yerr=around, fmt="o", color=line.get_color())
        ax.set(xscale="log", yscale="log", xlabel="peak learning rate", ylabel="loss")
        ax.set_title(condition)
    axes[0].legend(fontsize="small")
