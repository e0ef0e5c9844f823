"""How runs end by schedule: accuracies, the rates they were tuned to, other numbers of updates."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from steadydescent.study.book import chapter_figures, figures, page, plots
from steadydescent.study.book.chapters.results import Results, ids
from steadydescent.study.book.edition import Numbers
from steadydescent.study.judging.evidence import Evidence

MAIN = "momentum"
"""The condition of the usual updates."""
SHOWN = ("constant", "linear", "cosine", "inverse-time", "exponential", "steps")
"""The schedules that pictures of few lines show."""
COLUMNS = ["task", "condition", "schedule", "peak", "diverged", "accuracy", "low", "high"]
HEADS = {
    "task": "task",
    "condition": "condition",
    "schedule": "schedule",
    "peak": "peak rate",
    "accuracy": "accuracy, %",
    "diverged": "diverged",
}
"""Column of `table_of_ends` → its head on the page."""


def table_of_ends(results: Results, numbers: Numbers) -> pd.DataFrame:
    """Test accuracy in percent with its interval, each schedule at its tuned peak: `COLUMNS`."""
    rows = []
    for task, shown in results.items():
        for condition in shown.evidence.conditions:
            for arm in shown.evidence.arms_in(condition):
                key = f"decay_schedules/{task}/{condition}/{arm}"
                accuracy = numbers[f"{key}/accuracy"]
                peak, diverged = (
                    numbers[f"{key}/{what}"]["value"] for what in ("rate", "diverged")
                )
                ends = (accuracy["value"], accuracy["low"], accuracy["high"])
                rows.append((task, condition, arm, peak, diverged, *ends))
    return pd.DataFrame(rows, columns=COLUMNS)


def table_of_tuned_ends(results: Results, numbers: Numbers) -> pd.DataFrame:
    """`table_of_ends` as the page shows it."""
    return table_of_ends(results, numbers)[list(HEADS)].rename(columns=HEADS)


def draw_ends(name: str, results: Results, numbers: Numbers) -> None:
    """Final accuracies, a panel a task and condition, sorted."""
    ends = table_of_ends(results, numbers)
    if ends.empty:
        chapter_figures.not_run(name)
        return
    panels = list(ends.groupby(["task", "condition"], sort=False))
    best = "; ".join(f"{task}, {where}: {_best(part)}" for (task, where), part in panels)
    down = -(-len(panels) // 2)
    figures.figure(
        name,
        lambda axes: _end_panels(axes, panels),
        data=ends,
        size=(8.4, 3.6 * down),
        nrows=down,
        ncols=min(2, len(panels)),
        squeeze=False,
        results=ids(results),
        alt="Final test accuracy by schedule, each at its tuned peak rate. "
        f"Highest and constant: {best}.",
        caption="Test accuracy at the end, each schedule at the peak rate that tuning chose, with "
        f"95 % intervals over seeds. {best}. Intervals here leave the noise of tuning out; the "
        "verdicts do not.",
    )


def _best(part: pd.DataFrame) -> str:
    """The highest accuracy, and a constant rate's."""
    top = part.loc[part.accuracy.idxmax()]
    flat = part.accuracy[part.schedule == "constant"]
    constant = "".join(f", constant {accuracy:.2f} %" for accuracy in flat)
    return f"{top.schedule} {top.accuracy:.2f} %{constant}"


def _end_panels(axes: np.ndarray, panels: list[tuple[Any, pd.DataFrame]]) -> None:
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    for ax, ((task, condition), part) in zip(axes.flat, panels, strict=False):
        part = part.sort_values("accuracy")
        around = [part.accuracy - part.low, part.high - part.accuracy]
        ax.errorbar(part.accuracy, range(len(part)), xerr=around, fmt="o")
        ax.set(yticks=range(len(part)), yticklabels=part.schedule, xlabel="test accuracy / %")
        ax.set_title(task if condition == MAIN else f"{task}\n{condition}")


def table_of_rates(evidence: Evidence) -> pd.DataFrame:
    """Mean validation accuracy over tuning seeds of `SHOWN`, every peak rate, usual updates."""
    sweep = plots.sweep_table(evidence)
    return sweep[(sweep.condition == MAIN) & sweep.arm.isin(SHOWN)]


def gains(table: pd.DataFrame) -> pd.Series:
    """Linear decay minus a constant rate at the same peak, in points, by rate."""
    both = table.pivot(index="lr", columns="arm", values="score")[["constant", "linear"]].dropna()
    return both.linear - both.constant


def draw_rates(name: str, results: Results) -> None:
    """Accuracy against the peak rate on the first task that has the usual updates."""
    tasks = [task for task, shown in results.items() if MAIN in shown.evidence.conditions]
    if not tasks:
        chapter_figures.not_run(name)
        return
    task = tasks[0]
    table = table_of_rates(results[task].evidence)
    gain = gains(table)
    least, most = (f"{gain[lr]:+.1f}" for lr in (gain.idxmin(), gain.idxmax()))
    figures.figure(
        name,
        lambda ax: _rate_lines(ax, table),
        data=table,
        results=[results[task].id],
        alt=f"Validation accuracy on {task} against the peak rate for {table.arm.nunique()} "
        f"schedules. Linear minus constant: from {least} points at {gain.idxmin():g} to {most} at "
        f"{gain.idxmax():g}.",
        caption=f"The whole sweep on {task}: mean validation accuracy over tuning seeds. Linear "
        f"decay against a constant rate at the same peak: {least} points at {gain.idxmin():g}, "
        f"{most} at {gain.idxmax():g}.",
    )


def _rate_lines(ax: Axes, table: pd.DataFrame) -> None:
    lines = table.groupby("arm", sort=False)
    for marker, (arm, line) in zip("os^vDP", lines, strict=False):
        line = line.sort_values("lr")
        ax.plot(line.lr, line.score, marker=marker, label=arm)
    bottom = max(table.score.min(), table.score.max() - 25)
    ax.set(xscale="log", xlabel="peak learning rate", ylabel="validation accuracy / %")
    ax.set_ylim(bottom, None)
    ax.legend(fontsize="small")


def other_lengths(evidence: Evidence) -> list[str]:
    """Conditions that differ from the usual updates in their number alone."""
    if MAIN not in evidence.conditions:
        return []
    settings = {c: evidence.settings(c, "constant") for c in evidence.conditions}
    usual = settings.pop(MAIN)
    return [c for c, own in settings.items() if own == usual._replace(steps=own.steps)]


def lengths(results: Results, numbers: Numbers) -> page.Shown:
    """What linear decay gains after the usual updates, and after more and fewer."""
    ends = table_of_ends(results, numbers)
    sentences = []
    for task, shown in results.items():
        if conditions := other_lengths(shown.evidence):
            accuracy = ends[ends.task == task].set_index(["condition", "schedule"]).accuracy
            sentences.append(_of_lengths(task, conditions, accuracy))
    return page.paragraph(" ".join(sentences)) if sentences else page.NOT_RUN


def _of_lengths(task: str, conditions: list[str], accuracy: pd.Series) -> str:
    def gain(condition: str) -> str:
        return f"{accuracy[condition, 'linear'] - accuracy[condition, 'constant']:+.2f} points"

    usual = f"On {task} linear decay ends {gain(MAIN)} from a constant rate after the usual updates"
    others = [
        f", {gain(condition)} after {condition.removeprefix(f'{MAIN}, ')}, where a constant rate "
        f"ends at {accuracy[condition, 'constant']:.1f} % and not at "
        f"{accuracy[MAIN, 'constant']:.1f} %"
        for condition in conditions
    ]
    return usual + "".join(others) + "."
