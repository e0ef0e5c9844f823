"""Claims, their verdict tables, and prose that only stands while a verdict holds."""

from __future__ import annotations

from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from . import findings as fd
from .elements import (
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
    table,
    warn,
)
from .sources import source_links


def claim_anchor(name: str) -> str:
    """Anchor of a claim's box, the same in every edition of the book."""
    return "claim-" + fd.slug(name)


def shared_unit(rows: list[dict]) -> str | None:
    """Unit of all rows, or None where they differ."""
    units = {row.get("unit") for row in rows}
    return units.pop() if len(units) == 1 else None


class Claim(SphinxDirective):
    """```{claim} id``` with prose inside: title, source, verdict, the prose, and the rows that decide it."""

    required_arguments = 1
    has_content = True

    def run(self):
        name = self.arguments[0]
        try:
            claim, _ = fd.find_claim(findings_of(self.env), name)
            fd.check_verdict(claim["verdict"])
            rows = self._table(claim["rows"])
        except fd.FindingsError as error:
            warn(self.get_location(), str(error), "claim")
            return []
        anchor = claim_anchor(name)
        note_anchor(self.env, "claim", name, anchor, claim["title"], self.get_location())
        note_target(self.env, anchor, claim["title"])
        box = nodes.container(ids=[anchor], classes=["claim", "claim-" + fd.slug(claim["verdict"])])
        box += self._head(claim)
        self.state.nested_parse(self.content, self.content_offset, box)
        box += rows
        box += self._foot(name, claim)
        self.set_source_info(box)
        return [box]

    def _head(self, claim: dict) -> list[nodes.Node]:
        title = nodes.paragraph("", "", nodes.strong("", claim["title"]), classes=["claim-title"])
        title += [nodes.Text(" "), badge(claim["verdict"])]
        said = nodes.paragraph("", "", nodes.Text(claim["sentence"] + " "), classes=["claim-sentence"])
        said += nodes.inline("", "", *joined(source_links(claim["source"], self.env.docname)), classes=["claim-source"])
        return [title, said]

    def _foot(self, name: str, claim: dict) -> nodes.paragraph:
        foot = nodes.paragraph(classes=["claim-foot"])
        if claim.get("test"):
            foot += nodes.Text(f"Decided by: {claim['test'].rstrip('.')}. ")
        foot += permanent_link(self.env, "claim", name, "Permanent link to this claim")
        return foot

    def _table(self, rows: list[dict]) -> list[nodes.Node]:
        unit = shared_unit(rows)
        estimate = "Estimate" + (f" ({unit})" if unit else "")
        header = ["Task", "Condition", "Verdict", estimate, "Margin", "Seeds", "Result"]
        made: list[nodes.Node] = [table(header, [self._row(row, unit is None) for row in rows], ["claim-table"])]
        noted = [(row, " and ".join(fd.notes(row))) for row in rows]
        notes = [f"{row['task']}, {row['condition']}: {note}" for row, note in noted if note]
        return [*made, nodes.paragraph("", "; ".join(notes) + ".", classes=["claim-notes"])] if notes else made

    def _row(self, row: dict, with_unit: bool) -> nodes.row:
        margin = fd.DASH if row.get("margin") is None else f"±{row['margin']:g}"
        result: nodes.Node | str = fd.DASH
        if row.get("result"):
            result = link_to_result(self.env, row["result"], row["result"].partition("@")[2] or row["result"])
        verdict = badge(fd.check_verdict(row["verdict"]))
        seeds = str(row.get("n_seeds") or fd.DASH)
        estimate = fd.estimate_and_interval(row, unit=with_unit)
        return row_of([row["task"], row["condition"], verdict, estimate, margin, seeds, result])


class Verdicts(SphinxDirective):
    """```{verdicts}```: every claim with who says so and its verdict; its rows too, unless `:summary:` is given."""

    option_spec: ClassVar = {"summary": directives.flag}

    def run(self):
        claims = findings_of(self.env)["claims"]
        header = ["Claim, and who makes it", "Verdict", "Estimate and interval"]
        try:
            rows = [row for name, claim in claims.items() for row in self._rows(name, claim)]
        except fd.FindingsError as error:
            warn(self.get_location(), str(error), "claim")
            return []
        return [table(header[:2] if "summary" in self.options else header, rows, ["verdicts-table"])]

    def _rows(self, name: str, claim: dict) -> list[nodes.row]:
        title = nodes.strong("", "", link_to(self.env, claim_anchor(name), claim["title"]))
        said = nodes.inline("", "", *joined(source_links(claim["source"], self.env.docname)), classes=["claim-source"])
        cells = [entry([title, " ", said]), entry(badge(fd.check_verdict(claim["verdict"])))]
        if "summary" in self.options:
            return [row_of(cells)]
        cells[1]["morecols"] = 1
        return [row_of(cells, ["verdicts-claim"]), *(self._detail(row) for row in claim["rows"])]

    def _detail(self, row: dict) -> nodes.row:
        place = f"{row['task']}, {row['condition']}"
        verdict = badge(fd.check_verdict(row["verdict"]))
        return row_of([place, verdict, fd.estimate_and_interval(row)], ["verdicts-row"])


class Holds(SphinxDirective):
    """```{holds} claim/task/condition: verdict, verdict``` around prose that is true only with those verdicts.

    In the published book any other verdict is a warning, so the build fails. In a reader's own book the prose gives
    way to a note that says what the published text rests on and how this run came out.
    """

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self):
        found = findings_of(self.env)
        try:
            reference, allowed = self._parse()
            verdict = fd.find_verdict(found, reference)
        except fd.FindingsError as error:
            warn(self.get_location(), str(error), "holds")
            return []
        published = found["origin"]["source"] == "published"
        if verdict in allowed or published:
            if verdict not in allowed:
                message = f"the text says {' or '.join(allowed)} of {reference}, but the data say {verdict}"
                warn(self.get_location(), message, "holds")
            prose = nodes.Element()
            self.state.nested_parse(self.content, self.content_offset, prose)
            return prose.children
        return [self._came_out(reference, allowed, *fd.find_claim(found, reference))]

    def _parse(self) -> tuple[str, list[str]]:
        reference, colon, words = self.arguments[0].partition(":")
        if not colon or not words.strip():
            raise FindingsUsage(self.arguments[0])
        return reference.strip(), [fd.check_verdict(word.strip()) for word in words.split(",")]

    def _came_out(self, reference: str, allowed: list[str], claim: dict, row: dict | None) -> nodes.admonition:
        place = f" ({row['task']}, {row['condition']})" if row else ""
        text = nodes.paragraph()
        text += nodes.Text(f"The published text here rests on the verdict “{'” or “'.join(allowed)}” for ")
        text += [link_to(self.env, claim_anchor(reference.partition("/")[0]), claim["title"]), nodes.Text(place)]
        verdict = (row or claim)["verdict"]
        if verdict == "not run":
            text += nodes.Text("; your run did not include this.")
        else:
            text += [nodes.Text("; your run came out "), badge(verdict)]
            detail = f": {fd.estimate_and_interval(row)}" if row else ""
            text += nodes.Text(detail + ".")
        title = nodes.title("", "Your run and the published text")
        return nodes.admonition("", title, text, classes=["warning", "your-run"])


class FindingsUsage(fd.FindingsError):
    """An argument of `holds` that is not 'claim/task/condition: verdict, verdict'."""

    def __init__(self, argument: str):
        super().__init__(f"{argument!r} is not 'claim/task/condition: verdict[, verdict]'")
