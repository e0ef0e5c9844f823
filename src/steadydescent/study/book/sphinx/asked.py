"""What a piece of advice rests on: a claim, one level of its moderator, or one of its rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from steadydescent.study.book.sphinx.lookup import (
    FindingsError,
    check_outcome,
    check_verdict,
    find_claim,
)
from steadydescent.study.judging.headlines import ARITHMETIC, SAID, enumerated, outcome_of
from steadydescent.study.judging.task_names import task_name
from steadydescent.study.judging.verdicts import Stance, stance

OUTCOME_WORDS: dict[str, Stance] = {said: own for own, said in SAID.items()} | {"open": "open"}
"""An outcome → what rows say that stand for it."""


class Asked(NamedTuple):
    """A claim with one of its rows, or with the primary rows of a level, or of all levels."""

    name: str
    claim: dict
    level: str | None = None
    row: dict | None = None

    @property
    def rows(self) -> list[dict]:
        """The claim's primary rows, or those of the level, or the one row."""
        if self.row is not None:
            return [self.row]
        primary = [row for row in self.claim["rows"] if row.get("primary")]
        return [row for row in primary if self.level in (None, row.get("when", ""))]

    @property
    def came_out(self) -> str:
        """A row's verdict, a level's outcome, or the claim's."""
        if self.row is not None:
            return check_verdict(self.row["verdict"])
        if self.level is None:
            return check_outcome(self.claim["outcome"])
        return outcome_of([{stance(check_verdict(row["verdict"])) for row in self.rows}])


def find_asked(findings: dict, reference: str) -> Asked:
    """What ``claim``, ``claim@level`` or ``claim/task/condition`` names.

    Raises:
        FindingsError: if there is no such claim, level or row.
    """
    name = reference.partition("/")[0]
    if "@" not in name:
        claim, row = find_claim(findings, reference)
        return Asked(name.strip(), claim, row=row)
    name, level = (part.strip() for part in reference.split("@", 1))
    claim, _ = find_claim(findings, name)
    levels = dict.fromkeys(row.get("when", "") for row in claim["rows"] if row.get("primary"))
    if level not in levels:
        raise FindingsError(f"claim {name!r} has no level {level!r}; it has {'; '.join(levels)}")
    return Asked(name, claim, level=level)


def parsed(reference: str) -> tuple[str, list[str]]:
    """Reference and outcomes of ``reference: outcome, outcome``.

    Raises:
        FindingsError: for another form, or for what is no outcome of rows.
    """
    where, colon, words = reference.rpartition(":")
    outcomes = [word.strip() for word in words.split(",")]
    if not colon or not set(outcomes) <= OUTCOME_WORDS.keys():
        raise FindingsError(
            f"{reference!r} is not 'claim: outcome' with outcomes among {', '.join(OUTCOME_WORDS)}"
        )
    return where.strip(), outcomes


def places(findings: dict, reference: str) -> str:
    """The tasks whose primary rows say so, ``on A and B``; with their level where a claim has some.

    Raises:
        FindingsError: if there is no such claim, or no row says so.
    """
    return enumerated([_on(said) + _when(level) for level, said, _ in _told(findings, reference)])


def places_and_open(findings: dict, reference: str) -> str:
    """The same, with the tasks that stay open, once a level: ``on A (on B it stays open)``.

    Raises:
        FindingsError: as `places` does.
    """
    parts = []
    for level, said, still in _told(findings, reference):
        left = f" ({_on(still)} it stays open)" if still else ""
        parts.append(_on(said) + left + _when(level))
    return enumerated(parts)


def _told(findings: dict, reference: str) -> list[tuple[str, list[dict], list[dict]]]:
    """Level, its primary rows that say so, and its open ones, if this is the first that it says."""
    where, outcomes = parsed(reference)
    asked = find_asked(findings, where)
    wanted = {OUTCOME_WORDS[word] for word in outcomes}
    by_level: dict[str, list[dict]] = {}
    for row in asked.rows:
        by_level.setdefault("" if asked.level else row.get("when", ""), []).append(row)
    told = []
    for level, rows in by_level.items():
        stances = [stance(row["verdict"]) for row in rows]
        of = lambda these, rows=rows, stances=stances: [
            row for row, own in zip(rows, stances, strict=True) if own in these
        ]
        first = next((own for own in SAID if own in stances), None)
        if said := of(wanted):
            told.append((level, said, of({"open"}) if first in wanted else []))
    if not told:
        raise FindingsError(f"no primary row of {where!r} says {' or '.join(outcomes)}")
    return told


def _when(level: str) -> str:
    return f" when {level}" if level else ""


def _on(rows: Iterable[dict]) -> str:
    names = [task_name(row["task"]) for row in rows]
    return "by arithmetic" if set(names) == {ARITHMETIC} else f"on {enumerated(names)}"
