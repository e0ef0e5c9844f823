"""What shifts inside the network along training, and whether speed goes with it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.book.chapters.covariate_shift.arms import (
    COLOURS,
    CONDITION,
    MILD,
    NORMED,
    PLAIN,
    same_inputs,
)
from steadydescent.study.book.chapters.results import (
    Results,
    fastest,
    grid,
    hide,
    ids,
    main_task,
    measured,
)
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.statistics import paired

LABELS = {
    "input-shift": "input shift / σ",
    "gradient-shift": "gradient shift, relative",
    "gradient-cosine": "cosine of gradients",
    "loss-variation": "variation of the loss / nats",
    "gradient-predictiveness": "variation of the gradient",
    "input-shift-drift": "input shift since the last look / σ",
}
"""Measure of the probe → label of its axis: the thing, then its unit."""
INPUT_SHIFT, COSINE = "input-shift", "gradient-cosine"


def probed(results: Results) -> Results:
    """The tasks on which the probe of internal shift looked on."""
    return {
        task: shown
        for task, shown in results.items()
        if (shown.evidence.result.measures.measure == INPUT_SHIFT).any()
    }


def nearest_rate(evidence: Evidence, arm: str, wanted: float) -> float:
    """The rate nearest to the wanted one, in logarithms, that an arm's report seeds ran."""
    runs = evidence.runs(CONDITION, arm)
    rates = runs[runs.test].lr.unique()
    return float(min(rates, key=lambda lr: abs(np.log(lr / wanted))))


def table_of_measures(evidence: Evidence) -> pd.DataFrame:
    """Mean and standard error over report seeds along training, of every arm and measure.

    All arms are at the rate best without batch norm, or the nearest that they ran. Columns
    measure, step, mean, sem, arm, task and rate.
    """
    wanted, parts = evidence.candidates(CONDITION, PLAIN).chosen.lr, []
    for arm in same_inputs(evidence):
        lr = nearest_rate(evidence, arm, wanted)
        rows = measured(evidence, CONDITION, arm, lr, LABELS)
        table = rows.groupby(["measure", "step"]).value.agg(["mean", "sem"]).reset_index()
        parts.append(table.assign(arm=arm, task=evidence.task, rate=lr))
    return pd.concat(parts, ignore_index=True)


def later_means(table: pd.DataFrame) -> pd.DataFrame:
    """Averages along training, the first look left out: measures × arms."""
    later = table[table.step > table.step.min()]
    return later.groupby(["measure", "arm"])["mean"].mean().unstack()


def draw_measures(name: str, results: Results) -> None:
    """Six measures along training, a line an arm."""
    results = probed(results)
    task = main_task(results)
    if not task:
        chapter_figures.not_run(name)
        return
    table = table_of_measures(results[task].evidence)
    means = later_means(table)
    ratios = means[NORMED] / means[PLAIN]
    named = {m: label.split(" /")[0].split(",")[0] for m, label in LABELS.items() if m != COSINE}
    words = ", ".join(f"{thing} {ratios[m]:.2g} times" for m, thing in named.items())
    ours, theirs = (f"{means.loc[COSINE, arm]:.2f}" for arm in (NORMED, PLAIN))
    figures.figure(
        name,
        lambda axes: _measure_panels(axes, table),
        data=table,
        results=[results[task].id],
        size=(8.4, 6.0),
        nrows=2,
        ncols=3,
        alt=f"Six measures along training on {task} for {table.arm.nunique()} arms. With batch "
        f"norm, against without: {words}; cosine {ours} against {theirs}.",
        caption=f"Internal shift and smoothness on {task}, each arm at the rate best without batch "
        "norm or the nearest that it ran; means and 95 % bands over seeds. Averaged along training "
        f"(first look left out), batch norm has {words} that of no norm; its cosine is {ours} "
        f"against {theirs}.",
    )


def _measure_panels(axes: np.ndarray, table: pd.DataFrame) -> None:
    for ax, (measure, label) in zip(axes.flat, LABELS.items(), strict=True):
        for arm, part in table[table.measure == measure].groupby("arm", sort=False):
            name = f"{arm}, rate {part.rate.iloc[0]:g}"
            ax.plot(part.step, part["mean"], color=COLOURS[arm], label=name)
            low, high = (part["mean"] + sign * 1.96 * part["sem"] for sign in (-1, 1))
            ax.fill_between(part.step, low, high, alpha=0.15, color=COLOURS[arm], linewidth=0)
        scale = "linear" if measure == COSINE else "log"
        ax.set(xlabel="update", ylabel=label, yscale=scale)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": 3}
    axes.flat[0].figure.legend(handles, labels, fontsize="small", **place)


def table_of_speeds(results: Results) -> pd.DataFrame:
    """Shift of layer inputs and updates to the target, every arm at the rate best for its speed.

    The shift is a run's mean along training, the first look left out; both are means over report
    seeds with 95 % intervals.
    """
    rows = []
    for task, shown in results.items():
        for arm in same_inputs(shown.evidence):
            if (side := fastest(shown.evidence, CONDITION, arm)) is not None:
                row = {"task": task, "arm": arm}
                rows.append(row | _speed(shown.evidence, arm, side.chosen.lr))
    return pd.DataFrame(rows)


def _speed(evidence: Evidence, arm: str, lr: float) -> dict[str, float]:
    shifts = measured(evidence, CONDITION, arm, lr, [INPUT_SHIFT])
    shifts = shifts[shifts.step > shifts.step.min()].groupby("run").value.mean()
    updates = (
        measured(evidence, CONDITION, arm, lr, ["steps to target"]).drop_duplicates("run").value
    )
    row = {"rate": lr}
    for name, values in (("shift", shifts), ("updates", updates)):
        mean = paired(values.to_numpy(), 0.95)
        row |= {name: mean.value, f"{name} low": mean.low, f"{name} high": mean.high}
    return row


def draw_speeds(name: str, results: Results) -> None:
    """Updates to the target against the shift of layer inputs, a panel a task."""
    results = probed(results)
    if not results:
        chapter_figures.not_run(name)
        return
    table = table_of_speeds(results)
    if table.empty:
        chapter_figures.no_candidate(name)
        return
    arms = table.groupby("task", sort=False).arm.agg(set)
    noisy = arms[[{MILD, PLAIN} <= mine for mine in arms]].index
    words = "; ".join(_with_mild_noise(task, table) for task in noisy)
    figures.figure(
        name,
        lambda axes: _speed_panels(axes, table),
        data=table,
        results=ids(results),
        **grid(len(results)),
        alt="Updates to the target against the shift of layer inputs for "
        f"{table.arm.nunique()} arms on {len(results)} task{'s' * (len(results) > 1)}. {words}.",
        caption="If less shift were the reason, updates would grow with it from left to right. "
        "Each arm at the rate best for its speed; 95 % intervals over seeds; runs that never "
        f"arrive count with all their updates. {words}.",
    )


def _with_mild_noise(task: str, table: pd.DataFrame) -> str:
    arms = table[table.task == task].set_index("arm")
    noisy, plain = arms.loc[MILD], arms.loc[PLAIN]
    return (
        f"{task}: layer inputs shift by {noisy['shift']:.2g} σ with {MILD}, by "
        f"{plain['shift']:.2g} σ without norm, and it needs {noisy['updates']:.0f} updates, "
        f"{plain['updates']:.0f} without norm"
    )


def _speed_panels(axes: np.ndarray, table: pd.DataFrame) -> None:
    hide(axes, table.task.nunique())
    for ax, (task, part) in zip(axes.flat, table.groupby("task", sort=False), strict=False):
        for row in part.to_dict("records"):
            _point(ax, row)
        ax.set(xscale="log", xlabel="shift of layer inputs in one update / σ")
        ax.set(ylabel="updates to the target", title=task)
    axes.flat[0].legend(fontsize="small")


def _point(ax: Axes, row: Mapping[Any, Any]) -> None:
    """A mean of both measures with its two intervals."""
    reach = {
        name: [[row[name] - row[f"{name} low"]], [row[f"{name} high"] - row[name]]]
        for name in ("shift", "updates")
    }
    look: dict[str, Any] = {"fmt": "o", "color": COLOURS[row["arm"]], "label": row["arm"]}
    x, y = row["shift"], row["updates"]
    ax.errorbar(x, y, xerr=reach["shift"], yerr=reach["updates"], **look)
