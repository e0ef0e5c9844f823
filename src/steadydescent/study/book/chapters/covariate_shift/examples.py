"""Worked examples with a handful of numbers: inputs standardised, a layer moved, three shifts."""

import pandas as pd
import torch
from torch import Tensor

from steadydescent.dataset_shift import (
    shifted_concept,
    shifted_prior,
    shifted_signals,
    verify,
)
from steadydescent.normalization import BatchNorm, moments, reestimate, standardise

SIGNALS, SEVERITY, CLASSES = 2_000, 3, 10


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
