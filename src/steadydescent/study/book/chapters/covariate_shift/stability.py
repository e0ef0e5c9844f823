"""How wide the range of rates is that work, by arm."""

import numpy as np
import pandas as pd

from steadydescent.study.book import chapter_figures, figures, plots
from steadydescent.study.book.chapters.covariate_shift.arms import COLOURS
from steadydescent.study.book.chapters.results import Results, grid, hide, ids

CLOSE = 10.0
"""Percentage points below an arm's best mean: what counts as still working."""


def table_of_rates(results: Results) -> pd.DataFrame:
    """Mean validation accuracy over tuning seeds: columns task, arm, lr and score."""
    tables = {task: plots.sweep_table(shown.evidence) for task, shown in results.items()}
    parts = [table.assign(task=task) for task, table in tables.items()]
    return pd.concat(parts, ignore_index=True)[["task", "arm", "lr", "score"]]


def highest_working(table: pd.DataFrame) -> pd.Series:
    """The highest rate within `CLOSE` points of an arm's best, by task and arm."""
    best = table.groupby(["task", "arm"]).score.transform("max")
    works = table[table.score >= best - CLOSE]
    return works.groupby(["task", "arm"], sort=False).lr.max()


def draw_stability(name: str, results: Results) -> None:
    """Validation accuracy against the rate, a panel a task."""
    if not results:
        chapter_figures.not_run(name)
        return
    sweep = table_of_rates(results)
    highest = highest_working(sweep)
    words = "; ".join(
        f"{task}: " + ", ".join(f"{arm} up to {lr:g}" for arm, lr in highest.loc[task].items())
        for task in results
    )
    figures.figure(
        name,
        lambda axes: _panels(axes, sweep),
        data=sweep,
        results=ids(results),
        **grid(len(results)),
        alt="Validation accuracy against the learning rate by arm. Rates within "
        f"{CLOSE:g} points of an arm's best: {words}.",
        caption="Mean validation accuracy over tuning seeds, every rate that was tried. The "
        f"highest rate that stays within {CLOSE:g} points of an arm's best: {words}.",
    )


def _panels(axes: np.ndarray, sweep: pd.DataFrame) -> None:
    hide(axes, sweep.task.nunique())
    for ax, (task, part) in zip(axes.flat, sweep.groupby("task", sort=False), strict=False):
        for arm, line in part.groupby("arm", sort=False):
            ax.plot(line.lr, line.score, marker="o", color=COLOURS[arm], label=arm)
        ax.set(xscale="log", xlabel="learning rate", ylabel="validation accuracy / %", title=task)
        ax.legend(fontsize="small")
