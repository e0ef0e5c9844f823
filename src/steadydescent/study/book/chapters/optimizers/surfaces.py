"""Paths on surfaces of two numbers, drawn with the library's own rules, and what runs did there."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from steadydescent.engine.tasks.surfaces import SURFACES
from steadydescent.optimizers import RULES
from steadydescent.study.book import chapter_figures, figures, plots
from steadydescent.study.book.chapters.results import Results, fastest, grid, hide, ids
from steadydescent.study.judging.evidence import Evidence

CONDITION, UPDATES = "constant", 200
DRAWN = ("sgd", "momentum", "rmsprop", "adam")


class View(NamedTuple):
    """The part of the plane that is drawn."""

    left: float
    right: float
    low: float
    high: float


VIEWS = {
    "ravine": View(-1.1, 0.3, -0.35, 0.35),
    "saddle": View(-0.4, 1.2, -1.3, 1.3),
    "plateau": View(-0.5, 12, -0.7, 0.7),
    "double-well": View(-1.6, 1.6, -0.5, 0.5),
    "double-well-slope": View(-2.2, 1.6, -0.5, 0.5),
    "double-well-shoulder": View(-1.6, 1.6, -0.5, 0.5),
}


class Path(NamedTuple):
    """One run of a rule on a surface."""

    surface: str
    rule: str
    rate: float
    points: NDArray[np.float32]
    """`[T + 1, 2]`, the start first."""
    arrival: int | None
    """The update from which on the target is held."""


def fastest_rate(evidence: Evidence, rule: str) -> float | None:
    """The rate that tuning chose for a rule's updates to the target; None where no rate counts."""
    side = fastest(evidence, CONDITION, rule)
    return None if side is None else side.chosen.lr


def rules_drawn(evidence: Evidence) -> dict[str, float]:
    """Those of `DRAWN` that were run and have a rate, with it."""
    run = evidence.arms_in(CONDITION)
    rates = {rule: fastest_rate(evidence, rule) for rule in DRAWN if rule in run}
    return {rule: lr for rule, lr in rates.items() if lr is not None}


def points(surface: str, rule: str, lr: float, batch_size: int) -> NDArray[np.float32]:
    """Points of one run with seed 0, `[T + 1, 2]`: the gradient plus the noise of the study's runs.

    Args:
        surface: one of `SURFACES`.
        rule: one of `RULES`, with its default options.
        lr: the rate, constant.
        batch_size: how many draws the noise is the mean of.
    """
    made, generator = SURFACES[surface](), torch.Generator().manual_seed(0)
    gradient = torch.func.grad(made.function)
    update, options = RULES[rule].update, RULES[rule].checked()
    theta = made.point.detach()
    state, path = RULES[rule].init(theta), [theta]
    for step in range(1, UPDATES + 1):
        draw = torch.randn(2, generator=generator)
        noise = torch.tensor(made.scale) * draw / batch_size**0.5
        theta, state = update(theta, gradient(theta) + noise, state, step, lr, **options)
        path.append(theta)
    return torch.stack(path).numpy()


def paths(results: Results) -> list[Path]:
    """A path of every drawn rule on every surface that was run, at the rule's fastest rate."""
    drawn = []
    for surface in (name for name in VIEWS if name in results):
        evidence, target = results[surface].evidence, results[surface].receipt["target"]
        for rule, lr in rules_drawn(evidence).items():
            n = evidence.settings(CONDITION, rule).batch_size
            way = points(surface, rule, lr, n)
            drawn.append(Path(surface, rule, lr, way, arrival(surface, way, target)))
    return drawn


def arrival(surface: str, way: NDArray[np.float32], target: float) -> int | None:
    """The update from which on the height is at most the target; None if not at the end."""
    heights = SURFACES[surface]().function(torch.tensor(way)).numpy()
    above = np.flatnonzero(~(heights <= target))
    held = int(above[-1]) + 1 if len(above) else 0
    return held if held < len(heights) else None


def draw_paths(name: str, results: Results) -> None:
    """Paths of four rules over the contours of the surfaces."""
    drawn = paths(results)
    if not drawn:
        chapter_figures.not_run(name)
        return
    surfaces = list(dict.fromkeys(path.surface for path in drawn))
    words = "; ".join(_arrivals(surface, drawn) for surface in surfaces)
    figures.figure(
        name,
        lambda axes: _path_panels(axes, drawn),
        **grid(len(surfaces), 3.2),
        results=ids(results, surfaces),
        data=pd.concat([_rows(path) for path in drawn]),
        alt=f"Paths of four rules on {len(surfaces)} surfaces, one seed, each at its fastest rate. "
        f"Updates to the target: {words}.",
        caption="One run of each rule, seed 0, drawn with the library's own rules; "
        f"{UPDATES} updates. Updates to the target in these runs: {words}. One run decides "
        "nothing; the verdicts below rest on many.",
    )


def _arrivals(surface: str, drawn: list[Path]) -> str:
    arrivals = {path.rule: path.arrival for path in drawn if path.surface == surface}
    late = f"not in {UPDATES}"
    words = [f"{rule} {late if step is None else step}" for rule, step in arrivals.items()]
    return f"{surface}: {', '.join(words)}"


def _rows(path: Path) -> pd.DataFrame:
    table = pd.DataFrame(path.points, columns=["x", "y"])
    table = table.assign(surface=path.surface, rule=path.rule, rate=path.rate)
    return table.assign(update=range(len(table)))


def _path_panels(axes: np.ndarray, drawn: list[Path]) -> None:
    surfaces = list(dict.fromkeys(path.surface for path in drawn))
    for ax, surface in zip(axes.flat, surfaces, strict=False):
        _contours(ax, surface)
        for path in (path for path in drawn if path.surface == surface):
            x, y = path.points.T
            ax.plot(x, y, marker=".", markersize=3, linewidth=1, label=path.rule)
    hide(axes, len(surfaces))
    axes.flat[0].legend(fontsize="small")


def _contours(ax: Axes, surface: str) -> None:
    left, right, low, high = VIEWS[surface]
    span = (torch.linspace(left, right, 121), torch.linspace(low, high, 121))
    x, y = torch.meshgrid(*span, indexing="xy")
    height = SURFACES[surface]().function(torch.stack([x, y], dim=-1))
    ax.contour(x, y, height, 14, colors="0.6", linewidths=0.5)
    ax.set(xlim=(left, right), ylim=(low, high), title=surface, xlabel="x", ylabel="y")


def table_of_arrivals(results: Results) -> pd.DataFrame:
    """At each rule's fastest rate: updates to the target, how many hold it to the end, and diverge;
    and what rates are no candidates, since they lose too many runs.
    """
    surfaces = {t: r for t, r in results.items() if r.evidence.main_measure == "height"}
    return pd.DataFrame(
        [
            {"surface": surface, "rule": rule} | _arrived(shown.evidence, rule)
            for surface, shown in surfaces.items()
            for rule in shown.evidence.arms_in(CONDITION)
        ]
    )


def _arrived(evidence: Evidence, rule: str) -> dict[str, object]:
    excluded = evidence.lost_rates(CONDITION, rule)
    lost = excluded[excluded.excluded].lr
    row: dict[str, object] = {
        "rates tried": len(excluded),
        "excluded": len(lost),
        "from": lost.min() if len(lost) else None,
    }
    side = fastest(evidence, CONDITION, rule)
    if side is None:
        return {"rate": None, "updates, mean": None, "hold the target": "no rate counts"} | row
    steps, lr = side.scores.report[:, side.scores.chosen()], side.chosen.lr
    held = evidence.arrivals(CONDITION, rule)[lr, side.chosen.readout]
    return {
        "rate": lr,
        "updates, mean": steps.mean(),
        "hold the target": f"{int(held.sum())} of {len(held)}",
        "diverged": evidence.diverged(CONDITION, rule, lr),
    } | row


def table_of_descents(results: Results) -> pd.DataFrame:
    """Height along training at each rule's fastest rate: quantiles over report seeds."""
    parts = []
    for surface in (name for name in VIEWS if name in results):
        evidence = results[surface].evidence
        for rule, lr in rules_drawn(evidence).items():
            line = plots.Line(CONDITION, rule, "last", lr)
            parts.append(plots.curve_table(evidence, line).assign(surface=surface))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def draw_descents(name: str, results: Results) -> None:
    """Height along training, a panel a surface."""
    table = table_of_descents(results)
    if table.empty:
        chapter_figures.not_run(name)
        return
    surfaces = list(dict.fromkeys(table.surface))
    ends = table[table.step == table.groupby("surface").step.transform("max")]
    words = "; ".join(_heights(surface, ends) for surface in surfaces)
    figures.figure(
        name,
        lambda axes: _descent_panels(axes, table, results),
        data=table,
        **grid(len(surfaces), 2.9),
        results=ids(results, surfaces),
        alt=f"Height along training on {len(surfaces)} surfaces for four rules. Medians at the "
        f"end: {words}.",
        caption="Height along training, each rule at its fastest rate: median and 10–90 % band "
        f"over seeds; dashed the target. Medians at the end: {words}.",
    )


def _heights(surface: str, ends: pd.DataFrame) -> str:
    medians = ends[ends.surface == surface].set_index("arm")["median"]
    return f"{surface}: " + ", ".join(f"{arm} {height:.3g}" for arm, height in medians.items())


def _descent_panels(axes: np.ndarray, table: pd.DataFrame, results: Results) -> None:
    surfaces = list(dict.fromkeys(table.surface))
    for ax, surface in zip(axes.flat, surfaces, strict=False):
        for rule, part in table[table.surface == surface].groupby("arm", sort=False):
            (line,) = ax.plot(part.step, part["median"], label=rule)
            colour = line.get_color()
            ax.fill_between(part.step, part.low, part.high, alpha=0.15, color=colour, linewidth=0)
        target = results[surface].receipt["target"]
        ax.axhline(target, color="0.5", linewidth=1, linestyle="--")
        ax.set(title=surface, xlabel="update", ylabel="height")
    hide(axes, len(surfaces))
    axes.flat[0].legend(fontsize="small")
