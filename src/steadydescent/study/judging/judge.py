"""From a result's rows to verdicts."""

import math
from typing import Any

import numpy as np

from steadydescent.study.judging import measures
from steadydescent.study.judging.analyses import ANALYSES
from steadydescent.study.judging.choosing import Candidate
from steadydescent.study.judging.claims import (
    Cell,
    Claim,
    Contrast,
    cells,
    load_claims,
    place,
)
from steadydescent.study.judging.evidence import Candidates, Evidence
from steadydescent.study.judging.exact import EXACT, tests_of
from steadydescent.study.judging.statistics import (
    Estimate,
    level,
    seeds_needed,
    tuned,
    verdict,
)

SAME_RATE = 1.25
"""Rates that differ by a smaller factor count as one; grids have no rates between their points."""


def holds(evidence: Evidence, cell: Cell) -> bool:
    """Whether the result has what the row needs: arms, values of the measure, and the arm at the
    rate of the other side.
    """
    contrast = cell.contrast
    if not cell.answered_by(evidence):
        return False
    if contrast.analysis is not None:
        return True
    if evidence.values(contrast.measure).empty:
        return False
    if contrast.rate != "against":
        return True
    arm, against = (side.chosen.lr for side in sides(contrast, evidence, cell.condition))
    return abs(math.log(arm / (against * contrast.factor))) < math.log(SAME_RATE)


def networks(evidence: Evidence, contrast: Contrast, condition: str) -> int:
    """How many networks a contrast rests on, those of tuning included."""
    if contrast.analysis:
        return len(evidence.result.runs)
    places = contrast.places(condition)
    return len(set().union(*(evidence.runs(*where).run for where in places)))


def sides(contrast: Contrast, evidence: Evidence, condition: str) -> tuple[Candidates, Candidates]:
    """The candidates on both sides of a contrast."""
    against = evidence.best_of(condition, contrast.against, contrast.measure, contrast.tuned_by)
    arm = evidence.best_of(condition, [contrast.arm], contrast.measure, contrast.tuned_by)
    if isinstance(contrast.rate, float):
        return arm.only(
            math.isclose(label.lr, contrast.rate, rel_tol=1e-3) for label in arm.labels
        ), against
    return (
        (_at_rates_of(against, arm, contrast.factor), against)
        if contrast.rate == "against"
        else (arm, against)
    )


def _at_rates_of(chooser: Candidates, arm: Candidates, factor: float) -> Candidates:
    """The arm at `factor` times the rate that is right for the chooser, whose tuning scores so
    choose for both.

    Where the arm did not run that rate, its nearest stands in; a grid has no rates between its
    points.
    """
    lrs = np.log([label.lr for label in arm.labels])
    nearest = [int(np.abs(lrs - math.log(label.lr * factor)).argmin()) for label in chooser.labels]
    labels = [arm.labels[i] for i in nearest]
    return Candidates(labels, chooser.scores._replace(report=arm.scores.report[:, nearest]))


def choices(contrast: Contrast, evidence: Evidence, condition: str) -> dict[str, Candidate]:
    """What tuning chose on both sides, by the arm's name; of one arm at two rates the second is
    `against …`.
    """
    arm, against = (side.chosen for side in sides(contrast, evidence, condition))
    twice = against.arm == arm.arm and against != arm
    found = {arm.arm: arm, f"against {arm.arm}" if twice else against.arm: against}
    if contrast.minus is None:
        return found
    there = choices(contrast.model_copy(update={"minus": None}), evidence, contrast.minus)
    return found | {
        f"{name}@{contrast.minus}": c._replace(arm=f"{c.arm}@{contrast.minus}")
        for name, c in there.items()
    }


def estimate(contrast: Contrast, evidence: Evidence, condition: str, at: float) -> Estimate:
    """The contrast's interval at a level, above 0 as the source claims; of ratios the logarithm."""
    found = _between(contrast, evidence, condition, at)
    if contrast.minus is None:
        return found
    other = _between(contrast, evidence, contrast.minus, at)
    # half-widths add in squares as if the two were independent; what seeds have in common is not
    # made use of
    half = math.hypot(found.high - found.value, other.high - other.value)
    value = found.value - other.value
    return Estimate(value, value - half, value + half, math.hypot(found.sd, other.sd), found.n)


def _between(contrast: Contrast, evidence: Evidence, condition: str, at: float) -> Estimate:
    """The interval between the two sides; what is better when smaller, or claimed to be worse, is
    turned round.
    """
    measure = measures.find(contrast.measure)
    arm, against = sides(contrast, evidence, condition)
    found = tuned(arm.scores, against.scores, at, statistic=measure.statistic)
    if measure.higher == contrast.better:
        return found
    return Estimate(-found.value, -found.high, -found.low, found.sd, found.n)


def judge(cell: Cell, evidence: Evidence, k: int) -> dict[str, Any]:
    """The row of one contrast on one task under one condition."""
    contrast, at, receipt = cell.contrast, level(k), evidence.receipt
    if contrast.analysis:
        analysed = ANALYSES[contrast.analysis](evidence, contrast, cell.condition, at)
        found, unit, ratio, chosen = analysed.estimate, analysed.unit, analysed.ratio, {}
    else:
        measure = measures.find(contrast.measure)
        found, unit, ratio = (
            estimate(contrast, evidence, cell.condition, at),
            measure.unit,
            measure.ratio,
        )
        chosen = choices(contrast, evidence, cell.condition)
    margin = math.log(contrast.margins[cell.task]) if ratio else contrast.margins[cell.task]
    word = verdict(found.low, found.high, margin, contrast.rule)
    shown = (found.value, found.low, found.high)
    value, low, high = (math.exp(x) for x in shown) if ratio else shown
    rates = [(*place(candidate.arm, cell.condition), candidate.lr) for candidate in chosen.values()]
    return cell.labels | {
        "verdict": "inconclusive" if receipt["profile"] == "smoke" else word,
        "estimate": value,
        "ci_low": low,
        "ci_high": high,
        "unit": unit,
        "null": 1.0 if ratio else 0.0,
        "level": at,
        "n_seeds": found.n,
        "profile": receipt["profile"],
        "result": receipt["result"],
        "diverged": sum(evidence.diverged(*rate) for rate in rates),
        # the formula supposes a true zero; seeds that were not enough are never said to be
        "seeds_needed": max(found.n + 1, seeds_needed(found.sd, margin, k))
        if word == "inconclusive"
        else None,
        "networks": networks(evidence, contrast, cell.condition),
        "rates": {name: c.lr for name, c in chosen.items()},
        "readouts": {name: c.readout for name, c in chosen.items()},
        "on_edge": any(evidence.on_edge(*rate) for rate in rates),
        "tests": [],
    }


def judge_all(evidence: Evidence) -> list[dict[str, Any]]:
    """Rows of every claim that the result answers; what claims ask that it has not is left out.

    k is the number of primary contrasts when the result was planned, or what is judged, if more.
    """
    held = [cell for cell in cells(evidence.experiment) if holds(evidence, cell)]
    k = max(evidence.receipt["primary_contrasts"], len(held))
    return [judge(cell, evidence, k) for cell in held]


def exact_rows(claim: Claim) -> list[dict[str, Any]]:
    """Rows of an exact claim: arithmetic, and the tests that hold it."""
    nothing = dict.fromkeys(
        (
            "ci_low",
            "ci_high",
            "n_seeds",
            "seeds_needed",
            "result",
            "level",
            "profile",
            "diverged",
            "networks",
        )
    )
    return [
        nothing
        | {
            "id": claim.id,
            "scope": claim.scope,
            "task": "arithmetic",
            "condition": f"{row.measure}, {row.condition}",
            "measure": row.measure,
            "verdict": row.verdict,
            "estimate": row.estimate,
            "unit": row.unit,
            "null": 0.0,
            "margin": row.margin,
            "rule": row.rule,
            "rates": {},
            "readouts": {},
            "on_edge": False,
            "tests": tests_of(claim.id),
        }
        for row in (EXACT[claim.id]() if claim.id in EXACT else [])
    ]


def not_run(cell: Cell) -> dict[str, Any]:
    """The row of a contrast that these results do not hold: it says so rather than vanish."""
    empty = dict.fromkeys(
        (
            "estimate",
            "ci_low",
            "ci_high",
            "n_seeds",
            "diverged",
            "seeds_needed",
            "result",
            "level",
            "networks",
        )
    )
    return (
        cell.labels
        | empty
        | {
            "verdict": "not run",
            "unit": "",
            "null": 0.0,
            "rates": {},
            "readouts": {},
            "on_edge": False,
            "profile": None,
            "tests": [],
        }
    )


def all_rows(judged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Judged rows in the order of the claims, with exact ones, and those that were not run."""
    have = {(row["id"], row["task"], row["condition"]): row for row in judged}
    rows = []
    for claim in load_claims().values():
        rows += exact_rows(claim)
        for cell in cells(claim.experiment):
            if cell.claim.id == claim.id:
                key = (claim.id, cell.task, cell.contrast.named(cell.condition))
                rows.append(have.get(key) or not_run(cell))
    return rows
