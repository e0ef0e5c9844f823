"""Where growth is linear, and why it stops: the rows that ``benchmarks/growth.py`` saved."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.paths import PUBLISHED
from steadydescent.study.results import published

TOLERANCE = 0.15
"""Growth is called linear between two points where its exponent in log–log lies within 1 ± this."""
SIDES = {
    "replicas": "replicas in a stack",
    "parameters": "parameters of a replica",
    "networks": "networks in a sweep",
    "workers": "workers, one thread each",
}
"""What grows: name of a curve → what a reader is told."""
MEASURES = {"seconds": "seconds", "memory_mib": "memory / MiB"}


class Growth(NamedTuple):
    """Saved rows of one kind of device and their receipt; both empty where nothing is saved."""

    rows: pd.DataFrame
    receipt: dict[str, Any]


def measured(device: str, folder: Path | None = None) -> Growth:
    """Read what is kept of a kind of device, among published results or in another folder."""
    nothing: dict[str, Any] = {"rows": {"curve": []}, "receipt": {}}
    saved = published.parsed(f"growth-{device}.json", folder or PUBLISHED, otherwise=nothing)
    return Growth(pd.DataFrame(saved["rows"]), saved["receipt"])


def curve(rows: pd.DataFrame, side: str, measure: str) -> pd.DataFrame:
    """Columns x and y of one curve."""
    part = rows[rows.curve == side]
    if part.empty:
        return pd.DataFrame({"x": [], "y": []}, dtype=float)
    y = part.stacks / part.seconds if _is_rate(side, measure) else part[measure]
    return pd.DataFrame({"x": part[side], "y": y}).astype(float).sort_values("x", ignore_index=True)


def exponents(points: pd.DataFrame) -> np.ndarray:
    """d log y / d log x between neighbouring points."""
    return np.diff(np.log(points.y)) / np.diff(np.log(points.x))


def linear_range(points: pd.DataFrame) -> tuple[int, int] | None:
    """First and last point of the longest linear stretch; None without one.

    Its exponents lie within 1 ± `TOLERANCE`.
    """
    best, start = None, 0
    for end, near in enumerate(np.abs(exponents(points) - 1) <= TOLERANCE, start=1):
        if not near:
            start = end
        elif best is None or end - start > best[1] - best[0]:
            best = (start, end)
    return best


def table_of_curves(growth: Growth) -> pd.DataFrame:
    """A row a curve: its exponents at both ends, where it is linear, and why not elsewhere."""
    pairs = [(side, measure) for side in SIDES for measure in MEASURES]
    long = [pair for pair in pairs if len(curve(growth.rows, *pair)) > 1]
    return pd.DataFrame([_summary(growth, side, measure) for side, measure in long])


def _summary(growth: Growth, side: str, measure: str) -> dict[str, Any]:
    points = curve(growth.rows, side, measure)
    slopes, stretch = exponents(points), linear_range(points)
    if stretch is None:
        span, below, above = "nowhere", slopes, slopes[:0]
    else:
        first, last = stretch
        span = f"{points.x[first]:,.0f} to {points.x[last]:,.0f}"
        below, above = slopes[:first], slopes[last:]
    reasons = [
        _reason(growth, side, measure, part, place)
        for place, part in (("below", below), ("above", above))
        if len(part)
    ]
    return {
        "grows with": SIDES[side],
        "what": "rate" if _is_rate(side, measure) else MEASURES[measure].split(" /")[0],
        "first exponent": slopes[0],
        "last exponent": slopes[-1],
        "linear": span,
        "why not elsewhere": " ".join(reasons),
    }


def _is_rate(side: str, measure: str) -> bool:
    """Workers share a fixed amount of work, so their time counts as a rate."""
    return (side, measure) == ("workers", "seconds")


def _reason(growth: Growth, side: str, measure: str, slopes: np.ndarray, place: str) -> str:
    """Why a stretch below or above the linear one is not linear, where that is known."""
    slow, timed = float(np.mean(slopes)) < 1, measure == "seconds"
    of_a_stack = side in ("replicas", "parameters")
    cache = growth.receipt.get("cache_mib")
    if slow and side == "networks":
        flat = "Flat: one stack is in memory at a time, and what stays are rows."
        return "What a sweep does once weighs less and less." if timed else flat
    if slow and _is_rate(side, measure) and place == "above":
        cores = growth.receipt.get("cores")
        return f"There are {cores} cores; beyond that, workers take turns."
    if slow and of_a_stack and place == "below":
        share = 100 * fixed_share(curve(growth.rows, side, measure))
        thing = "launching its operations" if timed else "the data and the library's own buffers"
        return f"{share:.0f} % of the smallest is there at any size: {thing}."
    if not slow and of_a_stack and timed and cache:
        return f"Weights, gradients, momentum and average outgrow the cache of {cache:g} MiB."
    return "Unexplained."


def fixed_share(points: pd.DataFrame) -> float:
    """The share of the smallest point that does not grow.

    It is a / (a + b x₀) of the line a + b x through both ends.
    """
    (x0, y0), (x1, y1) = points.iloc[0], points.iloc[-1]
    return max(0.0, 1 - x0 * (y1 - y0) / (x1 - x0) / y0)


def draw_growth(name: str, growth: Growth) -> None:
    """Time and memory against each of the four, logarithmic.

    The shaded part is linear, the dotted line all of it.
    """
    rows = growth.rows
    if rows.empty:
        chapter_figures.not_run(name)
        return
    times = {side: curve(rows, side, "seconds") for side in SIDES}
    ends = " ".join(_ends(side, points) for side, points in times.items() if len(points))
    figures.figure(
        name,
        lambda axes: _panels(axes, rows),
        nrows=2,
        ncols=len(SIDES),
        size=(8.8, 4.6),
        data=rows[[name for name in rows.columns if name not in ("first_seconds", "compiled")]],
        alt=f"Eight log–log panels, time above and memory below. {ends}",
        caption="Time of an update of the stack (left two) or of the whole sweep, rate for "
        f"workers; memory below. Shaded: linear, exponent 1 ± {TOLERANCE:g}. Dotted: linear "
        "growth.",
    )


def _panels(axes: np.ndarray, rows: pd.DataFrame) -> None:
    grid = [(measure, side) for measure in MEASURES for side in SIDES]
    for (measure, side), ax in zip(grid, axes.flat, strict=True):
        _panel(ax, curve(rows, side, measure))
        title = "stacks / s" if _is_rate(side, measure) else MEASURES[measure]
        ax.set_title(title, fontsize="small")
        ax.set_xlabel(SIDES[side] if measure == "memory_mib" else "", fontsize="small")


def _panel(ax: Axes, points: pd.DataFrame) -> None:
    if points.empty:
        ax.text(0.5, 0.5, "not measured", ha="center", va="center", transform=ax.transAxes)
        ax.set_axis_off()
        return
    ax.plot(points.x, points.y, marker="o")
    stretch = linear_range(points)
    anchor = points.iloc[stretch[0] if stretch else -1]
    ax.plot(points.x, anchor.y * points.x / anchor.x, linestyle=":", color="0.5", linewidth=1)
    if stretch:
        first, last = (points.x[end] for end in stretch)
        ax.axvspan(first, last, alpha=0.15, color="0.5", linewidth=0)
    ax.set(xscale="log", yscale="log")
    for axis, values in ((ax.xaxis, points.x), (ax.yaxis, points.y)):
        # powers of ten alone would leave a short axis all but bare
        if values.max() < 30 * values.min():
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
    bottom = min(points.y.min(), anchor.y * points.x.min() / anchor.x)
    ax.set_ylim(max(bottom, points.y.min() / 10) / 1.3, 1.5 * points.y.max())


def _ends(side: str, points: pd.DataFrame) -> str:
    first, last = points.iloc[0], points.iloc[-1]
    unit = "stacks a second" if side == "workers" else "seconds"
    return f"{SIDES[side]}: {first.y:.3g} {unit} at {first.x:,.0f}, {last.y:.3g} at {last.x:,.0f}."
