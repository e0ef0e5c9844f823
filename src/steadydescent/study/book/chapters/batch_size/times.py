"""Time per example against the batch size, and whether powers of two save any."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.book.chapters.results import Results, main_task
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.statistics import paired


def table_of_times(evidence: Evidence) -> pd.DataFrame:
    """What the loop over one network took: columns n, step (the round) and microseconds."""
    timings = evidence.result.timings
    times = timings.rename(columns={"batch_size": "n", "round": "step"})
    return times.assign(microseconds=1e6 * times.seconds_per_example)[["n", "step", "microseconds"]]


def table_of_gains(evidence: Evidence) -> pd.DataFrame:
    """What powers of two save against their neighbours, percent: rows n; value, low and high."""
    parts = evidence.result.timings.dropna(subset="gain").groupby("batch_size")
    estimates = {n: paired(part.gain.to_numpy(), 0.95) for n, part in parts}
    rows = {n: [estimate.value, estimate.low, estimate.high] for n, estimate in estimates.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])


def draw_times(name: str, results: Results) -> None:
    """Left: time per example. Right: what powers of two save."""
    task = main_task(results)
    times = table_of_times(results[task].evidence) if task else pd.DataFrame()
    if times.empty:
        chapter_figures.not_run(name)
        return
    gains = table_of_gains(results[task].evidence)
    cost = times.groupby("n").microseconds.median()
    saved = ", ".join(f"{value:+.1f} % at n = {n}" for n, value in gains.value.items())
    first, last = (f"{cost.iloc[i]:.3g} µs at n = {cost.index[i]}" for i in (0, -1))
    figures.figure(
        name,
        lambda axes: _panels(axes, times, gains),
        data=times,
        results=[results[task].id],
        size=(8.4, 3.4),
        ncols=2,
        alt=f"Time per example falls from {first} to {last}. Powers of two save {saved}.",
        caption=f"A plain loop over one network, one thread, {times.step.nunique()} interleaved "
        f"rounds. Left: median and quartiles; from n = {cost.index[0]} to {cost.index[-1]} the "
        f"time per example falls by a factor of {cost.iloc[0] / cost.iloc[-1]:.1f}. Right: what a "
        f"power of two saves, 95 % intervals: {saved}.",
    )


def _panels(axes: tuple[Axes, Axes], times: pd.DataFrame, gains: pd.DataFrame) -> None:
    left, right = axes
    quartiles = times.groupby("n").microseconds.quantile([0.25, 0.5, 0.75]).unstack()
    place = pd.Series(np.arange(len(quartiles)), quartiles.index)
    power = quartiles.index.isin(gains.index)
    for part, colour, label in (
        (quartiles[power], "C1", "power of two"),
        (quartiles[~power], "C0", "neighbour"),
    ):
        reach = [part[0.5] - part[0.25], part[0.75] - part[0.5]]
        at = place[part.index]
        left.errorbar(at, part[0.5], yerr=reach, fmt="o", color=colour, label=label)
    left.set(xticks=place, xlabel="examples n", ylabel="time per example / µs")
    left.set_xticklabels(place.index, fontsize="small")
    left.legend(fontsize="small")
    right.axhline(0, color="C5", linewidth=1)
    reach = [gains.value - gains.low, gains.high - gains.value]
    right.errorbar(gains.index.astype(str), gains.value, yerr=reach, fmt="o")
    right.set(xlabel="power of two", ylabel="time saved against neighbours / %")
