"""What the rates that range tests suggest give away, read off a dense sweep."""

from collections.abc import Hashable

import numpy as np
import pandas as pd

from steadydescent.checks import check_fraction
from steadydescent.study.judging.regret.sweep import Sweep, seeds_of
from steadydescent.study.judging.statistics import TUNING_DRAWS, Array, Estimate, Scores, tuned


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
    sweep: Sweep, suggestions: pd.DataFrame, level: float, seed: int = 0, draws: int = TUNING_DRAWS
) -> dict[tuple[Hashable, Hashable], Estimate]:
    """(rule, length) → the mean regret of its suggestions in pp, were tuning done afresh.

    `suggestions` are those of `range_test_regret`, of report seeds. What is lost is the tuned rate
    against the suggested one, so that `statistics.tuned` makes the interval: the sweep's rates are
    one arm's candidates, and the other arm has none to choose from, only each seed's part in the
    mean score at the suggested rates. That part is its own scores there, and what its suggestion
    differs from the others'. n is the number of report seeds.

    Raises:
        ValueError: for what `range_test_regret` refuses, fewer than 2 seeds of a kind, suggestions
            of other seeds than those that report, and a level outside (0, 1).
    """
    check_fraction(level, "level")
    seeds_of(sweep)
    choose = sweep.validation if len(sweep.validation) else np.empty((0, len(sweep.rates)))
    swept = Scores(sweep.tuning, sweep.report, choose)
    nothing = [np.zeros((len(table), 1)) for table in (sweep.tuning, choose)]
    estimates = {}
    for (rule, length), rows in range_test_regret(sweep, suggestions).groupby(
        ["rule", "length"], dropna=False
    ):
        if len(rows) < 2:
            raise ValueError(
                f"an interval needs at least 2 seeds, got 1 of rule {rule!r} and length {length}"
            )
        suggested = Scores(nothing[0], _parts_in_the_mean(sweep, rows)[:, None], nothing[1])
        estimates[rule, length] = tuned(swept, suggested, level, seed, draws)
    return estimates


def _parts_in_the_mean(sweep: Sweep, rows: pd.DataFrame) -> Array:
    """Each report seed's part in the mean score at the suggested rates, `[S']`."""
    places = [sweep.seeds.index(seed) for seed in rows.seed if seed in sweep.seeds]
    if len(places) < len(rows):
        raise ValueError(
            f"suggestions must be of the report seeds {sweep.seeds}, got {sorted(rows.seed)}"
        )
    at_all = sweep.report @ sweep.interpolated_shares(rows.rate.to_numpy(dtype=np.float64))
    own = np.zeros(len(at_all))
    own[places] = rows.regret.mean() - rows.regret
    return at_all + own * len(own) / len(places)
