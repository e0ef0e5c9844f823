"""One experiment on one task, from tuning to a stored result; what a notebook calls."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from steadydescent.engine.runs import Run
from steadydescent.engine.settings import Setting
from steadydescent.lr_search import SUGGESTIONS
from steadydescent.study.judging import measures
from steadydescent.study.judging.choosing import (
    Candidate,
    by_candidate,
    choose,
    tuning_scores,
)
from steadydescent.study.judging.places import Place
from steadydescent.study.paths import REPRODUCED, STORE
from steadydescent.study.planning import EXTENSIONS, plan_of
from steadydescent.study.results.provenance import TOKEN
from steadydescent.study.results.roster import PURPOSES
from steadydescent.study.results.store import Result, Store, Tables, write_folder
from steadydescent.study.training.progress import Journal
from steadydescent.study.training.stack_training import pick_device
from steadydescent.study.training.stored_runs import stored
from steadydescent.study.training.sweep import summary, train
from steadydescent.study.training.timing import power_of_two_gain, time_per_example

QUANTILES = [0.1, 0.5, 0.9]


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
            half = self.plan.half(condition)
            low, high = -half, half
            while True:
                scores = self._tuned(condition, range(low, high + 1))
                edges = {i for indices in self.choices[condition].values() for i in indices}
                grown = (
                    low - (low in edges and low > -half - EXTENSIONS),
                    high + (high in edges and high < half + EXTENSIONS),
                )
                if (
                    self.plan.profile == "smoke"
                    or self.plan.experiment.report == "everything"
                    or grown == (low, high)
                ):
                    break
                low, high = grown
            self.tuned[condition] = range(low, high + 1)
            tables.append(scores)
        return pd.concat(tables, ignore_index=True)

    def _tuned(self, condition: str, indices: range) -> pd.DataFrame:
        """Train these grid points of every arm and choose; the mean scores of every candidate."""
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
            parts.append(_means(runs_of, scores, readouts).assign(condition=condition, arm=arm))
        return pd.concat(parts, ignore_index=True)

    def _choose(
        self, condition: str, arm: str, indices: range, runs: pd.DataFrame, scores: pd.DataFrame
    ) -> None:
        """Choose among an arm's tuning runs, by all that rates are tuned by."""
        readouts = self.plan.arms[arm].readouts
        place = Place(condition, arm)
        best: dict[str, Candidate] = {}
        for by in self.plan.tune_by:
            best[by] = choose(by_candidate(runs, scores, readouts, by), place)
        places = {self.plan.rate(condition, arm, i): i for i in indices}
        self.chosen[place] = best
        self.choices[condition][arm] = [places[candidate.lr] for candidate in best.values()]

    def _serve(self, condition: str, arms: list[str], purpose: str, runs: list[Run]) -> None:
        """Note whom runs serve, in place of what served the same purpose before."""
        for arm in arms:
            self.served.setdefault((condition, arm), {})[purpose] = [run.key for run in runs]

    def report(self) -> Tables:
        """Train the report runs: each arm's chosen rate and its two neighbours, or more, all report
        seeds.
        """
        for condition, choices in self.choices.items():
            tuned, report = self.tuned[condition], self.plan.experiment.report
            runs: list[Run] = []
            for arms in self.plan.sharing(condition):
                wanted = {
                    i for arm in (choices if report == "all-arms" else arms) for i in choices[arm]
                }
                near = {i + step for i in wanted for step in (-1, 0, 1)} & set(tuned)
                near = near.union(
                    *(self.plan.besides(condition, arm, tuned, choices) for arm in arms)
                )
                indices = list(tuned) if report == "everything" else sorted(near)
                reporting = self.plan.reporting(condition, arms[0], indices)
                self._serve(condition, arms, "report", reporting)
                runs += reporting
            self._results(runs, f"{self.plan.task}, {condition}, reporting")
        return stored(self.runs.values(), self.store, self.device)[0]

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
        times = time_per_example(self.plan.task, self.plan.size.timed, device=self.device)
        self.timings = times.merge(power_of_two_gain(times), "left", ["batch_size", "round"])
        return self.timings

    def _results(self, runs: list[Run], title: str) -> Tables:
        """Tables of these runs; what the store lacks is trained."""
        distinct = {run.key: run for run in runs}  # two arms may have a rate of the same run
        train(list(distinct.values()), self.store, self.device, self.journal, title)
        self.runs |= distinct
        return stored(distinct.values(), self.store, self.device)[0]

    def save(self, root: Path = REPRODUCED) -> Path:
        """Write the result with its receipt and return its folder."""
        tables, receipts = stored(self.runs.values(), self.store, self.device)
        folder = root / self.plan.place
        roster, by_loss = self._roster(), "loss" in self.plan.tune_by
        result = Result(
            runs=tables.runs,
            roster=roster,
            choices=self._choices(),
            finals=tables.finals,
            quantiles=quantiles(tables),
            measures=measures.kept(tables, roster, self.plan.target, by_loss),
            suggestions=self.suggestions,
            timings=self.timings,
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


def _means(runs: pd.DataFrame, scores: pd.DataFrame, readouts: tuple[str, ...]) -> pd.DataFrame:
    """Mean accuracy and loss over seeds of every candidate: columns lr, readout, accuracy, loss."""
    means = {by: by_candidate(runs, scores, readouts, by).mean() for by in ("accuracy", "loss")}
    return pd.DataFrame({name: mean for name, mean in means.items() if len(mean)}).reset_index()


def quantiles(tables: Tables) -> pd.DataFrame:
    """10 %, 50 % and 90 % quantiles over seeds of validation accuracy, or of a surface's loss,
    along training.
    """
    report = tables.runs[tables.runs.test].rename(columns={"steps": "total"})
    keys = ["task", "optimizer", "schedule", "batch_size", "total", "lr"]
    merged = tables.curves.merge(report[["run", *keys]], on="run")
    by = (
        merged.assign(shown=merged.accuracy.fillna(merged.loss))
        .groupby([*keys, "readout", "step"])
        .shown
    )
    table = (
        by.quantile(QUANTILES)
        .unstack()
        .reindex(columns=QUANTILES)
        .set_axis(["low", "median", "high"], axis=1)
    )
    return table.assign(seeds=by.size()).reset_index().rename(columns={"total": "steps"})


def result_id(experiment: str, task: str, result: Result) -> str:
    """Experiment, task and content, such as `weight-averaging/mnist1d-mlp@3f9c2a7e`.

    The content is the final scores, each split written as one text, `test/scale(severity=3)`.
    """
    split, scores = ["run", "readout", "split"], ["accuracy", "loss", "calibration_error"]
    finals = result.finals.assign(split=split_texts(result.finals))[[*split, *scores]]
    finals = finals.sort_values(split).round({"accuracy": 9, "loss": 9})
    digest = hashlib.sha256(
        np.ascontiguousarray(pd.util.hash_pandas_object(finals, index=False).to_numpy()).tobytes()
    )
    return f"{experiment.replace('_', '-')}/{task}@{digest.hexdigest()[:8]}"


def split_texts(finals: pd.DataFrame) -> pd.Series:
    """The split of each row as one text, a shift with its options behind it."""
    columns = ["split", "shift", "severity", "statistics", "batch"]
    texts = {
        row: f"{row[0]}/{_shift_text(*row[1:])}" if row[1] else row[0]
        for row in finals[columns].drop_duplicates().itertuples(index=False, name=None)
    }
    rows = finals[columns].itertuples(index=False, name=None)
    return pd.Series([texts[row] for row in rows], finals.index, dtype=finals.split.dtype)


def _shift_text(shift: str, severity: Any, statistics: str, batch: Any) -> str:
    options: dict[str, Any] = {"severity": int(severity)}
    if statistics != "frozen":
        options["statistics"] = statistics
    if batch is not pd.NA:
        options["batch"] = int(batch)
    return Setting(shift, options).text()
