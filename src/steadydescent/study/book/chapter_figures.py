"""Figures that the chapters share: verdicts of an experiment, scores against the rate, curves along
training.

Each saves a figure with alt text, caption and data that follow from the rows drawn
(`steadydescent.study.book.figures`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from steadydescent.study.book import plots
from steadydescent.study.book.edition import rows_shown, shown
from steadydescent.study.book.figures import chart, figure
from steadydescent.study.book.plots import Line
from steadydescent.study.judging.measures import find


def verdicts(name: str, experiment: str, unit: str, claims: Sequence[str] = ()) -> None:
    """The rows of an experiment's claims that share a unit, with intervals and margins; `claims`
    picks some by id.
    """
    wanted = [
        row for row in rows_shown(experiment) if row["ci_low"] is not None and row["unit"] == unit
    ]
    rows = pd.DataFrame([row for row in wanted if not claims or row["id"] in claims])
    if rows.empty:
        not_run(name)
        return
    rows = rows.assign(label=rows.title + "\n" + rows.task + ", " + rows.condition)
    best, worst = rows.loc[rows.estimate.idxmax()], rows.loc[rows.estimate.idxmin()]
    what = "times as good" if best.null else unit
    figure(
        name,
        lambda ax: plots.differences(rows, ax).tick_params(axis="y", labelsize="small"),
        results=list(dict.fromkeys(rows.result)),
        size=(8.4, 0.8 + 0.5 * len(rows)),
        data=rows.drop(columns=["rates", "readouts", "tests"]),
        alt=f"{len(rows)} contrasts with intervals, from {worst.estimate:.3g} ({worst.label}) to {best.estimate:.3g} "
        f"{what} ({best.label}). Verdicts: {_counted(rows.verdict)}.",
        caption=f"What the claims say is on the right: points are estimates, bars {100 * rows.level.min():.2f} % "
        f"intervals, grey the margin inside which a difference is too small to care about: "
        f"{_counted(rows.verdict)}.",
    )


class NothingToDraw:
    """A chart of one sentence."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "data": {"values": [{}]},
            "mark": {"type": "text", "text": "not run in this profile"},
        }


def not_run(name: str, *, as_chart: bool = False) -> None:
    """A figure, or a chart, in place of one whose results this profile did not make."""

    def draw(ax: Axes) -> None:
        ax.text(0.5, 0.5, "not run in this profile", ha="center", va="center")
        ax.set_axis_off()

    text = "These results were not made in this profile."
    told = {"data": pd.DataFrame({"rows": []}), "alt": text, "caption": text}
    if as_chart:
        chart(name, NothingToDraw(), **told)
    else:
        figure(name, draw, size=(6.8, 1.2), **told)


def _counted(words: pd.Series) -> str:
    return ", ".join(f"{count} {word}" for word, count in words.value_counts().items())


def rates(
    name: str,
    experiment: str,
    task: str,
    conditions: Sequence[str] = (),
    measure: str = "",
    columns: int = 2,
    arms: Sequence[str] = (),
) -> None:
    """A measure against the learning rate on one task, a panel a condition, a line an arm."""
    found = shown(experiment).get(task)
    if found is None or not set(conditions) <= set(found.evidence.conditions):
        not_run(name)
        return
    evidence = found.evidence
    measure = measure or evidence.main_measure
    conditions = list(conditions or evidence.conditions)
    table, across = (
        plots.rate_table(evidence, conditions, measure, arms),
        min(columns, len(conditions)),
    )
    means = table.groupby(["condition", "arm", "lr"])[measure].mean()
    top = means.idxmax() if find(measure).higher else means.idxmin()
    down = -(-len(conditions) // across)
    worst = means.min() if find(measure).higher else means.max()

    def draw(axes: np.ndarray) -> None:
        flat = list(np.ravel(axes))
        plots.rate_curves(evidence, flat[: len(conditions)], conditions, measure, arms)
        for ax in flat[len(conditions) :]:
            ax.set_visible(False)

    figure(
        name,
        draw,
        data=table,
        results=[found.id],
        size=(8.4, 0.4 + 3.2 * down),
        nrows=down,
        ncols=across,
        squeeze=False,
        sharey=True,
        alt=f"Test {measure} on {task} against the learning rate for {table.arm.nunique()} arms. "
        f"Best mean {means[top]:.3g} ({top[1]}, {top[0]}, rate {top[2]:g}); worst {worst:.3g}.",
        caption=f"Test {measure} on {task} against the peak learning rate, at the rates that report seeds ran; bands "
        f"are 95 % intervals over seeds. Best: {top[1]} at {top[2]:g} ({top[0]}), {means[top]:.3g}.",
    )


def along(
    name: str, experiment: str, task: str, lines: Sequence[tuple[str, str]], by: str = ""
) -> None:
    """Curves along training on one task: (condition, arm) each at the rate that tuning chose, last
    weights.
    """
    found = shown(experiment).get(task)
    if found is None:
        not_run(name)
        return
    evidence, measure = found.evidence, found.evidence.main_measure
    lines = [
        (c, arm) for c, arm in lines if c in evidence.conditions and arm in evidence.arms_in(c)
    ]
    if not lines:
        not_run(name)
        return
    drawn = []
    for condition, arm in lines:
        chosen = evidence.candidates(condition, arm, measure, by or None).chosen
        drawn.append(Line(condition, arm, chosen.readout, chosen.lr))
    table = pd.concat([plots.curve_table(evidence, line) for line in drawn], ignore_index=True)
    ends = table[table.step == table.groupby("arm").step.transform("max")].set_index("arm")[
        "median"
    ]
    scale, unit = (1, "") if measure == "height" else (100, " %")
    best = ends.idxmin() if measure == "height" else ends.idxmax()
    figure(
        name,
        lambda ax: plots.training_curves(evidence, drawn, ax),
        data=table,
        results=[found.id],
        size=(7.2, 3.8),
        alt=f"{'Height' if measure == 'height' else 'Validation accuracy'} along training on {task} for {len(drawn)} "
        f"arms; {best} ends best, at {scale * ends[best]:.3g}{unit}.",
        caption=f"Along training on {task}, each at its tuned rate: median and 10–90 % band over seeds. {best} ends "
        f"best, at {scale * ends[best]:.3g}{unit}.",
    )
