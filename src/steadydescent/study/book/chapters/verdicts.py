"""What the page of all claims computes: how sure it is, and decay at one and the same rate."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from steadydescent.study.book.chapters.results import Results
from steadydescent.study.book.words import difference
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.statistics import paired
from steadydescent.study.planning import load_study
from steadydescent.study.results.receipts import run_counts

LEVEL = 0.95
Row = Mapping[str, Any]
Experiments = Mapping[str, Results]
"""Experiment → its results in the book being built."""


def table_of_levels(shown: Experiments, rows: Callable[[str], Sequence[Row]]) -> pd.DataFrame:
    """A row a chapter: rows judged, primary and secondary, seeds, networks, points on surfaces.

    Args:
        shown: all experiments' results.
        rows: of an experiment's claims, as `steadydescent.study.book.edition.rows_shown` has them.
    """
    table = []
    for experiment, results in shown.items():
        receipts = [result.receipt for result in results.values()]
        primary = [row["primary"] for row in rows(experiment) if row["level"] is not None]
        if receipts:
            table.append(
                {
                    "chapter": title(experiment),
                    "tasks": len(receipts),
                    "primary rows": sum(primary),
                    "secondary rows": len(primary) - sum(primary),
                    "tuning seeds": _span(receipts, "tuning"),
                    "report seeds": _span(receipts, "report"),
                    **run_counts(receipts),
                }
            )
    return pd.DataFrame(table)


def title(experiment: str) -> str:
    """What an experiment is called: by the study, or by its name where the study has it no more."""
    study = load_study()
    return study[experiment].title if experiment in study else experiment


def _span(receipts: Sequence[Row], kind: str) -> str:
    """The fewest and the most seeds of a kind: ``3 to 8``, or one number."""
    counts = {receipt["seeds"][kind] for receipt in receipts}
    return " to ".join(dict.fromkeys((str(min(counts)), str(max(counts)))))


def table_of_same_rates(results: Results) -> pd.DataFrame:
    """Linear decay minus a constant rate at one and the same peak, every task, condition and rate.

    Conditions in which one of the two was not run are left out.
    """
    parts = [
        _same_rates(task, shown.evidence, condition)
        for task, shown in results.items()
        for condition in shown.evidence.conditions
        if {"constant", "linear"} <= set(shown.evidence.arms_in(condition))
    ]
    return pd.DataFrame([row for part in parts for row in part])


def _same_rates(task: str, evidence: Evidence, condition: str) -> list[dict[str, Any]]:
    chosen = evidence.candidates(condition, "constant").chosen.lr
    flat, falling = (evidence.report(condition, arm, "accuracy") for arm in ("constant", "linear"))
    rows = []
    for lr, readout in flat.columns.intersection(falling.columns):
        gain = paired((falling[lr, readout] - flat[lr, readout]).to_numpy(), LEVEL)
        rows.append(
            {
                "task": task,
                "condition": condition,
                "rate": lr,
                "best when constant": "yes" if lr == chosen else "",
                "linear minus constant, pp": difference(gain.value, gain.low, gain.high),
            }
        )
    return rows
