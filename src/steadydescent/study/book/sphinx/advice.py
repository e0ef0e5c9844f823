"""Advice that rests on a claim, and must not leave out a task that says otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable

from docutils import nodes

from steadydescent.study.book.sphinx.claims import HoldsWhile
from steadydescent.study.book.sphinx.elements import findings_of, warn
from steadydescent.study.book.sphinx.lookup import FindingsError, find_claim

SIDES = {
    "supported": "for",
    "holds": "for",
    "refuted": "against",
    "does not hold": "against",
    "too small to matter": "against",
    "no difference": "against",
}
"""How a verdict, or a claim's outcome, begins → the side that it takes; all others are open."""
SECTION = "What to do"
"""The heading under which a page advises."""
ROLE = re.compile(r"\{[\w:]+\}`[^`]*`")


def side_of(verdict: str) -> str:
    """The side that a verdict takes: for, against or open.

    >>> [side_of(word) for word in ("supported, size open", "too small to matter", "not run")]
    ['for', 'against', 'open']
    """
    return next((side for start, side in SIDES.items() if verdict.startswith(start)), "open")


def side_of_advice(verdicts: Iterable[str]) -> str:
    """The one side that the verdicts take which an advice rests on.

    Raises:
        FindingsError: where they take none, or both.
    """
    sides = {side_of(word) for word in verdicts} - {"open"}
    if len(sides) != 1:
        raise FindingsError(
            "advice must rest on verdicts of one side, supported or else refuted or too small to "
            f"matter, got {', '.join(verdicts)}"
        )
    return sides.pop()


def asked_alike(claim: dict, named: dict | None) -> list[dict]:
    """Rows that an advice answers to: of each task those of the condition that it names.

    Where a task was not asked under that condition, its primary rows, if the advice names a primary
    one. An advice that names the whole claim answers to all primary rows; without any, to all.
    """
    if named is None:
        return [row for row in claim["rows"] if row.get("primary")] or claim["rows"]
    same = [row for row in claim["rows"] if row["condition"] == named["condition"]]
    asked = {row["task"] for row in same}
    elsewhere = [row for row in claim["rows"] if row.get("primary") and row["task"] not in asked]
    return same + (elsewhere if named.get("primary") else [])


def unmentioned(name: str, claim: dict, named: dict | None, side: str, text: str) -> list[dict]:
    """Rows of the other side that the text neither cites, as `name/task/…`, nor names by task."""
    plain = ROLE.sub("", text)
    return [
        row
        for row in asked_alike(claim, named)
        if side_of(row["verdict"]) not in (side, "open")
        and row is not named
        and f"{name}/{row['task']}/" not in text
        and not re.search(rf"(?<![\w-]){re.escape(row['task'])}(?![\w-])", plain)
    ]


def advice_answers(_app, doctree: nodes.document) -> None:
    """Prose under "What to do" that rests on a verdict must be `advice`."""
    for section in doctree.findall(nodes.section):
        if section[0].astext() != SECTION:
            continue
        for child in section.children:
            if isinstance(child, nodes.Element) and child.get("rests-on") == "holds":
                words = f"prose under {SECTION!r} rests on a verdict; make its {{holds}} {{advice}}"
                warn(child, words, "advice")


class Advice(HoldsWhile):
    """```{advice} claim/task/condition: verdict``` around advice that rests on that verdict.

    It stands while the verdict does, as with `holds`. And in the published book it is a warning,
    so that the build fails, if another task of the same claim comes out on the other side and the
    block does not say so: it must cite that row in a role, or name the task.
    """

    def run(self):
        made = super().run()
        findings = findings_of(self.env)
        if findings["origin"]["source"] == "published":
            try:
                self._answer_for(findings)
            except FindingsError as error:
                warn(self.get_location(), str(error), "advice")
        return made

    def _answer_for(self, findings: dict) -> None:
        reference, allowed = self._parse()
        claim, named = find_claim(findings, reference)
        name, text = reference.partition("/")[0], "\n".join(self.content)
        for row in unmentioned(name, claim, named, side_of_advice(allowed), text):
            key = f"{name}/{row['task']}/{row['condition']}"
            words = f"the advice on {self.env.docname!r} rests on {reference}: {allowed[0]}, and "
            words += f"leaves out {row['task']}, which is {row['verdict']} ({row['condition']}); "
            words += f"add {{verdict}}`{key}` to the block, or name the task in it"
            warn(self.get_location(), words, "advice")
