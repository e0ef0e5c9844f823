"""Worked examples with a handful of numbers: inputs standardised, a layer moved, three shifts."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor

from steadydescent.dataset_shift import (
    shifted_concept,
    shifted_prior,
    shifted_signals,
    verify,
)
from steadydescent.normalization import BatchNorm, moments, reestimate, standardise
from steadydescent.study.book import figures

SIGNALS, SEVERITY, CLASSES = 2_000, 3, 10
KNOBS = ("shear", "iid-noise", "scale")
"""The covariate shifts of which an example is drawn."""


def table_of_scales() -> pd.DataFrame:
    """Standard deviations of two features: raw, divided by σ² as printed, and divided by σ."""
    raw = torch.tensor([[-10.0, 300.0], [0.0, 100.0], [10.0, 200.0]], dtype=torch.float64)
    mean, std = moments(raw)
    inputs = {
        "raw": raw,
        "printed, X/σ²": (raw - mean) / std**2,
        "right, X/σ": standardise(raw, mean, std),
    }
    rows = []
    for name, x in inputs.items():
        first, second = x.std(0, correction=0).tolist()
        rows.append({"inputs": name, "σ of feature 1": first, "σ of feature 2": second})
    return pd.DataFrame(rows)


def table_of_outputs() -> pd.DataFrame:
    """A layer's outputs for three inputs, and for the same moved by three standard deviations."""
    layer = BatchNorm(1)
    z = torch.tensor([[2.0], [3.0], [7.0]])
    reestimate(layer, [z])
    moved = z + 3 * z.std(correction=1)
    outputs = {"training inputs": layer.eval()(z), "moved inputs, frozen statistics": layer(moved)}
    reestimate(layer, [moved])
    outputs["moved inputs, re-estimated statistics"] = layer(moved)
    return pd.DataFrame([{"outputs of": name} | _of_layer(y) for name, y in outputs.items()])


def _of_layer(y: Tensor) -> dict[str, float]:
    values = dict(zip(("first", "second", "third"), y.flatten().tolist(), strict=True))
    return values | {"mean": y.mean().item()}


def table_of_moves() -> pd.DataFrame:
    """What moves in each kind of shift: two-sample tests on signals, labels compared."""
    before = shifted_signals("shear", 0, seed=0, count=SIGNALS)
    x, y = before.x, before.y
    seeded = [torch.Generator().manual_seed(0) for _ in range(2)]
    after = {
        "covariate: shear": shifted_signals("shear", SEVERITY, seed=0, count=SIGNALS),
        "prior": shifted_prior(
            x, y, SEVERITY, classes=CLASSES, count=SIGNALS // 5, generator=seeded[0]
        ),
        "concept": shifted_concept(x, y, SEVERITY, classes=CLASSES, generator=seeded[1]),
    }
    rows = {}
    for name, shifted in after.items():
        moved = verify(before, shifted).set_index("aspect").moved
        rows[name] = moved.map({True: "moves", False: "stays"})
    table = pd.DataFrame(rows).T
    return table.rename_axis(f"shift, severity {SEVERITY}").reset_index()


def table_of_signals() -> pd.DataFrame:
    """One signal of a test set as it is and after each shift: columns shift, place, value."""
    signals = {
        f"{knob}, severity {severity}": shifted_signals(knob, severity, seed=0, count=CLASSES)
        for knob in KNOBS
        for severity in (0, SEVERITY)
    }
    parts = [
        pd.DataFrame({"shift": name, "place": range(x.x.shape[1]), "value": x.x[0].tolist()})
        for name, x in signals.items()
    ]
    return pd.concat(parts)


def draw_signals(name: str) -> None:
    """A signal before and after a covariate shift, a panel a kind of shift."""
    table = table_of_signals()
    moved = []
    for knob in KNOBS:
        before, after = (_values(table, knob, severity) for severity in (0, SEVERITY))
        moved.append(f"{knob} {np.abs(after - before).mean():.2g}")
    label, off = _label(), ", ".join(moved)
    figures.figure(
        name,
        lambda axes: _signal_panels(axes, table),
        data=table,
        size=(8.4, 2.8),
        ncols=len(KNOBS),
        sharey=True,
        alt=f"One MNIST-1D signal of class {label} as in training and after {len(KNOBS)} shifts. "
        f"Mean change of a value: {off}.",
        caption=f"Covariate shift of one MNIST-1D signal (a {label}) at severity {SEVERITY}: the "
        f"inputs move and the label stays. Mean change of a value: {off}.",
    )


def _values(table: pd.DataFrame, knob: str, severity: int) -> np.ndarray:
    return table[table["shift"] == f"{knob}, severity {severity}"].value.to_numpy()


def _label() -> int:
    return int(shifted_signals(KNOBS[0], 0, seed=0, count=CLASSES).y[0])


def _signal_panels(axes: Iterable[Axes], table: pd.DataFrame) -> None:
    for ax, knob in zip(axes, KNOBS, strict=True):
        ax.plot(_values(table, knob, 0), label="as in training", linestyle="--")
        ax.plot(_values(table, knob, SEVERITY), label="shifted")
        ax.set(title=knob, xlabel="place in the signal", ylabel="value")
        ax.label_outer()
    ax.legend(fontsize="x-small")
