"""Curves of range tests: what a result keeps of their losses, and how they spread over seeds."""

from itertools import takewhile
from math import isfinite

import numpy as np
import pandas as pd

from steadydescent import schedules
from steadydescent.engine.settings import read
from steadydescent.lr_search import smoothed
from steadydescent.study.judging.measures.rows import table
from steadydescent.study.results.store import Result, Tables

CURVE = "smoothed loss of a range test"
KEPT_POINTS, BETA = 200, 0.9
"""Points that a curve keeps, evenly spaced, and the decay of its average, that of the rules which
read rates off it.
"""
CURVE_QUANTILES = (0.1, 0.5, 0.9)
ENDED = 1e300
"""In place of the loss of a test that has ended: higher than any, and quantiles among such show it.
"""


def range_test_curves(tables: Tables, roster: pd.DataFrame) -> pd.DataFrame:
    """The smoothed minibatch loss of every range test, up to the first that is not finite, at
    `KEPT_POINTS` of its steps, as rows of measures.
    """
    tests = set(roster[roster.purpose == "range test"].run)
    losses = tables.measures[tables.measures.run.isin(tests) & (tables.measures.measure == "loss")]
    lengths = tables.runs.set_index("run").steps
    rows, steps = [], []
    for run, part in losses.sort_values("step").groupby("run", sort=False):
        curve = list(smoothed(takewhile(isfinite, part.value), BETA))
        kept = np.unique(np.linspace(0, lengths[run] - 1, KEPT_POINTS).round().astype(int))
        kept = kept[kept < len(curve)]
        rows += [(run, "last", CURVE, curve[i]) for i in kept]
        steps += (kept + 1).tolist()
    return table(rows).assign(step=pd.array(steps, "Int64"))


def curves_of_length(result: Result, updates: int) -> pd.DataFrame:
    """The curves of the range tests of so many updates: columns run, rate, loss, by rising rate."""
    runs = result.runs[result.runs.steps == updates][["run", "lr", "schedule"]]
    rows = result.measures[result.measures.measure == CURVE].merge(runs, on="run")
    parts = []
    for (schedule, lr), part in rows.groupby(["schedule", "lr"]):
        name, options = read(schedule)
        rates = schedules.rates(name, lr, updates, **options)
        parts.append(part.assign(rate=rates[part.step.astype(int) - 1], loss=part.value))
    if not parts:
        return pd.DataFrame({"run": [], "rate": [], "loss": []})
    return pd.concat(parts)[["run", "rate", "loss"]].sort_values(["run", "rate"])


def quantiles_of_curves(result: Result, updates: int) -> pd.DataFrame:
    """10 %, 50 % and 90 % quantiles over seeds of the range tests of so many updates: columns rate,
    low, median, high, seeds.

    A test that has ended counts as higher than any; a quantile among such is missing.
    """
    curves = curves_of_length(result, updates)
    table = curves.pivot(index="rate", columns="run", values="loss").sort_index()
    heights = table.fillna(ENDED).to_numpy(float)
    found = np.quantile(heights, CURVE_QUANTILES, axis=1) if len(table) else np.empty((3, 0))
    low, median, high = np.where(found < ENDED / 1e6, found, np.nan)
    told = {"rate": table.index.to_numpy(float), "low": low, "median": median, "high": high}
    return pd.DataFrame(told | {"seeds": table.notna().sum(axis=1).to_numpy()})
