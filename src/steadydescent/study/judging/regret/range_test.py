"""What the rates that range tests suggest give away, read off a dense sweep."""

from collections.abc import Hashable

import numpy as np
import pandas as pd

from steadydescent.checks import check_count
from steadydescent.study.judging.regret.sweep import (
    RESAMPLES,
    Sweep,
    interval_of_parts,
    of_report,
    of_tuning,
    seeds_of,
)
from steadydescent.study.judging.statistics import Estimate


def range_test_regret(sweep: Sweep, suggestions: pd.DataFrame) -> pd.DataFrame:
    """The rows `seed`, `rule`, `length`, `rate` of `suggestions` with their `regret` in pp.

    It is interpolated in log rate. `outside` marks rates beyond the sweep, whose regret is that of
    its end and so only a guess.

    Raises:
        ValueError: for missing columns, no rows, two rates of one seed, rule and length, and rates
            that are not positive and finite.
    """
    columns = ["seed", "rule", "length", "rate"]
    if missing := [name for name in columns if name not in suggestions]:
        raise ValueError(f"suggestions must have the columns {columns}, got none named {missing}")
    if suggestions.empty or suggestions.duplicated(columns[:3]).any():
        raise ValueError(
            "suggestions must hold one rate for each seed, rule and length, and at least one row"
        )
    rates = suggestions.rate.to_numpy(dtype=np.float64)
    if not (fine := np.isfinite(rates) & (rates > 0)).all():
        seed, rule, length, rate = suggestions.iloc[int(np.argmin(fine))][columns]
        where = f"seed {seed}, rule {rule!r}, length {length}"
        raise ValueError(
            f"rate must be positive and finite, got {rate} ({where}); count tests without one apart"
        )
    outside = (rates < sweep.rates[0]) | (rates > sweep.rates[-1])
    return suggestions.assign(regret=sweep.interpolated_regret(rates), outside=outside)


def range_test_estimates(
    sweep: Sweep, suggestions: pd.DataFrame, level: float, seed: int = 0, resamples: int = RESAMPLES
) -> dict[tuple[Hashable, Hashable], Estimate]:
    """(rule, length) → the mean regret of its suggestions in pp.

    `suggestions` are those of `range_test_regret`. Seeds of the range test vary by what they
    suggest, report seeds by their scores; for the oracle's choice tuning seeds are resampled. See
    `interval_of_parts` for the interval; n is the smallest of the three numbers of seeds.

    Raises:
        ValueError: for what `range_test_regret` refuses, fewer than 2 seeds of a kind, and a level
            outside (0, 1).
    """
    estimates, draws = {}, check_count(resamples, "resamples", 2)
    for (rule, length), rows in range_test_regret(sweep, suggestions).groupby(
        ["rule", "length"], dropna=False
    ):
        rates, generator = rows.rate.to_numpy(dtype=np.float64), np.random.default_rng(seed)
        seeds_of(sweep)
        if len(rates) < 2:
            raise ValueError(
                f"an interval needs at least 2 seeds, got 1 of rule {rule!r} and length {length}"
            )
        oracle = np.array([sweep.retuned(generator).oracle for _ in range(draws)])
        shares = np.eye(len(sweep.rates))[sweep.best] - sweep.interpolated_shares(rates)
        suggested = (float(rows.regret.var(ddof=1)) / len(rates), len(rates))
        parts = [of_tuning(sweep, oracle), of_report(sweep, shares), suggested]
        estimates[rule, length] = interval_of_parts(rows.regret.mean(), parts, level)
    return estimates
