"""What the first edition said of each claim beside what this one says, and why they differ.

results/published/first_edition.csv  id, title, verdict and rows, as the first edition had them
experiments/changes.yml              claim id → what changed in its question
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from steadydescent.study import yaml_files
from steadydescent.study.judging.claims import load_claims
from steadydescent.study.paths import EXPERIMENTS
from steadydescent.study.results import published

FIRST, REASONS = "first_edition.csv", EXPERIMENTS / "changes.yml"
HEADS = ("claim", "first edition", "this edition", "what changed in the question")


def first_edition() -> pd.DataFrame:
    """Id → the first edition's title and verdict of a claim, and how many rows had each word."""
    return published.table(FIRST).set_index("id")


def reasons() -> dict[str, str]:
    """Id → what changed, for every claim of either edition.

    Raises:
        ValueError: for a claim without a reason, and a reason without a claim.
    """
    stated = yaml_files.read(REASONS).content
    known = {*load_claims(), *first_edition().index}
    if missing := sorted(known - stated.keys()):
        raise ValueError(
            f"{REASONS.name} says nothing of {', '.join(missing)}; add a line for each"
        )
    if unknown := sorted(stated.keys() - known):
        raise ValueError(f"{REASONS.name} tells of {', '.join(unknown)}, which are no claims")
    return {name: str(text) for name, text in stated.items()}


def table_of_changes(claims: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row a claim of either edition: columns `HEADS`.

    Args:
        claims: id → title and headline, as findings hold them; what the first edition alone had
            stands below them.
    """
    first, why = first_edition(), reasons()
    rows = []
    for name in [*claims, *(name for name in first.index if name not in claims)]:
        old, new = first.loc[name] if name in first.index else None, claims.get(name)
        before = "–" if old is None else f"{old.verdict}: {old['rows']}"
        title = old["title"] if new is None and old is not None else claims[name]["title"]
        after = "no longer asked" if new is None else new["headline"]
        rows.append((title, before, after, why.get(name, "")))
    return pd.DataFrame(rows, columns=list(HEADS))


def markdown(claims: Mapping[str, Mapping[str, Any]]) -> str:
    """`table_of_changes` as a Markdown table."""
    table = table_of_changes(claims)
    lines = ["| " + " | ".join(HEADS) + " |", "|---" * len(HEADS) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)
