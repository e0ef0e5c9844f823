"""What the rate does: too small, right, too large."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.book.chapters.results import Results, ids, networks
from steadydescent.study.judging import regret
from steadydescent.study.judging.regret import Sweep

CONDITION, ARM = "dense sweep", "momentum"
"""Where the dense sweep is found in a result."""
WITHIN = 2.0
"""Percentage points below the best mean: what the pictures call right."""
REGIMES = ("too small", "right", "too large")

Sweeps = Mapping[str, Sweep]
"""Task → its dense sweep."""


def sweeps(results: Results) -> dict[str, Sweep]:
    """The dense sweep of every task that trains networks."""
    return {
        task: regret.dense_sweep(shown.evidence, CONDITION, ARM)
        for task, shown in networks(results).items()
    }


def full_width(results: Results) -> dict[str, Any]:
    """Arguments of a figure with a panel a task, one below the other."""
    results = networks(results)
    down = len(results)
    size = (8.4, 0.6 + 3.2 * down)
    return {"size": size, "nrows": down, "squeeze": False, "results": ids(results)}


def regimes(sweep: Sweep) -> np.ndarray:
    """Each rate's regime, `[G]`: right within `WITHIN` of the best mean, else its side of it."""
    right = sweep.means >= sweep.means.max() - WITHIN
    below = sweep.rates < sweep.rates[sweep.means.argmax()]
    return np.where(right, "right", np.where(below, "too small", "too large"))


def right_rates(sweep: Sweep) -> np.ndarray:
    """The rates that are right, rising."""
    return sweep.rates[regimes(sweep) == "right"]


def table_of_regimes(results: Results) -> pd.DataFrame:
    """Columns task, rate, accuracy (mean test accuracy in percent), regime."""
    parts = [
        pd.DataFrame(
            {"task": task, "rate": sweep.rates, "accuracy": sweep.means, "regime": regimes(sweep)}
        )
        for task, sweep in sweeps(results).items()
    ]
    return pd.concat(parts)


def draw_regimes(name: str, results: Results) -> None:
    """Test accuracy against the rate, with the regimes marked."""
    if not networks(results):
        chapter_figures.not_run(name)
        return
    by_task = sweeps(results)
    spans = []
    for task, sweep in by_task.items():
        right, best = right_rates(sweep), sweep.rates[sweep.means.argmax()]
        spans.append(f"{task}: {right[0]:.2g} to {right[-1]:.2g}, best {best:.2g}")
    words = "; ".join(spans)
    figures.figure(
        name,
        lambda axes: _regime_panels(axes[:, 0], by_task),
        data=table_of_regimes(results),
        alt="Test accuracy against the learning rate over five decades. Rates within "
        f"{WITHIN:g} points of the best: {words}.",
        caption="Test accuracy against the rate, from 10⁻⁵ to 1; the band is a 95 % interval over "
        f"seeds. *Right* is what comes within {WITHIN:g} percentage points of the best mean: "
        f"{words}.",
        **full_width(results),
    )


def _regime_panels(axes: np.ndarray, by_task: Sweeps) -> None:
    for ax, (task, sweep) in zip(axes, by_task.items(), strict=True):
        half = 1.96 * sweep.report.std(axis=0, ddof=1) / np.sqrt(len(sweep.report))
        (line,) = ax.plot(sweep.rates, sweep.means, marker="o")
        band: dict[str, Any] = {"alpha": 0.2, "color": line.get_color(), "linewidth": 0}
        ax.fill_between(sweep.rates, sweep.means - half, sweep.means + half, **band)
        _mark_regimes(ax, sweep)
        ax.set(xscale="log", xlabel="learning rate", ylabel="test accuracy / %")
        ax.set_title(task, pad=18)


def _mark_regimes(ax: Axes, sweep: Sweep) -> None:
    """Dashed lines between regimes, and their names above."""
    words = regimes(sweep)
    between = np.sqrt(sweep.rates[1:] * sweep.rates[:-1])
    for edge in between[words[1:] != words[:-1]]:
        ax.axvline(edge, color="0.5", linewidth=1, linestyle="--")
    for word in REGIMES:
        if (words == word).any():
            place = np.exp(np.log(sweep.rates[words == word]).mean())
            above = ax.get_xaxis_transform()
            ax.text(place, 1.02, word, transform=above, ha="center", fontsize="small")
