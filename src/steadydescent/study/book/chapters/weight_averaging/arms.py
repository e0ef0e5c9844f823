"""Arms at their tuned rates: what they score, their gaps, batch norm's statistics."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from steadydescent.engine.settings import read
from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.book.chapters.results import Results, ids, main_task, networks
from steadydescent.study.book.edition import Numbers
from steadydescent.study.book.words import (
    MAJORITY,
    choices_in_words,
    difference,
    estimate_and_interval,
)
from steadydescent.study.judging.evidence import Evidence

SCHEDULES = ("constant", "linear")
"""The conditions that every task has."""
ARMS = ("last", "ema", "checkpoints", "tail", "ramp")
HEADS = ("ema", "checkpoints")
"""The arms that are set head to head."""
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


def usual_norm(evidence: Evidence) -> list[str]:
    """The conditions that leave a network's normalisation as it is; all, where none does."""
    plain = [
        condition
        for condition in evidence.conditions
        if "norm" not in read(evidence.settings(condition, "last").task).options
    ]
    return plain or list(evidence.conditions)


def draw_rates(name: str, results: Results) -> None:
    """Accuracy against the rate on one task, a panel a condition without batch norm."""
    task = main_task(results)
    if not task:
        chapter_figures.not_run(name)
        return
    evidence = results[task].evidence
    conditions = usual_norm(evidence)
    arms = [arm for arm in ARMS if all(arm in evidence.arms_in(own) for own in conditions)]
    chapter_figures.rates(name, "weight_averaging", task, conditions, arms=arms)


def table_of_arms(results: Results, numbers: Numbers) -> pd.DataFrame:
    """What every arm scores at its tuned rate: task, condition, arm and `COLUMNS`."""
    rows = []
    for task, shown in networks(results).items():
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
    for task, shown in networks(results).items():
        for condition in shown.evidence.conditions:
            if set(TREATMENTS) <= set(shown.evidence.arms_in(condition)):
                schedule = read(shown.evidence.settings(condition, "ema").schedule).name
                where = {"task": task, "schedule": schedule}
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


def table_of_heads(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """EMA against checkpoints, head to head: a row a task and schedule, in points of accuracy.

    `rows` as `steadydescent.study.book.edition.rows_shown` has them.
    """
    return pd.DataFrame(
        [
            {
                "task": row["task"],
                "schedule": row["condition"].partition(",")[0],
                "verdict": row["verdict"],
                "EMA minus checkpoints, pp": estimate_and_interval(row, unit=False),
                **{arm: _chosen(row, arm) for arm in HEADS},
            }
            for row in rows
            if row["id"] == "ema-or-checkpoints"
        ]
    )


def _chosen(row: Mapping[str, Any], arm: str) -> str:
    """Readout and rate that tuning chose for an arm of a row."""
    names = [name for name in row["rates"] if name.removeprefix("against ") == arm]
    return ", ".join(f"{row['readouts'][name]} at {row['rates'][name]:g}" for name in names)


def table_of_choices(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """What redraws of tuning choose where no candidate has most of them: a row an arm of a row."""
    return pd.DataFrame(
        [
            {
                "claim": row["title"],
                "task": row["task"],
                "condition": row["condition"],
                "arm": arm,
                "chosen in so many percent of redraws": choices_in_words(choices),
            }
            for row in rows
            for arm, choices in row["choices"].items()
            if choices and max(choice["share"] for choice in choices) < MAJORITY
        ]
    )


def without_statistics(readout: str) -> str:
    """A readout without what it does with statistics: ``ema-10`` of ``ema-10/copied``."""
    return readout.partition("/")[0]


def table_of_gaps(results: Results, numbers: Numbers) -> pd.DataFrame:
    """Training minus test accuracy in points: columns task, condition, arm, gap, low, high."""
    rows = []
    for task in networks(results):
        for condition in SCHEDULES:
            for arm in ARMS:
                if gap := numbers.get(f"weight_averaging/{task}/{condition}/{arm}/gap"):
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
        results=ids(networks(results)),
        size=(8.4, 3.8),
        ncols=2,
        sharey=True,
        alt="Gap between training and test accuracy by arm, task and schedule; the widest, "
        f"{widest.gap:.1f} points, is {widest.arm} on {widest.task}, {widest.condition} rate.",
        caption="Training minus test accuracy at each arm's own tuned rate, with 95 % intervals. "
        f"Widest: {widest.gap:.1f} percentage points ({widest.arm}, {widest.task}).",
    )


def _gap_panels(axes: np.ndarray, gaps: pd.DataFrame) -> None:
    tasks = list(gaps.task.unique())
    labels = [task.replace("-m", "-\nm").replace("-c", "-\nc") for task in tasks]
    for ax, condition in zip(axes, SCHEDULES, strict=True):
        _gap_lines(ax, gaps[gaps.condition == condition], tasks)
        ax.set(xticks=range(len(labels)), title=f"{condition} rate")
        ax.set_ylabel("training minus test accuracy / pp")
        ax.set_xticklabels(labels)
    axes[0].legend(fontsize="small")


def _gap_lines(ax: Axes, part: pd.DataFrame, tasks: list[str]) -> None:
    """An arm's gaps on every task, side by side with the others'."""
    for offset, (arm, own) in enumerate(part.groupby("arm", sort=False)):
        places = np.array([tasks.index(task) for task in own.task]) + 0.12 * (offset - 2)
        ax.errorbar(
            places, own.gap, yerr=[own.gap - own.low, own.high - own.gap], fmt="o", label=arm
        )
