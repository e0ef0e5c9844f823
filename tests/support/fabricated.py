"""Stacks and results with made-up scores, for tests of what comes after training. Nothing is
trained here.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from steadydescent.engine.runs import Run
from steadydescent.engine.settings import read
from steadydescent.engine.tasks import find
from steadydescent.study.judging import claims
from steadydescent.study.judging.choosing import tuning_scores
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.measures import derived
from steadydescent.study.planning import Plan, experiment, load_study
from steadydescent.study.planning.stacks import stacking
from steadydescent.study.results import provenance, published
from steadydescent.study.results.fingerprints import made_with
from steadydescent.study.results.store import Result, Tables, write_folder
from steadydescent.study.training.trial_tables import quantiles

Score = Callable[[Run, str, str], float]
Probed = Callable[[Run], Iterable[tuple]]
PLAIN = {"shift": "", "severity": None, "statistics": "", "batch": None}
NO_SUGGESTIONS = pd.DataFrame({"run": [], "rule": [], "rate": []})
NO_TIMINGS = pd.DataFrame({"batch_size": [], "round": [], "seconds_per_example": [], "gain": []})
LAPTOP = {"steps": 40, "tuning": 3, "report": 5}


def a_run(**changes) -> Run:
    """A small run; its readouts fit its 40 steps."""
    base = {
        "task": "mnist1d-mlp",
        "optimizer": "momentum",
        "schedule": "constant",
        "lr": 0.1,
        "batch_size": 100,
    }
    return Run(
        **(base | {"steps": 40, "seed": 0, "readouts": ("last", "ema-10"), "test": True} | changes)
    )


def nothing(run: Run) -> Iterable[tuple]:
    """What a run without probes leaves."""
    return ()


def tables(
    runs: Iterable[Run],
    score: Score = lambda run, readout, split: 0.5,
    diverged: Iterable[str] = (),
    probed: Probed = nothing,
    predicted: Callable[[Run, str], bytes] | None = None,
) -> Tables:
    """What a stack of these runs would leave if `score` were their accuracy, or a surface's height.

    Loss and calibration follow from the accuracy. `score` is told a shifted test set as
    `test/scale(severity=3)`. `probed` says what probes of a run measured, (readout, measure, step,
    value) and perhaps a minibatch size, and `predicted` its classes.
    """
    finals, curves, measures, classes, rows, lost = [], [], [], [], [], set(diverged)
    for run in runs:
        rows.append({**run.row, "diverged_at": 1 if run.key in lost else None})
        measures += [(run.key, *row, *[None] * (5 - len(row))) for row in probed(run)]
        for readout in run.readouts:
            where = {"run": run.key, "readout": readout}
            finals += [
                {**where, **place, **_scored(run, score(run, readout, text))}
                for text, place in splits(run).items()
                if not place["shift"] or readout in (run.shifted_readouts or run.readouts)
            ]
            if run.curve_points > 1:
                measured = _scored(run, score(run, readout, "validation"))
                steps = [
                    round(run.steps * (i + 1) / run.curve_points) for i in range(run.curve_points)
                ]
                curves += [{**where, "step": step, **measured} for step in steps]
            if predicted is not None and run.test:
                classes.append({**where, "classes": predicted(run, readout)})
    return Tables(
        pd.DataFrame(rows).astype({"diverged_at": "Int64"}),
        pd.DataFrame(finals).astype({"severity": "Int64", "batch": "Int64"}),
        pd.DataFrame(
            curves, columns=["run", "readout", "step", "accuracy", "loss", "calibration_error"]
        ),
        pd.DataFrame(
            measures, columns=["run", "readout", "measure", "step", "value", "batch_size"]
        ).astype({"step": "Int64", "batch_size": "Int64", "value": float}),
        pd.DataFrame(classes, columns=["run", "readout", "classes"]),
    )


def splits(run: Run) -> dict[str, dict]:
    """What a run is evaluated on, as one text and as columns."""
    plain = ["validation", *(["test", "train"] if run.test else [])]
    places = {name: {"split": name, **PLAIN} for name in plain}
    for text in run.shifts:
        name, options = read(text)
        told = {"severity": None, "statistics": "frozen", "batch": None} | options
        places[f"test/{text}"] = {"split": "test", "shift": name, **told}
    return places


def _scored(run: Run, score: float) -> dict[str, float]:
    if find(run.task).surface:
        return {"accuracy": math.nan, "loss": score, "calibration_error": math.nan}
    return {"accuracy": score, "loss": 2.3 - 2 * score, "calibration_error": score / 7}


def stack_receipt(runs: Iterable[Run], **more) -> dict:
    """The receipt of a stack of these runs as it would be trained here and now."""
    runs = list(runs)
    threads = stacking(runs[0].task, "cpu").threads
    told = {"threads": threads, "compiled": False, "seconds": 2.0, "code": made_with(runs, "cpu")}
    return provenance.receipt("cpu") | told | more


def result(
    plan: Plan,
    score: Score,
    half: int = 1,
    diverged: Callable[[Run], bool] = lambda run: False,
    probed: Probed = nothing,
) -> Result:
    """The result of a plan whose tuning and report runs both cover the grid points −half … half of
    every arm.
    """
    indices = range(-half, half + 1)
    places = [(condition, arm) for condition in plan.conditions for arm in plan.arms_in(condition)]
    asked = [
        run
        for place in places
        for made in (plan.tuning, plan.reporting)
        for run in made(*place, indices)
    ]
    runs = list({run.key: run for run in asked}.values())
    made = tables(runs, score, [run.key for run in runs if diverged(run)], probed)
    kinds = [made.measures, derived(made, plan.target, "loss" in plan.tune_by)]
    measures = pd.concat([kind for kind in kinds if len(kind)] or kinds[:1], ignore_index=True)
    return Result(
        runs=made.runs,
        roster=roster(plan, places, indices),
        choices=choices(plan, places, made.runs, made.finals, measures),
        finals=made.finals,
        quantiles=quantiles(made),
        measures=measures,
        suggestions=NO_SUGGESTIONS,
        timings=NO_TIMINGS,
    )


def result_of(made: Tables) -> Result:
    """A stack's tables as the result of one arm, of which nothing was chosen."""
    purpose = made.runs.test.map({True: "report", False: "tuning"})
    served = pd.DataFrame({"run": made.runs.run, "condition": "constant", "arm": "last"})
    none = pd.DataFrame(columns=["condition", "arm", "tuned_by", "lr", "readout"])
    return Result(
        runs=made.runs,
        roster=served.assign(purpose=purpose),
        choices=none.astype({"lr": float}),
        finals=made.finals,
        quantiles=quantiles(made),
        measures=made.measures,
        suggestions=NO_SUGGESTIONS,
        timings=NO_TIMINGS,
    )


def roster(plan: Plan, places: list[tuple[str, str]], indices: range) -> pd.DataFrame:
    """Whom the runs of these grid points serve."""
    rows = [
        (run.key, *place, purpose)
        for place in places
        for purpose, made in (("tuning", plan.tuning), ("report", plan.reporting))
        for run in made(*place, indices)
    ]
    return pd.DataFrame(rows, columns=["run", "condition", "arm", "purpose"])


def choices(plan: Plan, places: list[tuple[str, str]], runs, finals, measures) -> pd.DataFrame:
    """What tuning chose for every arm, by plain loops: the best mean, of equals the lowest rate."""
    scores = tuning_scores(runs, finals, measures).merge(runs[~runs.test], on="run")
    rows = []
    for condition, arm in places:
        same = plan.trajectory(condition, arm)._asdict().items()
        for by in plan.tune_by:
            mine = scores[scores.readout.isin(plan.arms[arm].readouts)]
            for name, value in same:
                mine = mine[mine[name] == value]
            means = mine.groupby(["lr", "readout"])[by].mean()
            if means.notna().any():  # averages have no steps to a target
                rows.append((condition, arm, by, *means.idxmax()))
    return pd.DataFrame(rows, columns=["condition", "arm", "tuned_by", "lr", "readout"])


def note(plan: Plan, **more) -> dict:
    """The receipt of a plan's result, with all that a result says of itself."""
    name = f"{plan.experiment.name}/{plan.task}@12345678"
    return receipt(plan.profile, name, **({"design": plan.design.model_dump()} | more))


def evidence_of(made: Result, plan: Plan) -> Evidence:
    """A result beside its receipt."""
    return Evidence(made, note(plan))


def receipt(profile: str, name: str, **more) -> dict:
    """A receipt with all that the book and the commands read."""
    return {
        "result": name,
        "profile": profile,
        "date": "2026-02-03 04:05 UTC",
        "commit": "abc1234",
        "command": "steady run",
        "trained_on": ["2 cores"],
        "seconds": 90.0,
        "networks": 1234,
        "updates": 2000,
        "seeds": {"tuning": 3, "report": 5},
        **more,
    }


def write_result(folder: Path, made: Result, profile: str, name: str, **more) -> None:
    """Write a result where a profile's results are looked for; one that is published is listed
    there.
    """
    runs, (experiment_name, task) = made.runs, name.partition("@")[0].split("/")
    plan = Plan(experiment=load_study()[experiment_name], task=task, profile=profile)
    more = {"design": plan.design.model_dump()} | more
    told = {"networks": len(runs), "updates": int(runs.steps.max()), **more}
    told["seeds"] = {
        "tuning": runs[~runs.test].seed.nunique(),
        "report": runs[runs.test].seed.nunique(),
    }
    write_folder(folder, made, receipt(profile, name, **told), replace=True)
    if (root := folder.parents[1]).name == "published":
        published.record([folder.relative_to(root).as_posix()], root)


@contextmanager
def experiments_from(folder: Path) -> Iterator[None]:
    """The study and the claims as files in `folder` state them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "EXPERIMENTS", folder)
        patch.setattr(claims, "EXPERIMENTS", folder)
        experiment.study_in.cache_clear()
        claims.claims_in.cache_clear()
        try:
            yield
        finally:
            experiment.study_in.cache_clear()
            claims.claims_in.cache_clear()


SMALL_EXPERIMENT = {
    "title": "Toy",
    "question": "Does it?",
    "notebook": "toy.ipynb",
    "runs": {"optimizer": "momentum", "schedule": "constant", "batch_size": 100},
    "curve_points": 2,
    "conditions": {"constant": {"schedule": "constant"}, "linear": {"schedule": "linear"}},
    "arms": {
        "last": {"readouts": ["last"]},
        "ema": {"readouts": ["ema-10", "ema-30"]},
        "checkpoints": {"readouts": ["checkpoints-2"]},
        "tail": {"readouts": ["tail-25"]},
        "ramp": {"readouts": ["ema-ramp"]},
    },
    "secondary": [["ema", "last"]],
    "rates": {"mnist1d-mlp": {"center": 0.1, "ratio": 2, "points": 5}},
    "profiles": {
        "smoke": {"mnist1d-mlp": {"steps": 40, "tuning": 2, "report": 3, "points": 3}},
        "laptop": {"mnist1d-mlp": LAPTOP},
    },
}
SMALL_CONTRAST = {
    "arm": "ema",
    "against": "last",
    "better": True,
    "measure": "accuracy",
    "rule": "superiority",
    "rate": "tuned",
    "conditions": ["constant", "linear"],
    "margins": {"mnist1d-mlp": 1.0},
    "registered": "2026-01-02",
}
SMALL_CLAIM = {
    "id": "ema-wins",
    "title": "EMA wins",
    "source": ["somewhere"],
    "sentence": "It does.",
    "scope": "T",
    "test": "T.",
    "experiment": "toy",
    "primary": [
        SMALL_CONTRAST | {"conditions": [rate], "when": f"the rate is {rate}"}
        for rate in ("constant", "linear")
    ],
}


def write_experiments(
    folder: Path, experiment: dict = SMALL_EXPERIMENT, claims: Iterable[dict] = (SMALL_CLAIM,)
) -> None:
    """A study of one experiment, `toy`, and its claims; JSON is YAML too."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yml").write_text(json.dumps({"toy": experiment}))
    (folder / "claims.yml").write_text(json.dumps(list(claims)))
