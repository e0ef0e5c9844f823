"""One experiment on one task, from tuning to a stored result; what a notebook calls."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from steadydescent.claims import best_candidate
from steadydescent.paths import REPRODUCED, STORE
from steadydescent.progress import Journal
from steadydescent.results import Result, Store, Tables, write_folder
from steadydescent.runs import Run
from steadydescent.study import EXTENSIONS, Parameters, Plan, load_study
from steadydescent.sweep import pick_device, summary, train


class Trial:
    """Tune every arm, report around the choices, keep the result."""

    def __init__(self, experiment: str, task: str, profile: str, device: str = "auto", store: Path = STORE) -> None:
        given = Parameters(experiment=experiment, task=task, profile=profile, device=device)
        self.plan = Plan(experiment=load_study()[experiment], task=task, profile=profile)
        self.device = pick_device(given.device)
        self.journal = Journal()
        self.store = Store(store, warn=lambda text: self.journal.tell(note=text))
        self.runs: list[Run] = []
        self.choices: dict[str, dict[str, int]] = {}
        self.tuned: dict[str, range] = {}

    def tune(self) -> pd.DataFrame:
        """Train the tuning runs of every schedule; a grid whose optimum lies on its edge grows for every arm.

        Returns the mean validation accuracy of every candidate, `[schedule, lr, readout]`.
        """
        half, tables = self.plan.grid.half, []
        for schedule in self.plan.experiment.schedules:
            low, high = -half, half
            while True:
                runs = self.plan.tuning(schedule, range(low, high + 1))
                table = self._train(runs, f"{self.plan.task}, {schedule} rate, tuning")
                chosen = self._choose(table)
                low_edge, high_edge = low in chosen.values(), high in chosen.values()
                grown = (low - (low_edge and low > -half - EXTENSIONS), high + (high_edge and high < half + EXTENSIONS))
                if self.plan.profile == "smoke" or grown == (low, high):
                    break
                low, high = grown
            self.choices[schedule], self.tuned[schedule] = chosen, range(low, high + 1)
            self.runs += runs
            tables.append(table)
        finals = pd.concat([t.finals.merge(t.runs[["run", "schedule", "lr"]], on="run") for t in tables])
        return finals.groupby(["schedule", "lr", "readout"], as_index=False).accuracy.mean()

    def _choose(self, table: Tables) -> dict[str, int]:
        """Arm → grid index of its best candidate."""
        grid, merged = self.plan.grid, table.finals.merge(table.runs[["run", "lr", "seed"]], on="run")
        place = {grid.rate(i): i for i in range(-grid.half - EXTENSIONS, grid.half + EXTENSIONS + 1)}
        return {arm: place[best_candidate(merged, r)[0]] for arm, r in self.plan.experiment.arms.items()}

    def report(self) -> Tables:
        """Train the report runs: each arm's chosen rate and its two neighbours, all report seeds."""
        for schedule, chosen in self.choices.items():
            indices = sorted({i + step for i in chosen.values() for step in (-1, 0, 1)} & set(self.tuned[schedule]))
            runs = self.plan.reporting(schedule, indices)
            self._train(runs, f"{self.plan.task}, {schedule} rate, reporting")
            self.runs += runs
        return self.store.load([run.key for run in self.runs])[0]

    def _train(self, runs: list[Run], title: str) -> Tables:
        train(runs, self.store, self.device, self.journal, title)
        return self.store.load([run.key for run in runs])[0]

    def save(self, root: Path = REPRODUCED) -> Path:
        """Write the result with its receipt and return its folder."""
        tables, receipts = self.store.load([run.key for run in self.runs])
        folder = root / self.plan.profile / self.plan.experiment.name / self.plan.task
        result = Result(tables.runs, tables.finals, quantiles(tables))
        note = summary(receipts, self.device) | {
            "result": result_id(self.plan.experiment.name, self.plan.task, result),
            "profile": self.plan.profile,
            "networks": len(self.runs),
            "updates": self.plan.size.steps,
            "seeds": {"tuning": self.plan.size.tuning, "report": self.plan.size.report},
        }
        write_folder(folder, result, note, replace=True)
        return folder


def quantiles(tables: Tables) -> pd.DataFrame:
    """10 %, 50 % and 90 % quantiles over seeds of validation accuracy along training."""
    merged = tables.curves.merge(tables.runs[["run", "schedule", "lr"]], on="run")
    by = merged.groupby(["schedule", "lr", "readout", "step"]).accuracy
    table = by.quantile([0.1, 0.5, 0.9]).unstack().set_axis(["low", "median", "high"], axis=1)
    return table.assign(seeds=by.size()).reset_index()


def result_id(experiment: str, task: str, result: Result) -> str:
    """Experiment, task and content, such as `weight-averaging/mnist1d-mlp@3f9c2a7e`."""
    finals = result.finals.sort_values(["run", "readout", "split"]).round({"accuracy": 9, "loss": 9})
    digest = hashlib.sha256(np.ascontiguousarray(pd.util.hash_pandas_object(finals, index=False).to_numpy()).tobytes())
    return f"{experiment.replace('_', '-')}/{task}@{digest.hexdigest()[:8]}"
