"""Measures as rows of a result's table."""

from collections.abc import Sequence
from typing import Any

import pandas as pd


def table(rows: Sequence[tuple[Any, ...]] = ()) -> pd.DataFrame:
    """Measures at the end of runs as rows of a result: run, readout, measure, value; they belong to
    no minibatch size and no step.
    """
    whole = pd.array([None] * len(rows), "Int64")
    made = pd.DataFrame(rows, columns=["run", "readout", "measure", "value"])
    made = made.assign(batch_size=whole, step=whole).astype({"value": float})
    return made[["run", "readout", "measure", "batch_size", "step", "value"]]
