"""Which way of searching: random searches, what they give away, and range tests."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from steadydescent.lr_search import log_uniform, uniform
from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.book.chapters.learning_rate_search.regimes import (
    WITHIN,
    Sweeps,
    full_width,
    right_rates,
    sweeps,
)
from steadydescent.study.book.chapters.results import Results, networks
from steadydescent.study.judging import regret
from steadydescent.study.judging.contrasts.range_test import suggestions

EDGES = np.logspace(-5, 0, 6)
"""Ends of the decades of the sources' range."""
DRAWS = 100_000
"""Draws for the shares of decades."""
SEARCHES = 1_000
"""Searches for each mean regret."""


def table_of_decades() -> pd.DataFrame:
    """How many uniform and log-uniform draws lie in each decade, in percent."""
    laws = {"uniform on [0, 1], %": (uniform, 0.0), "log-uniform, %": (log_uniform, EDGES[0])}
    columns = {}
    for head, (law, low) in laws.items():
        drawn = law(low, 1, DRAWS, np.random.default_rng(0))
        columns[head] = 100 * np.histogram(drawn, EDGES)[0] / DRAWS
    decades = [f"{low:g} to {high:g}" for low, high in pairwise(EDGES)]
    return pd.DataFrame({"decade": decades} | columns)


def table_of_regrets(results: Results, draws: int = SEARCHES) -> pd.DataFrame:
    """Mean regret of every search by its number of trials: that of `regret.regrets`, and task."""
    parts = [
        regret.regrets(sweep, draws=draws).assign(task=task)
        for task, sweep in sweeps(results).items()
    ]
    return pd.concat(parts, ignore_index=True)


def draw_regrets(name: str, results: Results) -> None:
    """Regret against the number of trials, a panel a task."""
    if not networks(results):
        chapter_figures.not_run(name)
        return
    table = table_of_regrets(results)
    at = table.set_index(["task", "method", "trials"]).regret
    means = []
    for task in networks(results):
        for trials in (3, 9):
            methods = ", ".join(f"{m} {at[task, m, trials]:.1f}" for m in regret.METHODS)
            means.append(f"{task}, {trials} trials: {methods}")
    words = "; ".join(means)
    figures.figure(
        name,
        lambda axes: _regret_panels(axes[:, 0], table),
        data=table,
        alt="Regret against the number of trials for three searches. Means in percentage points: "
        f"{words}.",
        caption="Accuracy given away by a search of so many networks: mean of 1 000 searches, "
        f"dotted the 90 % quantile. Means in percentage points: {words}.",
        **full_width(results),
    )


def _regret_panels(axes: np.ndarray, table: pd.DataFrame) -> None:
    for ax, (task, searches) in zip(axes, table.groupby("task", sort=False), strict=True):
        for method, part in searches.groupby("method", sort=False):
            (line,) = ax.plot(part.trials, part.regret, marker="o", label=method)
            ax.plot(part.trials, part.q90, linestyle=":", color=line.get_color(), linewidth=1.2)
        ticks = list(regret.TRIALS)
        ax.set(xscale="log", xticks=ticks, xticklabels=ticks, xlabel="trials", title=task)
        ax.set_ylabel("regret / pp")
        ax.minorticks_off()
        ax.legend(fontsize="small")


def table_of_suggestions(results: Results) -> pd.DataFrame:
    """What every range test suggests: columns task, seed, rule, length, rate."""
    parts = [suggestions(shown.evidence).assign(task=t) for t, shown in networks(results).items()]
    return pd.concat(parts, ignore_index=True)


def suggested(results: Results) -> pd.DataFrame:
    """Quantiles over seeds, columns 0.1, 0.5 and 0.9, of the rates by task, rule and length."""
    groups = table_of_suggestions(results).groupby(["task", "rule", "length"], sort=False)
    return groups.rate.quantile([0.1, 0.5, 0.9]).unstack().reset_index()


def draw_range_tests(name: str, results: Results) -> None:
    """Suggested rates against the length of the ramp, a panel a task."""
    if not networks(results):
        chapter_figures.not_run(name)
        return
    by_task, table = sweeps(results), suggested(results)
    middles = table[table.rule == "middle"]
    medians = []
    for task, part in middles.groupby("task", sort=False):
        pairs = zip(part[0.5], part.length, strict=True)
        rates = ", ".join(f"{rate:.2g} from {length:.0f} updates" for rate, length in pairs)
        best = by_task[str(task)].rates[by_task[str(task)].best]
        medians.append(f"{task}: {rates}, best rate {best:.2g}")
    words = "; ".join(medians)
    figures.figure(
        name,
        lambda axes: _suggestion_panels(axes[:, 0], by_task, table),
        data=table.rename(columns=str),
        alt="Rates that range tests suggest, by rule and length of the ramp. Medians of the "
        f"middle: {words}.",
        caption="What range tests suggest: median and 10–90 % over seeds. The line is the best "
        f"rate, the band what comes within {WITHIN:g} points of it. The middle's medians: {words}.",
        **full_width(results),
    )


def _suggestion_panels(axes: np.ndarray, by_task: Sweeps, table: pd.DataFrame) -> None:
    lengths = sorted(table.length.unique())
    ticks: dict[str, Any] = {"xticks": lengths, "xticklabels": lengths}
    for ax, (task, sweep) in zip(axes, by_task.items(), strict=True):
        right = right_rates(sweep)
        ax.axhspan(right[0], right[-1], color="0.5", alpha=0.15, linewidth=0)
        ax.axhline(sweep.rates[sweep.best], color="0.5", linewidth=1)
        _rules(ax, table[table.task == task])
        ax.set(xscale="log", yscale="log", **ticks, title=task, ylabel="suggested rate")
        ax.set_xlabel("updates of the ramp from 10⁻⁵ to 10")
        ax.minorticks_off()
        ax.legend(fontsize="small", ncols=2)


def _rules(ax: Axes, table: pd.DataFrame) -> None:
    """Each rule's medians and spans, side by side at every length."""
    for i, (rule, part) in enumerate(table.groupby("rule", sort=False)):
        places = part.length * 1.06 ** (i - 1.5)
        spans = [part[0.5] - part[0.1], part[0.9] - part[0.5]]
        ax.errorbar(places, part[0.5], yerr=spans, fmt="o", label=rule)


def table_of_losses(results: Results) -> pd.DataFrame:
    """What each suggestion gives away in points, with a 95 % interval."""
    suggestions = table_of_suggestions(results) if networks(results) else pd.DataFrame()
    rows = []
    for task, sweep in sweeps(results).items():
        own = suggestions[suggestions.task == task]
        for (rule, length), lost in regret.range_test_estimates(sweep, own, 0.95).items():
            where = {"task": task, "rule": rule, "ramp, updates": length}
            interval = {"low": lost.low, "high": lost.high, "tests": lost.n}
            rows.append(where | {"regret, pp": lost.value} | interval)
    return pd.DataFrame(rows)
