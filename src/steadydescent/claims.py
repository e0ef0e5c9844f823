"""Claims and their verdicts, computed from a result's rows."""

from functools import cache
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import Field, model_validator

from steadydescent.paths import EXPERIMENTS
from steadydescent.results import Result
from steadydescent.statistics import Scores, level, seeds_needed, tuned, verdict
from steadydescent.study import Checked, Experiment, load_study, plans


class Claim(Checked):
    """A source's sentence, paraphrased, and the contrast that decides it: `arm` minus `against`, both tuned."""

    id: str
    title: str
    source: tuple[str, ...]
    sentence: str
    scope: Literal["E", "S", "T"]
    test: str
    experiment: str
    measure: str
    arm: str
    against: str
    margins: dict[str, Annotated[float, Field(gt=0)]]

    @model_validator(mode="after")
    def _consistent(self) -> "Claim":
        study = load_study()
        if self.experiment not in study:
            raise ValueError(f"claim {self.id!r}: experiment must be one of {sorted(study)}, got {self.experiment!r}")
        arms, tasks = study[self.experiment].arms, study[self.experiment].rates
        for arm in (self.arm, self.against):
            if arm not in arms:
                raise ValueError(f"claim {self.id!r}: arm must be one of {sorted(arms)}, got {arm!r}")
        if set(self.margins) != set(tasks):
            raise ValueError(f"claim {self.id!r} must state a margin for each of {sorted(tasks)}, got {self.margins}")
        return self


@cache
def load_claims() -> dict[str, Claim]:
    """Claim id → claim, from `experiments/claims.yml`."""
    claims = [Claim(**fields) for fields in yaml.safe_load((EXPERIMENTS / "claims.yml").read_text())]
    return {claim.id: claim for claim in claims}


def contrasts(experiment: str, profile: str) -> int:
    """k, the primary contrasts of a chapter: its claims × the profile's tasks × the schedules."""
    claims = sum(claim.experiment == experiment for claim in load_claims().values())
    tasks = len(plans(profile, experiment))
    return claims * tasks * len(load_study()[experiment].schedules)


def best_candidate(finals: pd.DataFrame, readouts: tuple[str, ...]) -> tuple[float, str]:
    """The (rate, readout) with the best mean validation accuracy over tuning seeds; ties go to the lower rate."""
    validation = finals[(finals.split == "validation") & finals.readout.isin(readouts)]
    return validation.groupby(["lr", "readout"]).accuracy.mean().idxmax()


class Arms:
    """The candidates of every arm of one experiment, task and schedule, as score tables in percent."""

    def __init__(self, result: Result, experiment: Experiment, schedule: str) -> None:
        runs = result.runs[result.runs.schedule == schedule]
        if runs.empty or not runs.test.any():
            raise ValueError(f"the result holds no report runs at schedule {schedule!r}")
        self.experiment, self.runs = experiment, runs
        self._finals = result.finals.merge(runs[["run", "lr", "seed", "test", "diverged_at"]], on="run")

    def table(self, readouts: tuple[str, ...], split: str, report: bool, measure: str = "accuracy") -> pd.DataFrame:
        """Seeds × candidates (rate, readout), for the rates that report seeds ran."""
        rates = self.runs[self.runs.test].lr.unique()
        f = self._finals
        rows = f[(f.split == split) & (f.test == report) & f.readout.isin(readouts) & f.lr.isin(rates)]
        return rows.pivot_table(index="seed", columns=["lr", "readout"], values=measure)

    def scores(self, arm: str, measure: str = "accuracy", split: str = "test", lr: float | None = None) -> Scores:
        """Tuning and report scores of an arm (percent for accuracy), at every rate or at one."""
        unit = 100 if measure != "loss" else 1
        readouts = self.experiment.arms[arm]
        tuning = self.table(readouts, "validation", report=False)
        report = self.table(readouts, split, True, measure)[tuning.columns]
        if lr is not None:
            tuning, report = (t.loc[:, t.columns.get_level_values("lr") == lr] for t in (tuning, report))
        return Scores(100 * tuning.to_numpy(), unit * report.to_numpy())

    def chosen(self, arm: str) -> tuple[float, str]:
        """The (rate, readout) that tuning chose for an arm."""
        tuning = self.table(self.experiment.arms[arm], "validation", report=False)
        return tuning.columns[int(np.argmax(tuning.mean().to_numpy()))]

    def diverged(self, lr: float) -> int:
        """How many report runs at this rate diverged."""
        rows = self.runs[self.runs.test & (self.runs.lr == lr)]
        return int(rows.diverged_at.notna().sum())

    def on_edge(self, arm: str) -> bool:
        """Whether the chosen rate is the lowest or highest that was tried: the true optimum may lie beyond."""
        tried = self.runs[~self.runs.test].lr
        return self.chosen(arm)[0] in (tried.min(), tried.max())


def judge(claim: Claim, result: Result, receipt: dict[str, Any], task: str) -> list[dict[str, Any]]:
    """The claim's rows on one task, one a schedule."""
    experiment = load_study()[claim.experiment]
    k, margin = contrasts(claim.experiment, receipt["profile"]), claim.margins[task]
    return [_row(claim, Arms(result, experiment, s), receipt, task, s, k, margin) for s in experiment.schedules]


def judge_all(experiment: str, result: Result, receipt: dict[str, Any], task: str) -> list[dict[str, Any]]:
    """Rows of every claim that an experiment decides, on one task."""
    claims = [claim for claim in load_claims().values() if claim.experiment == experiment]
    return [row for claim in claims for row in judge(claim, result, receipt, task)]


def _row(
    claim: Claim, arms: Arms, receipt: dict[str, Any], task: str, schedule: str, k: int, margin: float
) -> dict[str, Any]:
    found = tuned(arms.scores(claim.arm), arms.scores(claim.against), level(k))
    word = verdict(found.low, found.high, margin)
    chosen = {arm: arms.chosen(arm) for arm in (claim.arm, claim.against)}
    return {
        "id": claim.id, "scope": claim.scope, "task": task, "condition": schedule, "measure": claim.measure,
        "verdict": "inconclusive" if receipt["profile"] == "smoke" else word,
        "estimate": found.value, "ci_low": found.low, "ci_high": found.high, "unit": "pp", "margin": margin,
        "level": level(k), "n_seeds": found.n, "profile": receipt["profile"], "result": receipt["result"],
        "diverged": sum(arms.diverged(lr) for lr in {lr for lr, _ in chosen.values()}),
        # the formula supposes a true zero; seeds that were not enough are never said to be
        "seeds_needed": max(found.n + 1, seeds_needed(found.sd, margin, k)) if word == "inconclusive" else None,
        "rates": {arm: lr for arm, (lr, _) in chosen.items()},
        "readouts": {arm: readout for arm, (_, readout) in chosen.items()},
        "on_edge": any(arms.on_edge(arm) for arm in chosen),
    }  # fmt: skip
