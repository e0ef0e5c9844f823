"""The chapter's verdicts, test scores against the rate, and the whole sweep to play with."""

import altair as alt
import pandas as pd

from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.book.chapters.optimizers.rates import CONDITION
from steadydescent.study.book.chapters.results import Results, ids, networks, table_of_sweeps

EXPERIMENT = "optimizers"
UNITS = {"points": "pp", "ratios": "×", "decades": "decades"}
CLAIMS = (
    *("adam-general", "rmsprop-general", "momentum-faster", "adam-faster", "rmsprop-stabler"),
    *("momentum-correction-10-steps", "lr-never-above-0.1"),
    *("plateau-momentum", "momentum-local-minima", "rmsprop-saddle"),
)
"""The claims that stand in this chapter, whichever experiment decides them."""
FLOOR = 50
"""Accuracies below it are left out at first, in percent."""


def draw_verdicts(name: str) -> None:
    """The chapter's verdicts, a figure a unit: ``<name>-points`` and so on."""
    for ending, unit in UNITS.items():
        chapter_figures.verdicts(f"{name}-{ending}", "", unit, CLAIMS)


def draw_rates(name: str, results: Results) -> None:
    """Test accuracy against the rate on the first task that trains networks."""
    task = next(iter(networks(results)), "")
    chapter_figures.rates(name, EXPERIMENT, task, [CONDITION])


def draw_sweep(name: str, results: Results) -> None:
    """A chart of the sweep with a menu for the task."""
    results = networks(results)
    if not results:
        chapter_figures.not_run(name, as_chart=True)
        return
    sweep = table_of_sweeps(results)
    figures.chart(
        name,
        _chart(sweep),
        data=sweep,
        results=ids(results),
        alt=f"Validation accuracy against the learning rate for every rule, {len(sweep)} means, "
        "with a menu for the task.",
        caption="Mean validation accuracy over tuning seeds, every rule at every rate of its "
        f"grid: {len(sweep)} means.",
    )


def _chart(sweep: pd.DataFrame) -> alt.Chart:
    places = list(dict.fromkeys(sweep["where"]))
    # every task keeps a point
    most = 5 * int(sweep.groupby("where").score.max().min() // 5)
    menu = alt.binding_select(options=places, name="Task ")
    slider = alt.binding_range(min=0, max=most, step=5, name="Leave out accuracies below ")
    x = alt.X("lr:Q", scale=alt.Scale(type="log"), title="learning rate")
    y = alt.Y("score:Q", scale=alt.Scale(zero=False), title="validation accuracy / %")
    colour, tooltip = alt.Color("arm:N", title=None), ["arm", "lr", "score"]
    chart = alt.Chart(sweep, width="container", height=320).mark_line(point=True)
    chart = chart.encode(x=x, y=y, color=colour, tooltip=tooltip).add_params(
        alt.param(name="place", value=places[0], bind=menu),
        alt.param(name="floor", value=min(FLOOR, most), bind=slider),
    )
    return chart.transform_filter("datum.where == place && datum.score >= floor")
