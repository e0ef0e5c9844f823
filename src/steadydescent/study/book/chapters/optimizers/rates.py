"""Rules before and after tuning: ranks, what a budget of trials buys, how far off a rate may be."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.book.chapters.results import (
    Results,
    grid,
    hide,
    ids,
    networks,
    table_of_numbers,
)
from steadydescent.study.book.words import difference
from steadydescent.study.judging import regret
from steadydescent.study.judging.evidence import Evidence

CONDITION = "constant"
TRIALS, CLOSE = 9, 2.0
"""Trials that budgets go up to, and percentage points below the best mean that count as close."""


def scores(evidence: Evidence, rule: str) -> pd.DataFrame:
    """Validation accuracy in percent by tuning seed and rate, rates rising, `[S, G]`."""
    table = evidence.tuning(CONDITION, rule, "accuracy").xs("last", axis=1, level="readout")
    return 100 * table.sort_index(axis=1)


def centre(evidence: Evidence, rule: str) -> float:
    """The rate at the centre of the grid as it was laid: one number in every rule's own unit."""
    rates = scores(evidence, rule).columns.to_numpy(float)
    distance = np.abs(np.log(rates / evidence.grid_centre(CONDITION, rule)))
    return float(rates[distance.argmin()])


def table_of_ranks(results: Results) -> pd.DataFrame:
    """Mean validation accuracy over tuning seeds, untuned and tuned, with the rates of both."""
    rows = []
    for task, shown in results.items():
        for rule in shown.evidence.arms_in(CONDITION):
            means, middle = scores(shown.evidence, rule).mean(), centre(shown.evidence, rule)
            row = {"task": task, "rule": rule, "untuned": means[middle], "tuned": means.max()}
            rows.append(row | {"rate at the centre": middle, "tuned rate": means.idxmax()})
    return pd.DataFrame(rows)


def changed_pairs(part: pd.DataFrame) -> int:
    """How many pairs of rules have another order tuned than untuned."""
    pairs = combinations(part[["untuned", "tuned"]].itertuples(index=False), 2)
    return sum((a.untuned - b.untuned) * (a.tuned - b.tuned) < 0 for a, b in pairs)


def draw_ranks(name: str, results: Results) -> None:
    """Rules by accuracy, untuned on the left and tuned on the right, a panel a task."""
    results = networks(results)
    if not results:
        chapter_figures.not_run(name)
        return
    table = table_of_ranks(results)
    parts = table.groupby("task", sort=False)
    words = "; ".join(_changes(str(task), part) for task, part in parts)
    figures.figure(
        name,
        lambda axes: _rank_panels(axes, table),
        data=table,
        **grid(len(results), 4.2),
        results=ids(results),
        alt=f"Rankings of the rules by validation accuracy, untuned and tuned. {words}.",
        caption="The same rules, ranked by mean validation accuracy over tuning seeds (percent): "
        "*untuned* at the centre of the grid, one shared number in each rule's own unit, *tuned* "
        f"at the best rate. {words}.",
    )


def _changes(task: str, part: pd.DataFrame) -> str:
    pairs = len(part) * (len(part) - 1) // 2
    apart = {name: part[name].max() - part[name].min() for name in ("untuned", "tuned")}
    return (
        f"{task}: {changed_pairs(part)} of {pairs} pairs change order, and the rules lie "
        f"{apart['untuned']:.1f} points apart untuned, {apart['tuned']:.1f} tuned"
    )


def _rank_panels(axes: np.ndarray, table: pd.DataFrame) -> None:
    hide(axes, table.task.nunique())
    for ax, (task, part) in zip(axes.flat, table.groupby("task", sort=False), strict=False):
        ranks = part[["untuned", "tuned"]].rank(ascending=False, method="first")
        for row, (start, end) in zip(part.itertuples(), ranks.to_numpy(), strict=True):
            (line,) = ax.plot([0, 1], [start, end], marker="o")
            colour = line.get_color()
            left, right = f"{row.rule} {row.untuned:.1f}", f"{row.tuned:.1f}"
            _beside(ax, -0.06, start, left, "right", colour)
            _beside(ax, 1.06, end, right, "left", colour)
        ax.set(xlim=(-1.5, 1.5), xticks=[0, 1], xticklabels=["untuned", "tuned"])
        ax.set(yticks=[], title=task)
        ax.invert_yaxis()
        ax.spines["left"].set_visible(False)


def _beside(ax: Axes, x: float, y: float, text: str, side: str, colour: str) -> None:
    ax.text(x, y, text, ha=side, va="center", fontsize="small", color=colour)


def best_of_trials(table: pd.DataFrame) -> pd.DataFrame:
    """Expected accuracy of the best of k rates by tuning seed and rate, `[S, G]`.

    Half of the seeds choose, one network a rate, the other half scores, and the other way round.
    """
    values = table.to_numpy()
    trials = range(1, min(TRIALS, values.shape[1]) + 1)
    halves = values[::2], values[1::2]
    there, back = (
        regret.best_of_k(choose, score, trials, single=True).score
        for choose, score in (halves, halves[::-1])
    )
    return pd.DataFrame({"k": list(trials), "accuracy": (there + back) / 2})


def table_of_trials(results: Results) -> pd.DataFrame:
    """`best_of_trials` of every rule: columns k, accuracy, task and rule."""
    parts = [
        best_of_trials(scores(shown.evidence, rule)).assign(task=task, rule=rule)
        for task, shown in results.items()
        for rule in shown.evidence.arms_in(CONDITION)
    ]
    return pd.concat(parts, ignore_index=True)


def draw_trials(name: str, results: Results) -> None:
    """What a budget of networks buys, a panel a task."""
    results = networks(results)
    if not results:
        chapter_figures.not_run(name)
        return
    table = table_of_trials(results)
    words = "; ".join(_leaders(task, table[table.task == task]) for task in results)
    figures.figure(
        name,
        lambda axes: _trial_panels(axes, table),
        data=table,
        **grid(len(results), 3.8),
        results=ids(results),
        alt="Expected accuracy of the best of k rates drawn from the grid. Ahead: " + words + ".",
        caption="What a budget of k networks buys: expected validation accuracy of the best of k "
        f"rates drawn from the grid without replacement. Ahead: {words}.",
    )


def _leaders(task: str, part: pd.DataFrame) -> str:
    most = part.k.max()
    one, three, all_of_them = (_leader(part, k) for k in (1, 3, most))
    return f"{task}: {one} at one, {three} at three, {all_of_them} at {most}"


def _leader(part: pd.DataFrame, k: int) -> str:
    accuracy = part[part.k == k].set_index("rule").accuracy.sort_index()
    return f"{accuracy.idxmax()} {accuracy.max():.1f} %"


def _trial_panels(axes: np.ndarray, table: pd.DataFrame) -> None:
    hide(axes, table.task.nunique())
    for ax, (task, part) in zip(axes.flat, table.groupby("task", sort=False), strict=False):
        for marker, (rule, line) in zip("os^vDPX*", part.groupby("rule", sort=False), strict=False):
            ax.plot(line.k, line.accuracy, marker=marker, label=rule)
        ax.set(xlabel="rates tried", ylabel="validation accuracy / %", title=task)
    axes.flat[0].legend(fontsize="x-small")


def close_range(means: pd.Series) -> tuple[float, bool]:
    """Decades of rates within `CLOSE` points of the best mean, and whether the grid ends first.

    `means` has a score a rate; between two rates they are interpolated in the logarithm.
    """
    x = np.log10(means.index.to_numpy(float))
    fine = np.linspace(x[0], x[-1], 2001)
    good = np.interp(fine, x, means) >= means.max() - CLOSE
    return float(good.mean() * (x[-1] - x[0])), bool(good[0] or good[-1])


def table_of_ranges(results: Results) -> pd.DataFrame:
    """`close_range` of every rule: columns task, rule, decades and cut off."""
    rows = []
    for task, shown in results.items():
        for rule in shown.evidence.arms_in(CONDITION):
            decades, cut_off = close_range(scores(shown.evidence, rule).mean())
            rows.append({"task": task, "rule": rule, "decades": decades, "cut off": cut_off})
    return pd.DataFrame(rows)


def draw_ranges(name: str, results: Results) -> None:
    """How far off a rate may be, by rule."""
    results = networks(results)
    if not results:
        chapter_figures.not_run(name)
        return
    table = table_of_ranges(results)
    parts = table.groupby("task", sort=False)
    words = "; ".join(f"{task}: {_widest_and_narrowest(part)}" for task, part in parts)
    figures.figure(
        name,
        lambda ax: _range_panel(ax, table),
        data=table,
        size=(7.2, 3.8),
        results=ids(results),
        alt="How many decades of rates come within two points of the best, by rule. " + words + ".",
        caption="How far off a rate may be: decades within two percentage points of the rule's "
        f"best mean. {words}. In {table['cut off'].sum()} of {len(table)} cases the grid ends "
        "first, and the true width is larger.",
    )


def _widest_and_narrowest(part: pd.DataFrame) -> str:
    decades = part.set_index("rule").decades
    widest = f"widest {decades.idxmax()} {decades.max():.1f}"
    return f"{widest}, narrowest {decades.idxmin()} {decades.min():.1f}"


def _range_panel(ax: Axes, table: pd.DataFrame) -> None:
    rules = list(dict.fromkeys(table.rule))
    for i, (task, part) in enumerate(table.groupby("task", sort=False)):
        places = [rules.index(rule) + 0.15 * (i - 1) for rule in part.rule]
        ax.plot(part.decades, places, "os^vD"[i % 5], linestyle="none", label=task)
    ax.set(yticks=range(len(rules)), yticklabels=rules, xlim=(0, None))
    ax.set(xlabel="decades of rates within 2 points of the best")
    ax.invert_yaxis()
    ax.legend(fontsize="small")


def table_of_pairs(results: Results, numbers: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Differences in accuracy of pairs of rules, each tuned: a row a task and pair, and for pairs
    under one condition which.
    """
    rows = []
    for task in networks(results):
        start = f"optimizers/{task}/"
        for key in numbers:
            if key.startswith(start) and key.endswith("/tuned"):
                *condition, pair = key.removeprefix(start).removesuffix("/tuned").split("/")
                own = numbers[key]
                gain = difference(own["value"], own["low"], own["high"])
                where = {"task": task, "condition": ", ".join(condition) or "both"}
                rows.append(where | {"pair": pair.replace("-", " − ", 1), "pp": gain})
    return pd.DataFrame(rows)


def table_of_rules(results: Results, numbers: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    """Numbers of every rule at its tuned rate."""
    results = networks(results)
    arms = {task: shown.evidence.arms_in(CONDITION) for task, shown in results.items()}
    columns = ["rate", "accuracy, %", "sd", "nats", "gap, pp", "diverged"]
    return table_of_numbers(numbers, "optimizers", arms, arm="rule", columns=columns)
