"""A result of one experiment on one task, asked for the scores of its arms."""

from collections.abc import Iterable
from functools import cache, cached_property, partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from steadydescent.study.judging import measures
from steadydescent.study.judging.claims import place
from steadydescent.study.judging.statistics import Scores
from steadydescent.study.planning import Plan, Trajectory
from steadydescent.study.results.store import Result

TIE, LOST = 1e-6, 1e3
"""Updates that an accuracy of 1, or a height, weighs where rates are chosen by updates to a target:
it settles ties.
"""


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
            raise ValueError(
                f"none of the rates {sorted({c.lr for c in self.labels})} is the one that was asked for"
            )
        return Candidates(labels, Scores(*(part[:, mask] for part in self.scores)))


class Evidence:
    """The result of one experiment on one task, asked for the scores of its arms."""

    def __init__(self, result: Result, plan: Plan) -> None:
        self.result, self.plan = result, plan
        # contrasts ask for the same tables again and again, and pivots are slow
        self.runs, self.tuning, self.report = (
            cache(self._runs),
            cache(self._tuning_scores),
            cache(self._report_scores),
        )
        self.candidates, self._values = (
            cache(self._candidates),
            cache(partial(measures.values, result)),
        )

    @property
    def task(self) -> str:
        """The task that the result is of."""
        return self.plan.task

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions that arms were compared under."""
        return self.plan.conditions

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms, whatever the condition."""
        return tuple(self.plan.arms)

    def arms_in(self, condition: str) -> list[str]:
        """The arms that are compared under a condition."""
        return self.plan.arms_in(condition)

    def readouts(self, arm: str) -> tuple[str, ...]:
        """The readouts that an arm chooses among."""
        return self.plan.arms[arm].readouts

    def settings(self, condition: str, arm: str) -> Trajectory:
        """What an arm's runs have in common: task, optimizer, schedule, batch_size and steps."""
        return self.plan.trajectory(condition, arm)

    def grid_centre(self, condition: str, arm: str) -> float:
        """The rate at the centre of an arm's grid as it was laid, before tuning extended it."""
        return self.plan.rate(condition, arm, 0)

    def quantiles(self, condition: str, arm: str) -> pd.DataFrame:
        """Quantiles over report seeds along training of an arm's runs, at every rate and readout."""
        return self.settings(condition, arm).of(self.result.quantiles)

    @property
    def tune_by(self) -> tuple[str, ...]:
        """What rates are chosen by, the main one first."""
        return self.plan.tune_by

    @property
    def main_measure(self) -> str:
        """What arms are tuned and shown by: accuracy, or a surface's height."""
        return "height" if "loss" in self.tune_by else "accuracy"

    @cached_property
    def _tuning(self) -> pd.DataFrame:
        """What rates are chosen by, on validation data, larger better: columns run, readout,
        accuracy, loss, …

        Where no rate arrives at the target, all need the same number of updates; the accuracy at
        the end, or a height, then decides, and a run that diverged is the worst.
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
        found = self.settings(condition, arm).of(self.result.runs)
        if not found.test.any():
            raise ValueError(f"the result holds no report runs of {arm!r} under {condition!r}")
        return found

    def reported(self, condition: str, arm: str) -> bool:
        """Whether the result has report runs of an arm; one from before the study asked for it has
        not.
        """
        runs = self.settings(condition, arm).of(self.result.runs)
        finals = self.result.finals[self.result.finals.run.isin(runs[runs.test].run)]
        return bool(finals.readout.isin(self.readouts(arm)).any())

    def _tuning_scores(
        self, condition: str, arm: str, tuned_by: str, report: bool = False
    ) -> pd.DataFrame:
        """Tuning (or report) seeds × candidates (rate, readout): what rates are chosen by, larger
        better.
        """
        runs = self.runs(condition, arm)
        merged = runs[runs.test == report][["run", "lr", "seed"]].merge(self._tuning, on="run")
        merged = merged[merged.readout.isin(self.readouts(arm))]
        return merged.pivot(index="seed", columns=["lr", "readout"], values=tuned_by).sort_index(
            axis=1
        )

    def _report_scores(self, condition: str, arm: str, measure: str) -> pd.DataFrame:
        """Report seeds × candidates (rate, readout) in the measure's unit, at the rates that report
        seeds ran.
        """
        runs = self.runs(condition, arm)
        merged = runs[runs.test][["run", "lr", "seed"]].merge(self._values(measure), on="run")
        merged = merged[merged.readout.isin(self.readouts(arm))]
        return merged.pivot(index="seed", columns=["lr", "readout"], values="value").sort_index(
            axis=1
        )

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
        parts = [
            table.reindex(columns=both).to_numpy(float) for table in (tuning, report, validation)
        ]
        if np.isnan(
            parts[2]
        ).any():  # some runs are from before report runs kept validation scores: use none
            parts[2] = parts[2][:0]
        return Candidates(labels, Scores(*parts))

    def tuned_by(self, measure: str) -> str:
        """What rates are chosen by: the measure's own, but a task without accuracy is tuned by its
        loss.
        """
        wanted = measures.find(measure).tuned_by
        return self.tune_by[0] if wanted == "accuracy" else wanted

    def best_of(
        self, condition: str, arms: Iterable[str], measure: str, tuned_by: str | None = None
    ) -> Candidates:
        """The candidates of several arms together: their best. Each keeps the name it was asked by,
        `last@linear`.
        """
        arms = list(arms)
        parts = [self.candidates(*place(arm, condition), measure, tuned_by) for arm in arms]
        labels = [
            label._replace(arm=arm)
            for arm, part in zip(arms, parts, strict=True)
            for label in part.labels
        ]
        scores = Scores(
            *(
                np.concatenate(columns, axis=1)
                for columns in zip(*(p.scores for p in parts), strict=True)
            )
        )
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

    def half(self, parity: int) -> "Evidence":
        """The same evidence with every second report seed alone: the even (0) or odd (1) ones."""
        runs = self.result.runs
        own = runs[~runs.test | (runs.seed % 2 == parity)].run
        tables = (t[t.run.isin(own)] if "run" in t else t for t in self.result)
        return Evidence(Result(*tables), self.plan)
