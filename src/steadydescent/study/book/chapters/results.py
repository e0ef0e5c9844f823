"""What several chapters ask of results: their ids, runs at one rate, probes, how much was run."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from steadydescent.study.book import plots
from steadydescent.study.book.edition import ShownResult
from steadydescent.study.judging.evidence import Candidates, Evidence, NotAnswerable
from steadydescent.study.results.receipts import run_counts

Results = Mapping[str, ShownResult]
"""Task → what the book being built shows of an experiment."""
FIRST = "mnist1d-mlp"
"""The task that pictures of one task show, where it was run."""
NUMBERS = {
    "rate": "rate",
    "accuracy, %": "accuracy",
    "sd": "seed-sd",
    "gap, pp": "gap",
    "nats": "loss",
    "calibration, pp": "calibration",
    "diverged": "diverged",
}
"""Column of a table → the last part of a number's key among the findings."""


def ids(results: Results, tasks: Iterable[str] | None = None) -> list[str]:
    """Ids of the results, of all or of these tasks."""
    return [results[task].id for task in (results if tasks is None else tasks)]


def networks(results: Results) -> dict[str, ShownResult]:
    """The tasks that are networks: they have an accuracy, surfaces have a height."""
    return {t: shown for t, shown in results.items() if shown.evidence.main_measure == "accuracy"}


def main_task(results: Results) -> str:
    """The task that pictures of one task show; empty if no network was run."""
    tasks = list(networks(results))
    return FIRST if FIRST in tasks else (tasks or [""])[0]


def fastest(evidence: Evidence, condition: str, arm: str) -> Candidates | None:
    """An arm's candidates as they are chosen by updates to the target.

    None where every rate that report seeds ran loses too many runs to be chosen.
    """
    try:
        return evidence.candidates(condition, arm, "steps to target")
    except NotAnswerable:
        return None


def grid(panels: int, height: float = 3.5, across: int = 2) -> dict[str, Any]:
    """Arguments of a figure of so many panels, two in a row."""
    across = min(across, panels)
    down = -(-panels // across)
    size = (8.4, 0.4 + height * down)
    return {"size": size, "nrows": down, "ncols": across, "squeeze": False}


def hide(axes: np.ndarray, used: int) -> None:
    """Panels that hold nothing are not seen."""
    for ax in list(axes.flat)[used:]:
        ax.set_visible(False)


def report_runs(evidence: Evidence, condition: str, arm: str, lr: float) -> pd.DataFrame:
    """Report runs of an arm at one rate: columns run and seed."""
    runs = evidence.runs(condition, arm)
    return runs[runs.test & (runs.lr == lr)][["run", "seed"]]


def measured(
    evidence: Evidence, condition: str, arm: str, lr: float, measures: Iterable[str]
) -> pd.DataFrame:
    """Rows of these measures in an arm's report runs at one rate, with their seed."""
    table = evidence.result.measures
    table = table[table.measure.isin(list(measures))]
    return table.merge(report_runs(evidence, condition, arm, lr), on="run")


def table_of_sweeps(results: Results) -> pd.DataFrame:
    """Every mean of every sweep: columns where (task, condition), arm, lr and score."""
    sweeps = [plots.sweep_table(shown.evidence).assign(task=t) for t, shown in results.items()]
    table = pd.concat(sweeps)
    return table.assign(where=table.task + ", " + table.condition)[["where", "arm", "lr", "score"]]


def table_of_runs(results: Results, updates: str = "updates") -> pd.DataFrame:
    """How much was run on each task; `updates` heads the column of an experiment's updates."""
    receipts = {task: shown.receipt for task, shown in results.items()}
    rows = [
        {
            "task": task,
            **run_counts([receipt]),
            updates: receipt["updates"],
            "tuning seeds": receipt["seeds"]["tuning"],
            "report seeds": receipt["seeds"]["report"],
            "target": receipt["target"],
        }
        for task, receipt in receipts.items()
    ]
    return pd.DataFrame(rows)


def table_of_numbers(
    numbers: Mapping[str, Mapping[str, object]],
    experiment: str,
    arms: Mapping[str, Sequence[str]],
    *,
    arm: str,
    columns: Sequence[str],
) -> pd.DataFrame:
    """Published numbers under the condition `constant`, a row an arm.

    Args:
        numbers: the book's numbers by key, ``experiment/task/constant/arm/quantity``.
        experiment: whose numbers.
        arms: task → its arms, in the order of the rows.
        arm: what heads the column of arms.
        columns: of `NUMBERS`, in their order.
    """
    rows = []
    for task, names in arms.items():
        for name in names:
            key = f"{experiment}/{task}/constant/{name}"
            values = {column: numbers[f"{key}/{NUMBERS[column]}"]["value"] for column in columns}
            rows.append({"task": task, arm: name} | values)
    return pd.DataFrame(rows)
