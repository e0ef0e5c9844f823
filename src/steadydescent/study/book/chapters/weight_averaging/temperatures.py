"""The slides' temperatures, smoothed: what β does, and what the correction does early."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from steadydescent.averages import debias, ewa
from steadydescent.study.book import figures

PRINTED = {1: 40.0, 2: 49.0, 3: 45.0, 180: 60.0, 181: 56.0}
"""Day → the slides' temperature, in °F; all other days are made up."""
DAYS, BETAS = 365, (0.5, 0.9, 0.98)
LONG = BETAS[-1]
FIRST = 60
"""Days of which the right panel shows what the correction does."""


def temperatures() -> np.ndarray:
    """A year in °F, `[DAYS]`: a wave with noise that goes through the slides' five values."""
    days = np.arange(1, DAYS + 1)
    noise = np.random.default_rng(0).normal(0, 4, DAYS)
    made_up = 46 - 16 * np.cos(2 * np.pi * (days - 5) / DAYS) + 10 * np.exp(-days / 30) + noise
    return np.array([PRINTED.get(day, value) for day, value in enumerate(made_up, start=1)])


def table_of_temperatures() -> pd.DataFrame:
    """Columns day, temperature, average of β for each β, and that of the longest corrected."""
    values = torch.from_numpy(temperatures())
    columns: dict[str, list[float]] = {"temperature": values.tolist()}
    for beta in BETAS:
        average, path = torch.zeros((), dtype=torch.float64), []
        for value in values:
            average = ewa(average, value, beta)
            path.append(average.item())
        columns[f"β = {beta}"] = path
    steps = torch.arange(1, DAYS + 1)
    whole = torch.tensor(columns[f"β = {LONG}"], dtype=torch.float64)
    columns[f"β = {LONG}, corrected"] = debias(whole, LONG, steps).tolist()
    return pd.DataFrame({"day": steps.tolist()} | columns)


def first_within(table: pd.DataFrame, percent: float) -> int:
    """The first day on which the uncorrected average is within so many percent of the corrected."""
    plain, corrected = table[f"β = {LONG}"], table[f"β = {LONG}, corrected"]
    return int(table.day[plain >= (1 - percent / 100) * corrected].iloc[0])


def draw_temperatures(name: str) -> None:
    """Left: a year and its averages from zero. Right: the start, with and without correction."""
    table = table_of_temperatures()
    day, second = first_within(table, 10), table.iloc[1]
    starts = f"{second[f'β = {LONG}']:.2f} without, {second[f'β = {LONG}, corrected']:.1f} with it"
    figures.figure(
        name,
        lambda axes: _panels(axes, table),
        data=table,
        size=(8.4, 3.6),
        ncols=2,
        sharey=True,
        alt=f"Daily temperatures over a year with averages of β = 0.5, 0.9 and 0.98, the last "
        f"smoothest and latest; and the first {FIRST} days of β = {LONG}: on day 2 {starts}.",
        caption="Temperatures in °F, of days 1 to 3, 180 and 181 the slides', all others made up. "
        f"Left: averages that start from zero. Right: β = {LONG} with and without correction; on "
        f"day 2 {starts}. The two are within 10 % of each other from day {day} on.",
    )


def _panels(axes: Iterable[Axes], table: pd.DataFrame) -> None:
    for ax, last in zip(axes, (DAYS, FIRST), strict=True):
        part = table[table.day <= last]
        ax.plot(part.day, part.temperature, ".", color="0.5", markersize=3, label="temperature")
        names = [f"β = {beta}" for beta in BETAS]
        for line in names if last == DAYS else [f"β = {LONG}", f"β = {LONG}, corrected"]:
            ax.plot(part.day, part[line], label=line)
        ax.set(xlabel="day", ylabel="°F")
        ax.label_outer()
        ax.legend(fontsize="x-small")
