"""A claim's line for a reader, made from its primary rows: an outcome, and a sentence.

Rows at one level of the claim's moderator answer together; what they say is for, against, too small
to matter, or open. An open row takes nothing away from those that are decided.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from steadydescent.study.judging.prediction import FEWEST_TASKS, predicted
from steadydescent.study.judging.rows import Row, in_margins
from steadydescent.study.judging.statistics import student
from steadydescent.study.judging.task_names import task_name
from steadydescent.study.judging.verdicts import Stance, stance

OUTCOMES = ("holds", "holds when", "does not hold", "too small to matter", "open", "not run")
"""Every outcome that a claim may have: its sentence in a word or two."""
SAID: dict[Stance, str] = {
    "for": "holds",
    "against": "does not hold",
    "small": "too small to matter",
}
"""What decided rows say of their claim."""
ARITHMETIC = "arithmetic"
"""The task of exact rows."""


class Headline(NamedTuple):
    """One of `OUTCOMES`, and the sentence that says where it holds and on how many tasks."""

    outcome: str
    sentence: str


def headline(rows: Iterable[Row]) -> Headline:
    """What the primary rows among a claim's rows say together."""
    by_level: dict[str, list[Row]] = {}
    for row in rows:
        if row.primary:
            by_level.setdefault(row.when, []).append(row)
    levels = [Level(when, tuple(mine)) for when, mine in by_level.items()]
    if not any(level.run for level in levels):
        return Headline("not run", _not_run([row for level in levels for row in level.rows]))
    parts: dict[str, list[str]] = {}
    for level in levels:
        parts.setdefault(level.said, []).append(level.where)
    texts = [said + " and".join(places) for said, places in parts.items()]
    sentences = ["; ".join(texts), *filter(None, (level.prediction for level in levels))]
    return Headline(
        outcome_of(level.stances for level in levels),
        " ".join(f"{text[:1].upper()}{text[1:]}." for text in sentences),
    )


def outcome_of(levels: Iterable[set[Stance]]) -> str:
    """One of `OUTCOMES`, from what the rows at each level of a claim's moderator say, each once.

    >>> outcome_of([{"for", "open"}]), outcome_of([{"for"}, {"open"}]), outcome_of([{"small"}])
    ('holds', 'holds when', 'too small to matter')
    """
    levels = list(levels)
    stances = {stance for level in levels for stance in level}
    decided = stances & SAID.keys()
    if decided == {"for"}:
        everywhere = all(level & SAID.keys() for level in levels)
        return "holds" if everywhere else "holds when"
    if "for" in decided:
        return "holds when"
    if decided:
        return SAID["against" if "against" in decided else "small"]
    return "open" if stances - {"not run"} else "not run"


class Level(NamedTuple):
    """The primary rows at one level of a claim's moderator; `when` is empty where it has none."""

    when: str
    rows: tuple[Row, ...]

    @property
    def stances(self) -> set[Stance]:
        """What its rows say, each once."""
        return {stance(row.verdict) for row in self.rows}

    def of(self, said: Stance) -> list[Row]:
        """The rows that say so."""
        return [row for row in self.rows if stance(row.verdict) == said]

    @property
    def decided(self) -> list[Stance]:
        """What its decided rows say, each once, in the order of `SAID`."""
        return [said for said in SAID if self.of(said)]

    @property
    def run(self) -> list[Row]:
        """The rows that were run."""
        return [row for row in self.rows if stance(row.verdict) != "not run"]

    @property
    def said(self) -> str:
        """How the level's part of the sentence begins."""
        if not self.decided:
            return "open" if self.run else "not run"
        if len(self.decided) == 1:
            return SAID[self.decided[0]]
        places = [f"{SAID[said]} {_places(self.of(said))}" for said in self.decided]
        return f"when {self.when}: {', '.join(places)}" if self.when else "; ".join(places)

    @property
    def where(self) -> str:
        """How it ends: when, how many tasks agree, which one where it is one, and what is open."""
        when = f" when {self.when}" if self.when and len(self.decided) < 2 else ""
        if not self.decided:
            needed = _what_decides(self.of("open"))
            return f"{when} ({needed})" if needed and when else f": {needed}" if needed else when
        counts, alone = self._counts(), ""
        agreeing = self.of(self.decided[0])
        if len(self.decided) == len(agreeing) == 1 and agreeing[0].task != ARITHMETIC:
            alone = task_name(agreeing[0].task)
        if alone and when:
            counts, alone = [alone, *counts], ""
        on = f" on {alone}" if alone else ""
        return f"{when}{on} ({'; '.join(counts)})" if counts else f"{when}{on}"

    def _counts(self) -> list[str]:
        """How many agree, where several were run; of how many the size is open; what is open."""
        run, parts = self.run, []
        agreeing = len(self.of(self.decided[0]))
        if len(self.decided) == 1 and agreeing > 1:
            parts.append(f"{agreeing} of {len(run)} {_noun(run)} agree")
        if sized := sum(row.verdict.endswith("size open") for row in run):
            parts.append("size open" if sized == len(run) else f"size open on {sized}")
        still: tuple[Stance, ...] = ("open", "not run")
        return parts + [f"{len(self.of(word))} {word}" for word in still if self.of(word)]

    @property
    def prediction(self) -> str:
        """What its tasks say of a new one, in margins; nothing where they are too few, or smoke."""
        rows = [row for row in self.rows if row.ci_low is not None and row.profile != "smoke"]
        if len(rows) < FEWEST_TASKS:
            return ""
        effects, errors = np.array([_effect_and_error(row) for row in rows]).T
        low, high = predicted(effects, errors)
        when = f" when {self.when}" if self.when else ""
        return f"on a new task{when}, {low:.1f} to {high:.1f} margins are predicted (95 %)".replace(
            "-", "\N{MINUS SIGN}"
        )


def _effect_and_error(row: Row) -> tuple[float, float]:
    """A row's estimate and its standard error in margins, from its Student interval."""
    low, effect, high = (
        in_margins(value, row.null, row.margin)
        for value in (row.ci_low, row.estimate, row.ci_high)
        if value is not None
    )
    quantile = student(row.level or 0.95, (row.n_seeds or 2) - 1)
    return effect, (high - low) / 2 / quantile


def _noun(rows: Sequence[Row]) -> str:
    return "cases" if rows[0].task == ARITHMETIC else "tasks"


def _places(rows: Sequence[Row]) -> str:
    """On which tasks, or in how many cases of arithmetic."""
    if rows[0].task == ARITHMETIC:
        return f"in {len(rows)} case{'s' if len(rows) > 1 else ''}"
    return f"on {enumerated([task_name(row.task) for row in rows])}"


def enumerated(names: Sequence[str]) -> str:
    """Names in a sentence: ``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _not_run(rows: Sequence[Row]) -> str:
    """That nothing was run, and why where results say so."""
    reasons = dict.fromkeys(f"on {task_name(row.task)} {row.reason}" for row in rows if row.reason)
    return f"Not run: {'; '.join(reasons)}." if reasons else "Not run."


def _what_decides(rows: Sequence[Row]) -> str:
    """How many seeds would decide open rows, or why none would."""
    parts = []
    for row in rows:
        if row.seeds_needed == "never":
            parts.append(f"more seeds alone would not decide {task_name(row.task)}")
        elif row.seeds_needed:
            parts.append(f"about {row.seeds_needed:,} seeds would decide {task_name(row.task)}")
        elif row.reason:
            parts.append(f"on {task_name(row.task)} {row.reason}")
    return ", ".join(parts)
