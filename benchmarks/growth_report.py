"""What the book shows of `growth.py`: where growth is linear, why it stops, what a million networks
would cost.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from steadydescent.study.book.chapter_figures import not_run
from steadydescent.study.book.figures import figure
from steadydescent.study.paths import PUBLISHED
from steadydescent.study.results import published

TOLERANCE = 0.15
"""Growth is called linear between two points where its exponent in log–log lies within 1 ± this."""
SHOWN = {
    "replicas": "replicas in a stack",
    "parameters": "parameters of a replica",
    "networks": "networks in a sweep",
    "workers": "workers, one thread each",
}
MEASURED = {"seconds": "seconds", "memory_mib": "memory / MiB"}


def measured(device: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Saved rows and their receipt; both empty where `growth.py` has not been run."""
    saved = published.parsed(
        f"growth-{device}.json", PUBLISHED, otherwise={"rows": {"curve": []}, "receipt": {}}
    )
    return pd.DataFrame(saved["rows"]), saved["receipt"]


def curve(rows: pd.DataFrame, name: str, what: str) -> pd.DataFrame:
    """Columns x and y of one curve."""
    part = rows[rows.curve == name]
    if part.empty:
        return pd.DataFrame({"x": [], "y": []}, dtype=float)
    y = part.stacks / part.seconds if _is_rate(name, what) else part[what]
    return pd.DataFrame({"x": part[name], "y": y}).astype(float).sort_values("x", ignore_index=True)


def exponents(points: pd.DataFrame) -> np.ndarray:
    """d log y / d log x between neighbouring points."""
    return np.diff(np.log(points.y)) / np.diff(np.log(points.x))


def linear_range(points: pd.DataFrame) -> tuple[int, int] | None:
    """First and last point of the longest stretch whose exponents lie within 1 ± `TOLERANCE`; None
    without one.
    """
    best, start = None, 0
    for end, near in enumerate(np.abs(exponents(points) - 1) <= TOLERANCE, start=1):
        if not near:
            start = end
        elif best is None or end - start > best[1] - best[0]:
            best = (start, end)
    return best


def summary(rows: pd.DataFrame, receipt: dict[str, Any]) -> pd.DataFrame:
    """A row a curve: its exponents at both ends, where it is linear, and why it is not below and
    above.
    """
    told = []
    for name in SHOWN:
        for what in MEASURED:
            points = curve(rows, name, what)
            if len(points) < 2:
                continue
            slopes, found = exponents(points), linear_range(points)
            span = (
                "nowhere"
                if found is None
                else f"{points.x[found[0]]:,.0f} to {points.x[found[1]]:,.0f}"
            )
            below, above = (
                (slopes, slopes[:0]) if found is None else (slopes[: found[0]], slopes[found[1] :])
            )
            why = [
                _why(rows, receipt, name, what, part, side)
                for part, side in ((below, "below"), (above, "above"))
            ]
            told.append(
                {
                    "grows with": SHOWN[name],
                    "what": "rate" if _is_rate(name, what) else MEASURED[what].split(" /")[0],
                    "first exponent": slopes[0],
                    "last exponent": slopes[-1],
                    "linear": span,
                    "why not elsewhere": " ".join(filter(None, why)),
                }
            )
    return pd.DataFrame(told)


def _is_rate(name: str, what: str) -> bool:
    """Workers share a fixed amount of work, so their time counts as a rate."""
    return (name, what) == ("workers", "seconds")


def _why(
    rows: pd.DataFrame, receipt: dict[str, Any], name: str, what: str, slopes: np.ndarray, side: str
) -> str:
    """The reason for a stretch that is not linear; a stretch that behaves otherwise than known is
    said to.
    """
    if not len(slopes):
        return ""
    slow = float(np.mean(slopes)) < 1
    points = curve(rows, name, what)
    if slow and (name, what) == ("networks", "memory_mib"):
        return "Flat: one stack is in memory at a time, and what stays are rows."
    if slow and name == "networks":
        return "What a sweep does once weighs less and less."
    if slow and name == "workers" and what == "seconds" and side == "above":
        return f"There are {receipt.get('cores')} cores; beyond that, workers take turns."
    if slow and name in ("replicas", "parameters") and side == "below":
        thing = (
            "launching its operations"
            if what == "seconds"
            else "the data and the library's own buffers"
        )
        return f"{100 * fixed_share(points):.0f} % of the smallest is there at any size: {thing}."
    if (
        not slow
        and name in ("replicas", "parameters")
        and what == "seconds"
        and receipt.get("cache_mib")
    ):
        return f"Weights, gradients, momentum and average outgrow the cache of {receipt['cache_mib']:g} MiB."
    return "Unexplained."


def fixed_share(points: pd.DataFrame) -> float:
    """The share of the smallest point that does not grow: a / (a + b x₀) of the line a + b x
    through both ends.
    """
    (x0, y0), (x1, y1) = points.iloc[0], points.iloc[-1]
    return max(0.0, 1 - x0 * (y1 - y0) / (x1 - x0) / y0)


@dataclass(frozen=True)
class Machine:
    """What one machine like the measured one does with the benchmark's task; seconds, MiB, bytes.

    `update` is of a whole stack of `width`, `rest` what a stack takes besides its updates, `start`
    what a worker takes once. `save` and `look` are the command's own part a stack: storing it, and
    looking through what is stored, by `look` for each stack that is there already.
    """

    width: int
    update: float
    rest: float
    start: float
    save: float
    look: float
    memory: float
    disk: float

    def cost(self, networks: int, updates: int, machines: int) -> dict[str, Any]:
        """Hours, and whether the workers or the one command that stores their rows set the pace."""
        stacks = math.ceil(networks / self.width)
        training = self.start + math.ceil(stacks / machines) * (updates * self.update + self.rest)
        storing = stacks * self.save + self.look * stacks**2 / 2
        hours = max(training, storing) / 3600
        return {
            "machines": machines,
            "hours": hours,
            "machine hours": machines * hours,
            "set by": "training" if training >= storing else "storing",
            "disk, GiB": stacks * self.disk / 2**30,
        }


def machine(rows: pd.DataFrame) -> Machine | None:
    """The model's constants from the rows; None where a curve that it needs was not measured."""
    sweeps, planned, stored = (
        rows[rows.curve == name] for name in ("networks", "planned", "store")
    )
    eager = rows[rows.curve == "replicas"]
    if sweeps.empty or eager.empty or stored.empty:
        return None
    width = int((sweeps.networks / sweeps.stacks).iloc[0])
    at_width = math.exp(np.interp(math.log(width), np.log(eager.replicas), np.log(eager.seconds)))
    slope = lambda table, y: float(np.polyfit(table.stacks, table[y], 1)[0])
    rest = max(0.0, slope(sweeps, "seconds") - sweeps.updates.iloc[0] * at_width)
    best = planned.iloc[0] if len(planned) and planned.seconds.iloc[0] < at_width else None
    update, start = (
        (at_width, 0.0) if best is None else (float(best.seconds), float(best.first_seconds))
    )
    save, look = float(stored.save_seconds.median()), max(0.0, slope(stored, "seconds"))
    memory = float(eager.memory_mib[eager.replicas >= width].iloc[0])
    return Machine(
        width,
        update,
        rest,
        start,
        save,
        look,
        memory,
        float((sweeps.bytes / sweeps.stacks).iloc[-1]),
    )


def growth_figure(name: str, device: str) -> None:
    """Time and memory against each of the four, logarithmic; the shaded part is linear, the dotted
    line all of it.
    """
    rows, _ = measured(device)
    if rows.empty:
        not_run(name)
        return
    grid = [(what, side) for what in MEASURED for side in SHOWN]

    def draw(axes: np.ndarray) -> None:
        for (what, side), ax in zip(grid, axes.flat, strict=True):
            _panel(ax, curve(rows, side, what))
            ax.set_title("stacks / s" if _is_rate(side, what) else MEASURED[what], fontsize="small")
            ax.set_xlabel(SHOWN[side] if what == "memory_mib" else "", fontsize="small")

    ends = [
        _ends(side, curve(rows, side, "seconds"))
        for side in SHOWN
        if len(curve(rows, side, "seconds"))
    ]
    columns = [column for column in rows.columns if column not in ("first_seconds", "compiled")]
    figure(
        name,
        draw,
        nrows=2,
        ncols=len(SHOWN),
        size=(8.8, 4.6),
        data=rows[columns],
        alt=f"Eight log–log panels, time above and memory below. {' '.join(ends)}",
        caption="Time of an update of the stack (left two) or of the whole sweep, rate for workers; memory below. "
        f"Shaded: linear, exponent 1 ± {TOLERANCE:g}. Dotted: linear growth.",
    )


def _panel(ax: Axes, points: pd.DataFrame) -> None:
    if points.empty:
        ax.text(0.5, 0.5, "not measured", ha="center", va="center", transform=ax.transAxes)
        ax.set_axis_off()
        return
    ax.plot(points.x, points.y, marker="o")
    found = linear_range(points)
    anchor = points.iloc[found[0] if found else -1]
    ax.plot(points.x, anchor.y * points.x / anchor.x, linestyle=":", color="0.5", linewidth=1)
    if found:
        ax.axvspan(points.x[found[0]], points.x[found[1]], alpha=0.15, color="0.5", linewidth=0)
    ax.set(xscale="log", yscale="log")
    for axis, values in ((ax.xaxis, points.x), (ax.yaxis, points.y)):
        if (
            values.max() < 30 * values.min()
        ):  # powers of ten alone would leave such an axis all but bare
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
    bottom = min(points.y.min(), anchor.y * points.x.min() / anchor.x)
    ax.set_ylim(max(bottom, points.y.min() / 10) / 1.3, 1.5 * points.y.max())


def _ends(side: str, points: pd.DataFrame) -> str:
    first, last = points.iloc[0], points.iloc[-1]
    unit = "stacks a second" if side == "workers" else "seconds"
    return f"{SHOWN[side]}: {first.y:.3g} {unit} at {first.x:,.0f}, {last.y:.3g} at {last.x:,.0f}."


def bill(found: Machine, networks: int, updates: int, machines: Sequence[int]) -> pd.DataFrame:
    """A row for each number of machines."""
    return pd.DataFrame([found.cost(networks, updates, count) for count in machines])
