"""A saved result as a notebook shows it: every table and figure says whose it is."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steadydescent.study.book.plots import rate_curves
from steadydescent.study.judging.evidence import Evidence, NotAnswerable
from steadydescent.study.judging.judge import judge_all
from steadydescent.study.judging.statistics import paired
from steadydescent.study.planning import Plan
from steadydescent.study.planning.variations import in_words
from steadydescent.study.results.store import Result, read_folder

LEVEL = 0.95
"""Of the intervals of a notebook's own tables and figures; verdicts have their own."""
VERDICTS = ["id", "condition", "measure", "estimate", "ci_low", "ci_high", "unit", "margin"]
PANEL = (4.8, 3.4)
"""Width and height of a panel in inches."""
LETTERS = 62
"""Letters of a title that fit above a panel."""


def bill(plan: Plan, device: str) -> pd.DataFrame:
    """What a plan costs, and each parameter of one's own, one row."""
    own = {f"own {name}": str(value) for name, value in plan.own.items()}
    return pd.DataFrame([plan.cost(device) | own])


@dataclass(frozen=True)
class Comparison:
    """Arms under conditions, each at the rate and readout that tuning chose for it."""

    evidence: Evidence

    @classmethod
    def read(cls, folder: Path) -> "Comparison":
        """The result in a folder."""
        return cls(Evidence(*read_folder(folder, Result)))

    @property
    def title(self) -> str:
        """Which result this is, and what it changes where it is one's own."""
        receipt = self.evidence.receipt
        own = in_words(receipt.get("own", {}))
        whose = f"own: {own}" if own else "the study's"
        return f"{receipt['result']}, {receipt['profile']}, {whose}"

    def marked(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table for readers, which says whose it is above its rows' names."""
        whose = "own" if self.evidence.receipt.get("own") else "study"
        name = f"{whose}, {self.evidence.receipt['profile']}"
        return table.rename(columns={"steps": "updates"}).round(4).rename_axis(columns=name)

    def panels(self, names: Sequence[str]) -> tuple[Figure, list[Axes]]:
        """A figure that says whose it is, one panel a name."""
        width, height = PANEL
        size = (width * len(names), height)
        figure, axes = plt.subplots(
            1, len(names), figsize=size, squeeze=False, layout="constrained"
        )
        for ax, name in zip(axes[0], names, strict=True):
            ax.set_title(name, fontsize="medium")
        lines = textwrap.fill(self.title, LETTERS * len(names), break_long_words=False)
        figure.suptitle(lines, fontsize="small")
        return figure, list(axes[0])

    @property
    def measure(self) -> str:
        """What arms are tuned and shown by."""
        return self.evidence.main_measure

    @property
    def axis(self) -> str:
        """The label of an axis of that measure."""
        return "height" if self.measure == "height" else f"test {self.measure} / %"

    def has(self, measure: str) -> bool:
        """Whether the result holds a measure."""
        return not self.evidence.values(measure).empty

    def at_tuned(self, condition: str, arm: str, measure: str = "") -> pd.Series:
        """A measure of an arm by report seed, at the rate and readout that tuning chose; none where
        no rate is a candidate.
        """
        name = measure or self.measure
        try:
            candidate = self.evidence.chosen(condition, arm, name)
        except NotAnswerable:
            return pd.Series(dtype=float)
        return self.evidence.report(condition, arm, name)[candidate.lr, candidate.readout]

    @cached_property
    def tuned(self) -> pd.DataFrame:
        """Each arm under each condition: settings, chosen rate and readout, mean and interval.

        Columns condition, arm, task, optimizer, schedule, batch_size, steps, lr, readout, on_edge,
        mean, low, high, seeds; accuracy in percent, or a surface's height.
        """
        rows = []
        for condition in self.evidence.conditions:
            for arm in self.evidence.arms_in(condition):
                candidate = self.evidence.chosen(condition, arm)
                rows.append(
                    {"condition": condition, "arm": arm}
                    | self.evidence.settings(condition, arm, candidate.lr)._asdict()
                    | {"lr": candidate.lr, "readout": candidate.readout}
                    | {"on_edge": self.evidence.on_edge(condition, arm, candidate.lr)}
                    | interval(self.at_tuned(condition, arm))
                )
        return pd.DataFrame(rows)

    def mean_of(self, measure: str) -> pd.Series:
        """The mean of a measure for each row of `tuned`, at the rate tuned for that measure."""
        rows = self.tuned[["condition", "arm"]].itertuples(index=False)
        means = [self.at_tuned(row.condition, row.arm, measure).mean() for row in rows]
        return pd.Series(means, self.tuned.index)

    def rates(self) -> pd.DataFrame:
        """The rate and readout that tuning chose for each arm, and whether the grid ends there."""
        columns = ["lr", "readout", "on_edge", "mean", "low", "high", "seeds"]
        table = self.tuned.set_index(["condition", "arm"])[columns]
        return self.marked(table.rename(columns={"mean": self.axis}))

    def verdicts(self) -> pd.DataFrame:
        """Rows of the claims that this result decides; an own result's bear on itself alone."""
        columns = [*VERDICTS, "n_seeds", "primary", "verdict"]
        rows = [row.as_dict() for row in judge_all(self.evidence)]
        return self.marked(pd.DataFrame(rows, columns=columns))

    def sweep(self) -> Figure:
        """The main measure against the learning rate, one panel a condition."""
        figure, axes = self.panels(self.evidence.conditions)
        rate_curves(self.evidence, axes, measure=self.measure)
        return figure


def interval(values: pd.Series) -> dict[str, float]:
    """Mean over seeds with its 95 % interval (Student)."""
    estimate = paired(values.to_numpy(float), LEVEL)
    return {
        "mean": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "seeds": len(values),
    }


def draw_intervals(ax: Axes, names: Sequence[str], table: pd.DataFrame, label: str = "") -> None:
    """Means with their intervals, one line a name, the first on top."""
    places = range(len(table))
    errors = [table["mean"] - table.low, table.high - table["mean"]]
    ax.errorbar(table["mean"], places, xerr=errors, fmt="o", capsize=3, label=label or None)
    ax.set_yticks(list(places), list(names))
    ax.margins(y=0.15)
    ax.invert_yaxis()
    ax.grid(axis="x", alpha=0.3)
