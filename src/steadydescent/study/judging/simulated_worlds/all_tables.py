"""All tables of the simulation, made together, since books are made of the same replications."""

from collections.abc import Sequence

import pandas as pd

from steadydescent.study.judging.simulated_worlds.best_rates import simulated_best_rates
from steadydescent.study.judging.simulated_worlds.books import simulated_books
from steadydescent.study.judging.simulated_worlds.differences import simulated_differences
from steadydescent.study.judging.simulated_worlds.means import (
    NUMBERS_OF_SEEDS,
    alike,
    simulated_means,
)
from steadydescent.study.judging.simulated_worlds.other_kinds import simulated_kinds
from steadydescent.study.judging.simulated_worlds.searches import (
    simulated_closing,
    simulated_range_tests,
    simulated_searches,
)
from steadydescent.study.judging.simulated_worlds.tally import rows_of

INTERVAL_USED = "tuned"
"""The interval for means that claims are decided by."""
STUDENTS = ("ratio of updates", "ratio of spreads", "difference of differences")
"""Kinds beside means whose rows books are made of: superiority, with Student's intervals."""
CLOSING_SHARE = 10
"""Coarse-to-fine searches take long, and have so many times fewer replications."""
SimulatedTables = dict[str, pd.DataFrame]


def simulate(
    replications: int, sizes: Sequence[tuple[int, int]] = NUMBERS_OF_SEEDS
) -> SimulatedTables:
    """File name → table: intervals for means, other kinds of interval, whole books.

    Args:
        replications: of every cell, and the number of books.
        sizes: tuning seeds, report seeds.
    """
    return together([part(replications, sizes) for part in PARTS])


def together(parts: Sequence[SimulatedTables]) -> SimulatedTables:
    """The tables of all parts, those of one name below each other."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: pd.concat([part[name] for part in parts if name in part]) for name in names}


def of_runs(
    replications: int, sizes: Sequence[tuple[int, int]] = NUMBERS_OF_SEEDS
) -> SimulatedTables:
    """Contrasts of tuned arms, and the books that are made of them."""
    means, kinds, pool = [], [], []
    for cell in simulated_means(replications, sizes=sizes):
        means += rows_of(cell)
        if cell.case["interval"] == INTERVAL_USED:
            pool.append(cell)
            case = {name: cell.case[name] for name in cell.case if name != "interval"}
            kinds += rows_of(alike(cell)._replace(case={"kind": "two arms alike", **case}))
    others = simulated_kinds, simulated_differences
    for cell in (cell for kind in others for cell in kind(replications, sizes=sizes)):
        kinds += rows_of(cell)
        if cell.case["kind"] in STUDENTS:
            pool.append(cell)
    return {
        "intervals.csv": pd.DataFrame(means),
        "intervals-kinds.csv": pd.DataFrame(kinds),
        "intervals-book.csv": pd.DataFrame(simulated_books(pool, replications)),
    }


def of_sweeps(
    replications: int, sizes: Sequence[tuple[int, int]] = NUMBERS_OF_SEEDS
) -> SimulatedTables:
    """What is read off grids and dense sweeps."""
    kinds = simulated_best_rates, simulated_range_tests, simulated_searches
    rows = [
        row for kind in kinds for cell in kind(replications, sizes=sizes) for row in rows_of(cell)
    ]
    few = max(2, replications // CLOSING_SHARE)
    rows += [row for cell in simulated_closing(few, sizes=sizes[1:3]) for row in rows_of(cell)]
    return {"intervals-kinds.csv": pd.DataFrame(rows)}


PARTS = (of_runs, of_sweeps)
"""What may be simulated at the same time."""
