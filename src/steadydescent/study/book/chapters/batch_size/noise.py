"""The noise of minibatch gradients against their size, and against the gradient itself."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.book.chapters.batch_size.sizes import RULE, sizes
from steadydescent.study.book.chapters.results import Results, main_task, measured
from steadydescent.study.judging.contrasts.noise_slope import noise_table
from steadydescent.study.judging.evidence import Evidence

SHOWN = 32
"""The batch size whose runs the left panel shows."""
TRACE, SQUARE = "noise-trace", "gradient-square"
DRAWS = 2_000


def noise_scale(trace: pd.DataFrame, square: pd.DataFrame) -> pd.DataFrame:
    """tr Σ/|G|², both averaged over seeds before dividing, with a 95 % bootstrap over seeds.

    Args:
        trace: seeds × steps, `[S, T]`, the trace of the covariance of one example's gradient.
        square: the squared length of the mean gradient, likewise.

    Returns:
        Columns step, scale, low and high, in examples; McCandlish et al. (2018), appendix A.
    """
    seeds = len(trace)
    rows = np.random.default_rng(0).integers(seeds, size=(DRAWS, seeds))
    drawn = trace.to_numpy()[rows].mean(axis=1) / square.to_numpy()[rows].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    scale = (trace.mean() / square.mean()).to_numpy()
    steps = trace.columns.astype(int)
    return pd.DataFrame({"step": steps, "scale": scale, "low": low, "high": high})


def table_of_noise_scales(evidence: Evidence) -> pd.DataFrame:
    """The noise scale along training of every size at its tuned rate."""
    parts = []
    for condition in sizes(evidence):
        lr = evidence.candidates(condition, RULE).chosen.lr
        rows = measured(evidence, condition, RULE, lr, (TRACE, SQUARE))
        trace, square = (_by_seed(rows[rows.measure == name]) for name in (TRACE, SQUARE))
        part = noise_scale(trace, square)
        part.insert(0, "condition", condition)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Seeds × steps."""
    return rows.pivot(index="seed", columns="step", values="value").dropna()


def slope(noise: pd.DataFrame) -> float:
    """d log(noise)/d log(n), fitted to each seed, mean over seeds."""
    fits = [
        np.polyfit(np.log(part.batch_size), np.log(part.noise), 1)
        for _, part in noise.groupby("seed")
    ]
    return float(np.mean([fit[0] for fit in fits]))


def draw_noise(name: str, results: Results) -> None:
    """Left: noise against the batch size. Right: the noise scale along training."""
    task = main_task(results)
    if not task:
        chapter_figures.not_run(name)
        return
    evidence = results[task].evidence
    by_size = {n: condition for condition, n in sizes(evidence).items()}
    condition = by_size.get(SHOWN, next(iter(by_size.values())))
    noise = noise_table(evidence, condition, RULE)
    means = noise.groupby("batch_size").noise.agg(["mean", "sem"])
    scales = table_of_noise_scales(evidence)
    early, late = scales[scales.condition == condition].scale.iloc[[0, -1]]
    first, last = (f"{means['mean'].iloc[i]:.3g} at n = {means.index[i]}" for i in (0, -1))
    figures.figure(
        name,
        lambda axes: _panels(axes, means, scales),
        data=pd.concat([noise, scales]),
        results=[results[task].id],
        size=(8.4, 3.6),
        ncols=2,
        alt=f"Left: the gradient's standard deviation falls from {first} to {last} on a line of "
        f"slope {slope(noise):.3f}. Right: the noise scale along training for "
        f"{scales.condition.nunique()} batch sizes.",
        caption=f"Left: standard deviation of minibatch gradients on {task} (mean over training, "
        f"runs at {condition}); slope {slope(noise):.3f}. Right: noise scale along training at "
        f"each size's tuned rate, 95 % bootstrap over seeds; at {condition} it goes from "
        f"{early:.0f} to {late:.0f} examples.",
    )


def _panels(axes: tuple[Axes, Axes], means: pd.DataFrame, scales: pd.DataFrame) -> None:
    left, right = axes
    n = means.index.to_numpy()
    left.errorbar(n, means["mean"], yerr=1.96 * means["sem"], fmt="o", zorder=3, label="measured")
    left.plot(n, means["mean"].iloc[0] * n**-0.5, color="C1", zorder=0, label="slope −1/2")
    label = "standard deviation of the gradient"
    left.set(xscale="log", yscale="log", xlabel="examples n", ylabel=label)
    left.legend(fontsize="small")
    figures.more_lines(right)
    for condition, part in scales.groupby("condition", sort=False):
        (line,) = right.plot(part.step, part.scale, label=condition)
        colour = line.get_color()
        right.fill_between(part.step, part.low, part.high, alpha=0.15, color=colour, linewidth=0)
    right.set(yscale="log", xlabel="update", ylabel="noise scale / examples")
    right.legend(fontsize="small")
