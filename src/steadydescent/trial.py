"""One experiment on one task, from tuning to a stored result; what a notebook calls."""

import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from steadydescent import measures
from steadydescent.judging import Evidence
from steadydescent.lr_search import SUGGESTIONS
from steadydescent.paths import REPRODUCED, STORE
from steadydescent.progress import Journal
from steadydescent.results import Result, Store, Tables, write_folder
from steadydescent.runs import Run
from steadydescent.study import EXTENSIONS, Parameters, Plan, load_study
from steadydescent.sweep import pick_device, summary, train
from steadydescent.timing import power_of_two_gain, time_per_example

QUANTILES = [0.1, 0.5, 0.9]


class Trial:
    """Tune every arm, report around the choices, keep the result."""

    def __init__(self, experiment: str, task: str, profile: str, device: str = "auto", store: Path = STORE) -> None:
        given = Parameters(experiment=experiment, task=task, profile=profile, device=device)
        self.plan = Plan(experiment=load_study()[experiment], task=task, profile=profile)
        self.device = pick_device(given.device)
        self.journal = Journal()
        self.store = Store(store, warn=lambda text: self.journal.tell(note=text))
        self.runs: dict[str, Run] = {}
        self.choices: dict[str, dict[str, list[int]]] = {}
        self.tuned: dict[str, range] = {}
        self.extra: list[pd.DataFrame] = []

    def tune(self) -> pd.DataFrame:
        """Train the tuning runs of every condition; a grid whose optimum lies on its edge grows for every arm.

        Returns the mean validation accuracy and loss of every candidate, `[condition, arm, lr, readout]`.
        """
        tables = []
        for condition in self.plan.conditions:
            half = self.plan.half(condition)
            low, high = -half, half
            while True:
                found = self._tuned(condition, range(low, high + 1))
                edges = {i for indices in self.choices[condition].values() for i in indices}
                grown = (low - (low in edges and low > -half - EXTENSIONS),
                         high + (high in edges and high < half + EXTENSIONS))  # fmt: skip
                if self.plan.profile == "smoke" or self.plan.experiment.report == "everything" or grown == (low, high):
                    break
                low, high = grown
            self.tuned[condition] = range(low, high + 1)
            tables.append(found)
        return pd.concat(tables, ignore_index=True)

    def _tuned(self, condition: str, indices: range) -> pd.DataFrame:
        """Train these grid points of every arm and choose; the mean scores of every candidate."""
        runs = {
            run.key: run for arm in self.plan.arms_in(condition) for run in self.plan.tuning(condition, arm, indices)
        }
        tables = self._train(list(runs.values()), f"{self.plan.task}, {condition}, tuning")
        evidence = self._evidence(tables)
        parts = []
        self.choices[condition] = {}
        for arm in self.plan.arms_in(condition):
            rates = [self.plan.rate(condition, arm, i) for i in indices]
            chosen = [evidence.tuning(condition, arm, by).mean().idxmax()[0] for by in self.plan.tune_by]
            self.choices[condition][arm] = [indices[rates.index(lr)] for lr in chosen]
            scores = {by: evidence.tuning(condition, arm, by).mean() for by in ("accuracy", "loss")}
            table = pd.DataFrame({name: s for name, s in scores.items() if len(s)}).reset_index()
            parts.append(table.assign(condition=condition, arm=arm))
        return pd.concat(parts, ignore_index=True)

    def _evidence(self, tables: Tables) -> "TuningEvidence":
        """What tuning may look at."""
        found = measures.derived(tables, self.plan.target, self._by_loss)
        return TuningEvidence(Result(tables.runs, tables.finals, pd.DataFrame(), found), self.plan)

    @property
    def _by_loss(self) -> bool:
        return "loss" in self.plan.tune_by

    def report(self) -> Tables:
        """Train the report runs: each arm's chosen rate and its two neighbours, or more, all report seeds."""
        for condition, choices in self.choices.items():
            tuned = self.tuned[condition]
            together = {i for chosen in choices.values() for i in chosen}
            runs: list[Run] = []
            for arm, chosen in choices.items():
                sharing = {i for other, own in choices.items() for i in own if self._same(condition, arm, other)}
                wanted = together if self.plan.experiment.report == "all-arms" else sharing | set(chosen)
                near = {i + step for i in wanted for step in (-1, 0, 1)} & set(tuned)
                near |= set(self.plan.default_index(condition, arm, tuned))
                indices = list(tuned) if self.plan.experiment.report == "everything" else sorted(near)
                runs += self.plan.reporting(condition, arm, indices)
            self._train(list({run.key: run for run in runs}.values()), f"{self.plan.task}, {condition}, reporting")
        return self.store.load(list(self.runs))[0]

    def _same(self, condition: str, arm: str, other: str) -> bool:
        return self.plan.trajectory(condition, arm) == self.plan.trajectory(condition, other)

    def range_tests(self) -> pd.DataFrame:
        """Run the range tests; the rates that each rule suggests, columns run, readout, measure, step, value."""
        rows = []
        for length in self.plan.size.ramps:
            runs = self.plan.range_tests(length)
            tables = self._train(runs, f"{self.plan.task}, range tests of {length} updates")
            losses = tables.measures[tables.measures.measure == "loss"].sort_values("step").groupby("run").value
            for run in runs:
                for rule, suggest in SUGGESTIONS.items():
                    with suppress(ValueError):  # a loss that never falls suggests nothing
                        rate = suggest(run.rates(), losses.get_group(run.key).to_numpy())
                        rows.append((run.key, "last", f"suggestion/{rule}", None, rate))
        self.extra.append(pd.DataFrame(rows, columns=["run", "readout", "measure", "step", "value"]))
        return self.extra[-1]

    def time_sizes(self) -> pd.DataFrame:
        """Time an example takes at each size in a loop over one network, and what powers of two save."""
        times = time_per_example(self.plan.task, self.plan.size.timed, device=self.device)
        gains = power_of_two_gain(times)
        seconds = {"measure": "seconds per example", "value": times.seconds_per_example}
        saved = {"measure": "power-of-two gain", "value": gains.gain}
        for table, told in ((times, seconds), (gains, saved)):
            sizes = table.batch_size.astype(str)
            self.extra.append(pd.DataFrame({"run": "", "readout": sizes, "step": table["round"], **told}))
        return times

    def _train(self, runs: list[Run], title: str) -> Tables:
        train(runs, self.store, self.device, self.journal, title)
        self.runs |= {run.key: run for run in runs}
        return self.store.load([run.key for run in runs])[0]

    def save(self, root: Path = REPRODUCED) -> Path:
        """Write the result with its receipt and return its folder."""
        tables, receipts = self.store.load(list(self.runs))
        folder = root / self.plan.profile / self.plan.experiment.name / self.plan.task
        result = Result(tables.runs, tables.finals, quantiles(tables), self._measures(tables))
        note = summary(receipts, self.device) | {
            "result": result_id(self.plan.experiment.name, self.plan.task, result),
            "profile": self.plan.profile,
            "networks": len(self.runs),
            "updates": self.plan.size.steps,
            "seeds": {"tuning": self.plan.size.tuning, "report": self.plan.size.report},
            "target": self.plan.target,
        }
        write_folder(folder, result, note, replace=True)
        return folder

    def _measures(self, tables: Tables) -> pd.DataFrame:
        """What probes found on report runs, and what follows from curves and predictions."""
        kept = tables.measures[tables.measures.measure != "loss"]  # single losses stay in the store
        parts = [kept[kept.run.isin(tables.runs[tables.runs.test].run)], *self.extra]
        if self.plan.size.curve_points != 1:
            parts.append(measures.derived(tables, self.plan.target, self._by_loss))
        parts += [self._at_equal_loss(tables), measures.churned(tables)]
        found = pd.concat([part for part in parts if len(part)], ignore_index=True)
        return found.assign(step=found.step.astype("Int64") if "step" in found else pd.NA).drop_duplicates(
            ["run", "readout", "measure", "step"]
        )

    def _at_equal_loss(self, tables: Tables) -> pd.DataFrame:
        """Accuracy where the training loss has fallen to what the slowest arm of any condition reaches at its best."""
        report, mine = tables.runs[tables.runs.test], tables.measures[tables.measures.measure == "training-loss"]
        if mine.empty:
            return pd.DataFrame()
        ends = mine.sort_values("step").groupby("run").value.last()
        places = [(condition, arm) for condition in self.plan.conditions for arm in self.plan.arms_in(condition)]
        arms = [self.plan.trajectory(*where).of(report) for where in places]
        level = max(arm.assign(end=arm.run.map(ends)).groupby("lr").end.mean().min() for arm in arms)
        return measures.accuracy_at_loss(tables._replace(measures=mine), float(level))


class TuningEvidence(Evidence):
    """Evidence of tuning runs alone."""

    def _runs(self, condition: str, arm: str) -> pd.DataFrame:
        return self.plan.trajectory(condition, arm).of(self.result.runs)


def quantiles(tables: Tables) -> pd.DataFrame:
    """10 %, 50 % and 90 % quantiles over seeds of validation accuracy, or of a surface's loss, along training."""
    report = tables.runs[tables.runs.test].rename(columns={"steps": "total"})
    keys = ["task", "optimizer", "schedule", "batch_size", "total", "lr"]
    merged = tables.curves.merge(report[["run", *keys]], on="run")
    by = merged.assign(shown=merged.accuracy.fillna(merged.loss)).groupby([*keys, "readout", "step"]).shown
    table = by.quantile(QUANTILES).unstack().reindex(columns=QUANTILES).set_axis(["low", "median", "high"], axis=1)
    return table.assign(seeds=by.size()).reset_index().rename(columns={"total": "steps"})


def result_id(experiment: str, task: str, result: Result) -> str:
    """Experiment, task and content, such as `weight-averaging/mnist1d-mlp@3f9c2a7e`."""
    finals = result.finals.sort_values(["run", "readout", "split"]).round({"accuracy": 9, "loss": 9})
    digest = hashlib.sha256(np.ascontiguousarray(pd.util.hash_pandas_object(finals, index=False).to_numpy()).tobytes())
    return f"{experiment.replace('_', '-')}/{task}@{digest.hexdigest()[:8]}"
