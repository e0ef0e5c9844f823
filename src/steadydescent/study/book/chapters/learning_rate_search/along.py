"""How runs go at the best rate, at multiples of it, and at any rate of the sweep."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from steadydescent.study.book import chapter_figures, figures, plots
from steadydescent.study.book.chapters.learning_rate_search.regimes import (
    ARM,
    CONDITION,
    full_width,
    sweeps,
)
from steadydescent.study.book.chapters.results import Results, ids, networks
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.regret import Sweep

FACTORS = (0.01, 0.1, 1, 10)
"""Multiples of the best rate whose runs are drawn."""
EXPLORED = ["task", "place", "rate", "step", "low", "median", "high"]


def near(sweep: Sweep, factor: float) -> float:
    """The rate of the sweep that is nearest to a multiple of the best one."""
    apart = np.abs(np.log(sweep.rates / sweep.rates[sweep.best] / factor))
    return float(sweep.rates[apart.argmin()])


def curve(evidence: Evidence, rate: float) -> pd.DataFrame:
    """Quantiles of validation accuracy along training at a rate of the sweep."""
    return plots.curve_table(evidence, plots.Line(CONDITION, ARM, "last", rate))


def table_along(results: Results, factors: Sequence[float] = FACTORS) -> pd.DataFrame:
    """Curves at multiples of the best rate: those of `curve`, and factor, rate, task."""
    parts = []
    for task, sweep in sweeps(results).items():
        for factor in factors:
            rate = near(sweep, factor)
            part = curve(results[task].evidence, rate)
            parts.append(part.assign(factor=factor, rate=rate, task=task))
    return pd.concat(parts, ignore_index=True)


def draw_along(name: str, results: Results) -> None:
    """Accuracy along training at multiples of the best rate, a panel a task."""
    if not networks(results):
        chapter_figures.not_run(name)
        return
    table = table_along(results)
    last = table[table.step == table.groupby("task").step.transform("max")]
    ends = "; ".join(f"{t}: {_ends(part)}" for t, part in last.groupby("task", sort=False))
    figures.figure(
        name,
        lambda axes: _along_panels(axes[:, 0], table),
        data=table,
        alt="Validation accuracy along training at a hundredth, a tenth, one and ten times the "
        f"best rate. Ends: {ends}.",
        caption="Along training at the best rate and at multiples of it: median and 10–90 % band "
        f"over seeds. Medians at the end: {ends}.",
        **full_width(results),
    )


def _ends(part: pd.DataFrame) -> str:
    pairs = zip(part["median"], part.factor, strict=True)
    return ", ".join(f"{100 * median:.0f} % at {factor:g} ×" for median, factor in pairs)


def _along_panels(axes: np.ndarray, table: pd.DataFrame) -> None:
    for ax, (task, curves) in zip(axes, table.groupby("task", sort=False), strict=True):
        for (factor, rate), part in curves.groupby(["factor", "rate"]):
            (line,) = ax.plot(
                part.step, 100 * part["median"], label=f"{factor:g} × best: {rate:.2g}"
            )
            band: dict[str, Any] = {"alpha": 0.15, "color": line.get_color(), "linewidth": 0}
            ax.fill_between(part.step, 100 * part.low, 100 * part.high, **band)
        ax.set(xlabel="update", ylabel="validation accuracy / %", title=task)
        ax.legend(fontsize="small")


def table_of_all(results: Results) -> pd.DataFrame:
    """Curves at every rate of every sweep; `place` counts a task's rates from the smallest."""
    parts = []
    for task, sweep in sweeps(results).items():
        for place, rate in enumerate(sweep.rates):
            part = curve(results[task].evidence, rate)
            parts.append(part.assign(task=task, rate=float(f"{rate:.2g}"), place=place))
    table = pd.concat(parts, ignore_index=True)[EXPLORED]
    return table.round({"low": 4, "median": 4, "high": 4})


def draw_explorer(name: str, results: Results) -> None:
    """A chart of one rate's runs, with a slider for the rate."""
    if not networks(results):
        chapter_figures.not_run(name, as_chart=True)
        return
    table = table_of_all(results)
    curves = table.groupby(["task", "rate"]).ngroups
    figures.chart(
        name,
        _explorer(table),
        data=table,
        results=ids(networks(results)),
        alt=f"Validation accuracy along training, one of {curves} sweeps' rates at a time, with a "
        "slider for the rate.",
        caption="Validation accuracy along training at any rate of the sweep, median and 10–90 % "
        f"band over seeds: {curves} curves.",
    )


def _explorer(table: pd.DataFrame) -> Any:
    import altair as alt

    tasks = list(dict.fromkeys(table.task))
    accuracy: dict[str, Any] = {"scale": alt.Scale(domain=[0, 1]), "title": "validation accuracy"}

    def y(field: str) -> Any:
        return alt.Y(f"{field}:Q", axis=alt.Axis(format="%"), **accuracy)

    base = alt.Chart(table, width="container", height=300).transform_filter(_picked(table))
    band = base.mark_area(opacity=0.2).encode(
        x=alt.X("step:Q", title="update"), y=y("low"), y2="high:Q"
    )
    line = base.mark_line().encode(x="step:Q", y=y("median"), tooltip=["rate", "step", "median"])
    name = (
        base.transform_filter(f"datum.step == {table.step.min()}")
        .transform_calculate(text="'rate ' + datum.rate")
        .mark_text(align="left", fontSize=14)
        .encode(x=alt.value(12), y=alt.value(14), text="text:N")
    )
    most, label = int(table.place.max()), "Rate, from the smallest to the largest "
    slider = alt.binding_range(min=0, max=most, step=1, name=label)
    menu = alt.binding_select(options=tasks, name="Task ")
    return (band + line + name).add_params(
        alt.param(name="pick_task", value=tasks[0], bind=menu),
        alt.param(name="pick", value=most // 2, bind=slider),
    )


def _picked(table: pd.DataFrame) -> str:
    """The filter for the picked task and rate; a task with fewer rates stops at its last one."""
    lasts = table.groupby("task", sort=False).place.max()
    first = json.dumps(lasts.index[0])
    last = f"datum.task == {first} ? {lasts.iloc[0]} : {lasts.iloc[-1]}"
    return f"datum.task == pick_task && datum.place == min(pick, {last})"
