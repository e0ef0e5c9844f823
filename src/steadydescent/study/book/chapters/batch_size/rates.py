"""The rates that sizes were tuned over, and how the best one grows with the size."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from steadydescent.study.book import chapter_figures, figures, plots
from steadydescent.study.book.chapters.batch_size.critical import ARRIVED, table_of_updates
from steadydescent.study.book.chapters.batch_size.sizes import FEW, RULE, few_examples, sizes
from steadydescent.study.book.chapters.results import Results, main_task
from steadydescent.study.judging.evidence import Evidence


def table_of_sweep(evidence: Evidence) -> pd.DataFrame:
    """Mean validation accuracy of SGD over tuning seeds, every condition and rate."""
    table = plots.sweep_table(evidence)
    return table[table.arm == RULE]


def table_of_best_rates(results: Results, task: str) -> pd.DataFrame:
    """Columns n, accuracy, speed: rates best for either; no rate for speed where few arrive."""
    evidence, targets = results[task].evidence, table_of_updates({task: results[task]})
    speed = targets.groupby("n").agg(rate=("rate", "first"), arrived=("arrived", "mean"))
    rates = speed.rate.where(speed.arrived >= ARRIVED)
    rows = [
        {"n": n, "accuracy": evidence.candidates(condition, RULE).chosen.lr}
        for condition, n in sizes(evidence).items()
    ]
    table = pd.DataFrame(rows)
    return table.assign(speed=rates.reindex(table.n).to_numpy())


def draw_rates(name: str, results: Results) -> None:
    """Left: accuracy against the rate. Right: the best rate against the size."""
    task = main_task(results)
    if not task:
        chapter_figures.not_run(name)
        return
    evidence = results[task].evidence
    sweep, best = table_of_sweep(evidence), table_of_best_rates(results, task)
    rates = ", ".join(f"{row.accuracy:g} at n = {row.n:.0f}" for row in best.itertuples())
    figures.figure(
        name,
        lambda axes: _panels(axes, sweep[sweep.condition.isin(sizes(evidence))], best),
        data=sweep,
        results=[results[task].id],
        size=(8.4, 3.6),
        ncols=2,
        alt=f"Left: validation accuracy against the rate for {len(best)} batch sizes. Right: the "
        f"best rate against n. Best for accuracy: {rates}.",
        caption=f"Left: mean validation accuracy of SGD over tuning seeds on {task}, every rate "
        f"tried. Right: the rates that tuning chose. For accuracy: {rates}.",
    )


def _panels(axes: tuple[Axes, Axes], sweep: pd.DataFrame, best: pd.DataFrame) -> None:
    left, right = axes
    _sweep_panel(left, sweep)
    right.plot(best.n, best.accuracy, marker="o", label="best for accuracy")
    right.plot(best.n, best.speed, marker="^", label="best for speed, where it arrives")
    proportion = best.accuracy.iloc[0] * best.n / best.n.iloc[0]
    dotted: dict[str, Any] = {"color": "C5", "linestyle": ":", "linewidth": 1}
    right.plot(best.n, proportion, label="in proportion to n", **dotted)
    right.set(xscale="log", yscale="log", xlabel="examples n", ylabel="learning rate")
    right.legend(fontsize="small")


def _sweep_panel(ax: Axes, sweep: pd.DataFrame) -> None:
    figures.more_lines(ax)
    for condition, line in sweep.groupby("condition", sort=False):
        ax.plot(line.lr, line.score, marker="o", label=condition)
    ax.set(xscale="log", xlabel="learning rate", ylabel="validation accuracy / %")
    ax.legend(fontsize="small")


def draw_few_examples(name: str, results: Results) -> None:
    """Accuracy against the rate with `FEW` training examples."""
    task = main_task(results)
    evidence = results[task].evidence if task else None
    conditions = (
        [c for c in evidence.conditions if few_examples(evidence, c) == FEW] if evidence else []
    )
    if evidence is None or not conditions:
        chapter_figures.not_run(name)
        return
    sweep = table_of_sweep(evidence)
    few = sweep[sweep.condition.isin(conditions)]
    top = few.loc[few.groupby("condition", sort=False).score.idxmax()]
    best = ", ".join(
        f"{row.score:.1f} % ({row.condition}, rate {row.lr:g})" for row in top.itertuples()
    )
    figures.figure(
        name,
        lambda ax: _sweep_panel(ax, few),
        data=few,
        results=[results[task].id],
        alt=f"Validation accuracy against the rate with {FEW} examples. Best: {best}.",
        caption=f"With {FEW} training examples, equal updates: mean validation accuracy over "
        f"tuning seeds at every rate. Best: {best}.",
    )
