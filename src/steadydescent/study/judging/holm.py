"""How many more primary rows a step-down procedure would decide than fixed places do.

The book gives each primary row a place of its own, 0.05/200, so that its verdict rests on its own
result alone. Holm's procedure holds the same 5 % and decides more, but each verdict then depends on
the others' results: it is counted here, and bears no verdict.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from steadydescent.study.judging.statistics import Array, student

JudgedRow = Mapping[str, Any]
"""A row of claims as `judging.rows.Row.as_dict` has it."""
TOTAL = 0.05
"""The chance of any false decision that all primary rows share."""


def holm(p: ArrayLike, total: float = TOTAL) -> NDArray[np.bool_]:
    """Which of m hypotheses Holm's procedure rejects, along the last axis, `[…, m]`.

    In rising order the i-th p value, from 0, must not exceed total/(m − i), nor any before it
    theirs (Holm 1979).

    >>> holm([0.04, 0.001, 0.03]).tolist()
    [False, True, False]
    """
    values = np.asarray(p, dtype=np.float64)
    order, count = np.argsort(values, axis=-1, kind="stable"), values.shape[-1]
    bars = total / (count - np.arange(count))
    passed = np.logical_and.accumulate(np.take_along_axis(values, order, -1) <= bars, axis=-1)
    rejected = np.empty_like(passed)
    np.put_along_axis(rejected, order, passed, axis=-1)
    return rejected


def p_of_deciding(value: Array, error: Array, margin: float, rule: str, freedom: int) -> Array:
    """The smallest 1 − level at which Student's interval around each value gives a word that is not
    open.

    By superiority it must leave out 0 or lie within ±margin, by *at least* leave out −margin, else
    leave out both margins or hold neither.
    """
    size = np.abs(value)
    distance = {
        "superiority": np.maximum(size, margin - size),
        "at least": np.abs(value + margin),
    }.get(rule, np.abs(size - margin))
    with np.errstate(divide="ignore", invalid="ignore"):
        times = np.where(distance > 0, distance / error, 0.0)
    return 2 * stats.t.sf(times, freedom)


def decided_by_holm(rows: Sequence[JudgedRow]) -> int:
    """How many of the primary rows that were run Holm would decide."""
    p = [_p_of(row) for row in _with_intervals(rows)]
    return int(holm(p).sum()) if p else 0


def decided_in_place(rows: Sequence[JudgedRow]) -> int:
    """How many of the same rows are decided as they stand, each at its own place."""
    return sum(row["verdict"] != "open" for row in _with_intervals(rows))


def _with_intervals(rows: Sequence[JudgedRow]) -> list[JudgedRow]:
    return [row for row in rows if row["primary"] and row["level"] is not None]


def _p_of(row: JudgedRow) -> float:
    """p of a row from its interval, as if it were Student's around its middle."""
    low, high, margin = row["ci_low"], row["ci_high"], row["margin"]
    if row["null"] == 1.0:
        low, high, margin = math.log(low), math.log(high), math.log(margin)
    freedom = row["n_seeds"] - 1
    error = np.array([(high - low) / 2 / student(row["level"], freedom)])
    return float(
        p_of_deciding(np.array([(low + high) / 2]), error, margin, row["rule"], freedom)[0]
    )
