"""The range test's curve: loss against the rate, its three regimes, and the rate it suggests."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.book.chapters.learning_rate_search.regimes import full_width
from steadydescent.study.book.chapters.learning_rate_search.searches import table_of_suggestions
from steadydescent.study.book.chapters.results import Results, networks
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.measures import range_tests

SUGGESTION = "middle"
"""The source's rule, whose rate is marked."""
REGISTERED = 400
"""The length of the ramp that the claim is about; its regimes are drawn where it was run."""
START = 0.1
"""The share of the fall that lies behind where the descent starts, as the suggestion has it."""


class Regimes(NamedTuple):
    """Of a median curve: the rates at which its descent starts and ends."""

    start: float
    end: float


def lengths(evidence: Evidence) -> list[int]:
    """Updates of the ramps whose curves a result keeps, rising."""
    kept = evidence.result.measures
    tests = kept[kept.measure == range_tests.CURVE].run.unique()
    runs = evidence.result.runs
    return sorted(int(steps) for steps in runs[runs.run.isin(tests)].steps.unique())


def table_of_curves(results: Results) -> pd.DataFrame:
    """Quantiles over seeds of the smoothed loss: columns rate, low, median, high, seeds, task and
    length.
    """
    parts = [
        range_tests.quantiles_of_curves(shown.evidence.result, length).assign(
            task=task, length=length
        )
        for task, shown in networks(results).items()
        for length in lengths(shown.evidence)
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def regimes(curve: pd.DataFrame) -> Regimes:
    """Where a median curve starts to fall and where it is lowest; rates rise along it."""
    known = curve.dropna(subset="median")
    losses, rates = known["median"].to_numpy(), known.rate.to_numpy()
    lowest = int(losses.argmin())
    level = losses[lowest] + (1 - START) * (losses[0] - losses[lowest])
    start = np.flatnonzero(losses[: lowest + 1] >= level)[-1]
    return Regimes(float(rates[start]), float(rates[lowest]))


def draw_range_curves(name: str, results: Results) -> None:
    """Loss against the rate for every length of the ramp, a panel a task."""
    table = table_of_curves(results)
    if table.empty:
        chapter_figures.not_run(name)
        return
    suggested = table_of_suggestions(results)
    suggested = suggested[suggested.rule == SUGGESTION]
    marks = suggested.groupby(["task", "length"]).rate.median()
    tasks = list(dict.fromkeys(table.task))
    words = "; ".join(_in_words(task, _shown(table, task), marks) for task in tasks)

    def draw(axes: np.ndarray) -> None:
        for ax, task in zip(axes.flat, tasks, strict=False):
            _panel(ax, table[table.task == task], _shown(table, task), marks[task])

    figures.figure(
        name,
        draw,
        data=table,
        alt=f"Smoothed minibatch loss of range tests against the rate. {words}.",
        caption="The range test's curve: smoothed loss of minibatches while the rate rises, "
        "median and 10–90 % band over seeds; dotted the rates that *middle* suggests, grey lines "
        f"the ends of the regimes. {words}. A line ends where half of the tests have.",
        **full_width({task: results[task] for task in tasks}),
    )


def _shown(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """The curve whose regimes are drawn: of the registered length, else the longest."""
    own = table[table.task == task]
    length = REGISTERED if (own.length == REGISTERED).any() else own.length.max()
    return own[own.length == length]


def _in_words(task: str, curve: pd.DataFrame, marks: "pd.Series[float]") -> str:
    start, end = regimes(curve)
    length = int(curve.length.iloc[0])
    return (
        f"{task}, {length} updates: level up to {start:.2g}, falls to {end:.2g}, then rises or "
        f"jumps about; suggested {marks[task, length]:.2g}"
    )


def _panel(ax: Axes, table: pd.DataFrame, shown: pd.DataFrame, marks: "pd.Series[float]") -> None:
    for length, curve in table.groupby("length"):
        (line,) = ax.plot(curve.rate, curve["median"], label=f"{length} updates")
        colour = line.get_color()
        ax.fill_between(curve.rate, curve.low, curve.high, alpha=0.15, color=colour, linewidth=0)
        ax.axvline(marks[length], color=colour, linewidth=1.2, linestyle=":")
    start, end = regimes(shown)
    first, last = table.rate.min(), table.rate.max()
    above = ax.get_xaxis_transform()
    for low, high, word in ((first, start, "level"), (start, end, "falls"), (end, last, "erratic")):
        ax.axvline(high, color="0.5", linewidth=1, linestyle="--")
        ax.text(np.sqrt(low * high), 1.02, word, transform=above, ha="center", fontsize="small")
    medians = table["median"].dropna()
    ax.set(xscale="log", xlabel="learning rate", ylabel="smoothed loss / nats")
    ax.set_ylim(medians.min() - 0.1, min(medians.max(), 2 * medians[table.rate.idxmin()]))
    ax.set_title(table.task.iloc[0], pad=18)
    ax.legend(fontsize="small")
