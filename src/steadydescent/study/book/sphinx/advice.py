"""Advice that rests on a claim, and must not leave out a task that says otherwise.

Consecutive blocks on one claim form a group: the page shows those whose outcome came out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from steadydescent.study.book.sphinx.asked import Asked, find_asked, places
from steadydescent.study.book.sphinx.claims import BETWEEN_WORDS, FindingsUsage, claim_anchor
from steadydescent.study.book.sphinx.elements import badge, findings_of, link_to, warn
from steadydescent.study.book.sphinx.lookup import FindingsError, check_outcome, check_verdict
from steadydescent.study.judging.task_names import task_name

SIDES = {
    "supported": "for",
    "holds": "for",
    "refuted": "against",
    "does not hold": "against",
    "too small to matter": "against",
}
"""How a verdict, or a claim's outcome, begins → the side that it takes; all others are open."""
SECTION = "What to do"
"""The heading under which a page advises."""
WHERE = re.compile(r"\{where\}`([^`]*)`")
ROLE = re.compile(r"\{[\w:]+\}`[^`]*`")


def side_of(verdict: str) -> str:
    """The side that a verdict takes: for, against or open.

    >>> [side_of(word) for word in ("supported, size open", "too small to matter", "not run")]
    ['for', 'against', 'open']
    """
    return next((side for start, side in SIDES.items() if verdict.startswith(start)), "open")


def side_of_advice(verdicts: Iterable[str]) -> str:
    """The one side that the verdicts take which an advice rests on; open where all are.

    Raises:
        FindingsError: where they take both.
    """
    sides = {side_of(word) for word in verdicts} - {"open"}
    if len(sides) > 1:
        raise FindingsError(
            "advice must rest on verdicts of one side, supported or else refuted or too small to "
            f"matter, got {', '.join(verdicts)}"
        )
    return sides.pop() if sides else "open"


def asked_alike(asked: Asked) -> list[dict]:
    """Rows that an advice answers to: of each task those of the condition that it names.

    Where a task was not asked under that condition, its primary rows, if the advice names a primary
    one. An advice that names a claim or a level answers to its primary rows; without any, to all.
    """
    claim, named = asked.claim, asked.row
    if named is None:
        return asked.rows or claim["rows"]
    same = [row for row in claim["rows"] if row["condition"] == named["condition"]]
    tasks = {row["task"] for row in same}
    elsewhere = [row for row in claim["rows"] if row.get("primary") and row["task"] not in tasks]
    return same + (elsewhere if named.get("primary") else [])


def unmentioned(asked: Asked, side: str, text: str, findings: dict) -> list[dict]:
    """Rows of the other side that the text neither cites, as `name/task/…`, nor names by task."""
    plain = ROLE.sub("", WHERE.sub(lambda role: _named(role[1], asked.name, findings), text))
    return [
        row
        for row in asked_alike(asked)
        if side_of(row["verdict"]) not in (side, "open")
        and row is not asked.row
        and f"{asked.name}/{row['task']}/" not in text
        and not any(_stands_in(name, plain) for name in (row["task"], task_name(row["task"])))
    ]


def _named(reference: str, name: str, findings: dict) -> str:
    """The tasks that a role of the same claim names."""
    with suppress(FindingsError):
        if re.split(r"[@:]", reference)[0].strip() == name:
            return places(findings, reference)
    return ""


def _stands_in(name: str, text: str) -> bool:
    words = re.escape(name).replace("'", "['’]").replace(r"\ ", r"\s+")
    return bool(re.search(rf"(?<![\w-]){words}(?![\w-])", text))


class Mark(nodes.Invisible, nodes.Element):
    """Before an advice, shown or not: what it rests on. It is gone once the page is read.

    Attributes: reference, allowed, found (what came out), fits, published, where. Within: a note
    for a reader's own book.
    """


class Advice(SphinxDirective):
    """```{advice} claim: outcome, outcome``` around advice that rests on that outcome.

    In place of the claim may stand one level of its moderator, ``claim@level``, or a row,
    ``claim/task/condition: verdict``. Consecutive blocks on the same are a group; a block is shown
    where its outcome came out. In the published book it is a warning, so that the build fails, if
    none of a group fits what came out (but for *not run*), or if a task of the same claim comes out
    on the other side and the block does not say so: it must cite that row in a role, or name the
    task, which ``{where}`` does.
    """

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self):
        findings = findings_of(self.env)
        published = findings["origin"]["source"] == "published"
        try:
            reference, allowed = self._parse()
            side, asked = side_of_advice(allowed), find_asked(findings, reference)
            found = asked.came_out
        except FindingsError as error:
            warn(self.get_location(), str(error), "advice")
            return []
        fits = found in allowed
        about = {"reference": reference, "allowed": allowed, "found": found, "fits": fits}
        mark = Mark("", **about, published=published, where=self.get_location())
        if not fits:
            mark += self._note(asked)
            return [mark]
        if published:
            self._answer_for(asked, side, allowed, findings)
        prose = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, prose)
        for child in prose.children:
            child["rests-on"] = self.name
        return [mark, *prose.children]

    def _parse(self) -> tuple[str, list[str]]:
        reference, colon, words = self.arguments[0].rpartition(":")
        if not colon or not words.strip():
            raise FindingsUsage(self.arguments[0])
        check = check_verdict if "/" in reference else check_outcome
        return reference.strip(), [check(word.strip()) for word in BETWEEN_WORDS.split(words)]

    def _answer_for(self, asked: Asked, side: str, allowed: list[str], findings: dict) -> None:
        text = "\n".join(self.content)
        for row in unmentioned(asked, side, text, findings):
            key = f"{asked.name}/{row['task']}/{row['condition']}"
            words = f"the advice on {self.env.docname!r} rests on {asked.name}: {allowed[0]}, and "
            words += f"leaves out {row['task']}, which is {row['verdict']} ({row['condition']}); "
            words += f"add {{verdict}}`{key}` to the block, or name the task in it"
            warn(self.get_location(), words, "advice")

    def _note(self, asked: Asked) -> nodes.admonition:
        """For a reader's own book: the published text has no advice for what came out."""
        text = nodes.paragraph("", "No advice of the published text fits your run: ")
        text += [link_to(self.env, claim_anchor(asked.name), asked.claim["title"])]
        text += [nodes.Text(f" (when {asked.level})" if asked.level else "")]
        text += [nodes.Text(" came out "), badge(asked.came_out), nodes.Text(".")]
        title = nodes.title("", "Your run and the published text")
        return nodes.admonition("", title, text, classes=["warning", "your-run"])


def groups_of(section: nodes.Element) -> Iterator[list[Mark]]:
    """Consecutive marks on the same, with nothing but advice between them."""
    group: list[Mark] = []
    for child in section.children:
        if isinstance(child, Mark):
            if group and group[0]["reference"] != child["reference"]:
                yield group
                group = []
            group.append(child)
        elif not (isinstance(child, nodes.Element) and child.get("rests-on") == "advice"):
            if group:
                yield group
            group = []
    if group:
        yield group


def answer(group: list[Mark]) -> None:
    """See to it that a block of the group fits what came out; a run that was not made asks none."""
    first = group[0]
    if any(mark["fits"] for mark in group) or first["found"] == "not run":
        return
    if first["published"]:
        covered = ", ".join(dict.fromkeys(word for mark in group for word in mark["allowed"]))
        words = f"no advice on {first['reference']} fits: the data say {first['found']}, and there "
        words += f"are blocks for {covered}; add a block for {first['found']}"
        warn(first["where"], words, "advice")
    else:
        first.parent.insert(first.parent.index(first), first.children[0])


def advice_answers(_app, doctree: nodes.document) -> None:
    """Every group of advice has a block that fits; prose under "What to do" that rests on a verdict
    is `advice`.
    """
    for parent in {id(mark.parent): mark.parent for mark in doctree.findall(Mark)}.values():
        for group in list(groups_of(parent)):
            answer(group)
    for mark in list(doctree.findall(Mark)):
        mark.parent.remove(mark)
    for section in doctree.findall(nodes.section):
        if section[0].astext() != SECTION:
            continue
        for child in section.children:
            if isinstance(child, nodes.Element) and child.get("rests-on") == "holds":
                words = f"prose under {SECTION!r} rests on a verdict; make its {{holds}} {{advice}}"
                warn(child, words, "advice")
