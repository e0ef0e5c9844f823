"""From a result's evidence to the rows of claims."""

import math
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Literal

from steadydescent.study.judging.claims import (
    Claim,
    Question,
    load_claims,
    questions_for,
    questions_of,
)
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.exact import EXACT, Exact, tests_of
from steadydescent.study.judging.headlines import headline
from steadydescent.study.judging.power import seeds_needed
from steadydescent.study.judging.rows import Row
from steadydescent.study.judging.statistics import Estimate, level_of
from steadydescent.study.judging.verdicts import (
    DecisionRule,
    direction_of,
    of_interval,
    size_of,
)


def judge(question: Question, evidence: Evidence) -> Row:
    """The row of one contrast on one task under one condition.

    Nothing but that contrast and that result makes it: no other row changes its level or its word.
    Where the result has not what the contrast compares it is not run, and says why.
    """
    contrast, condition = question.contrast, question.condition
    if obstacle := contrast.obstacle(evidence, condition):
        return replace(question.row, reason=obstacle)
    level = level_of(question.primary)
    estimate = contrast.estimate(evidence, condition, level)
    if not math.isfinite(estimate.high - estimate.low):
        return replace(question.row, reason="runs that diverged leave no finite estimate")
    row = _estimated(question, estimate, level)
    row = _of_result(row, question, evidence)
    remarks = asdict(contrast.remarks(evidence, condition))
    decides, undecided = remarks.pop("decides"), remarks.pop("undecided")
    if row.verdict == "open":
        remarks["reason"] = remarks["reason"] or undecided
    if remarks["reason"]:  # and more report seeds alone would not decide
        row = replace(row, seeds_needed=None)
    row = replace(row, **remarks)
    if decides and evidence.receipt["profile"] != "smoke":
        return row
    return replace(row, verdict="open", direction="open", size="open")


def _estimated(question: Question, estimate: Estimate, level: float) -> Row:
    """The row with its interval, and what that decides."""
    contrast, margin = question.contrast, question.contrast.margins[question.task]
    value, low, high = estimate.value, estimate.low, estimate.high
    if contrast.ratio:
        margin = math.log(margin)
        value, low, high = math.exp(value), math.exp(low), math.exp(high)
    word = of_interval(estimate.low, estimate.high, margin, contrast.rule)
    return replace(
        question.row,
        verdict=word,
        direction=direction_of(estimate.low, estimate.high),
        size=size_of(estimate.low, estimate.high, margin),
        estimate=value,
        ci_low=low,
        ci_high=high,
        unit=contrast.unit,
        null=1.0 if contrast.ratio else 0.0,
        level=level,
        n_seeds=estimate.n,
        seeds_needed=_needed(estimate, margin, contrast.rule, level) if word == "open" else None,
    )


def _of_result(row: Row, question: Question, evidence: Evidence) -> Row:
    """The row with what its result says besides: runs, choices, where and when it was made."""
    contrast, condition, receipt = question.contrast, question.condition, evidence.receipt
    chosen = contrast.choices(evidence, condition)
    rates = [(*candidate.place, candidate.lr) for candidate in chosen.values()]
    runs, networks = contrast.networks(evidence, condition), evidence.design.trains_networks
    return replace(
        row,
        profile=receipt["profile"],
        result=receipt["result"],
        first_seen=receipt["date"][:10],
        diverged=sum(evidence.diverged(*rate) for rate in rates),
        networks=runs if networks else None,
        points=None if networks else runs,
        rates={name: candidate.lr for name, candidate in chosen.items()},
        readouts={name: candidate.readout for name, candidate in chosen.items()},
        on_edge=any(evidence.on_edge(*rate) for rate in rates),
    )


def _needed(
    estimate: Estimate, margin: float, rule: DecisionRule, level: float
) -> int | Literal["never"]:
    """Seeds that would decide; those that were not enough are never said to be."""
    needed = seeds_needed(estimate, margin, rule, level)
    return needed if needed == "never" else max(estimate.n + 1, needed)


def judge_all(evidence: Evidence) -> list[Row]:
    """Rows of everything that claims ask of what the result trained and observed."""
    return [judge(question, evidence) for question in questions_for(evidence)]


def exact_rows(claim: Claim) -> list[Row]:
    """Rows of an exact claim: arithmetic, and the tests that hold it; none of any other."""
    return [
        _exact_row(claim, number) for number in (EXACT[claim.id]() if claim.id in EXACT else [])
    ]


def _exact_row(claim: Claim, number: Exact) -> Row:
    primary = not claim.primary
    return Row(
        id=claim.id,
        scope=claim.scope,
        task="arithmetic",
        measure=number.measure,
        condition=f"{number.measure}, {number.condition}",
        margin=number.margin,
        rule=number.rule,
        verdict=number.verdict,
        direction=direction_of(number.estimate, number.estimate),
        size=size_of(number.estimate, number.estimate, number.margin),
        estimate=number.estimate,
        unit=number.unit,
        tests=tests_of(claim.id),
        primary=primary,
        when=number.when if primary else "",
    )


def all_rows(answers: Iterable[Row]) -> list[Row]:
    """Rows of results in the order of the claims, with exact ones, and those that were not run.

    Of each claim the primary ones come first, and all carry its headline.
    """
    known = {row.key: row for row in answers}
    rows: list[Row] = []
    for claim in load_claims().values():
        asked = [known.get(question.row.key) or question.row for question in questions_of(claim)]
        mine = sorted([*exact_rows(claim), *asked], key=lambda row: not row.primary)
        said = headline(mine).sentence
        rows += [replace(row, headline=said) for row in mine]
    return rows
