"""From a result's rows to verdicts."""

import math
from collections.abc import Iterable
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from steadydescent import measures
from steadydescent.analyses import ANALYSES
from steadydescent.claims import Cell, Claim, Contrast, cells, contrasts, load_claims, place
from steadydescent.exact import EXACT, tests_of
from steadydescent.results import Result
from steadydescent.statistics import Estimate, Scores, level, seeds_needed, tuned, verdict
from steadydescent.study import Plan, load_study

SAME_RATE = 1.25
"""Rates that differ by a smaller factor count as one; grids have no rates between their points."""
TIE, LOST = 1e-6, 1e3
"""Updates that an accuracy of 1, or a height, weighs where rates are chosen by updates to a target: it settles ties."""


class Candidate(NamedTuple):
    """What tuning chooses among."""

    lr: float
    readout: str
    arm: str


class Candidates(NamedTuple):
    """An arm's candidates and their scores, for every measure and rate that a contrast asks for."""

    labels: list[Candidate]
    scores: Scores

    @property
    def chosen(self) -> Candidate:
        return self.labels[self.scores.chosen()]

    def only(self, keep: Iterable[bool]) -> "Candidates":
        """Those candidates alone."""
        mask = np.array(list(keep))
        labels = [label for label, kept in zip(self.labels, mask, strict=True) if kept]
        if not labels:
            raise ValueError(f"none of the rates {sorted({c.lr for c in self.labels})} is the one that was asked for")
        return Candidates(labels, Scores(*(part[:, mask] for part in self.scores)))


class Evidence:
    """The result of one experiment on one task, asked for the scores of its arms."""

    def __init__(self, result: Result, plan: Plan) -> None:
        self.result, self.plan = result, plan
        # contrasts ask for the same tables again and again, and pivots are slow
        self.runs, self.tuning, self.report = cache(self._runs), cache(self._tuning_scores), cache(self._report_scores)
        self.candidates, self._values = cache(self._candidates), cache(partial(measures.values, result))

    @cached_property
    def _tuning(self) -> pd.DataFrame:
        """What rates are chosen by, on validation data, larger better: columns run, readout, accuracy, loss, …

        Where no rate arrives at the target, all need the same number of updates; the accuracy at the end, or a height,
        then decides, and a run that diverged is the worst.
        """
        finals = self.result.finals[self.result.finals.split == "validation"]
        table = finals.assign(loss=-finals.loss)[["run", "readout", "accuracy", "loss"]]
        steps = self.result.measures[self.result.measures.measure == "steps to target"]
        table = table.merge(steps[["run", "readout", "value"]], "left")
        lost = table.run.isin(self.result.runs[self.result.runs.diverged_at.notna()].run)
        ends = table.accuracy.fillna(table.loss).where(~lost, -LOST)
        return table.assign(**{"steps to target": TIE * ends - table.value}).drop(columns="value")

    def _runs(self, condition: str, arm: str) -> pd.DataFrame:
        """The runs of an arm."""
        found = self.plan.trajectory(condition, arm).of(self.result.runs)
        if not found.test.any():
            raise ValueError(f"the result holds no report runs of {arm!r} under {condition!r}")
        return found

    def reported(self, condition: str, arm: str) -> bool:
        """Whether the result has report runs of an arm; one from before the study asked for it has not."""
        runs = self.plan.trajectory(condition, arm).of(self.result.runs)
        finals = self.result.finals[self.result.finals.run.isin(runs[runs.test].run)]
        return bool(finals.readout.isin(self.plan.arms[arm].readouts).any())

    def _tuning_scores(self, condition: str, arm: str, tuned_by: str, report: bool = False) -> pd.DataFrame:
        """Tuning (or report) seeds × candidates (rate, readout): what rates are chosen by, larger better."""
        runs = self.runs(condition, arm)
        merged = runs[runs.test == report][["run", "lr", "seed"]].merge(self._tuning, on="run")
        merged = merged[merged.readout.isin(self.plan.arms[arm].readouts)]
        return merged.pivot(index="seed", columns=["lr", "readout"], values=tuned_by).sort_index(axis=1)

    def _report_scores(self, condition: str, arm: str, measure: str) -> pd.DataFrame:
        """Report seeds × candidates (rate, readout) in the measure's unit, at the rates that report seeds ran."""
        runs = self.runs(condition, arm)
        merged = runs[runs.test][["run", "lr", "seed"]].merge(self._values(measure), on="run")
        merged = merged[merged.readout.isin(self.plan.arms[arm].readouts)]
        return merged.pivot(index="seed", columns=["lr", "readout"], values="value").sort_index(axis=1)

    def _candidates(
        self, condition: str, arm: str, measure: str = "accuracy", tuned_by: str | None = None
    ) -> Candidates:
        """The arm's candidates at the rates that report seeds ran; the choice is made among these."""
        by = tuned_by or self.tuned_by(measure)
        tuning, validation = (self.tuning(condition, arm, by, report) for report in (False, True))
        report = self.report(condition, arm, measure)
        both = [column for column in tuning.columns if column in set(report.columns)]
        if not both:
            raise ValueError(f"{arm!r} has no scores in {measure!r} under {condition!r}")
        labels = [Candidate(lr, readout, arm) for lr, readout in both]
        parts = [table.reindex(columns=both).to_numpy(float) for table in (tuning, report, validation)]
        if np.isnan(parts[2]).any():  # some runs are from before report runs kept validation scores: use none
            parts[2] = parts[2][:0]
        return Candidates(labels, Scores(*parts))

    def tuned_by(self, measure: str) -> str:
        """What rates are chosen by: the measure's own, but a task without accuracy is tuned by its loss."""
        wanted = measures.find(measure).tuned_by
        return self.plan.tune_by[0] if wanted == "accuracy" else wanted

    def best_of(self, condition: str, arms: Iterable[str], measure: str, tuned_by: str | None = None) -> Candidates:
        """The candidates of several arms together: their best. Each keeps the name it was asked by, `last@linear`."""
        arms = list(arms)
        parts = [self.candidates(*place(arm, condition), measure, tuned_by) for arm in arms]
        labels = [label._replace(arm=arm) for arm, part in zip(arms, parts, strict=True) for label in part.labels]
        scores = Scores(*(np.concatenate(columns, axis=1) for columns in zip(*(p.scores for p in parts), strict=True)))
        return Candidates(labels, scores)

    def on_edge(self, condition: str, arm: str, lr: float) -> bool:
        """Whether a rate is the lowest or highest that was tried: the true optimum may lie beyond."""
        runs = self.runs(condition, arm)
        tried = runs[~runs.test].lr
        return lr in (tried.min(), tried.max())

    def diverged(self, condition: str, arm: str, lr: float) -> int:
        """How many report runs at this rate diverged."""
        runs = self.runs(condition, arm)
        return int(runs[runs.test & (runs.lr == lr)].diverged_at.notna().sum())

    def holds(self, cell: Cell) -> bool:
        """Whether the result has what the contrast needs: arms, measure, and the arm at the rate of the other side."""
        contrast = cell.contrast
        if not all(self.reported(*where) for where in contrast.places(cell.condition)):
            return False
        if contrast.analysis is not None:
            return True
        if self._values(contrast.measure).empty:
            return False
        if contrast.rate != "against":
            return True
        arm, against = (side.chosen.lr for side in sides(contrast, self, cell.condition))
        return abs(math.log(arm / (against * contrast.factor))) < math.log(SAME_RATE)

    def networks(self, contrast: Contrast, condition: str) -> int:
        """How many networks a contrast rests on, those of tuning included."""
        if contrast.analysis:
            return len(self.result.runs)
        places = contrast.places(condition)
        return len(set().union(*(self.plan.trajectory(*where).of(self.result.runs).run for where in places)))


def sides(contrast: Contrast, evidence: Evidence, condition: str) -> tuple[Candidates, Candidates]:
    """The candidates on both sides of a contrast."""
    against = evidence.best_of(condition, contrast.against, contrast.measure, contrast.tuned_by)
    arm = evidence.best_of(condition, [contrast.arm], contrast.measure, contrast.tuned_by)
    if isinstance(contrast.rate, float):
        return arm.only(math.isclose(label.lr, contrast.rate, rel_tol=1e-3) for label in arm.labels), against
    return (_at_rates_of(against, arm, contrast.factor), against) if contrast.rate == "against" else (arm, against)


def _at_rates_of(chooser: Candidates, arm: Candidates, factor: float) -> Candidates:
    """The arm at `factor` times the rate that is right for the chooser, whose tuning scores so choose for both.

    Where the arm did not run that rate, its nearest stands in; a grid has no rates between its points.
    """
    lrs = np.log([label.lr for label in arm.labels])
    nearest = [int(np.abs(lrs - math.log(label.lr * factor)).argmin()) for label in chooser.labels]
    labels = [arm.labels[i] for i in nearest]
    return Candidates(labels, chooser.scores._replace(report=arm.scores.report[:, nearest]))


def choices(contrast: Contrast, evidence: Evidence, condition: str) -> dict[str, Candidate]:
    """What tuning chose on both sides, by the arm's name; of one arm at two rates the second is `against …`."""
    arm, against = (side.chosen for side in sides(contrast, evidence, condition))
    twice = against.arm == arm.arm and against != arm
    found = {arm.arm: arm, f"against {arm.arm}" if twice else against.arm: against}
    if contrast.minus is None:
        return found
    there = choices(contrast.model_copy(update={"minus": None}), evidence, contrast.minus)
    return found | {f"{name}@{contrast.minus}": c._replace(arm=f"{c.arm}@{contrast.minus}")
                    for name, c in there.items()}  # fmt: skip


def estimate(contrast: Contrast, evidence: Evidence, condition: str, at: float) -> Estimate:
    """The contrast's interval at a level, above 0 as the source claims; of ratios the logarithm."""
    found = _between(contrast, evidence, condition, at)
    if contrast.minus is None:
        return found
    other = _between(contrast, evidence, contrast.minus, at)
    # half-widths add in squares as if the two were independent; what seeds have in common is not made use of
    half = math.hypot(found.high - found.value, other.high - other.value)
    value = found.value - other.value
    return Estimate(value, value - half, value + half, math.hypot(found.sd, other.sd), found.n)


def _between(contrast: Contrast, evidence: Evidence, condition: str, at: float) -> Estimate:
    """The interval between the two sides; what is better when smaller, or claimed to be worse, is turned round."""
    measure = measures.find(contrast.measure)
    arm, against = sides(contrast, evidence, condition)
    found = tuned(arm.scores, against.scores, at, statistic=measure.statistic)
    if measure.higher == contrast.better:
        return found
    return Estimate(-found.value, -found.high, -found.low, found.sd, found.n)


def judge(cell: Cell, evidence: Evidence, receipt: dict[str, Any], k: int) -> dict[str, Any]:
    """The row of one contrast on one task under one condition."""
    contrast, at = cell.contrast, level(k)
    if contrast.analysis:
        analysed = ANALYSES[contrast.analysis](evidence, contrast, cell.condition, at)
        found, unit, ratio, chosen = analysed.estimate, analysed.unit, analysed.ratio, {}
    else:
        measure = measures.find(contrast.measure)
        found, unit, ratio = estimate(contrast, evidence, cell.condition, at), measure.unit, measure.ratio
        chosen = choices(contrast, evidence, cell.condition)
    margin = math.log(contrast.margins[cell.task]) if ratio else contrast.margins[cell.task]
    word = verdict(found.low, found.high, margin, contrast.rule)
    shown = (found.value, found.low, found.high)
    value, low, high = (math.exp(x) for x in shown) if ratio else shown
    rates = [(*place(candidate.arm, cell.condition), candidate.lr) for candidate in chosen.values()]
    return cell.labels | {
        "verdict": "inconclusive" if receipt["profile"] == "smoke" else word,
        "estimate": value, "ci_low": low, "ci_high": high, "unit": unit, "null": 1.0 if ratio else 0.0,
        "level": at, "n_seeds": found.n, "profile": receipt["profile"], "result": receipt["result"],
        "diverged": sum(evidence.diverged(*rate) for rate in rates),
        # the formula supposes a true zero; seeds that were not enough are never said to be
        "seeds_needed": max(found.n + 1, seeds_needed(found.sd, margin, k)) if word == "inconclusive" else None,
        "networks": evidence.networks(contrast, cell.condition),
        "rates": {name: c.lr for name, c in chosen.items()},
        "readouts": {name: c.readout for name, c in chosen.items()},
        "on_edge": any(evidence.on_edge(*rate) for rate in rates), "tests": [],
    }  # fmt: skip


def judge_all(experiment: str, result: Result, receipt: dict[str, Any], task: str) -> list[dict[str, Any]]:
    """Rows of every claim that an experiment decides, on one task, as far as the result's profile went."""
    return judged(evidence_of(experiment, result, receipt, task), receipt)


def evidence_of(experiment: str, result: Result, receipt: dict[str, Any], task: str) -> Evidence:
    """A result beside the plan that it was made by."""
    return Evidence(result, Plan(experiment=load_study()[experiment], task=task, profile=receipt["profile"]))


def judged(evidence: Evidence, receipt: dict[str, Any]) -> list[dict[str, Any]]:
    """`judge_all` of evidence at hand."""
    plan = evidence.plan
    k = contrasts(plan.experiment.name, plan.profile)
    mine = [c for c in cells(plan.experiment.name) if c.task == plan.task and c.in_profile(plan) and evidence.holds(c)]
    return [judge(cell, evidence, receipt, k) for cell in mine]


def exact_rows(claim: Claim) -> list[dict[str, Any]]:
    """Rows of an exact claim: arithmetic, and the tests that hold it."""
    nothing = dict.fromkeys(
        ("ci_low", "ci_high", "n_seeds", "seeds_needed", "result", "level", "profile", "diverged", "networks")
    )
    return [
        nothing | {
            "id": claim.id, "scope": claim.scope, "task": "arithmetic", "condition": f"{row.measure}, {row.condition}",
            "measure": row.measure, "verdict": row.verdict, "estimate": row.estimate, "unit": row.unit, "null": 0.0,
            "margin": row.margin, "rule": row.rule, "rates": {}, "readouts": {}, "on_edge": False,
            "tests": tests_of(claim.id),
        }
        for row in (EXACT[claim.id]() if claim.id in EXACT else [])
    ]  # fmt: skip


def not_run(cell: Cell) -> dict[str, Any]:
    """The row of a contrast that these results do not hold: it says so rather than vanish."""
    empty = dict.fromkeys(
        ("estimate", "ci_low", "ci_high", "n_seeds", "diverged", "seeds_needed", "result", "level", "networks")
    )
    return cell.labels | empty | {"verdict": "not run", "unit": "", "null": 0.0, "rates": {}, "readouts": {},
                                  "on_edge": False, "profile": None, "tests": []}  # fmt: skip


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
