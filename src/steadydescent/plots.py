"""Plots: a tidy table in, axes out."""

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from steadydescent.claims import Arms
from steadydescent.results import Result
from steadydescent.study import load_study
from steadydescent.weight_averaging import coefficients, parse

ARM_NAMES = {
    "last": "last weights",
    "ema": "EMA (window tuned)",
    "checkpoints": "checkpoint mean (number tuned)",
    "tail": "tail mean, 25 %",
    "ramp": "ramped EMA",
}


def rate_table(result: Result, experiment: str) -> pd.DataFrame:
    """Test accuracy in percent by schedule, rate, arm and seed; per rate, each arm's best readout (validation)."""
    study, parts = load_study()[experiment], []
    for schedule in study.schedules:
        arms = Arms(result, study, schedule)
        for arm, readouts in study.arms.items():
            tuning = arms.table(readouts, "validation", report=False)
            report = arms.table(readouts, "test", report=True)[tuning.columns]
            best = tuning.mean().groupby("lr").idxmax()
            for lr, candidate in best.items():
                values = pd.DataFrame({"accuracy": 100 * report[candidate], "readout": candidate[1]}).reset_index()
                parts.append(values.assign(schedule=schedule, lr=lr, arm=arm))
    return pd.concat(parts, ignore_index=True)


def sweep_table(result: Result, experiment: str) -> pd.DataFrame:
    """Mean validation accuracy in percent over tuning seeds, by schedule, rate and readout: the whole sweep."""
    merged = result.finals.merge(result.runs[~result.runs.test][["run", "schedule", "lr"]], on="run")
    table = merged.groupby(["schedule", "lr", "readout"], as_index=False).accuracy.mean()
    return table.assign(accuracy=(100 * table.accuracy).round(2))


def rate_curves(result: Result, experiment: str, axes: list[Axes] | None = None) -> list[Axes]:
    """Test accuracy against the learning rate, one panel a schedule, one line an arm; bands are 95 % intervals."""
    table, schedules = rate_table(result, experiment), load_study()[experiment].schedules
    axes = list(axes if axes is not None else plt.subplots(1, len(schedules), figsize=(9, 3.6), sharey=True)[1])
    for ax, schedule in zip(axes, schedules, strict=True):
        part = table[table.schedule == schedule].replace({"arm": ARM_NAMES})
        order = list(ARM_NAMES.values())
        look = {"hue": "arm", "style": "arm", "hue_order": order, "style_order": order, "markers": True}
        sns.lineplot(
            part, x="lr", y="accuracy", dashes=False, errorbar=("se", 1.96), legend=ax is axes[0], ax=ax, **look
        )
        ax.set(xscale="log", xlabel="peak learning rate", ylabel="test accuracy / %", title=f"{schedule} rate")
        ax.set_xticks(sorted(part.lr.unique()), labels=[f"{lr:g}" for lr in sorted(part.lr.unique())])
        ax.minorticks_off()
    axes[0].legend(title=None, fontsize="small")
    return axes


def training_curves(result: Result, schedule: str, lr: float, readouts: list[str], ax: Axes) -> Axes:
    """Median validation accuracy along training with the 10–90 % band over seeds, one line a readout."""
    table = result.quantiles
    for readout in readouts:
        part = table[(table.schedule == schedule) & (table.lr == lr) & (table.readout == readout)].sort_values("step")
        (line,) = ax.plot(part.step, 100 * part["median"], label=readout, marker="o", markersize=3)
        ax.fill_between(part.step, 100 * part.low, 100 * part.high, alpha=0.15, color=line.get_color(), linewidth=0)
    ax.set(xlabel="update", ylabel="validation accuracy / %")
    ax.legend(title=None, fontsize="small")
    return ax


def memory(readouts: list[str], total: int, ax: Axes) -> Axes:
    """The share of every step's weights in each readout at the end of a run of `total` steps."""
    for name in readouts:
        weights = parse(name, total)[1]
        if weights is None:
            raise ValueError(f"readout {name!r} keeps one step alone; there is nothing to draw")
        share = coefficients(weights) * total
        ax.step(100 * (pd.RangeIndex(total) + 1) / total, share, where="mid", label=name)
    ax.set(xlabel="step, % of the run", ylabel="share × number of steps", yscale="symlog")
    ax.legend(title=None, fontsize="small")
    return ax


def differences(rows: pd.DataFrame, ax: Axes) -> Axes:
    """Differences with their intervals, one line each; columns label, estimate, ci_low, ci_high, margin."""
    places = range(len(rows))[::-1]
    ax.axvline(0, color=plt.rcParams["axes.edgecolor"], linewidth=1)
    for place, row in zip(places, rows.itertuples(), strict=True):
        ax.fill_betweenx([place - 0.35, place + 0.35], -row.margin, row.margin, alpha=0.18, color="0.5", linewidth=0)
        ax.plot([row.ci_low, row.ci_high], [place, place], color="C0", linewidth=2)
        ax.plot([row.estimate], [place], marker="o", color="C0")
    ax.set(yticks=list(places), yticklabels=list(rows.label), xlabel="difference in test accuracy / percentage points")
    ax.grid(axis="y", visible=False)
    return ax
