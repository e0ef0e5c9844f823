"""Updates and examples to a target against the batch size, and the critical size.

McCandlish et al. (2018), equation 2.11: updates = s (1 + B/n), s the fewest updates and B the
critical batch size, at which a run needs twice the fewest updates and twice the fewest examples.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.optimize import curve_fit

from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.book.chapters.batch_size.sizes import RULE, sizes
from steadydescent.study.book.chapters.results import Results, fastest, ids
from steadydescent.study.judging.choosing import Candidate
from steadydescent.study.judging.evidence import Evidence

ARRIVED = 0.9
"""The share of seeds that must arrive for a size to count as measured; others give a bound."""
FEWEST, DRAWS = 3, 500
"""Sizes that a fit needs, and draws of its bootstrap over seeds."""


class Critical(NamedTuple):
    """A fit to the sizes that arrived, and the 95 % bootstrap interval of the critical size."""

    sizes: tuple[int, ...]
    least: float
    size: float
    low: float
    high: float

    def updates(self, n: np.ndarray) -> np.ndarray:
        """s (1 + B/n)."""
        return self.least * (1 + self.size / n)


def table_of_updates(results: Results) -> pd.DataFrame:
    """Updates to the target by task, size and report seed, at the rate that is tuned for them.

    A run that misses counts with all of its updates. Columns task, n, rate, seed, updates,
    examples and arrived.
    """
    parts = []
    for task, shown in results.items():
        for condition, n in sizes(shown.evidence).items():
            if (side := fastest(shown.evidence, condition, RULE)) is None:
                continue
            updates = side.scores.report[:, side.scores.chosen()]
            arrived = _arrived(shown.evidence, condition, side.chosen)
            columns = {"task": task, "n": n, "rate": side.chosen.lr, "seed": arrived.index}
            columns |= {"updates": updates, "examples": updates * n, "arrived": arrived.to_numpy()}
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _arrived(evidence: Evidence, condition: str, chosen: Candidate) -> pd.Series:
    """Seed → whether its report run holds the target to the end."""
    return evidence.arrivals(condition, RULE)[chosen.lr, chosen.readout] > 0


def fit(updates: pd.Series) -> tuple[float, float]:
    """Fewest updates s and critical size B of mean updates by n: least squares of logarithms."""
    log_n, log_updates = np.log(updates.index.to_numpy(float)), np.log(updates.to_numpy())
    start = (log_updates.min(), log_n.mean())
    least, size = np.exp(curve_fit(_log_updates, log_n, log_updates, p0=start, maxfev=5000)[0])
    return float(least), float(size)


def _log_updates(log_n: np.ndarray, log_least: float, log_size: float) -> np.ndarray:
    return log_least + np.log1p(np.exp(log_size - log_n))


def critical(table: pd.DataFrame) -> Critical | None:
    """The critical size of one task's rows; None where fewer than `FEWEST` sizes arrived."""
    share = table.groupby("n").arrived.mean()
    by_seed = table.pivot(index="seed", columns="n", values="updates")[
        share[share >= ARRIVED].index
    ]
    if by_seed.shape[1] < FEWEST:
        return None
    seeds, values = len(by_seed), by_seed.to_numpy()
    rows = np.random.default_rng(0).integers(seeds, size=(DRAWS, seeds))
    drawn = [fit(pd.Series(values[row].mean(axis=0), by_seed.columns))[1] for row in rows]
    low, high = (float(end) for end in np.quantile(drawn, [0.025, 0.975]))
    return Critical(tuple(by_seed.columns), *fit(by_seed.mean()), low, high)


def in_words(task: str, table: pd.DataFrame, estimate: Critical | None) -> str:
    """A task's critical size, and the sizes that missed the target."""
    missed = table[~table.arrived].groupby("n").size()
    late = "; ".join(f"n = {n} missed with {count} seeds" for n, count in missed.items())
    late = late or "every seed arrived"
    if estimate is None:
        return f"{task}: too few sizes arrived for a fit ({late})"
    used = ", ".join(map(str, estimate.sizes))
    interval = f"95 % {estimate.low:.3g} to {estimate.high:.3g}"
    return (
        f"{task}: critical batch size {estimate.size:.3g} ({interval}), never fewer than "
        f"{estimate.least:.3g} updates, from n = {used} ({late})"
    )


def draw_target(name: str, results: Results) -> None:
    """Updates and examples to the target against the batch size, a row of panels a task."""
    if not results:
        chapter_figures.not_run(name)
        return
    targets = table_of_updates(results)
    if targets.empty:
        chapter_figures.no_candidate(name)
        return
    tables = {str(task): part for task, part in targets.groupby("task", sort=False)}
    fits = {task: critical(table) for task, table in tables.items()}
    words = ". ".join(in_words(task, table, fits[task]) for task, table in tables.items())
    figures.figure(
        name,
        lambda axes: _panels(axes, tables, fits),
        data=targets,
        results=ids(results),
        size=(8.4, 0.4 + 3.2 * len(tables)),
        nrows=len(tables),
        ncols=2,
        squeeze=False,
        alt=f"Updates and examples to the target against the batch size. {words}.",
        caption="Updates (left) and examples (right) to the target against n, with 95 % intervals "
        f"over seeds; band: bootstrap interval of the critical size. {words}.",
    )


def _panels(
    axes: np.ndarray,
    tables: Mapping[str, pd.DataFrame],
    fits: Mapping[str, Critical | None],
) -> None:
    for row, (task, table) in zip(axes, tables.items(), strict=True):
        summary = table.groupby("n").agg(
            updates=("updates", "mean"), se=("updates", "sem"), arrived=("arrived", "mean")
        )
        for ax, what in zip(row, ("updates", "examples"), strict=True):
            _panel(ax, summary, fits[task], what)
            ax.set_title(task)
    axes[0][0].legend(fontsize="small")


def _panel(ax: Axes, summary: pd.DataFrame, estimate: Critical | None, what: str) -> None:
    """Means with intervals, perfect scaling through the first size that arrived, and the fit."""
    enough = summary.arrived >= ARRIVED
    for part, marker, label in (
        (summary[enough], "o", "measured"),
        (summary[~enough], "^", "many seeds missed: at least"),
    ):
        each = _per_update(part.index.to_numpy(), what)
        ax.errorbar(
            part.index,
            each * part.updates,
            yerr=1.96 * each * part.se,
            fmt=marker,
            color="C0",
            mfc="C0" if marker == "o" else "none",
            label=label if len(part) else None,
        )
    n = np.geomspace(summary.index.min(), summary.index.max(), 100)
    start = int(np.argmax(enough))
    perfect = summary.updates.iloc[start] * summary.index[start] / n * _per_update(n, what)
    ax.plot(n, perfect, color="C5", linewidth=1, linestyle=":", label="perfect scaling")
    if estimate is not None:
        ax.plot(n, estimate.updates(n) * _per_update(n, what), color="C1", label="fit")
        ax.axvspan(estimate.low, estimate.high, color="C1", alpha=0.15, linewidth=0)
    ax.set(xscale="log", yscale="log", xlabel="examples n", ylabel=f"{what} to the target")


def _per_update(n: np.ndarray, what: str) -> np.ndarray:
    """What an update counts as: itself, or its examples."""
    return n * 1.0 if what == "examples" else np.ones(len(n))
