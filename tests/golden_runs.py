"""Tiny runs that use every choice a run has, and what they gave: `golden_runs.json`, which this
file writes when run.

    PYTHONPATH=src python tests/golden_runs.py

Whoever changes numbers on purpose writes the table anew and says so; whoever does not is told by
`test_golden_runs.py`.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from steadydescent.dataset_shift import IMAGE_KNOBS, SIGNAL_KNOBS
from steadydescent.engine.runs import Run
from steadydescent.engine.stack import Stack
from steadydescent.engine.stepping import numerics, prepared
from steadydescent.engine.tasks.surfaces import SURFACES
from steadydescent.normalization import KINDS
from steadydescent.optimizers import RULES
from steadydescent.study.judging import measures
from steadydescent.study.paths import DATA
from steadydescent.study.results.store import Tables

TABLE = Path(__file__).with_suffix(".json")
USUAL = {
    "task": "mnist1d-mlp",
    "optimizer": "momentum",
    "schedule": "constant",
    "lr": 0.05,
    "batch_size": 20,
}
USUAL |= {"steps": 12, "seed": 1, "readouts": ("last",), "test": False, "curve_points": 1}
SCHEDULES = (
    *(
        "constant",
        "linear",
        "linear(end=0.2)",
        "inverse-time(rate=1)",
        "exponential(base=0.5)",
        "inverse-sqrt-epoch",
    ),
    *(
        "inverse-sqrt-step",
        "steps(factors=[0.5, 0.2], shares=[0.3, 0.6])",
        "exp-drop(every_epoch=true, first_epoch=2)",
    ),
    *(
        "noam(d_model=4, warmup=5)",
        "cosine",
        "warmup-linear(warmup_share=0.3)",
        "cooldown(cooldown_share=0.4)",
    ),
    *("ramp(high=1, low=0.001)", "linear(floor=0.3, step_duration=2, step_start=3)"),
)
READOUTS = (
    *("last", "at-50", "ema-20", "ema-start-20", "ema-ramp", "tail-50", "checkpoints-3"),
    *("ema-20/copied", "tail-50/reestimated"),
)
SIGNALS = tuple(f"{knob}(severity=3)" for knob in SIGNAL_KNOBS)
LABELS = ("prior(severity=3)", "concept(severity=3)")
ANEW = (
    'shear(severity=3, statistics="reestimated")',
    'prior(severity=3, statistics="reestimated", batch=10)',
)


def golden() -> dict[str, list[Run]]:
    """Name → runs of one stack. A name that starts with `fashion` needs that data."""
    made = lambda **changes: Run(**(USUAL | changes))
    epochs = {"task": "mnist1d-mlp(examples=60)", "lr": 0.1}  # three updates an epoch
    slow = lambda rule: (
        0.005 if rule.startswith(("adam", "rms")) else 0.5 if "ed-" in rule else 0.05
    )
    found = {f"rule {rule}": [made(optimizer=rule, lr=slow(rule))] for rule in RULES}
    found["rule with weight decay"] = [made(optimizer="momentum(mu=0.8, weight_decay=0.1)")]
    found["schedules"] = [made(schedule=schedule, **epochs) for schedule in SCHEDULES]
    plateau = "plateau(cooldown=1, every=2, factor=0.3, patience=0, threshold=0.05)"
    found["schedule plateau"] = [made(schedule=plateau, curve_points=3, lr=0.4, steps=24)]
    found["readouts"] = [
        made(task="mnist1d-mlp(norm=batch)", readouts=READOUTS, steps=40, curve_points=4)
    ]
    found |= {
        f"norm {kind}": [made(task=f'mnist1d-mlp(norm="{kind}")', batch_size=50)] for kind in KINDS
    }
    found["task mnist1d-cnn"] = [made(task="mnist1d-cnn", steps=6)]
    found["task names-transformer"] = [
        made(task="names-transformer", optimizer="adam", lr=0.003, steps=2, batch_size=8)
    ]
    found |= {
        f"task {name}": [made(task=name, steps=40, curve_points=4, batch_size=2, test=True)]
        for name in SURFACES
    }
    found["features badly-scaled"] = [made(task='mnist1d-mlp(features="badly-scaled")', lr=0.002)]
    found["features raw"] = [made(task="mnist1d-mlp(features=raw)", lr=0.002)]
    found["wrong labels"] = [made(task="mnist1d-mlp(examples=500, wrong_labels=0.3)", test=True)]
    normed = {"task": "mnist1d-mlp(norm=batch)", "test": True, "batch_size": 50, "lr": 0.3}
    found["shifts"] = [made(shifts=(*SIGNALS, *LABELS, *ANEW), **normed)]
    found["diverged"] = [made(lr=1e30, test=True, curve_points=2, probes=("losses", "predictions"))]
    probes = ("losses", "training-loss", "predictions", "orbit", "update-cosine")
    probes += ("gradient-noise", "internal-shift")
    watched = {
        "readouts": ("last", "tail-50", "at-75", "ema-10"),
        "curve_points": 20,
        "steps": 20,
        "test": True,
    }
    shifts = {"shifts": ("shear(severity=3)", *LABELS, ANEW[0])}
    found["probes"] = [
        made(probes=probes, seed=seed, lr=0.2, **watched, **shifts) for seed in (1, 2)
    ]
    pictures = {"task": "fashion-mnist-cnn", "steps": 3, "test": True}
    found["fashion-mnist-cnn"] = [
        made(**pictures, shifts=tuple(f"{knob}(severity=3)" for knob in IMAGE_KNOBS))
    ]
    found["fashion-mnist-mlp"] = [
        made(task="fashion-mnist-mlp", steps=6, lr=0.01, probes=("losses",))
    ]
    found["fashion-mnist-deep-mlp"] = [made(task="fashion-mnist-deep-mlp", steps=6, lr=0.01)]
    return found


GOLDEN = golden()


def tables(name: str) -> Tables:
    """What a golden stack leaves when it is trained now, without company."""
    prepared.cache_clear()  # steps that were recorded from other code
    with numerics(1):
        found = Stack(GOLDEN[name], DATA, compile=False).train()
    return Tables(found.runs, found.finals, found.curves, found.measures, found.predictions)


def measured(name: str) -> dict[str, list]:
    """What the table holds of a golden stack: kind of value → values, in the order of runs and
    readouts.
    """
    found = tables(name)
    finals, by_step = (
        found.finals,
        found.measures.fillna({"step": -1}).groupby(_names(found.measures), sort=True).value,
    )
    told: dict[str, list] = {
        "diverged at": [None if pd.isna(at) else int(at) for at in found.runs.diverged_at]
    }
    for kind, table in (("final", finals), ("curve", found.curves)):
        told |= {
            f"{kind} {column}": _plain(table[column])
            for column in ("accuracy", "loss", "calibration_error")
        }
    told |= {str(measure): _plain(values) for measure, values in by_step}
    told["classes"] = [list(row[:60]) for row in found.predictions.classes]
    if name == "probes":
        told |= {f"measure {one}": values for one, values in _claimed(found)}
    return {kind: values for kind, values in told.items() if len(values)}


def _names(measured: pd.DataFrame) -> pd.Series:
    """A measure with the minibatch size that it is of."""
    sizes = measured.batch_size.astype("string").radd("/").fillna("")
    return measured.measure + sizes.astype(object)


def _claimed(found: Tables) -> Iterator[tuple[str, list]]:
    """Every measure that a claim may be about."""
    parts = [found.measures, measures.derived(found, 0.15, False)]
    whole = pd.concat([*parts, measures.churned(found)], ignore_index=True)
    result = found._replace(measures=whole)
    shifted = [f"drop under {kind} shift" for kind in ("covariate", "prior", "concept")]
    early = [f"validation accuracy at {percent} %" for percent in measures.EARLY]
    for one in (
        *measures.MEASURES,
        *shifted,
        "accuracy under covariate shift, re-estimated",
        *early,
    ):
        yield one, _plain(measures.values(result, one).value)


def _plain(values: pd.Series) -> list:
    return [None if pd.isna(value) else float(f"{value:.9g}") for value in values]


@cache
def written() -> dict[str, dict[str, list]]:
    return json.loads(TABLE.read_text())


def close(found: list, expected: list, kind: str) -> bool:
    """The same within what another order of float32 sums does in so few updates; accuracies within
    a few examples.
    """
    if kind in ("diverged at", "classes"):
        return found == expected or (kind == "classes" and _apart(found, expected) <= 0.02)
    one, other = (np.array(values, float) for values in (found, expected))
    coarse = any(word in kind for word in ("accuracy", "calibration", "churn"))
    absolute = 5e-4 * (100 if kind.startswith("measure ") else 1) if coarse else 1e-7
    return one.shape == other.shape and np.allclose(
        one, other, rtol=3e-5, atol=absolute, equal_nan=True
    )


def _apart(found: list, expected: list) -> float:
    one, other = np.array(found), np.array(expected)
    return float(np.mean(one != other)) if one.shape == other.shape else 1.0


def departures(name: str) -> list[str]:
    """Kinds of value in which a golden stack is not what the table says."""
    found, expected = measured(name), written()[name]
    return [
        f"{name}: {kind}"
        for kind in sorted({*found, *expected})
        if not close(found.get(kind, []), expected.get(kind, []), kind)
    ]


if __name__ == "__main__":
    from steadydescent.engine import data

    kept = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    for name in GOLDEN:
        try:
            kept[name] = measured(name)
        except data.DataUnavailable as error:
            print(f"{name} stays as it was: {error}")
    lines = (f"{json.dumps(name)}: {json.dumps(kept[name])}" for name in GOLDEN if name in kept)
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
