"""Readouts along training, and the whole sweep to explore."""

from typing import Any

import numpy as np
import pandas as pd

from steadydescent.study.book import chapter_figures, figures, plots
from steadydescent.study.book.chapters.results import Results, ids, main_task, networks
from steadydescent.study.book.chapters.weight_averaging.arms import SCHEDULES
from steadydescent.study.judging.evidence import Evidence

READOUTS = ("last", "ema-2", "ema-10", "ema-30", "ema-start-30")
SWEEP = ["task", "condition", "readout", "lr"]
"""What tells the means of the sweep apart."""


def lines_of(evidence: Evidence, condition: str) -> list[plots.Line]:
    """Every readout that was looked at, at the rate that was tuned for the last weights."""
    lr = evidence.candidates(condition, "last").chosen.lr
    looked = set(evidence.quantiles(condition, "last").readout)
    return [plots.Line(condition, "last", r, lr) for r in READOUTS if r in looked]


def table_along(evidence: Evidence) -> pd.DataFrame:
    """Quantiles of validation accuracy along training of `lines_of`, under both schedules."""
    lines = [line for condition in SCHEDULES for line in lines_of(evidence, condition)]
    return pd.concat([plots.curve_table(evidence, line) for line in lines])


def draw_along(name: str, results: Results) -> None:
    """Accuracy along training of several readouts, a panel a schedule."""
    task = main_task(results)
    if not task or not set(SCHEDULES) <= set(results[task].evidence.conditions):
        chapter_figures.not_run(name)
        return
    evidence = results[task].evidence
    curves = table_along(evidence)
    last = curves[curves.step == curves.step.max()].set_index(["readout", "condition"])
    ends = 100 * last["median"]
    averaged, plain = (f"{ends[r, 'constant']:.1f}" for r in ("ema-10", "last"))
    apart = abs(ends["ema-10", "linear"] - ends["last", "linear"])
    figures.figure(
        name,
        lambda axes: _panels(axes, evidence),
        results=[results[task].id],
        size=(8.4, 3.6),
        ncols=2,
        sharey=True,
        data=curves,
        alt=f"Validation accuracy along training on {task}. At a constant rate ema-10 ends at "
        f"{averaged} %, the last weights at {plain} %; at a decayed rate both end within "
        f"{apart:.1f} points.",
        caption=f"Validation accuracy along training on {task} at the rate tuned for the last "
        "weights; median and 10–90 % band over seeds. At a constant rate *ema-10* ends at "
        f"{averaged} %, the last weights at {plain} %.",
    )


def _panels(axes: np.ndarray, evidence: Evidence) -> None:
    for ax, condition in zip(axes, SCHEDULES, strict=True):
        lines = lines_of(evidence, condition)
        plots.training_curves(evidence, lines, ax, by_readout=True)
        ax.set_title(f"{condition} rate, {lines[0].lr:g}")


def table_of_sweeps(results: Results) -> pd.DataFrame:
    """Every readout at every rate: mean accuracy over tuning seeds, and `SWEEP`."""
    sweeps = [
        plots.sweep_table(shown.evidence).assign(task=task)
        for task, shown in networks(results).items()
    ]
    table = pd.concat(sweeps).drop(columns="arm").drop_duplicates(SWEEP)
    return table.rename(columns={"score": "accuracy"})


def draw_explorer(name: str, results: Results) -> None:
    """A chart of the sweep: a task, a condition and two readouts to pick."""
    if not networks(results):
        chapter_figures.not_run(name, as_chart=True)
        return
    table = table_of_sweeps(results)
    figures.chart(
        name,
        _explorer(table),
        data=table,
        results=ids(networks(results)),
        alt=f"Validation accuracy against the learning rate, {len(table)} means, with menus for "
        "task, condition and two readouts.",
        caption="Mean validation accuracy over tuning seeds, every readout at every rate: "
        f"{len(table)} means.",
    )


def _other(readouts: list[str]) -> str:
    """The readout that is shown beside the last weights at first."""
    return "ema-10" if "ema-10" in readouts else readouts[-1]


def _explorer(table: pd.DataFrame) -> Any:
    import altair as alt

    options = {field: list(dict.fromkeys(table[field])) for field in SWEEP[:3]}

    def pick(name: str, field: str, value: str, label: str) -> Any:
        menu = alt.binding_select(options=options[field], name=label)
        return alt.param(name=name, value=value, bind=menu)

    accuracy = alt.Y("accuracy:Q", scale=alt.Scale(zero=False), title="validation accuracy / %")
    return (
        alt.Chart(table, width="container", height=300)
        .mark_line(point=True)
        .encode(
            x=alt.X("lr:Q", scale=alt.Scale(type="log"), title="peak learning rate"),
            y=accuracy,
            color=alt.Color("readout:N", title=None),
            tooltip=["readout", "lr", "accuracy"],
        )
        .add_params(
            pick("pick_task", "task", options["task"][0], "Task "),
            pick("pick_condition", "condition", options["condition"][0], "Condition "),
            pick("one", "readout", "last", "Readout "),
            pick("other", "readout", _other(options["readout"]), "and "),
        )
        .transform_filter(
            "datum.task == pick_task && datum.condition == pick_condition && "
            "(datum.readout == one || datum.readout == other)"
        )
    )
