"""One experiment on one task, from tuning to a stored result; what a notebook calls."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from steadydescent.engine.runs import Run
from steadydescent.lr_search import SUGGESTIONS
from steadydescent.study.judging import measures
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.paths import REPRODUCED, STORE
from steadydescent.study.planning import EXTENSIONS, Plan, plan_of
from steadydescent.study.results.provenance import TOKEN
from steadydescent.study.results.store import Result, Store, Tables, write_folder
from steadydescent.study.training.progress import Journal
from steadydescent.study.training.sweep import pick_device, stored, summary, train
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
        self.tuned: dict[str, range] = {}
        self.extra: list[pd.DataFrame] = []

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
                evidence = self._tuned(condition, range(low, high + 1))
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
            tables.append(self._scores(condition, evidence))
        return pd.concat(tables, ignore_index=True)

    def _tuned(self, condition: str, indices: range) -> "TuningEvidence":
        """Train these grid points of every arm and choose."""
        asked = [
            run
            for arm, *_ in self.plan.sharing(condition)
            for run in self.plan.tuning(condition, arm, indices)
        ]
        evidence = self._evidence(self._results(asked, f"{self.plan.task}, {condition}, tuning"))
        self.choices[condition] = {}
        for arm in self.plan.arms_in(condition):
            rates = [self.plan.rate(condition, arm, i) for i in indices]
            chosen = [
                evidence.tuning(condition, arm, by).mean().idxmax()[0] for by in self.plan.tune_by
            ]
            self.choices[condition][arm] = [indices[rates.index(lr)] for lr in chosen]
        return evidence

    def _scores(self, condition: str, evidence: "TuningEvidence") -> pd.DataFrame:
        """The mean scores of every candidate under a condition."""
        parts = []
        for arm in self.plan.arms_in(condition):
            scores = {by: evidence.tuning(condition, arm, by).mean() for by in ("accuracy", "loss")}
            table = pd.DataFrame({name: s for name, s in scores.items() if len(s)}).reset_index()
            parts.append(table.assign(condition=condition, arm=arm))
        return pd.concat(parts, ignore_index=True)

    def _evidence(self, tables: Tables) -> "TuningEvidence":
        """What tuning may look at."""
        found = measures.derived(tables, self.plan.target, "loss" in self.plan.tune_by)
        return TuningEvidence(Result(tables.runs, tables.finals, pd.DataFrame(), found), self.plan)

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
                runs += self.plan.reporting(condition, arms[0], indices)
            self._results(runs, f"{self.plan.task}, {condition}, reporting")
        return stored(self.runs.values(), self.store, self.device)[0]

    def range_tests(self) -> pd.DataFrame:
        """Run the range tests; the rates that each rule suggests, columns run, readout, measure,
        step, value.
        """
        rows = []
        for length in self.plan.size.ramps:
            runs = self.plan.range_tests(length)
            tables = self._results(runs, f"{self.plan.task}, range tests of {length} updates")
            losses = (
                tables.measures[tables.measures.measure == "loss"]
                .sort_values("step")
                .groupby("run")
                .value
            )
            for run in runs:
                for rule, suggest in SUGGESTIONS.items():
                    with suppress(ValueError):  # a loss that never falls suggests nothing
                        rate = suggest(run.rates(), losses.get_group(run.key).to_numpy())
                        rows.append((run.key, "last", f"suggestion/{rule}", rate))
        self.extra.append(measures.table(rows))
        return self.extra[-1]

    def time_sizes(self) -> pd.DataFrame:
        """Time an example takes at each size in a loop over one network, and what powers of two
        save.
        """
        times = time_per_example(self.plan.task, self.plan.size.timed, device=self.device)
        gains = power_of_two_gain(times)
        seconds = {"measure": "seconds per example", "value": times.seconds_per_example}
        saved = {"measure": "power-of-two gain", "value": gains.gain}
        for table, told in ((times, seconds), (gains, saved)):
            sizes = table.batch_size.astype(str)
            self.extra.append(
                pd.DataFrame({"run": "", "readout": sizes, "step": table["round"], **told})
            )
        return times

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
        result = Result(
            tables.runs,
            tables.finals,
            quantiles(tables),
            measures.kept(tables, self.plan, self.extra),
        )
        note = summary(receipts, self.device) | {
            "result": result_id(self.plan.name, self.plan.task, result),
            "profile": self.plan.profile,
            "token": os.environ.get(TOKEN, ""),
            "networks": len(self.runs),
            "updates": self.plan.size.steps,
            "seeds": {"tuning": self.plan.size.tuning, "report": self.plan.size.report},
            "target": self.plan.target,
        }
        note |= {"own": self.plan.own} if self.plan.own else {}
        write_folder(folder, result, note, replace=True)
        return folder


class TuningEvidence(Evidence):
    """Evidence of tuning runs alone."""

    def _runs(self, condition: str, arm: str) -> pd.DataFrame:
        return self.plan.trajectory(condition, arm).of(self.result.runs)


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
    """Experiment, task and content, such as `weight-averaging/mnist1d-mlp@3f9c2a7e`."""
    finals = result.finals.sort_values(["run", "readout", "split"]).round(
        {"accuracy": 9, "loss": 9}
    )
    digest = hashlib.sha256(
        np.ascontiguousarray(pd.util.hash_pandas_object(finals, index=False).to_numpy()).tobytes()
    )
    return f"{experiment.replace('_', '-')}/{task}@{digest.hexdigest()[:8]}"
