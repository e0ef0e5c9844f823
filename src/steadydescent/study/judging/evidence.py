"""A result of one experiment on one task, asked for the scores of its arms.


What the arms, their runs and their choices are stands in the result itself: its roster, its
choices, and the design in its receipt. No plan is asked.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from steadydescent.study.judging import measures
from steadydescent.study.judging.choosing import Candidate, by_candidate, tuning_scores
from steadydescent.study.judging.places import Place
from steadydescent.study.judging.statistics import Scores
from steadydescent.study.results.design import Design
from steadydescent.study.results.roster import SETTINGS, Trajectory
from steadydescent.study.results.store import Result


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
        labels = [label for label, stays in zip(self.labels, mask, strict=True) if stays]
        if not labels:
            rates = sorted({label.lr for label in self.labels})
            raise ValueError(f"none of the rates {rates} is the one that was asked for")
        return Candidates(labels, Scores(*(part[:, mask] for part in self.scores)))


class Evidence:
    """The result of one experiment on one task, asked for the scores of its arms.

    Args:
        result: its tables.
        receipt: what is said of them; its `design` counts here.
    """

    def __init__(self, result: Result, receipt: Mapping[str, Any]) -> None:
        self.result, self.receipt, self.design = result, receipt, Design.of(receipt)
        # contrasts ask for the same tables again and again, and pivots are slow
        self.runs, self.settings = cache(self._runs), cache(self._settings)
        self.tuning, self.report = cache(self._tuning_scores), cache(self._report_scores)
        self.candidates, self.values = (
            cache(self._candidates),
            cache(partial(measures.values, result)),
        )

    @property
    def experiment(self) -> str:
        """The experiment that the result is of."""
        return self.design.experiment

    @property
    def task(self) -> str:
        """The task that the result is of."""
        return self.design.task

    @cached_property
    def _served(self) -> dict[tuple[str, str], list[str]]:
        """Condition and arm → keys of its tuning and report runs, in the study's order."""
        roster = self.result.roster[self.result.roster.purpose != "range test"]
        return {
            (str(condition), str(arm)): list(part.run)
            for (condition, arm), part in roster.groupby(["condition", "arm"], sort=False)
        }

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions that arms were compared under."""
        return tuple(dict.fromkeys(condition for condition, _ in self._served))

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms, whatever the condition."""
        return tuple(self.design.arms)

    def arms_in(self, condition: str) -> list[str]:
        """The arms that are compared under a condition."""
        return [arm for own, arm in self._served if own == condition]

    def readouts(self, arm: str) -> tuple[str, ...]:
        """The readouts that an arm chooses among."""
        return self.design.arms[arm]

    def _settings(self, condition: str, arm: str) -> Trajectory:
        """What an arm's runs have in common: task, optimizer, schedule, batch_size and steps."""
        first = self.runs(condition, arm).iloc[0]
        task, optimizer, schedule, batch_size, steps = (first[name] for name in SETTINGS)
        return Trajectory(task, optimizer, schedule, int(batch_size), int(steps))

    def grid_centre(self, condition: str, arm: str) -> float:
        """The rate at the centre of an arm's grid as it was laid, before tuning extended it."""
        return self.design.centres[condition][arm]

    def quantiles(self, condition: str, arm: str) -> pd.DataFrame:
        """Quantiles over report seeds along training of an arm, at every rate and readout."""
        table = self.result.quantiles
        return table[(table[SETTINGS] == list(self.settings(condition, arm))).all(axis=1)]

    @property
    def tune_by(self) -> tuple[str, ...]:
        """What rates are chosen by, the main one first."""
        return self.design.tuned_by

    @property
    def main_measure(self) -> str:
        """What arms are tuned and shown by: accuracy, or a surface's height."""
        return "height" if "loss" in self.tune_by else "accuracy"

    @cached_property
    def _scores(self) -> pd.DataFrame:
        """What rates are chosen by: see `tuning_scores`."""
        return tuning_scores(self.result.runs, self.result.finals, self.result.measures)

    def _runs(self, condition: str, arm: str) -> pd.DataFrame:
        """The runs of an arm, those of tuning and those that report."""
        runs = self.result.runs
        mine = runs[runs.run.isin(self._served.get((condition, arm), []))]
        if not mine.test.any():
            raise ValueError(f"the result holds no report runs of {arm!r} under {condition!r}")
        return mine

    def _tuning_scores(
        self, condition: str, arm: str, tuned_by: str, report: bool = False
    ) -> pd.DataFrame:
        """Tuning (or report) seeds × candidates (rate, readout): what rates are chosen by, larger
        better.
        """
        runs = self.runs(condition, arm)
        mine = runs[runs.test == report]
        return by_candidate(mine, self._scores, self.readouts(arm), tuned_by)

    def _report_scores(self, condition: str, arm: str, measure: str) -> pd.DataFrame:
        """Report seeds × candidates (rate, readout) in the measure's unit, at the rates that report
        seeds ran.
        """
        runs = self.runs(condition, arm)
        return by_candidate(runs[runs.test], self.values(measure), self.readouts(arm), "value")

    def chosen(self, condition: str, arm: str, measure: str = "") -> Candidate:
        """The arm's rate and readout as tuning chose them, by the measure's own way of tuning.

        A way of tuning that the experiment did not ask for chooses among the rates that report
        seeds ran.
        """
        by, choices = self.tuned_by(measure or self.main_measure), self.result.choices
        at = (choices.condition == condition) & (choices.arm == arm) & (choices.tuned_by == by)
        for row in choices[at].itertuples():
            return Candidate(row.lr, row.readout, Place(condition, arm))
        return self.candidates(condition, arm, measure or self.main_measure).chosen

    def _candidates(
        self, condition: str, arm: str, measure: str = "accuracy", tuned_by: str | None = None
    ) -> Candidates:
        """The arm's candidates at the rates that report seeds ran."""
        by = tuned_by or self.tuned_by(measure)
        tuning, validation = (self.tuning(condition, arm, by, report) for report in (False, True))
        report = self.report(condition, arm, measure)
        both = [column for column in tuning.columns if column in set(report.columns)]
        if not both:
            raise ValueError(f"{arm!r} has no scores in {measure!r} under {condition!r}")
        labels = [Candidate(lr, readout, Place(condition, arm)) for lr, readout in both]
        parts = [
            table.reindex(columns=both).to_numpy(float) for table in (tuning, report, validation)
        ]
        # some runs are from before report runs kept validation scores: use none
        if np.isnan(parts[2]).any():
            parts[2] = parts[2][:0]
        return Candidates(labels, Scores(*parts))

    def tuned_by(self, measure: str) -> str:
        """What rates are chosen by: the measure's own, but a task without accuracy is tuned by its
        loss.
        """
        wanted = measures.measure_named(measure).tuned_by
        return self.tune_by[0] if wanted == "accuracy" else wanted

    def best_of(
        self, places: Sequence[Place], measure: str, tuned_by: str | None = None
    ) -> Candidates:
        """The candidates of several arms together: their best."""
        parts = [self.candidates(*place, measure, tuned_by) for place in places]
        tables = zip(*(part.scores for part in parts), strict=True)
        scores = Scores(*(np.concatenate(columns, axis=1) for columns in tables))
        return Candidates([label for part in parts for label in part.labels], scores)

    def holds(self, measure: str) -> bool:
        """Whether any report run has the measure."""
        return not self.values(measure).empty

    def on_edge(self, condition: str, arm: str, lr: float) -> bool:
        """Whether a rate is the lowest or highest tried: the true optimum may lie beyond."""
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
        return Evidence(Result(*tables), self.receipt)
