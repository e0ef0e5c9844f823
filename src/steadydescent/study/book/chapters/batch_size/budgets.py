"""How good a size is for equal updates, for equal epochs, and at equal training loss."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from steadydescent.engine.data import SPLIT_SIZES
from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.book.chapters.batch_size.sizes import RULE, sizes
from steadydescent.study.book.chapters.results import Results, main_task, measured
from steadydescent.study.judging.evidence import Evidence

AXES = {"step": "updates", "epochs": "epochs"}
"""What is held equal: column of the table → name of the axis."""


class Equal(NamedTuple):
    """Accuracies where all sizes have come equally far: how far, and percent by condition."""

    at: float
    accuracy: pd.Series

    @property
    def best(self) -> str:
        """The condition that is ahead."""
        return str(self.accuracy.idxmax())

    @property
    def worst(self) -> str:
        """The condition that is behind."""
        return str(self.accuracy.idxmin())


def training_examples(task: str) -> int:
    """How many examples a task trains on."""
    return SPLIT_SIZES[next(name for name in SPLIT_SIZES if task.startswith(name))]["train"]


def table_of_budgets(evidence: Evidence) -> pd.DataFrame:
    """Median validation accuracy of every size along training, each point at its best rate.

    The best is among the rates that report seeds ran. Columns step, median, condition, n, epochs
    and accuracy in percent.
    """
    parts, examples = [], training_examples(evidence.task)
    for condition, n in sizes(evidence).items():
        medians = evidence.quantiles(condition, RULE).groupby("step")["median"]
        best = medians.max().reset_index().assign(condition=condition, n=n)
        best = best.assign(epochs=best.step * n / examples, accuracy=100 * best["median"])
        parts.append(best)
    return pd.concat(parts, ignore_index=True)


def equal(table: pd.DataFrame, along: str, at: float) -> Equal:
    """Accuracy by condition where the column `along` is `at`, by linear interpolation."""
    parts = table.sort_values(along, kind="stable").groupby("condition", sort=False)
    accuracy = {c: float(np.interp(at, part[along], part.accuracy)) for c, part in parts}
    order = list(dict.fromkeys(table.condition))
    return Equal(at, pd.Series(accuracy).reindex(order))


def draw_budgets(name: str, results: Results) -> None:
    """Validation accuracy against updates, and against epochs."""
    task = main_task(results)
    if not task:
        chapter_figures.not_run(name)
        return
    budgets = table_of_budgets(results[task].evidence)
    longest = {axis: budgets.groupby("condition")[axis].max().min() for axis in AXES}
    common = {axis: equal(budgets, axis, at) for axis, at in longest.items()}
    words = {axis: _best_and_worst(part) for axis, part in common.items()}
    outcome = (
        f"After {longest['step']:.0f} updates {words['step']}; "
        f"after {longest['epochs']:.2g} epochs {words['epochs']}."
    )
    figures.figure(
        name,
        lambda axes: _budget_panels(axes, budgets, longest),
        data=budgets,
        results=[results[task].id],
        size=(8.4, 3.6),
        ncols=2,
        sharey=True,
        alt="Validation accuracy against updates and against epochs for "
        f"{budgets.condition.nunique()} batch sizes. {outcome}",
        caption=f"Median validation accuracy on {task} for equal updates (left) and equal epochs "
        f"(right), each size at its best rate for that budget. {outcome} Dotted: the longest "
        "budget that all sizes had.",
    )


def _best_and_worst(common: Equal) -> str:
    best, worst = common.accuracy.max(), common.accuracy.min()
    return f"{common.best} is best ({best:.1f} %), {common.worst} worst ({worst:.1f} %)"


def _budget_panels(
    axes: tuple[Axes, Axes], budgets: pd.DataFrame, longest: Mapping[str, float]
) -> None:
    for ax, (axis, label) in zip(axes, AXES.items(), strict=True):
        figures.more_lines(ax)
        for condition, part in budgets.groupby("condition", sort=False):
            ax.plot(part[axis], part.accuracy, label=condition)
        ax.axvline(longest[axis], color="C5", linewidth=1, linestyle=":")
        ax.set(xscale="log", xlabel=label, ylabel="validation accuracy / %")
    axes[0].legend(fontsize="small")


def table_of_losses(evidence: Evidence) -> pd.DataFrame:
    """Median validation accuracy and mean training loss of every size along training, tuned."""
    parts = []
    for condition in sizes(evidence):
        lr = evidence.candidates(condition, RULE).chosen.lr
        rows = measured(evidence, condition, RULE, lr, ["training-loss"])
        losses = rows.groupby("step").value.mean().rename("training loss")
        curve = evidence.quantiles(condition, RULE)
        curve = curve[curve.lr == lr].merge(losses, on="step").assign(condition=condition)
        parts.append(curve.assign(accuracy=100 * curve["median"]))
    return pd.concat(parts, ignore_index=True)


def draw_losses(name: str, results: Results) -> None:
    """Validation accuracy against training loss, which takes speed out of the comparison."""
    task = main_task(results)
    if not task:
        chapter_figures.not_run(name)
        return
    curves = table_of_losses(results[task].evidence)
    if curves.empty:
        chapter_figures.not_run(name)
        return
    level = curves.groupby("condition")["training loss"].min().max()
    common = equal(curves, "training loss", level)
    best, worst = common.accuracy.max(), common.accuracy.min()
    outcome = (
        f"Where all have reached {level:.2f} nats the sizes lie {best - worst:.1f} points apart, "
        f"{common.best} highest ({best:.1f} %), {common.worst} lowest ({worst:.1f} %)"
    )
    figures.figure(
        name,
        lambda ax: _loss_panel(ax, curves, level),
        data=curves[["condition", "step", "training loss", "low", "median", "high"]],
        results=[results[task].id],
        alt="Validation accuracy against training loss along training for "
        f"{len(common.accuracy)} batch sizes. {outcome}.",
        caption="Validation accuracy (median over seeds) against training loss (mean) on "
        f"{task}, training going to the right. {outcome}. Medians, without intervals; they bear "
        "no verdict.",
    )


def _loss_panel(ax: Axes, curves: pd.DataFrame, level: float) -> None:
    figures.more_lines(ax)
    for condition, part in curves.groupby("condition", sort=False):
        ax.plot(part["training loss"], part.accuracy, marker=".", label=condition)
    ax.axvline(level, color="C5", linewidth=1, linestyle=":")
    ax.set(xlabel="training loss / nats", ylabel="validation accuracy / %")
    ax.invert_xaxis()
    ax.legend(fontsize="small")
