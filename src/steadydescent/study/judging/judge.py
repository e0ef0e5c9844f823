"""From a result's evidence to the rows of claims."""

import math
from collections.abc import Iterable
from dataclasses import replace

from steadydescent.study.judging.claims import (
    Claim,
    Question,
    load_claims,
    questions,
)
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.exact import EXACT, Exact, tests_of
from steadydescent.study.judging.rows import Row
from steadydescent.study.judging.statistics import level, seeds_needed
from steadydescent.study.judging.verdicts import of_interval


def judge(question: Question, evidence: Evidence, k: int) -> Row:
    """The row of one contrast on one task under one condition, one of a chapter's k."""
    contrast, condition, receipt = question.contrast, question.condition, evidence.receipt
    estimate = contrast.estimate(evidence, condition, level(k))
    chosen = contrast.choices(evidence, condition)
    margin = contrast.margins[question.task]
    value, low, high = estimate.value, estimate.low, estimate.high
    if contrast.ratio:
        margin = math.log(margin)
        value, low, high = math.exp(value), math.exp(low), math.exp(high)
    word = of_interval(estimate.low, estimate.high, margin, contrast.rule)
    rates = [(*candidate.place, candidate.lr) for candidate in chosen.values()]
    # the formula supposes a true zero; seeds that were not enough are never said to be
    needed = max(estimate.n + 1, seeds_needed(estimate.sd, margin, k))
    return replace(
        question.row,
        verdict="inconclusive" if receipt["profile"] == "smoke" else word,
        estimate=value,
        ci_low=low,
        ci_high=high,
        unit=contrast.unit,
        null=1.0 if contrast.ratio else 0.0,
        level=level(k),
        n_seeds=estimate.n,
        profile=receipt["profile"],
        result=receipt["result"],
        diverged=sum(evidence.diverged(*rate) for rate in rates),
        seeds_needed=needed if word == "inconclusive" else None,
        networks=contrast.networks(evidence, condition),
        rates={name: candidate.lr for name, candidate in chosen.items()},
        readouts={name: candidate.readout for name, candidate in chosen.items()},
        on_edge=any(evidence.on_edge(*rate) for rate in rates),
    )


def judge_all(evidence: Evidence) -> list[Row]:
    """Rows of every claim that the result answers; what claims ask that it has not is left out.

    k is the number of primary contrasts when the result was planned, or what is judged, if more.
    """
    answered = [q for q in questions(evidence.experiment) if q.held_by(evidence)]
    k = max(evidence.receipt["primary_contrasts"], len(answered))
    return [judge(question, evidence, k) for question in answered]


def exact_rows(claim: Claim) -> list[Row]:
    """Rows of an exact claim: arithmetic, and the tests that hold it; none of any other."""
    return [
        _exact_row(claim, number) for number in (EXACT[claim.id]() if claim.id in EXACT else [])
    ]


def _exact_row(claim: Claim, number: Exact) -> Row:
    return Row(
        id=claim.id,
        scope=claim.scope,
        task="arithmetic",
        measure=number.measure,
        condition=f"{number.measure}, {number.condition}",
        margin=number.margin,
        rule=number.rule,
        verdict=number.verdict,
        estimate=number.estimate,
        unit=number.unit,
        tests=tests_of(claim.id),
    )


def all_rows(answers: Iterable[Row]) -> list[Row]:
    """Rows of results in the order of the claims, with exact ones, and those that were not run."""
    known = {row.key: row for row in answers}
    rows = []
    for claim in load_claims().values():
        rows += exact_rows(claim)
        for question in questions(claim.experiment):
            if question.claim.id == claim.id:
                rows.append(known.get(question.row.key) or question.row)
    return rows
