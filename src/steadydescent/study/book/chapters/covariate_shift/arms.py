"""The chapter's arms, their colours, verdicts and numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from steadydescent.engine.settings import read
from steadydescent.study.book import chapter_figures
from steadydescent.study.book.chapters.contrasts import Look, draw_contrasts
from steadydescent.study.book.chapters.results import Results, main_task, table_of_numbers
from steadydescent.study.judging.evidence import Evidence

TASK, CONDITION = "mnist1d-mlp", "constant"
PLAIN, NORMED, MILD = "no norm", "batch norm", "mildly noisy batch norm"
COLOURS = {
    PLAIN: "C0",
    NORMED: "C1",
    "noisy batch norm": "C2",
    "badly scaled inputs": "C3",
    "raw inputs": "C3",
    MILD: "C4",
    "group norm": "C5",
}
SHORT = {"norm-inputs-faster": "normalised inputs", "bn-faster": "batch norm's speed"}
"""Claim → what a row of it compares, where the row's condition does not say it."""
LOOKS = {
    "×": Look("how many times better", row=0.32, ticks=(1, 1.5, 2, 3, 5)),
    "pp": Look("points in favour of batch norm", row=0.32),
}
"""Unit of the verdicts → how they are drawn."""


def same_inputs(evidence: Evidence) -> list[str]:
    """Arms that see standardised features, not raw or badly scaled ones."""
    arms = evidence.arms_in(CONDITION)
    tasks = {arm: evidence.settings(CONDITION, arm).task for arm in arms}
    return [arm for arm, task in tasks.items() if "features" not in read(task).options]


def draw_verdicts(name: str, rows: Sequence[Mapping[str, Any]], unit: str) -> None:
    """The chapter's verdicts of one unit."""
    draw_contrasts(name, rows, unit, _label, LOOKS[unit])


def _label(row: Mapping[str, Any]) -> str:
    where = row["condition"].removeprefix(CONDITION).removeprefix(", ")
    return ", ".join(filter(None, (SHORT.get(row["id"], ""), where, row["task"])))


def draw_along(name: str, results: Results) -> None:
    """Accuracy along training of every arm, at the rate best for its speed."""
    task = main_task(results)
    if not task:
        chapter_figures.not_run(name)
        return
    lines = [(CONDITION, arm) for arm in results[task].evidence.arms_in(CONDITION)]
    chapter_figures.along(name, "covariate_shift", task, lines, by="steps to target")


def table_of_arms(results: Results, numbers: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    """Numbers of every arm at its tuned rate."""
    arms = {task: shown.evidence.arms_in(CONDITION) for task, shown in results.items()}
    columns = ["rate", "accuracy, %", "sd", "gap, pp", "nats", "calibration, pp", "diverged"]
    return table_of_numbers(numbers, "covariate_shift", arms, arm="arm", columns=columns)
