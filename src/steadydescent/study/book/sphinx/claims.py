"""Claims, their verdict tables, and prose that only stands while a verdict holds."""

from __future__ import annotations

import re
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from steadydescent.study.book.sphinx.elements import (
    Content,
    badge,
    entry,
    findings_of,
    joined,
    link_to,
    link_to_result,
    note_anchor,
    note_target,
    permanent_link,
    row_of,
    slug,
    table,
    warn,
)
from steadydescent.study.book.sphinx.lookup import (
    FindingsError,
    check_outcome,
    check_verdict,
    find_claim,
    find_verdict,
)
from steadydescent.study.book.sphinx.sources import source_links
from steadydescent.study.book.words import (
    DASH,
    SECONDARY,
    condition_text,
    estimate_and_interval,
    margin_text,
    notes,
    percent,
)

BETWEEN_WORDS = re.compile(r",(?!\s*size open)")
"""The comma between verdicts; "supported, size open" is one."""


def claim_anchor(name: str) -> str:
    """Anchor of a claim's box, the same in every edition of the book."""
    return "claim-" + slug(name)


def decided_by(claim: dict, measure: str | None) -> str:
    """What decides a claim, and the measure if all of its rows share one."""
    parts = {"Decided by": claim.get("test"), "Measure": measure}
    return "".join(f"{name}: {text.rstrip('.')}. " for name, text in parts.items() if text)


def shared(rows: list[dict], key: str) -> str | None:
    """What all rows with an estimate, or just all, have under a key; None where they differ."""
    ran = [row for row in rows if row.get("estimate") is not None] or rows
    values = {row.get(key) for row in ran}
    return values.pop() if len(values) == 1 else None


class ClaimBox(SphinxDirective):
    """```{claim} id``` with prose inside: title, outcome, headline, source, prose, and rows, the
    primary ones first.
    """

    required_arguments = 1
    has_content = True

    def run(self):
        name = self.arguments[0]
        try:
            claim, _ = find_claim(findings_of(self.env), name)
            check_outcome(claim["outcome"])
            rows = self._table(claim["rows"])
        except FindingsError as error:
            warn(self.get_location(), str(error), "claim")
            return []
        anchor = claim_anchor(name)
        note_anchor(self.env, "claim", name, anchor, claim["title"], self.get_location())
        note_target(self.env, anchor, claim["title"])
        box = nodes.container(ids=[anchor], classes=["claim", "claim-" + slug(claim["outcome"])])
        box += self._head(claim)
        self.state.nested_parse(self.content, self.content_offset, box)
        box += rows
        box += self._foot(name, claim)
        self.set_source_info(box)
        return [box]

    def _head(self, claim: dict) -> list[nodes.Node]:
        title = nodes.paragraph("", "", nodes.strong("", claim["title"]), classes=["claim-title"])
        title += [nodes.Text(" "), badge(claim["outcome"])]
        found = nodes.paragraph("", claim["headline"], classes=["claim-headline"])
        sentence = nodes.paragraph(
            "", "", nodes.Text(claim["sentence"] + " "), classes=["claim-sentence"]
        )
        sentence += nodes.inline(
            "",
            "",
            *joined(source_links(claim["source"], self.env.docname)),
            classes=["claim-source"],
        )
        return [title, found, sentence]

    def _foot(self, name: str, claim: dict) -> nodes.paragraph:
        foot = nodes.paragraph(classes=["claim-foot"])
        foot += nodes.Text(decided_by(claim, shared(claim["rows"], "measure")))
        if levels := {row["level"] for row in claim["rows"] if row["primary"] and row["level"]}:
            foot += nodes.Text(f"Primary intervals: {percent(max(levels))}. ")
        if tests := list(
            dict.fromkeys(test for row in claim["rows"] for test in row.get("tests", []))
        ):
            foot += [
                nodes.Text("Held by "),
                *joined([nodes.literal("", test) for test in tests]),
                nodes.Text(". "),
            ]
        foot += permanent_link(self.env, "claim", name, "Permanent link to this claim")
        return foot

    def _table(self, rows: list[dict]) -> list[nodes.Node]:
        cells = [self._cells(row, shared(rows, "unit"), shared(rows, "measure")) for row in rows]
        filled = (
            [name for name in cells[0] if any(row[name] != DASH for row in cells)] if cells else []
        )
        lines = [row_of([row[name] for name in filled]) for row in cells]
        made: list[nodes.Node] = [
            table(filled, _with_head(rows, lines, len(filled)), ["claim-table"])
        ]
        remarks = [
            f"{row['task']}, {condition_text(row)}: {' and '.join(notes(row))}"
            for row in rows
            if notes(row)
        ]
        if remarks:
            made.append(nodes.paragraph("", "; ".join(remarks) + ".", classes=["claim-notes"]))
        return made

    def _cells(self, row: dict, unit: str | None, measure: str | None) -> dict[str, Content]:
        """Heading → what the row has there; shared units and measures stand elsewhere."""
        result = row.get("result")
        return {
            "Task": row["task"],
            "Condition": condition_text(row),
            "Measure": DASH if measure else row["measure"],
            "Verdict": badge(check_verdict(row["verdict"])),
            "Estimate" + (f" ({unit})" if unit else ""): estimate_and_interval(
                row, unit=unit is None
            ),
            "Margin": margin_text(row),
            "Seeds": str(row.get("n_seeds") or DASH),
            "Networks": f"{row['networks']:,}" if row.get("networks") else DASH,
            "Points": f"{row['points']:,}" if row.get("points") else DASH,
            "Result": link_to_result(self.env, result, result.partition("@")[2] or result)
            if result
            else DASH,
        }


def _with_head(rows: list[dict], lines: list[nodes.row], columns: int) -> list[nodes.row]:
    """Lines of rows, with a line over the secondary ones that says what they are."""
    first = sum(row["primary"] for row in rows)
    if first == len(rows):
        return lines
    head = nodes.entry("", nodes.paragraph("", SECONDARY), morecols=columns - 1)
    return [*lines[:first], nodes.row("", head, classes=["secondary-head"]), *lines[first:]]


def _above(first: nodes.Node, rest: list[str]) -> nodes.entry:
    """A cell with something to see and, below it, small print."""
    cell = nodes.entry("", nodes.paragraph("", "", first))
    if rest:
        cell += nodes.paragraph("", ", ".join(rest), classes=["claim-notes"])
    return cell


class VerdictTable(SphinxDirective):
    """```{verdicts}```: every claim, who makes it, its outcome; its headline, test and rows too.

    With `:summary:` it has claim, outcome and headline alone.
    """

    option_spec: ClassVar = {"summary": directives.flag}
    header = (
        *("Claim, and who makes it", "Verdict; direction, size"),
        *("Estimate and interval", "Seeds, runs; registered, first seen"),
    )
    brief = ("Claim, and who makes it", "Verdict", "What was found")

    def run(self):
        claims = findings_of(self.env)["claims"]
        header = list(self.brief if "summary" in self.options else self.header)
        try:
            rows = [row for name, claim in claims.items() for row in self._rows(name, claim)]
        except FindingsError as error:
            warn(self.get_location(), str(error), "claim")
            return []
        return [table(header, rows, ["verdicts-table"])]

    def _rows(self, name: str, claim: dict) -> list[nodes.row]:
        title = nodes.strong("", "", link_to(self.env, claim_anchor(name), claim["title"]))
        links = joined(source_links(claim["source"], self.env.docname))
        sources = nodes.inline("", "", *links, classes=["claim-source"])
        cells = [entry([title, " ", sources]), entry(badge(check_outcome(claim["outcome"])))]
        if "summary" in self.options:
            return [row_of([*cells, claim["headline"]])]
        cells[1]["morecols"] = len(self.header) - 2
        rows = [row_of(cells, ["verdicts-claim"])]
        measure = shared(claim["rows"], "measure")
        whole = nodes.entry(
            "",
            nodes.paragraph("", claim["headline"], classes=["claim-headline"]),
            nodes.paragraph("", decided_by(claim, measure), classes=["claim-notes"]),
            morecols=len(self.header) - 1,
        )
        rows.append(nodes.row("", whole, classes=["verdicts-claim", "verdicts-test"]))
        lines = [self._detail(row, measure is None) for row in claim["rows"]]
        return [*rows, *_with_head(claim["rows"], lines, len(self.header))]

    def _detail(self, row: dict, with_measure: bool) -> nodes.row:
        place = f"{row['task']}, {condition_text(row)}" + (
            f": {row['measure']}" if with_measure else ""
        )
        first = nodes.entry("", nodes.paragraph("", place))
        if remarks := notes(row):
            first += nodes.paragraph("", "; ".join(remarks) + ".", classes=["claim-notes"])
        answers = [row[key] for key in ("direction", "size") if row.get(key)]
        counts = [f"{row[key]:,}" for key in ("n_seeds", "networks", "points") if row.get(key)]
        days = [row[key] for key in ("registered", "first_seen") if row.get(key)]
        verdict = _above(badge(check_verdict(row["verdict"])), answers)
        counted = _above(nodes.Text(", ".join(counts) or DASH), days)
        return row_of([first, verdict, estimate_and_interval(row), counted], ["verdicts-row"])


class HoldsWhile(SphinxDirective):
    """```{holds} claim/task/condition: verdict, verdict``` around prose true only with those.

    Of a claim alone, ``claim: outcome``.

    In the published book any other verdict is a warning, so the build fails. In a reader's own book
    the prose gives way to a note that says what the published text rests on and how this run came
    out.
    """

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self):
        findings = findings_of(self.env)
        try:
            reference, allowed = self._parse()
            verdict = find_verdict(findings, reference)
        except FindingsError as error:
            warn(self.get_location(), str(error), "holds")
            return []
        published = findings["origin"]["source"] == "published"
        if verdict in allowed or published:
            if verdict not in allowed:
                words = " or ".join(allowed)
                message = f"the text says {words} of {reference}, but the data say {verdict}"
                warn(self.get_location(), message, "holds")
            prose = nodes.Element()
            self.state.nested_parse(self.content, self.content_offset, prose)
            for child in prose.children:
                child["rests-on"] = self.name
            return prose.children
        return [self._came_out(reference, allowed, *find_claim(findings, reference))]

    def _parse(self) -> tuple[str, list[str]]:
        reference, colon, words = self.arguments[0].rpartition(":")
        if not colon or not words.strip():
            raise FindingsUsage(self.arguments[0])
        check = check_verdict if "/" in reference else check_outcome
        return reference.strip(), [check(word.strip()) for word in BETWEEN_WORDS.split(words)]

    def _came_out(
        self, reference: str, allowed: list[str], claim: dict, row: dict | None
    ) -> nodes.admonition:
        place = f" ({row['task']}, {row['condition']})" if row else ""
        text = nodes.paragraph()
        text += nodes.Text(
            f"The published text here rests on the verdict “{'” or “'.join(allowed)}” for "
        )
        text += [
            link_to(self.env, claim_anchor(reference.partition("/")[0]), claim["title"]),
            nodes.Text(place),
        ]
        verdict = claim["outcome"] if row is None else row["verdict"]
        if verdict == "not run":
            text += nodes.Text("; your run did not include this.")
        else:
            text += [nodes.Text("; your run came out "), badge(verdict)]
            detail = f": {estimate_and_interval(row)}" if row else ""
            text += nodes.Text(detail + ".")
        title = nodes.title("", "Your run and the published text")
        return nodes.admonition("", title, text, classes=["warning", "your-run"])


class FindingsUsage(FindingsError):
    """An argument of `holds` that is not 'claim/task/condition: verdict, verdict'."""

    def __init__(self, argument: str):
        super().__init__(f"{argument!r} is not 'claim/task/condition: verdict[, verdict]'")
