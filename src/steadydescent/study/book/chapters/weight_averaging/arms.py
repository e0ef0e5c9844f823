"""Arms at their tuned rates: what they score, their gaps, batch norm's statistics."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from steadydescent.engine.settings import read
from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.book.chapters.results import Results, ids
from steadydescent.study.book.edition import Numbers
from steadydescent.study.book.words import difference
from steadydescent.study.judging.evidence import Evidence

FIRST = "mnist1d-mlp"
"""The task that pictures of one task show, where it was run."""
SCHEDULES = ("constant", "linear")
"""The conditions that every task has."""
ARMS = ("last", "ema", "checkpoints", "tail", "ramp")
TREATMENTS = {
    "ema": "averaged",
    "copied statistics": "copied from the last weights",
    "re-estimated statistics": "estimated afresh",
}
"""Arm → what it does with batch norm's statistics."""
COLUMNS = {
    "rate": "rate",
    "readout": "readout",
    "accuracy, %": "accuracy",
    "sd": "seed-sd",
    "nats": "loss",
    "calibration, pp": "calibration",
    "diverged": "diverged",
}
"""Column of `table_of_arms` → the last part of a number's key."""


def of_networks(results: Results) -> Results:
    """The tasks that are networks: they have an accuracy, surfaces have a height."""
    return {t: shown for t, shown in results.items() if shown.evidence.main_measure == "accuracy"}


def first_task(results: Results) -> str:
    """The task that pictures of one task show; empty if no network was run."""
    tasks = list(of_networks(results))
    return FIRST if FIRST in tasks else (tasks or [""])[0]


def usual_norm(evidence: Evidence) -> list[str]:
    """The conditions that leave a network's normalisation as it is."""
    return [
        condition
        for condition in evidence.conditions
        if "norm" not in read(evidence.settings(condition, "last").task).options
    ]


def draw_rates(name: str, results: Results) -> None:
    """Accuracy against the rate on one task, a panel a condition without batch norm."""
    task = first_task(results)
    conditions = usual_norm(results[task].evidence) if task else []
    chapter_figures.rates(name, "weight_averaging", task, conditions, arms=ARMS)


def table_of_arms(results: Results, numbers: Numbers) -> pd.DataFrame:
    """What every arm scores at its tuned rate: task, condition, arm and `COLUMNS`."""
    rows = []
    for task, shown in of_networks(results).items():
        for condition in shown.evidence.conditions:
            for arm in ARMS:
                if arm in shown.evidence.arms_in(condition):
                    key = f"weight_averaging/{task}/{condition}/{arm}"
                    values = {c: numbers[f"{key}/{what}"]["value"] for c, what in COLUMNS.items()}
                    rows.append({"task": task, "condition": condition, "arm": arm} | values)
    return pd.DataFrame(rows)


def table_of_statistics(results: Results, numbers: Numbers) -> pd.DataFrame:
    """The EMA with each treatment of batch norm's statistics, at its tuned rate and window."""
    rows = []
    for task, shown in of_networks(results).items():
        for condition in shown.evidence.conditions:
            if set(TREATMENTS) <= set(shown.evidence.arms_in(condition)):
                schedule = read(shown.evidence.settings(condition, "ema").schedule).name
                where = {"task": task.removesuffix("-mlp"), "schedule": schedule}
                key = f"weight_averaging/{task}/{condition}"
                rows += [where | _treated(numbers, key, arm) for arm in TREATMENTS]
    return pd.DataFrame(rows)


def _treated(numbers: Numbers, key: str, arm: str) -> dict[str, Any]:
    """A row of `table_of_statistics`: the arm's numbers, and its difference from the average."""
    apart = numbers.get(f"{key}/{arm}-ema/tuned")
    return {
        "statistics": TREATMENTS[arm],
        "rate": numbers[f"{key}/{arm}/rate"]["value"],
        "window": without_statistics(numbers[f"{key}/{arm}/readout"]["value"]),
        "accuracy, %": numbers[f"{key}/{arm}/accuracy"]["value"],
        "minus averaged, pp": (
            difference(apart["value"], apart["low"], apart["high"]) if apart else ""
        ),
    }


def without_statistics(readout: str) -> str:
    """A readout without what it does with statistics: ``ema-10`` of ``ema-10/copied``."""
    return readout.partition("/")[0]


def table_of_gaps(results: Results, numbers: Numbers) -> pd.DataFrame:
    """Training minus test accuracy in points: columns task, condition, arm, gap, low, high."""
    rows = []
    for task in of_networks(results):
        for condition in SCHEDULES:
            for arm in ARMS:
                gap = numbers[f"weight_averaging/{task}/{condition}/{arm}/gap"]
                rows.append((task, condition, arm, gap["value"], gap["low"], gap["high"]))
    return pd.DataFrame(rows, columns=["task", "condition", "arm", "gap", "low", "high"])


def draw_gap(name: str, results: Results, numbers: Numbers) -> None:
    """The gap by task and arm, a panel a schedule."""
    gaps = table_of_gaps(results, numbers)
    if gaps.empty:
        chapter_figures.not_run(name)
        return
    widest = gaps.loc[gaps.gap.idxmax()]
    figures.figure(
        name,
        lambda axes: _gap_panels(axes, gaps),
        data=gaps,
        results=ids(of_networks(results)),
        size=(8.4, 3.8),
        ncols=2,
        sharey=True,
        alt="Gap between training and test accuracy by arm, task and schedule; the widest, "
        f"{widest.gap:.1f} points, is {widest.arm} on {widest.task}, {widest.condition} rate.",
        caption="Training minus test accuracy at each arm's own tuned rate, with 95 % intervals. "
        f"Widest: {widest.gap:.1f} percentage points ({widest.arm}, {widest.task}).",
    )


def _gap_panels(axes: np.ndarray, gaps: pd.DataFrame) -> None:
    labels = [task.replace("-m", "-\nm").replace("-c", "-\nc") for task in gaps.task.unique()]
    for ax, (condition, part) in zip(axes, gaps.groupby("condition", sort=False), strict=True):
        _gap_lines(ax, part)
        ax.set(xticks=range(len(labels)), title=f"{condition} rate")
        ax.set_ylabel("training minus test accuracy / pp")
        ax.set_xticklabels(labels)
    axes[0].legend(fontsize="small")


def _gap_lines(ax: Axes, part: pd.DataFrame) -> None:
    """An arm's gaps on every task, side by side with the others'."""
    for offset, (arm, own) in enumerate(part.groupby("arm", sort=False)):
        places = np.arange(len(own)) + 0.12 * (offset - 2)
        ax.errorbar(
            places, own.gap, yerr=[own.gap - own.low, own.high - own.gap], fmt="o", label=arm
        )
