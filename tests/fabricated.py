"""Stacks and results with made-up scores, for tests of what comes after training. Nothing is trained here."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from steadydescent import claims, study
from steadydescent.results import Result, Tables, write_folder
from steadydescent.runs import Run
from steadydescent.study import Plan
from steadydescent.trial import quantiles

Score = Callable[[Run, str, str], float]


def a_run(**changes) -> Run:
    """A small run; its readouts fit its 40 steps."""
    base = {"task": "mnist1d-mlp", "optimizer": "momentum", "schedule": "constant", "lr": 0.1, "batch_size": 100}
    return Run(**(base | {"steps": 40, "seed": 0, "readouts": ("last", "ema-10"), "test": True} | changes))


def tables(runs: Iterable[Run], score: Score = lambda run, readout, split: 0.5, diverged: Iterable[str] = ()) -> Tables:
    """What a stack of these runs would leave if `score` were their accuracy; loss and calibration follow from it."""
    finals, curves, rows = [], [], []
    for run in runs:
        rows.append({**run.row, "diverged_at": 1 if run.key in set(diverged) else None})
        for readout in run.readouts:
            for split in ("test", "train") if run.test else ("validation",):
                finals.append(
                    {"run": run.key, "readout": readout, "split": split, **_measures(score(run, readout, split))}
                )
            if run.curve_points > 1:
                measured = _measures(score(run, readout, "validation"))
                steps = [round(run.steps * (i + 1) / run.curve_points) for i in range(run.curve_points)]
                curves += [{"run": run.key, "readout": readout, "step": step, **measured} for step in steps]
    columns = ["run", "readout", "step", "accuracy", "loss", "calibration_error"]
    table = pd.DataFrame(rows).astype({"diverged_at": "Int64"})
    return Tables(table, pd.DataFrame(finals), pd.DataFrame(curves, columns=columns))


def _measures(accuracy: float) -> dict[str, float]:
    return {"accuracy": accuracy, "loss": 2.3 - 2 * accuracy, "calibration_error": accuracy / 7}


def result(plan: Plan, score: Score, half: int = 1, diverged: Callable[[Run], bool] = lambda run: False) -> Result:
    """The result of a plan whose tuning and report runs both cover the grid points −half … half."""
    indices, schedules = range(-half, half + 1), plan.experiment.schedules
    runs = [run for s in schedules for run in [*plan.tuning(s, indices), *plan.reporting(s, list(indices))]]
    made = tables(runs, score, [run.key for run in runs if diverged(run)])
    return Result(made.runs, made.finals, quantiles(made))


def receipt(profile: str, name: str, **more) -> dict:
    """A receipt with all that the book and the commands read."""
    return {
        "result": name, "profile": profile, "date": "2026-02-03 04:05 UTC", "commit": "abc1234",
        "command": "steady run", "trained_on": ["2 cores"], "seconds": 90.0, "networks": 1234, "updates": 2000,
        "seeds": {"tuning": 3, "report": 5}, **more,
    }  # fmt: skip


def write_result(folder: Path, made: Result, profile: str, name: str) -> None:
    """Write a result where a profile's results are looked for."""
    write_folder(folder, made, receipt(profile, name), replace=True)


@contextmanager
def experiments_from(folder: Path) -> Iterator[None]:
    """The study and the claims as files in `folder` state them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "EXPERIMENTS", folder)
        patch.setattr(claims, "EXPERIMENTS", folder)
        study.load_study.cache_clear()
        claims.load_claims.cache_clear()
        try:
            yield
        finally:
            study.load_study.cache_clear()
            claims.load_claims.cache_clear()


SMALL_EXPERIMENT = {
    "title": "Toy", "question": "Does it?", "notebook": "toy.ipynb", "optimizer": "momentum", "batch_size": 100,
    "schedules": ["constant", "linear"], "curve_points": 2,
    "readouts": ["last", "ema-10", "ema-30", "ema-ramp", "tail-25", "checkpoints-2"],
    "arms": {"last": ["last"], "ema": ["ema-10", "ema-30"], "checkpoints": ["checkpoints-2"], "tail": ["tail-25"],
             "ramp": ["ema-ramp"]},
    "rates": {"mnist1d-mlp": {"center": 0.1, "ratio": 2, "points": 5}},
    "profiles": {"smoke": {"mnist1d-mlp": {"steps": 40, "tuning": 2, "report": 3, "points": 3}},
                 "laptop": {"mnist1d-mlp": {"steps": 40, "tuning": 3, "report": 5}}},
}  # fmt: skip
SMALL_CLAIM = {
    "id": "ema-wins", "title": "EMA wins", "source": ["somewhere"], "sentence": "It does.", "scope": "T", "test": "T.",
    "experiment": "toy", "measure": "test accuracy", "arm": "ema", "against": "last", "margins": {"mnist1d-mlp": 1.0},
}  # fmt: skip


def write_experiments(
    folder: Path, experiment: dict = SMALL_EXPERIMENT, claims: Iterable[dict] = (SMALL_CLAIM,)
) -> None:
    """A study of one experiment, `toy`, and its claims; JSON is YAML too."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yml").write_text(json.dumps({"toy": experiment}))
    (folder / "claims.yml").write_text(json.dumps(list(claims)))
