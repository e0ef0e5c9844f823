"""Figures that the chapters share: verdicts, scores against the rate, curves along training.

Each saves a figure with alt text, caption and data that follow from the rows drawn
(`steadydescent.study.book.figures`).
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from steadydescent.study.book import plots
from steadydescent.study.book.edition import rows_shown, shown
from steadydescent.study.book.figures import chart, figure
from steadydescent.study.book.plots import Line
from steadydescent.study.book.words import intervals_of, most_first
from steadydescent.study.judging.evidence import Evidence, NotAnswerable
from steadydescent.study.judging.measures import measure_named


def verdicts(name: str, experiment: str, unit: str, claims: Sequence[str] = ()) -> None:
    """The rows of an experiment's claims that share a unit, with intervals and margins.

    `claims` picks some by id.
    """
    rows = pd.DataFrame(
        [
            row
            for row in rows_shown(experiment)
            if row["ci_low"] is not None
            and row["unit"] == unit
            and (not claims or row["id"] in claims)
        ]
    )
    if rows.empty:
        not_run(name)
        return
    rows = rows.assign(label=rows.title + "\n" + rows.task + ", " + rows.condition)
    best, worst = rows.loc[rows.estimate.idxmax()], rows.loc[rows.estimate.idxmin()]
    what = "times as good" if best.null else unit
    figure(
        name,
        lambda ax: plots.plot_differences(rows, ax).tick_params(axis="y", labelsize="small"),
        results=list(dict.fromkeys(rows.result)),
        size=(8.4, 0.8 + 0.5 * len(rows)),
        data=rows.drop(columns=["rates", "readouts", "choices", "tests"]),
        alt=f"{len(rows)} contrasts with intervals, from {worst.estimate:.3g} ({worst.label}) to "
        f"{best.estimate:.3g} {what} ({best.label}). Verdicts: {most_first(rows.verdict)}.",
        caption="What the claims say is on the right: points are estimates, bars "
        f"{intervals_of(rows.to_dict('records'))}, grey the margin inside which a difference is "
        f"too small to care about: {most_first(rows.verdict)}.",
    )


@dataclass(frozen=True)
class NothingToDraw:
    """A chart of one sentence."""

    sentence: str

    def to_dict(self) -> dict[str, Any]:
        return {"data": {"values": [{}]}, "mark": {"type": "text", "text": self.sentence}}


def not_run(name: str, *, as_chart: bool = False) -> None:
    """A figure, or a chart, in place of one whose results this profile did not make."""
    text = "These results were not made in this profile."
    _nothing(name, "not run in this profile", text, as_chart)


def no_candidate(name: str) -> None:
    """A figure in place of one of rates that lose too many runs to be chosen by their speed."""
    text = "Every rate that report seeds ran loses too many runs to be chosen by its speed."
    _nothing(name, "no rate can be chosen", text)


def _nothing(name: str, drawn: str, text: str, as_chart: bool = False) -> None:
    def draw(ax: Axes) -> None:
        ax.text(0.5, 0.5, drawn, ha="center", va="center")
        ax.set_axis_off()

    nothing = pd.DataFrame({"rows": []})
    if as_chart:
        chart(name, NothingToDraw(drawn), data=nothing, alt=text, caption=text)
    else:
        figure(name, draw, size=(6.8, 1.2), data=nothing, alt=text, caption=text)


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
    result = shown(experiment).get(task)
    if result is None or not set(conditions) <= set(result.evidence.conditions):
        not_run(name)
        return
    evidence = result.evidence
    measure = measure or evidence.main_measure
    conditions = list(conditions or evidence.conditions)
    across = min(columns, len(conditions))
    down = -(-len(conditions) // across)
    table = plots.rate_table(evidence, conditions, measure, arms)
    if table.empty:
        no_candidate(name)
        return
    means = table.groupby(["condition", "arm", "lr"])[measure].mean()
    higher = measure_named(measure).higher
    top, worst = (means.idxmax(), means.min()) if higher else (means.idxmin(), means.max())

    def draw(axes: np.ndarray) -> None:
        flat = list(np.ravel(axes))
        plots.rate_curves(evidence, flat[: len(conditions)], conditions, measure, arms)
        for ax in flat[len(conditions) :]:
            ax.set_visible(False)

    figure(
        name,
        draw,
        data=table,
        results=[result.id],
        size=(8.4, 0.4 + 3.2 * down),
        nrows=down,
        ncols=across,
        squeeze=False,
        sharey=True,
        alt=f"Test {measure} on {task} against the learning rate for {table.arm.nunique()} arms. "
        f"Best mean {means[top]:.3g} ({top[1]}, {top[0]}, rate {top[2]:g}); worst {worst:.3g}.",
        caption=f"Test {measure} on {task} against the peak learning rate, at the rates that "
        f"report seeds ran; bands are 95 % intervals over seeds. Best: {top[1]} at {top[2]:g} "
        f"({top[0]}), {means[top]:.3g}.",
    )


def along(
    name: str, experiment: str, task: str, lines: Sequence[tuple[str, str]], by: str = ""
) -> None:
    """Curves along training on one task: (condition, arm) each at its tuned rate and readout.

    Lines that were not run, or of which no rate can be chosen, are left out; `by` is what rates are
    chosen by, where not as usual.
    """
    result = shown(experiment).get(task)
    drawn = _tuned_lines(result.evidence, lines, by) if result else []
    if result is None or not drawn:
        (no_candidate if result and _run(result.evidence, lines) else not_run)(name)
        return
    evidence = result.evidence
    table = pd.concat([plots.curve_table(evidence, line) for line in drawn], ignore_index=True)
    last = table[table.step == table.groupby("arm").step.transform("max")]
    ends = last.set_index("arm")["median"]
    surface = evidence.main_measure == "height"
    best = ends.idxmin() if surface else ends.idxmax()
    end = f"{ends[best]:.3g}" if surface else f"{100 * ends[best]:.3g} %"
    figure(
        name,
        lambda ax: plots.training_curves(evidence, drawn, ax),
        data=table,
        results=[result.id],
        size=(7.2, 3.8),
        alt=f"{'Height' if surface else 'Validation accuracy'} along training on {task} for "
        f"{len(drawn)} arms; {best} ends best, at {end}.",
        caption=f"Along training on {task}, each at its tuned rate: median and 10–90 % band over "
        f"seeds. {best} ends best, at {end}.",
    )


def _tuned_lines(evidence: Evidence, lines: Sequence[tuple[str, str]], by: str) -> list[Line]:
    """The lines that were run, each at the rate and readout that tuning chose, if it could."""
    drawn = []
    for condition, arm in _run(evidence, lines):
        with suppress(NotAnswerable):
            side = evidence.candidates(condition, arm, evidence.main_measure, by or None)
            drawn.append(Line(condition, arm, side.chosen.readout, side.chosen.lr))
    return drawn


def _run(evidence: Evidence, lines: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The lines that were run."""
    return [(condition, arm) for condition, arm in lines if arm in evidence.arms_in(condition)]
