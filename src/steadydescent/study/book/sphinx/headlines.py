"""What a chapter's claims came to, at its top."""

from __future__ import annotations

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from steadydescent.study.book.sphinx.claims import claim_anchor
from steadydescent.study.book.sphinx.elements import findings_of, joined, link_to, warn
from steadydescent.study.book.sphinx.lookup import FindingsError, check_outcome, find_claim
from steadydescent.study.book.words import estimate_and_interval
from steadydescent.study.judging.headlines import ARITHMETIC
from steadydescent.study.judging.task_names import task_name


class Headlines(SphinxDirective):
    """```{headlines}``` with an id a line: each claim's title and headline, and below them the
    estimates of its primary rows; those of arithmetic stand in the claim's box alone.
    """

    has_content = True

    def run(self):
        findings, items = findings_of(self.env), []
        for name in filter(None, map(str.strip, self.content)):
            try:
                claim, row = find_claim(findings, name)
                if row is not None:
                    raise FindingsError(f"headlines are those of claims, got a row, {name!r}")
                check_outcome(claim["outcome"])
            except FindingsError as error:
                warn(self.get_location(), str(error), "claim")
            else:
                items.append(self._item(name, claim))
        return [nodes.bullet_list("", *items, classes=["headlines"])] if items else []

    def _item(self, name: str, claim: dict) -> nodes.list_item:
        title = link_to(self.env, claim_anchor(name), claim["title"])
        line = nodes.paragraph("", "", nodes.strong("", "", title), nodes.Text(". "))
        line += nodes.Text(claim["headline"])
        parts = [nodes.Text(text) for text in primary_estimates(claim["rows"])]
        if not parts:
            return nodes.list_item("", line)
        return nodes.list_item(
            "", line, nodes.paragraph("", "", *joined(parts, "; "), classes=["headline-rows"])
        )


def primary_estimates(rows: list[dict]) -> list[str]:
    """Task, level and estimate of each primary row that was run, as they stand in a line."""
    shown = [
        row
        for row in rows
        if row["primary"] and row["task"] != ARITHMETIC and row["estimate"] is not None
    ]
    return [
        ", ".join(filter(None, (task_name(row["task"]), row["when"])))
        + f": {estimate_and_interval(row)}"
        for row in shown
    ]
