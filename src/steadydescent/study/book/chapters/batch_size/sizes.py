"""The chapter's conditions, arithmetic of epochs, verdicts, and the rates that tuning chose."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from steadydescent.engine.settings import read
from steadydescent.minibatches import recommended_batch_sizes, updates_per_epoch
from steadydescent.study.book.chapters.contrasts import Look, draw_contrasts
from steadydescent.study.book.chapters.results import Results
from steadydescent.study.judging.evidence import Evidence

TASK, QUADRATIC = "mnist1d-mlp", "noisy-quadratic"
FEW = 200
"""The examples of the slides' smallest training set."""
RULE = "sgd"
"""The arm that every size has."""
SHORT = {
    "batch-noise-better-minima": "small batch against large",
    "batch-range": "64 to 1 024",
    "batch-small-data-full": "full batch against minibatches",
    "momentum-small-batches": "momentum",
}
"""Claim → what a row of it compares."""


def few_examples(evidence: Evidence, condition: str) -> int:
    """How many examples networks saw, where it was a part of the training set alone; else 0."""
    return int(read(evidence.settings(condition, RULE).task).options.get("examples", 0))


def sizes(evidence: Evidence) -> dict[str, int]:
    """Condition → batch size, of those that differ in nothing else."""
    settings = {condition: evidence.settings(condition, RULE) for condition in evidence.conditions}
    return {
        condition: setting.batch_size
        for condition, setting in settings.items()
        if setting.schedule == "constant" and not few_examples(evidence, condition)
    }


def table_of_epochs() -> pd.DataFrame:
    """Examples, the slides' rule for a batch size, and updates an epoch at three sizes."""
    rows = []
    for m in (200, 4_000, 5_000_000):
        rule = ", ".join(map(str, recommended_batch_sizes(m)))
        updates = {
            f"updates an epoch, n = {n}": updates_per_epoch(m, n, drop_last=False)
            for n in (1, 32, 1000)
            if n <= m
        }
        rows.append({"m": m, "the slides' rule for n": rule, **updates})
    return pd.DataFrame(rows)


def table_of_choices(results: Results) -> pd.DataFrame:
    """The rate that tuning chose for every arm that saw all examples, and whether it is an end."""
    rows = []
    for task, shown in results.items():
        evidence = shown.evidence
        for condition in evidence.conditions:
            if few_examples(evidence, condition):
                continue
            for arm in evidence.arms_in(condition):
                settings = evidence.settings(condition, arm)
                lr = evidence.candidates(condition, arm, evidence.main_measure).chosen.lr
                row = {"task": task, "n": settings.batch_size, "arm": arm}
                row |= {"schedule": settings.schedule, "rate": lr}
                row["on the grid's edge"] = "yes" if evidence.on_edge(condition, arm, lr) else "no"
                rows.append(row | {"diverged": evidence.diverged(condition, arm, lr)})
    return pd.DataFrame(rows)


def draw_verdicts(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """The chapter's verdicts in percentage points."""
    look = Look("difference in accuracy / pp", estimate="+.3g")
    draw_contrasts(name, rows, "pp", _label, look)


def _label(row: Mapping[str, Any]) -> str:
    task = "" if row["task"] == TASK else f", {row['task']}"
    return f"{SHORT.get(row['id'], row['title'])}: {row['condition']}{task}"
