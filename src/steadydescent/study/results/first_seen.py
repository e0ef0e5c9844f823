"""When each row of a claim was first seen: a ledger among the published files.

    results/published/first_seen.csv        columns id, task, condition, date

A row enters it when it is first published, with the date of the result that it was read from, and
never changes: a contrast that is registered later than that was made up with its result in sight.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from steadydescent.study.paths import PUBLISHED
from steadydescent.study.results import published

LEDGER = "first_seen.csv"
KEY = ["id", "task", "condition"]
Key = tuple[str, str, str]
"""Claim, task and condition of a row."""


def first_seen(root: Path = PUBLISHED) -> dict[Key, str]:
    """Row → the day on which its first result was seen; empty where nothing was noted yet.

    Raises:
        DamagedFile: as `steadydescent.study.results.published.read`.
    """
    if not published.published(LEDGER, root):
        return {}
    table = published.table(LEDGER, root).astype(str)
    return {(row.id, row.task, row.condition): row.date for row in table.itertuples(index=False)}


def note_first_seen(seen: Mapping[Key, str], root: Path = PUBLISHED) -> None:
    """Add the rows that are not in the ledger yet, with their days; the others stay as they are."""
    known = first_seen(root)
    both = dict(seen) | known
    if both != known:
        lines = [(*key, both[key]) for key in sorted(both)]
        published.write_table(LEDGER, pd.DataFrame(lines, columns=[*KEY, "date"]), root)
