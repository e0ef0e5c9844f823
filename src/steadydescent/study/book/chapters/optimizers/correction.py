"""Bias correction by arithmetic: how much longer it makes a step."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from steadydescent.averages import debias
from steadydescent.study.book import figures

BETA, STEPS, CLAIMED = 0.9, 60, 10
"""CLAIMED: the step after which the slides need no correction."""


def table_of_factors() -> pd.DataFrame:
    """1/(1 − βᵗ) at each step: columns step and factor."""
    steps = np.arange(1, STEPS + 1)
    ones = torch.ones(len(steps), dtype=torch.float64)
    return pd.DataFrame({"step": steps, "factor": debias(ones, BETA, torch.tensor(steps)).numpy()})


def first_within(table: pd.DataFrame, percent: float) -> int:
    """The first step at which the factor is within so many percent of 1."""
    return int(table.step[table.factor <= 1 + percent / 100].iloc[0])


def draw_correction(name: str) -> None:
    """The factor against the step."""
    table = table_of_factors()
    within = {percent: first_within(table, percent) for percent in (10, 1)}
    claimed = float(table.factor[table.step == CLAIMED].iloc[0])
    figures.figure(
        name,
        lambda ax: _panel(ax, table, within, claimed),
        data=table,
        alt=f"The correction's factor against the step for β = {BETA}: {claimed:.3f} at step "
        f"{CLAIMED}, within 10 % of 1 from step {within[10]}, within 1 % from step {within[1]}.",
        caption=f"How much longer the corrected step is, β = {BETA}: {claimed:.3f} times at step "
        f"{CLAIMED}, within 10 % from step {within[10]} on, within 1 % from step {within[1]} on.",
    )


def _panel(ax: Axes, table: pd.DataFrame, within: Mapping[int, int], claimed: float) -> None:
    ax.plot(table.step, table.factor, marker=".")
    top = table.factor.max()
    for percent, step in within.items():
        ax.axvline(step, color="0.5", linewidth=1, linestyle="--")
        words = f"within {percent} %\nfrom step {step}"
        ax.text(step + 0.6, top / 2, words, fontsize="small")
    ax.axvline(CLAIMED, color="C1", linewidth=1)
    ax.text(CLAIMED + 0.6, top * 0.8, f"step {CLAIMED}: {claimed:.3f}", fontsize="small")
    ticks = [1, 1.5, 2, 5, 10]
    ax.set(xlabel="step", ylabel=f"1/(1 − {BETA}ᵗ)", yscale="log")
    ax.set(yticks=ticks, yticklabels=[f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
