"""What the page of all claims computes: how sure it is, and verdicts attacked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from steadydescent.study.book.chapters.results import Results
from steadydescent.study.book.words import difference
from steadydescent.study.judging.claims import Question, questions
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.statistics import paired
from steadydescent.study.planning import load_study
from steadydescent.study.results.receipts import run_counts

TASK = "mnist1d-mlp"
"""The task whose verdicts are attacked."""
FEWEST = 8
"""Report seeds of which halves still say something."""
LEVEL = 0.95


class Surprise(NamedTuple):
    """A verdict that nobody expected: its name on the page, and the row it is."""

    name: str
    experiment: str
    claim: str
    condition: str


SURPRISES = (
    Surprise("Adam behind tuned SGD", "optimizers", "adam-general", "constant, tuned"),
    Surprise("decay by so much", "decay_schedules", "decay-helps", "momentum, linear"),
    Surprise(
        "decay that loses at the old rate",
        "decay_schedules",
        "decay-helps",
        "momentum, linear at the rate best when constant",
    ),
    Surprise(
        "a small rate that tests worse",
        "learning_rate_search",
        "lr-too-small-stuck",
        "dense sweep, accuracy after ten times the updates",
    ),
)
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


def table_of_attacks(shown: Experiments) -> pd.DataFrame:
    """The surprises' estimates with all report seeds, the even and the odd ones, in points."""
    rows = []
    for surprise in SURPRISES:
        result = shown.get(surprise.experiment, {}).get(TASK)
        if result and result.receipt["seeds"]["report"] >= FEWEST:
            for question in _judged(surprise, result.evidence):
                rows.append({"verdict": surprise.name} | _attack(question, result.evidence))
    return pd.DataFrame(rows)


def _judged(surprise: Surprise, evidence: Evidence) -> Iterator[Question]:
    """The rows of that claim and condition that the result answers."""
    key = (surprise.claim, TASK, surprise.condition)
    for question in questions(surprise.experiment):
        if question.row.key == key and question.held_by(evidence):
            yield question


def _attack(question: Question, evidence: Evidence) -> dict[str, Any]:
    contrast, condition = question.contrast, question.condition
    halves = {"even seeds": evidence.half(0), "odd seeds": evidence.half(1)}
    texts = {}
    for name, half in halves.items():
        part = contrast.estimate(half, condition, LEVEL)
        texts[name] = difference(part.value, part.low, part.high)
    whole = contrast.estimate(evidence, condition, LEVEL)
    return {"all seeds": whole.value} | texts


def table_of_same_rates(results: Results) -> pd.DataFrame:
    """Linear decay minus a constant rate at one and the same peak, every condition and rate.

    The first condition is the one of the usual updates; the others' names begin with its.
    """
    if TASK not in results:
        return pd.DataFrame()
    evidence, rows = results[TASK].evidence, []
    for condition in evidence.conditions:
        chosen = evidence.candidates(condition, "constant").chosen.lr
        flat, falling = (
            evidence.report(condition, arm, "accuracy") for arm in ("constant", "linear")
        )
        for lr, readout in flat.columns.intersection(falling.columns):
            gain = paired((falling[lr, readout] - flat[lr, readout]).to_numpy(), LEVEL)
            rows.append(
                {
                    "condition": condition.removeprefix(f"{evidence.conditions[0]}, "),
                    "rate": lr,
                    "tuning chose it": "yes" if lr == chosen else "",
                    "linear minus constant, pp": difference(gain.value, gain.low, gain.high),
                }
            )
    return pd.DataFrame(rows)
