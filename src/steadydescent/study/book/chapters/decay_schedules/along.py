"""Schedules on the way, and the whole sweep to explore."""

from typing import Any

import numpy as np
import pandas as pd

from steadydescent.study.book import chapter_figures, figures, plots
from steadydescent.study.book.chapters.decay_schedules.ends import SHOWN
from steadydescent.study.book.chapters.results import Results, grid, hide, ids, table_of_sweeps
from steadydescent.study.judging.evidence import Evidence

WAYS = (*SHOWN, "noam-25", "noam-400")
"""The schedules whose way is drawn."""


def first_ways(evidence: Evidence) -> list[str]:
    """Those of `WAYS` that were run under the first condition."""
    return [arm for arm in WAYS if arm in evidence.arms_in(evidence.conditions[0])]


def table_along(results: Results) -> pd.DataFrame:
    """Quantiles of validation accuracy along training, each schedule at its tuned peak."""
    parts = []
    for task, shown in results.items():
        evidence = shown.evidence
        condition = evidence.conditions[0]
        for arm in first_ways(evidence):
            chosen = evidence.candidates(condition, arm).chosen
            line = plots.Line(condition, arm, chosen.readout, chosen.lr)
            parts.append(plots.curve_table(evidence, line).assign(task=task))
    return pd.concat(parts, ignore_index=True)


def lead(part: pd.DataFrame, share: float) -> str:
    """Who is ahead on a task near a share of the run, and linear decay against a constant rate."""
    steps = part.step.unique()
    step = steps[abs(steps - share * steps.max()).argmin()]
    at = part[part.step == step].set_index("arm")["median"]
    if not {"linear", "constant"} <= set(at.index):
        return f"{at.idxmax()} ahead"
    gain = 100 * (at["linear"] - at["constant"])
    return f"{at.idxmax()} ahead, linear {gain:+.1f} points from constant"


def draw_along(name: str, results: Results) -> None:
    """Accuracy along training by schedule, a panel a task."""
    if not results:
        chapter_figures.not_run(name)
        return
    along = table_along(results)
    parts = {task: along[along.task == task] for task in results}
    leads = "; ".join(
        f"{task}: about half way {lead(part, 0.5)}, at the end {lead(part, 1)}"
        for task, part in parts.items()
    )
    figures.figure(
        name,
        lambda axes: _way_panels(axes, parts),
        data=along,
        **grid(len(parts), 3.8),
        results=ids(results),
        alt=f"Validation accuracy along training by schedule, each at its tuned peak. {leads}.",
        caption="Along training, each schedule at its tuned peak rate: medians over seeds. "
        f"{leads}.",
    )


def _way_panels(axes: np.ndarray, parts: dict[str, pd.DataFrame]) -> None:
    hide(axes, len(parts))
    for ax, (task, part) in zip(axes.flat, parts.items(), strict=False):
        figures.more_lines(ax)
        for arm, line in part.groupby("arm", sort=False):
            ax.plot(line.step, 100 * line["median"], marker=".", label=arm)
        ax.set(title=task, xlabel="update", ylabel="validation accuracy / %")
        ax.set_ylim(100 * part["median"].max() - 25, None)
        ax.legend(fontsize="x-small")


def draw_explorer(name: str, results: Results) -> None:
    """A chart of the sweep: a place and a schedule to pick, beside the constant rate."""
    if not results:
        chapter_figures.not_run(name, as_chart=True)
        return
    table = table_of_sweeps(results)
    figures.chart(
        name,
        _explorer(table),
        data=table,
        results=ids(results),
        alt="Validation accuracy against the peak rate, a constant rate beside a schedule of "
        f"choice: {len(table)} means.",
        caption="Mean validation accuracy over tuning seeds at every peak rate, the constant rate "
        f"beside a schedule of your choice: {len(table)} means.",
    )


def _explorer(table: pd.DataFrame) -> Any:
    import altair as alt

    places, names = list(dict.fromkeys(table["where"])), sorted(set(table.arm) - {"constant"})
    first = "linear" if "linear" in names else names[0]
    pick_place = alt.binding_select(options=places, name="Task ")
    pick_arm = alt.binding_select(options=names, name="Constant against ")
    score = alt.Y("score:Q", scale=alt.Scale(zero=False), title="validation accuracy / %")
    return (
        alt.Chart(table, width="container", height=320)
        .mark_line(point=True)
        .encode(
            x=alt.X("lr:Q", scale=alt.Scale(type="log"), title="peak learning rate"),
            y=score,
            color=alt.Color("arm:N", title=None),
            tooltip=["arm", "lr", "score"],
        )
        .add_params(
            alt.param(name="place", value=places[0], bind=pick_place),
            alt.param(name="one", value=first, bind=pick_arm),
        )
        .transform_filter("datum.where == place && (datum.arm == 'constant' || datum.arm == one)")
    )
