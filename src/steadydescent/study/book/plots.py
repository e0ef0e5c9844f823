"""Plots: a tidy table in, axes out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from steadydescent.study.judging import measures
from steadydescent.study.judging.choosing import Candidate
from steadydescent.study.judging.evidence import Evidence, NotAnswerable
from steadydescent.weight_averaging import coefficients, parse


class Line(NamedTuple):
    """One line of a picture of training."""

    condition: str
    arm: str
    readout: str
    lr: float


def rate_table(
    evidence: Evidence,
    conditions: Sequence[str],
    measure: str = "accuracy",
    arms: Sequence[str] = (),
) -> pd.DataFrame:
    """A measure by condition, arm, rate and report seed, of the readout that tuning chooses there.

    Columns seed, readout, condition, lr, arm and the measure; arms of which no rate can be chosen
    have no rows.
    """
    columns = ["seed", measure, "readout", "condition", "lr", "arm"]
    parts = [pd.DataFrame(columns=columns)]
    for condition in conditions:
        for arm in arms or evidence.arms_in(condition):
            report = evidence.report(condition, arm, measure)
            for chosen in chosen_at_each_rate(evidence, condition, arm, measure):
                scores = report[chosen.lr, chosen.readout]
                values = pd.DataFrame({measure: scores, "readout": chosen.readout}).reset_index()
                parts.append(values.assign(condition=condition, lr=chosen.lr, arm=arm))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def chosen_at_each_rate(
    evidence: Evidence, condition: str, arm: str, measure: str
) -> list[Candidate]:
    """What tuning chooses of an arm at each of the rates that report seeds ran; nothing where it
    can choose none.
    """
    try:
        side = evidence.candidates(condition, arm, measure)
    except NotAnswerable:
        return []
    rates = dict.fromkeys(label.lr for label in side.labels)
    return [side.only((label.lr == lr for label in side.labels), "the rate").chosen for lr in rates]


def sweep_table(evidence: Evidence) -> pd.DataFrame:
    """The whole sweep that rates were chosen by: mean scores over tuning seeds.

    Columns condition, arm, lr, readout and score: accuracy in percent, or minus what is tuned by.
    """
    parts, by = [], evidence.tune_by[0]
    for condition in evidence.conditions:
        for arm in evidence.arms_in(condition):
            means = evidence.tuning(condition, arm, by).mean().rename("score").reset_index()
            parts.append(means.assign(condition=condition, arm=arm))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(score=(100 * table.score).round(2) if by == "accuracy" else -table.score)


def rate_curves(
    evidence: Evidence,
    axes: Sequence[Axes] | None = None,
    conditions: Sequence[str] = (),
    measure: str = "accuracy",
    arms: Sequence[str] = (),
) -> list[Axes]:
    """A measure against the learning rate, one panel a condition, one line an arm.

    Bands are 95 % intervals.
    """
    conditions = list(conditions or evidence.conditions)
    table = rate_table(evidence, conditions, measure, arms)
    if axes is None:
        axes = plt.subplots(
            1, len(conditions), figsize=(4.5 * len(conditions), 3.6), sharey=True, squeeze=False
        )[1][0]
    order = list(dict.fromkeys(table.arm))
    for ax, condition in zip(axes, conditions, strict=True):
        part = table[table.condition == condition]
        look: dict[str, Any] = {
            "hue": "arm",
            "style": "arm",
            "hue_order": order,
            "style_order": order,
            "markers": True,
        }
        sns.lineplot(
            part,
            x="lr",
            y=measure,
            dashes=False,
            errorbar=("se", 1.96),
            legend=ax is axes[0],
            ax=ax,
            **look,
        )
        unit = measures.measure_named(measure).unit.replace("pp", "%")
        ax.set(
            xscale="log",
            xlabel="peak learning rate",
            ylabel=f"test {measure}" + (f" / {unit}" if unit else ""),
        )
        ax.set_title(condition)
    axes[0].legend(title=None, fontsize="small")
    return list(axes)


def curve_table(evidence: Evidence, line: Line) -> pd.DataFrame:
    """Quantiles over report seeds along training: validation accuracy, or a surface's height.

    Columns step, low, median, high, condition, arm, readout.
    """
    table = evidence.quantiles(line.condition, line.arm)
    part = table[(table.lr == line.lr) & (table.readout == line.readout)].sort_values("step")
    return part[["step", "low", "median", "high"]].assign(
        condition=line.condition, arm=line.arm, readout=line.readout
    )


def training_curves(
    evidence: Evidence, lines: Sequence[Line], ax: Axes, by_readout: bool = False
) -> Axes:
    """Median along training with the 10–90 % band over report seeds.

    Lines go by their arm, or by their readout.
    """
    surface = evidence.main_measure == "height"
    scale = 1 if surface else 100
    several = len({line.condition for line in lines}) > 1
    for line in lines:
        part = curve_table(evidence, line)
        name = f"{line.arm}, {line.condition}" if several else line.arm
        label = line.readout if by_readout else name
        (drawn,) = ax.plot(part.step, scale * part["median"], label=label)
        ax.fill_between(
            part.step,
            scale * part.low,
            scale * part.high,
            alpha=0.15,
            color=drawn.get_color(),
            linewidth=0,
        )
    ax.set(xlabel="update", ylabel="height" if surface else "validation accuracy / %")
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


def plot_differences(rows: pd.DataFrame, ax: Axes) -> Axes:
    """Differences or ratios of one unit with their intervals and margins, one line each.

    Columns label, estimate, ci_low, ci_high, margin, unit, null, measure, primary; secondary rows
    are drawn in grey.
    """
    places, null, ratio = range(len(rows))[::-1], rows.null.iloc[0], rows.null.iloc[0] == 1
    ax.axvline(null, color=plt.rcParams["axes.edgecolor"], linewidth=1)
    for place, row in zip(places, rows.itertuples(), strict=True):
        low, high = (1 / row.margin, row.margin) if ratio else (-row.margin, row.margin)
        ax.fill_betweenx(
            [place - 0.35, place + 0.35], low, high, alpha=0.18, color="0.5", linewidth=0
        )
        colour = "C0" if row.primary else "0.5"
        ax.plot([row.ci_low, row.ci_high], [place, place], color=colour, linewidth=2)
        ax.plot([row.estimate], [place], marker="o", color=colour)
    name = " / ".join(dict.fromkeys(rows.measure))
    ax.set(yticks=list(places), yticklabels=list(rows.label), xscale="log" if ratio else "linear")
    ax.set_xlabel(
        f"{name}: {'how many times better' if ratio else f'difference / {rows.unit.iloc[0]}'}"
    )
    if ratio:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="y", visible=False)
    return ax
