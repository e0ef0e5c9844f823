"""All tables of the simulation, made together, since books are made of the same replications."""

from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from steadydescent.study.judging.simulated_worlds.best_rates import simulated_best_rates
from steadydescent.study.judging.simulated_worlds.books import simulated_books
from steadydescent.study.judging.simulated_worlds.differences import simulated_differences
from steadydescent.study.judging.simulated_worlds.means import SIZES, alike, simulated_means
from steadydescent.study.judging.simulated_worlds.other_kinds import simulated_kinds
from steadydescent.study.judging.simulated_worlds.searches import (
    simulated_closing,
    simulated_range_tests,
    simulated_searches,
)
from steadydescent.study.judging.simulated_worlds.tally import Intervals, rows_of

USED = "tuned"
"""The interval for means that claims are decided by."""
STUDENTS = ("ratio of updates", "ratio of spreads", "difference of differences")
"""Kinds beside means whose rows books are made of: superiority, with Student's intervals."""
CLOSING_SHARE = 5
"""Coarse-to-fine searches take long, and have so many times fewer replications."""


def simulate(
    replications: int,
    sizes: Sequence[tuple[int, int]] = SIZES,
    told: Callable[[str], None] = print,
) -> dict[str, pd.DataFrame]:
    """File name → table: intervals for means, other kinds of interval, whole books.

    Args:
        replications: of every cell, and the number of books.
        sizes: tuning seeds, report seeds.
        told: is called with a line a cell.
    """

    def heard(cells: Iterator[Intervals]) -> Iterator[Intervals]:
        for cell in cells:
            told(" ".join(str(part) for part in cell.case.values()))
            yield cell

    means, kinds, pool = [], [], []
    for cell in heard(simulated_means(replications, sizes=sizes)):
        means += rows_of(cell)
        if cell.case["interval"] == USED:
            pool.append(cell)
            case = {name: cell.case[name] for name in cell.case if name != "interval"}
            kinds += rows_of(alike(cell)._replace(case={"kind": "two arms alike", **case}))
    for cell in heard(_other_cells(replications, sizes)):
        kinds += rows_of(cell)
        if cell.case["kind"] in STUDENTS:
            pool.append(cell)
    return {
        "intervals.csv": pd.DataFrame(means),
        "intervals-kinds.csv": pd.DataFrame(kinds),
        "intervals-book.csv": pd.DataFrame(simulated_books(pool, replications)),
    }


def _other_cells(replications: int, sizes: Sequence[tuple[int, int]]) -> Iterator[Intervals]:
    yield from simulated_kinds(replications, sizes=sizes)
    yield from simulated_differences(replications, sizes=sizes)
    yield from simulated_best_rates(replications, sizes=sizes)
    yield from simulated_range_tests(replications, sizes=sizes)
    yield from simulated_searches(replications, sizes=sizes)
    yield from simulated_closing(max(2, replications // CLOSING_SHARE), sizes=sizes[1:3])
