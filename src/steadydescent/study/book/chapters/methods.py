"""What the page on methods computes: how intervals fared on simulated runs, what profiles run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from steadydescent.study.book import page
from steadydescent.study.judging.holm import decided_by_holm, decided_in_place
from steadydescent.study.judging.statistics import level_of
from steadydescent.study.judging.verdicts import VERDICTS
from steadydescent.study.planning import PROFILES, plans
from steadydescent.study.results import published

USED = "tuned"
"""The interval that decides claims."""
LABELS = {
    USED: "tuned",
    "tuned, tuning seeds only": "no validation on report seeds",
    "paired t": "paired t, choice ignored",
}
"""Interval → its head on the page."""
SECONDARY, PRIMARY = level_of(primary=False), level_of(primary=True)
TOLD = (
    *("for", "against", "supported", "supported, size open", "too small to matter"),
    *("refuted, size open", "refuted", "open"),
)
"""What intervals say of a planted effect, in the order of the page's columns."""
COSTS = ["profile", "experiment", "task", "networks", "points", "replica_steps", "minutes"]
COSTS += ["evaluation_minutes", "memory_gib"]
HEADS = {
    "replica_steps": "updates",
    "minutes": "minutes, one process",
    "evaluation_minutes": "of which evaluation",
    "memory_gib": "memory, GiB",
}


def with_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its numbers of seeds in words: ``3 + 8``, tuning and report."""
    return table.assign(seeds=table.tuning.astype(str) + " + " + table.report.astype(str))


def intervals() -> pd.DataFrame:
    """Coverage and words of three intervals for means by world, seeds, level and effect."""
    return with_seeds(published.table("intervals.csv"))


def kinds() -> pd.DataFrame:
    """The same of the other kinds of contrast."""
    return with_seeds(published.table("intervals-kinds.csv"))


def books() -> pd.DataFrame:
    """How often whole simulated books hold a false word."""
    return published.table("intervals-book.csv")


def cells(trials: pd.DataFrame, level: float = SECONDARY) -> pd.DataFrame:
    """A row for each cell at a level, whatever is planted: coverage, truth, bias, sd."""
    first = ~trials.drop(columns=["effect", *_words(trials)]).duplicated()
    return trials[first & np.isclose(trials.level, level)]


def _words(trials: pd.DataFrame) -> list[str]:
    return [*("for", "against"), *(word for word in VERDICTS if word in trials)]


def coverage(trials: pd.DataFrame) -> page.Shown:
    """How often intervals for means held the truth, in words.

    Raises:
        ValueError: where the trials are no longer what the prose around this sentence says.
    """
    single = cells(trials).set_index("interval")
    ours, plain = single.loc[USED], single.loc["paired t"]
    ours_high = cells(trials, PRIMARY).set_index("interval").loc[USED]
    check_prose(ours, plain, ours_high)
    error = (0.05 * 0.95 / ours.replications.min()) ** 0.5
    return page.paragraph(
        f"Intervals of {100 * SECONDARY:g} % held the truth in {100 * ours.coverage.min():.1f} to "
        f"{100 * ours.coverage.max():.1f} % of trials, those of {100 * PRIMARY:g} % in "
        f"{100 * ours_high.coverage.min():.2f} to {100 * ours_high.coverage.max():.2f} %; "
        "the plain paired t interval at the chosen candidates, at the lower level, in "
        f"{100 * plain.coverage.min():.0f} to {100 * plain.coverage.max():.0f} %. Simulated shares "
        f"carry an error of about {100 * error:.1f} points at the lower level."
    )


def check_prose(ours: pd.DataFrame, plain: pd.DataFrame, ours_high: pd.DataFrame) -> None:
    """Refuse trials that the page's prose does not describe.

    Args:
        ours: cells of the interval that decides, columns coverage, bias, sd.
        plain: cells of the paired t interval.
        ours_high: cells of the interval that decides, at the level of primary rows.

    Raises:
        ValueError: naming what does not hold.
    """
    bias = ours.bias.abs()
    points = {
        "ours nearly holds, and errs too wide": ours.coverage.min() > 0.94
        and ours.coverage.mean() < 0.97,
        "ours holds at the level of primary rows": ours_high.coverage.min() > 0.998,
        "the plain interval is too short": plain.coverage.max() < 0.95,
        "the estimate leans little": bias.max() < 0.06 and (bias / ours.sd).max() < 0.35,
    }
    if wrong := [name for name, holds in points.items() if not holds]:
        raise ValueError(f"intervals.csv is not what the prose of this section says: {wrong}")


def table_of_coverage(trials: pd.DataFrame, level: float = SECONDARY) -> pd.DataFrame:
    """Coverage in percent by world and seeds, a column an interval."""
    single = cells(trials, level)
    single = single.assign(interval=single.interval.map(LABELS))
    wide = single.pivot(index=["world", "seeds"], columns="interval", values="coverage")
    return (100 * wide[list(LABELS.values())]).reset_index()


def table_of_words(trials: pd.DataFrame, level: float = PRIMARY) -> pd.DataFrame:
    """What intervals say of planted effects, in percent, the mean over worlds: by seeds and effect.

    `trials` are those of one interval or kind.
    """
    named = trials[np.isclose(trials.level, level)]
    told = [word for word in TOLD if word in named]
    means = 100 * named.groupby(["tuning", "seeds", "effect"])[told].mean()
    return means.reset_index().drop(columns="tuning").rename(columns={"effect": "effect, margins"})


def coverage_of_kinds(trials: pd.DataFrame) -> page.Shown:
    """In how many cells the intervals hold what they promise, and which do not, in words."""
    single = cells(trials)
    off = single[~single.coverage.between(0.94, 0.97)]
    wide, short = off[off.coverage > 0.97], off[off.coverage < 0.94]
    lowest = 100 * cells(trials, PRIMARY).coverage.min()
    parts = [
        f"Of {len(single)} cells {len(single) - len(off)} have a coverage of 94 to 97 %, "
        f"{len(wide)} more, {len(short)} less",
        f". Less: {_cells(short)}" if len(short) else "",
        f". More: {_cells(wide)}" if len(wide) else "",
        f". At {100 * PRIMARY:g} % the lowest coverage is {lowest:.2f} %.",
    ]
    return page.paragraph("".join(parts))


def _cells(trials: pd.DataFrame) -> str:
    """Kind and world with their coverages."""
    names = []
    for (kind, world), part in trials.groupby(["kind", "world"], sort=False):
        shares = ", ".join(f"{100 * share:.1f}" for share in part.coverage)
        names.append(f"{kind}, {world} ({shares} %)")
    return "; ".join(names)


def table_of_kinds(trials: pd.DataFrame) -> page.Shown:
    """Every cell: coverage in percent at both levels, truth, bias, sd, half-width of 95 %."""
    columns = ["kind", "world", "seeds"]
    high = cells(trials, PRIMARY).set_index(columns).coverage
    low = cells(trials).set_index(columns)
    heads = [f"coverage of {100 * level:g} %" for level in (SECONDARY, PRIMARY)]
    table = low.assign(**{heads[0]: 100 * low.coverage, heads[1]: 100 * high}).reset_index()
    formats = {heads[0]: "{:.1f}", heads[1]: "{:.2f}"}
    shown = [*columns, *heads, "truth", "bias", "sd", "half_width"]
    renamed = table[shown].rename(columns={"half_width": "half-width"})
    return page.table(renamed, precision=3, formats=formats)


def book_errors(trials: pd.DataFrame) -> page.Shown:
    """How often a whole simulated book holds a false word or direction, in words."""
    word, direction = trials.false_word.max(), trials.false_direction.max()
    rows, number = trials["rows"].max(), trials.books.min()
    return page.paragraph(
        f"Of books with {rows} primary rows, whatever is planted, at most {100 * word:.1f} % held "
        f"any false word and at most {100 * direction:.1f} % any false direction; "
        f"{number} books a line."
    )


def table_of_books(trials: pd.DataFrame) -> page.Shown:
    """Every kind of book: what share holds a false word or direction, and how much is decided."""
    table = trials.assign(
        book=trials.book.replace({"mixed": "some of each"}),
        false_word=100 * trials.false_word,
        false_direction=100 * trials.false_direction,
    )
    heads = {
        "book": "planted",
        "false_word": "any false word, % of books",
        "false_direction": "any false direction, % of books",
        "decided": "rows decided",
        "decided_by_holm": "rows that Holm would decide",
    }
    return page.table(table[["book", "seeds", *list(heads)[1:]]].rename(columns=heads), precision=1)


def more_by_holm(rows: Sequence[Mapping[str, Any]]) -> page.Shown:
    """How many of the book's primary rows Holm would decide beyond the fixed places, in words.

    `rows` as `steadydescent.study.book.edition.rows_shown` has them.
    """
    held, stepped = decided_in_place(rows), decided_by_holm(rows)
    run = sum(row["primary"] and row["level"] is not None for row in rows)
    return page.paragraph(
        f"Of {run} primary rows that were run, {held} are decided; Holm's procedure over the same "
        f"rows would decide {stepped}."
    )


def table_of_profiles() -> pd.DataFrame:
    """What each profile runs and costs on a CPU."""
    rows = [plan.cost("cpu") for profile in PROFILES for plan in plans(profile)]
    return pd.DataFrame(rows)[COSTS].rename(columns=HEADS)
