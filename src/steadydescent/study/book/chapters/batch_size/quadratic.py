"""The noisy quadratic's closed form beside what its runs did."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from steadydescent.engine.tasks.noisy_quadratic import stationary_variance
from steadydescent.engine.tasks.surfaces import EIGENVALUES
from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.book.chapters.batch_size.sizes import QUADRATIC, RULE
from steadydescent.study.book.chapters.results import Results, fastest
from steadydescent.study.judging.contrasts.closed_form import expected_curve
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.statistics import paired


class Descent(NamedTuple):
    """Runs of an arm at one rate: their end, and the height along the way."""

    condition: str
    arm: str
    rate: float
    expected: float
    measured: float
    low: float
    high: float
    way: pd.DataFrame
    """Columns step, expected, and median where runs were looked at."""


def descents(evidence: Evidence) -> list[Descent]:
    """Every arm at the rates tuned for height and for speed, the closed form beside it."""
    return [
        _descent(evidence, condition, arm, lr)
        for condition in evidence.conditions
        for arm in evidence.arms_in(condition)
        for lr in _tuned_rates(evidence, condition, arm)
    ]


def _tuned_rates(evidence: Evidence, condition: str, arm: str) -> list[float]:
    sides = evidence.candidates(condition, arm, "height"), fastest(evidence, condition, arm)
    return list(dict.fromkeys(side.chosen.lr for side in sides if side is not None))


def _descent(evidence: Evidence, condition: str, arm: str, lr: float) -> Descent:
    expected = expected_curve(evidence, condition, arm, lr, "last")
    heights = paired(evidence.report(condition, arm, "height")[lr, "last"].to_numpy(), 0.95)
    curve = evidence.quantiles(condition, arm)
    medians = curve[curve.lr == lr][["step", "median"]]
    way = pd.DataFrame({"step": np.arange(len(expected)) + 1, "expected": expected})
    way = way.merge(medians, "left", on="step")
    ends = (float(expected[-1]), heights.value, heights.low, heights.high)
    return Descent(condition, arm, lr, *ends, way)


def table_of_ends(runs: Sequence[Descent]) -> pd.DataFrame:
    """A row a descent, without the way to its end."""
    return pd.DataFrame([run[:-1] for run in runs], columns=Descent._fields[:-1])


def floor(rate: float, n: int) -> float:
    """The expected height above which a constant rate circles: Σ h v/2 over the directions."""
    h = np.array(EIGENVALUES)
    return float((h * stationary_variance(rate, h, h / n)).sum() / 2)


def draw_quadratic(name: str, results: Results) -> None:
    """Left: height along training. Right: measured against expected height at the end."""
    if QUADRATIC not in results:
        chapter_figures.not_run(name)
        return
    evidence = results[QUADRATIC].evidence
    runs = descents(evidence)
    inside = sum(run.low <= run.expected <= run.high for run in runs)
    outcome = f"{inside} of {len(runs)} intervals (95 %) contain the closed form"
    condition = evidence.conditions[0]
    rate = evidence.candidates(condition, RULE, "height").chosen.lr
    first = next(run for run in runs if run[:3] == (condition, RULE, rate))
    lowest = floor(rate, evidence.settings(condition, RULE).batch_size)
    figures.figure(
        name,
        lambda axes: _panels(axes, runs),
        data=table_of_ends(runs),
        results=[results[QUADRATIC].id],
        size=(8.4, 3.8),
        ncols=2,
        alt="Left: expected height along training, as lines, and measured medians, as dots, for "
        f"{len(evidence.conditions)} settings. Right: measured minus expected height at the end. "
        f"{outcome}.",
        caption="Noisy quadratic. Left: the closed form's height (lines) and medians over seeds "
        "(dots) at each tuned rate. Right: mean height at the end against the closed form, every "
        f"size and rule at its rates for height and for speed: {outcome}. At {condition} and its "
        f"rate {rate:g} the floor is {lowest:.3g}; runs end at {first.measured:.3g}.",
    )


def _panels(axes: tuple[Axes, Axes], runs: Sequence[Descent]) -> None:
    left, right = axes
    for condition, arm in dict.fromkeys((run.condition, run.arm) for run in runs):
        part = table_of_ends([run for run in runs if run[:2] == (condition, arm)])
        off = 100 * (part[["measured", "low", "high"]].div(part.expected, axis=0) - 1)
        reach = [off.measured - off.low, off.high - off.measured]
        label = f"{condition}, {arm}"
        right.errorbar(part.expected, off.measured, yerr=reach, fmt="o", markersize=4, label=label)
    for i, condition in enumerate(dict.fromkeys(run.condition for run in runs)):
        way = next(run.way for run in runs if run[:2] == (condition, RULE))
        left.plot(way.step, way.expected, color=f"C{i}", label=condition)
        left.plot(way.step, way["median"], ".", color=f"C{i}", markersize=4)
    left.set(xscale="log", yscale="log", xlabel="update", ylabel="height")
    left.legend(fontsize="small")
    right.axhline(0, color="C5", linewidth=1)
    right.set(xscale="log", xlabel="expected height at the end")
    right.set_ylabel("measured minus expected / %")
    right.legend(fontsize="x-small")
