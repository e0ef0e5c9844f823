"""One experiment on one task, from tuning to a stored result; what a notebook calls."""

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from steadydescent.engine.runs import Run
from steadydescent.lr_search import SUGGESTIONS
from steadydescent.study.judging import measures
from steadydescent.study.judging.choosing import (
    BY_STEPS,
    Candidate,
    by_candidate,
    choose,
    scored,
    tuning_scores,
)
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.places import Place
from steadydescent.study.paths import REPRODUCED, STORE
from steadydescent.study.planning import EXTENSIONS, FIRST_REPORT_SEED, plan_of
from steadydescent.study.results.provenance import TOKEN
from steadydescent.study.results.roster import PURPOSES
from steadydescent.study.results.store import Result, Store, Tables, write_folder
from steadydescent.study.results.tables import empty
from steadydescent.study.training.edge_sides import crowded_sides
from steadydescent.study.training.progress import Journal
from steadydescent.study.training.stack_training import pick_device
from steadydescent.study.training.stored_runs import stored
from steadydescent.study.training.sweep import summary, train
from steadydescent.study.training.timing import power_of_two_gain, time_per_example
from steadydescent.study.training.trial_tables import means, quantiles, result_id


class Trial:
    """Tune every arm, report around the choices, keep the result.

    `own` are parameters that vary the study, such as `batch_sizes=[16, 48]`, `seeds` or `updates`
    (`steadydescent.study.planning.variations`); None is what the study says.
    """

    def __init__(
        self,
        experiment: str,
        task: str,
        profile: str,
        device: str = "auto",
        store: Path = STORE,
        **own: Any,
    ) -> None:
        self.plan = plan_of(experiment, task, profile, device, **own)
        self.device = pick_device(device)
        self.journal = Journal()
        self.store = Store(store, warn=lambda text: self.journal.tell(note=text))
        self.runs: dict[str, Run] = {}
        self.choices: dict[str, dict[str, list[int]]] = {}
        self.chosen: dict[tuple[str, str], dict[str, Candidate]] = {}
        self.tuned: dict[str, range] = {}
        self.reported: dict[tuple[str, str], set[int]] = {}
        self.served: dict[tuple[str, str], dict[str, list[str]]] = {}
        self.suggestions = pd.DataFrame({"run": [], "rule": [], "rate": []})
        self.timings = pd.DataFrame(
            {"batch_size": [], "round": [], "seconds_per_example": [], "gain": []}
        )

    def tune(self) -> pd.DataFrame:
        """Train the tuning runs of every condition; a grid whose optimum lies on its edge grows for
        every arm.

        Returns the mean validation accuracy and loss of every candidate, `[condition, arm, lr,
        readout]`.
        """
        tables = []
        for condition in self.plan.conditions:
            points = self.plan.grid_points(condition)
            low, high = points[0], points[-1]
            while True:
                scores = self._tuned(condition, range(low, high + 1))
                edges = {i for indices in self.choices[condition].values() for i in indices}
                allowed = self._allowed(condition)
                grown = (
                    low - (low in edges and low - 1 in allowed),
                    high + (high in edges and high + 1 in allowed),
                )
                if grown == (low, high):
                    break
                low, high = grown
            tables.append(scores)
        return pd.concat(tables, ignore_index=True)

    def _allowed(self, condition: str) -> range:
        """The grid points that may be tuned: some beyond each edge where a grid may grow."""
        points = self.plan.grid_points(condition)
        if self.plan.profile == "smoke" or self.plan.experiment.report == "everything":
            return points
        return range(points[0] - EXTENSIONS, points[-1] + EXTENSIONS + 1)

    def _tuned(self, condition: str, indices: range) -> pd.DataFrame:
        """Train these grid points of every arm and choose; the mean scores of every candidate."""
        self.tuned[condition] = indices
        asked = []
        for arms in self.plan.sharing(condition):
            runs = self.plan.tuning(condition, arms[0], indices)
            self._serve(condition, arms, "tuning", runs)
            asked += runs
        tables = self._results(asked, f"{self.plan.task}, {condition}, tuning")
        by_loss = "loss" in self.plan.tune_by
        reached = measures.derived(tables, self.plan.target, by_loss)
        scores = tuning_scores(tables.runs, tables.finals, reached)
        self.choices[condition], parts = {}, []
        for arm in self.plan.arms_in(condition):
            keys, readouts = self.served[condition, arm]["tuning"], self.plan.arms[arm].readouts
            runs_of = tables.runs[tables.runs.run.isin(keys)]
            self._choose(condition, arm, indices, runs_of, scores)
            parts.append(means(runs_of, scores, readouts).assign(condition=condition, arm=arm))
        return pd.concat(parts, ignore_index=True)

    def _choose(
        self, condition: str, arm: str, indices: range, runs: pd.DataFrame, scores: pd.DataFrame
    ) -> None:
        """Choose among an arm's tuning runs, by all that rates are tuned by."""
        readouts = self.plan.arms[arm].readouts
        place = Place(condition, arm)
        best: dict[str, Candidate] = {}
        for by in self.plan.tune_by:
            table = by_candidate(runs, scores, readouts, by)
            if by != BY_STEPS or scored(table):  # every rate may lose runs
                best[by] = choose(table, place)
        places = {self.plan.rate(condition, arm, i): i for i in indices}
        self.chosen[place] = best
        self.choices[condition][arm] = [places[candidate.lr] for candidate in best.values()]

    def _choose_by_steps(self, tables: Tables, measured: pd.DataFrame) -> None:
        """Choose by steps to target among the rates of report runs, which have now shown how many
        runs each rate loses.
        """
        scores = tuning_scores(tables.runs, tables.finals, measured)
        for (condition, arm), best in self.chosen.items():
            if best.pop(BY_STEPS, None) is None:
                continue
            served, runs = self.served[condition, arm], tables.runs
            reported = runs[runs.run.isin(served.get("report", ()))].lr
            mine = runs[runs.run.isin(served["tuning"]) & runs.lr.isin(reported)]
            table = by_candidate(mine, scores, self.plan.arms[arm].readouts, BY_STEPS)
            if scored(table):
                best[BY_STEPS] = choose(table, Place(condition, arm))

    def _serve(self, condition: str, arms: list[str], purpose: str, runs: list[Run]) -> None:
        """Note whom runs serve, in place of what served the same purpose before."""
        for arm in arms:
            self.served.setdefault((condition, arm), {})[purpose] = [run.key for run in runs]

    def report(self) -> Tables:
        """Train the report runs: each arm's chosen rate and its two neighbours, or more, all report
        seeds; and further rates while tuning, done afresh, would often choose the outermost.
        """
        for condition in self.choices:
            changed = self._report(condition, {})
            while beyond := self._beyond(condition, changed):
                points = {i for indices in beyond.values() for i in indices}
                tuned = {*self.tuned[condition], *points}
                grown = len(tuned) > len(self.tuned[condition])
                if grown:
                    self._tuned(condition, range(min(tuned), max(tuned) + 1))
                reported = self._report(condition, beyond)
                changed = self.plan.arms_in(condition) if grown else reported
        return stored(self.runs.values(), self.store, self.device)[0]

    def _report(self, condition: str, besides: Mapping[str, set[int]]) -> list[str]:
        """Train the report runs of a condition: around its choices, what was reported before, and
        these grid points of arms besides. Returns the arms that have more of them than before.
        """
        runs: list[Run] = []
        before = dict(self.reported)
        for arms in self.plan.sharing(condition):
            indices = self._near_choices(condition, arms)
            for arm in arms:
                indices |= self.reported.get((condition, arm), set()) | besides.get(arm, set())
            reporting = self.plan.reporting(condition, arms[0], sorted(indices))
            self._serve(condition, arms, "report", reporting)
            self.reported |= {(condition, arm): indices for arm in arms}
            runs += reporting
        self._train(runs, f"{self.plan.task}, {condition}, reporting")
        places = [Place(condition, arm) for arm in self.plan.arms_in(condition)]
        return [place.arm for place in places if self.reported[place] != before.get(place)]

    def _near_choices(self, condition: str, arms: list[str]) -> set[int]:
        """The grid points that report seeds run for arms which share their runs."""
        choices, tuned = self.choices[condition], self.tuned[condition]
        report = self.plan.experiment.report
        if report == "everything":
            return set(tuned)
        wanted = {i for arm in (choices if report == "all-arms" else arms) for i in choices[arm]}
        near = {i + step for i in wanted for step in (-1, 0, 1)} & set(tuned)
        return near.union(*(self.plan.besides(condition, arm, tuned, choices) for arm in arms))

    def _beyond(self, condition: str, arms: Collection[str]) -> dict[str, set[int]]:
        """Of these arms: arm → the next grid points on the sides where redraws of its tuning crowd,
        as far as the grid may grow.
        """
        allowed, evidence = self._allowed(condition), self._evidence(condition, arms)
        found = {}
        for arm in arms:
            reported = self.reported[condition, arm]
            ends = {-1: min(reported), 1: max(reported)}
            sides = crowded_sides(evidence, condition, arm)
            found[arm] = {ends[side] + side for side in sides} & set(allowed)
        return {arm: points for arm, points in found.items() if points}

    def _evidence(self, condition: str, arms: Collection[str]) -> Evidence:
        """What is known of some arms of a condition so far, as a result that is judged holds it."""
        roster = self._roster().query(
            "condition == @condition and arm in @arms and purpose != 'range test'"
        )
        runs = [self.runs[key] for key in dict.fromkeys(roster.run)]
        tables = stored(runs, self.store, self.device)[0]
        design = self.plan.design.model_dump()
        return Evidence(self._result(tables, roster), {"design": design})

    def range_tests(self) -> pd.DataFrame:
        """Run the range tests; the rates that each rule suggests, columns run, rule, rate."""
        rows, every = [], []
        for length in self.plan.size.ramps:
            runs = self.plan.range_tests(length)
            every += runs
            tables = self._results(runs, f"{self.plan.task}, range tests of {length} updates")
            losses = tables.measures[tables.measures.measure == "loss"].sort_values("step")
            by_run = losses.groupby("run").value
            for run in runs:
                for rule, suggest in SUGGESTIONS.items():
                    with suppress(ValueError):  # a loss that never falls suggests nothing
                        rate = suggest(run.rates(), by_run.get_group(run.key).to_numpy())
                        rows.append((run.key, rule, rate))
        condition = self.plan.conditions[0]
        self._serve(condition, self.plan.arms_in(condition)[:1], "range test", every)
        self.suggestions = pd.DataFrame(rows, columns=["run", "rule", "rate"])
        return self.suggestions

    def time_sizes(self) -> pd.DataFrame:
        """Time an example takes at each size in a loop over one network, and what powers of two
        save: columns batch_size, round, seconds_per_example, gain.
        """
        times = time_per_example(
            self.plan.task, self.plan.size.timed, device=self.device, seed=FIRST_REPORT_SEED
        )
        self.timings = times.merge(power_of_two_gain(times), "left", ["batch_size", "round"])
        return self.timings

    def _train(self, runs: list[Run], title: str) -> dict[str, Run]:
        """The runs by key; what the store lacks is trained."""
        distinct = {run.key: run for run in runs}  # two arms may have a rate of the same run
        train(list(distinct.values()), self.store, self.device, self.journal, title)
        self.runs |= distinct
        return distinct

    def _results(self, runs: list[Run], title: str) -> Tables:
        """Tables of these runs; what the store lacks is trained."""
        return stored(self._train(runs, title).values(), self.store, self.device)[0]

    def save(self, root: Path = REPRODUCED) -> Path:
        """Write the result with its receipt and return its folder."""
        tables, receipts = stored(self.runs.values(), self.store, self.device)
        folder = root / self.plan.place
        result = self._result(tables, self._roster())
        self._choose_by_steps(tables, result.measures)
        result = result._replace(
            choices=self._choices(),
            quantiles=quantiles(tables),
            sampling=measures.sampled(tables),
        )
        note = summary(receipts, self.device) | {
            "result": result_id(self.plan.name, self.plan.task, result),
            "profile": self.plan.profile,
            "token": os.environ.get(TOKEN, ""),
            "networks": len(self.runs),
            "updates": self.plan.size.steps,
            "seeds": {"tuning": self.plan.size.tuning, "report": self.plan.size.report},
            "target": self.plan.target,
            "design": self.plan.design.model_dump(),
        }
        note |= {"own": self.plan.own} if self.plan.own else {}
        write_folder(folder, result, note, replace=True)
        return folder

    def _result(self, tables: Tables, roster: pd.DataFrame) -> Result:
        """The tables of a result, but those that only pages need."""
        by_loss = "loss" in self.plan.tune_by
        return Result(
            runs=tables.runs,
            roster=roster,
            choices=self._choices(),
            finals=tables.finals,
            quantiles=empty("quantiles"),
            measures=measures.kept(tables, roster, self.plan.target, by_loss),
            suggestions=self.suggestions,
            timings=self.timings,
        )

    def _roster(self) -> pd.DataFrame:
        rows = [
            (run, condition, arm, purpose)
            for condition in self.plan.conditions
            for arm in self.plan.arms_in(condition)
            for purpose in PURPOSES
            for run in self.served.get((condition, arm), {}).get(purpose, ())
        ]
        return pd.DataFrame(rows, columns=["run", "condition", "arm", "purpose"])

    def _choices(self) -> pd.DataFrame:
        rows = [
            (condition, arm, by, candidate.lr, candidate.readout)
            for (condition, arm), best in self.chosen.items()
            for by, candidate in best.items()
        ]
        return pd.DataFrame(rows, columns=["condition", "arm", "tuned_by", "lr", "readout"])
