"""A result of one experiment on one task, asked for the scores of its arms.

What the arms, their runs and their choices are stands in the result itself: its roster, its
choices, and the design in its receipt. No plan is asked.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steadydescent.study.judging import measures
from steadydescent.study.judging.choosing import (
    BY_STEPS,
    Candidate,
    by_candidate,
    lost_rates,
    tuning_scores,
)
from steadydescent.study.judging.edges import edge_shares
from steadydescent.study.judging.measures.sampling import CANDIDATE, variance
from steadydescent.study.judging.places import Place
from steadydescent.study.judging.statistics import Array, Scores, shares
from steadydescent.study.results.design import Design
from steadydescent.study.results.roster import SETTINGS, Trajectory
from steadydescent.study.results.store import Result

NEVER_CHOSEN = -1e12
"""A score that no choice falls on while another candidate has one."""


class NotAnswerable(ValueError):
    """What a contrast compares is not to be had from a result; the message says why."""


class Candidates(NamedTuple):
    """An arm's candidates and their scores, for every measure and rate that a contrast asks for."""

    labels: list[Candidate]
    scores: Scores

    @property
    def chosen(self) -> Candidate:
        return self.labels[self.scores.chosen()]

    @property
    def weights(self) -> Array:
        """The share of redraws that each candidate is chosen in, `[C]`."""
        return shares(self.scores)

    def only(self, keep: Iterable[bool], what: str) -> "Candidates":
        """Those candidates alone; `what` says of errors which they are to be.

        Raises:
            NotAnswerable: where there are none.
        """
        mask = np.array(list(keep))
        labels = [label for label, stays in zip(self.labels, mask, strict=True) if stays]
        if not labels:
            known = ", ".join(sorted({f"{label.lr:g} {label.readout}" for label in self.labels}))
            raise NotAnswerable(f"no run has {what}; what is known are {known}")
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
        self.arrivals = cache(self._arrivals_of)

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

    def _settings(self, condition: str, arm: str, lr: float | None = None) -> Trajectory:
        """What an arm's runs, or those at a rate, have in common: task, optimizer, schedule,
        batch_size and steps.

        Where the options of its rule were searched, a rate has its own and all have the rule's
        name.
        """
        runs = self.runs(condition, arm)
        own = runs[runs.lr == lr] if lr is not None else runs
        if own.empty:
            raise ValueError(f"no run of {arm!r} under {condition!r} has the rate {lr}")
        task, optimizer, schedule, batch_size, steps = (own.iloc[0][name] for name in SETTINGS)
        if own.optimizer.nunique() > 1:
            optimizer = optimizer.partition("(")[0]
        return Trajectory(task, optimizer, schedule, int(batch_size), int(steps))

    def grid_centre(self, condition: str, arm: str) -> float:
        """The rate at the centre of an arm's grid as it was laid, before tuning extended it."""
        return self.design.centres[condition][arm]

    def quantiles(self, condition: str, arm: str) -> pd.DataFrame:
        """Quantiles over report seeds along training of an arm, at every rate and readout."""
        return self._of_runs(self.result.quantiles, self.runs(condition, arm), SETTINGS)

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

    @cached_property
    def _lost(self) -> pd.DataFrame:
        return lost_rates(self.result.runs, self.result.measures)

    def lost_rates(self, condition: str, arm: str) -> pd.DataFrame:
        """How many runs of an arm each rate loses: columns lr, runs, diverged, above, excluded.

        `above` counts those that climbed above the ceiling; what is excluded is no candidate for
        steps to target.
        """
        mine = self._of_runs(self._lost, self.runs(condition, arm), [*SETTINGS, "lr"])
        return mine.drop(columns=SETTINGS).sort_values("lr", ignore_index=True)

    @staticmethod
    def _of_runs(table: pd.DataFrame, runs: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
        """The rows whose settings are those of a run."""
        mine = pd.MultiIndex.from_frame(runs[columns].drop_duplicates())
        return table[pd.MultiIndex.from_frame(table[columns]).isin(mine)]

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
        mine, scores = runs[runs.test == report], self._scores
        if readouts := measures.single_checkpoints(tuned_by):
            scores = measures.best_single_by_validation(self.result.finals, readouts)
            tuned_by = "value"
        return by_candidate(mine, scores, self.readouts(arm), tuned_by)

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
        out = self.lost_rates(condition, arm) if by == BY_STEPS else None
        for row in choices[at].itertuples():
            if out is None or not out.excluded[out.lr == row.lr].any():
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
            table.reindex(columns=both).to_numpy(float, copy=True)
            for table in (tuning, report, validation)
        ]
        if BY_STEPS in (by, measures.measure_named(measure).tuned_by):
            lost = self._that_lose_runs(condition, arm, both)
            for choosing in (parts[0], parts[2]):
                choosing[:, lost] = NEVER_CHOSEN
        # some runs are from before report runs kept validation scores: use none
        if np.isnan(parts[2]).any():
            parts[2] = parts[2][:0]
        return Candidates(labels, Scores(*parts))

    def _that_lose_runs(
        self, condition: str, arm: str, candidates: list[tuple[float, str]]
    ) -> NDArray[np.bool_]:
        """Which candidates lose too many runs to be chosen for their speed, `[C]`.

        They stay among the candidates: a rate beside them is no edge of what was tried.
        """
        out = self.lost_rates(condition, arm)
        excluded = set(out[out.excluded].lr)
        lost = np.array([lr in excluded for lr, _ in candidates])
        if lost.all():
            raise NotAnswerable(
                f"more than 5 % of the runs of {arm!r} under {condition!r} diverge or climb too "
                "high at every rate that report seeds ran"
            )
        return lost

    def scored(self, condition: str, arm: str, values: pd.DataFrame) -> pd.DataFrame:
        """Report seeds × candidates (rate, readout) of own values: columns run, readout, value."""
        runs = self.runs(condition, arm)
        return by_candidate(runs[runs.test], values, self.readouts(arm), "value")

    def _arrivals_of(self, condition: str, arm: str) -> pd.DataFrame:
        """Report seeds × candidates: 1 where a run holds its target to the end, else 0."""
        return self.scored(condition, arm, self._arrivals)

    @cached_property
    def _arrivals(self) -> pd.DataFrame:
        """Arrivals of all runs; where a result does not say, those before the run's end."""
        rows = self.result.measures
        if not (known := rows[rows.measure == measures.ARRIVAL]).empty:
            return known[["run", "readout", "value"]]
        needed = rows[rows.measure == BY_STEPS].merge(self.result.runs[["run", "steps"]], on="run")
        arrived = (needed.value < needed.steps).astype(float)
        return needed.assign(value=arrived)[["run", "readout", "value"]]

    def edges(self, condition: str, arm: str, tuned_by: str | None = None) -> dict[str, float]:
        """How much of the redraws of an arm's tuning end at each edge: see `edge_shares`."""
        measure = BY_STEPS if tuned_by == BY_STEPS else self.main_measure
        found = self.candidates(condition, arm, measure, tuned_by)
        return edge_shares(found.scores, found.labels)

    def test_set(self, weights: Mapping[Candidate, float]) -> tuple[float, int] | None:
        """The variance, in percent squared, that another test set of as many examples would give
        Σ weight·accuracy, and its degrees of freedom.

        None where predictions of one of the candidates are not known.
        """
        known = all(c.lr in set(self.runs(*c.place).lr) for c in weights)
        if not (weights and known):
            return None
        rows = [(*self.settings(*c.place, c.lr), c.lr, c.readout) for c in weights]
        w = pd.Series(list(weights.values()), pd.MultiIndex.from_tuples(rows, names=CANDIDATE))
        found = variance(self.result.sampling, w.groupby(level=list(range(len(CANDIDATE)))).sum())
        return found and (found[0] * 100**2, found[1])

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
