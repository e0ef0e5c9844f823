"""One figure of contrasts with intervals, with labels short enough for a phone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from steadydescent.study.book import chapter_figures, figures, plots
from steadydescent.study.book.words import intervals_of

HIDDEN = ["rates", "readouts", "choices", "tests"]
"""Columns of a row that hold more than one value; the figure's data go without them."""


class Look(NamedTuple):
    """How the figure of a unit looks: the axis' label, inches a row, and the estimates' format."""

    xlabel: str
    row: float = 0.36
    estimate: str = ".3g"
    ticks: tuple[float, ...] = ()


def draw_contrasts(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    unit: str,
    label: Callable[[Mapping[str, Any]], str],
    look: Look,
) -> None:
    """Contrasts of one unit that have an interval, each with its margin.

    Args:
        name: the figure's.
        rows: what was judged, as `steadydescent.study.book.edition.rows_shown` gives them.
        unit: of the rows that are drawn.
        label: a row in a few words.
        look: labels and sizes.
    """
    wanted = [row for row in rows if row["unit"] == unit and row["ci_low"] is not None]
    if not wanted:
        chapter_figures.not_run(name)
        return
    table = pd.DataFrame(wanted).assign(label=[label(row) for row in wanted])
    ends = [table.loc[table.estimate.idxmin()], table.loc[table.estimate.idxmax()]]
    least, most = (f"{row.estimate:{look.estimate}}" for row in ends)
    counts = table.verdict.value_counts().items()
    verdicts = ", ".join(f"{count} {word}" for word, count in counts)
    figures.figure(
        name,
        lambda ax: _panel(ax, table, look),
        data=table.drop(columns=HIDDEN),
        results=list(dict.fromkeys(table.result)),
        size=(8.4, 0.8 + look.row * len(table)),
        alt=f"{len(table)} contrasts with intervals, from {least} ({ends[0].label}) "
        f"to {most} {unit} ({ends[1].label}). Verdicts: {verdicts}.",
        caption=f"What the claims say is on the right; bars are {intervals_of(wanted)}, "
        f"grey the margin: {verdicts}.",
    )


def _panel(ax: Axes, table: pd.DataFrame, look: Look) -> None:
    plots.plot_differences(table, ax).set_xlabel(look.xlabel)
    if look.ticks:
        ax.xaxis.set_major_locator(LogLocator(subs=look.ticks))
