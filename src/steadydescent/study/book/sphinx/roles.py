"""Inline roles: a number, a verdict or the tasks of a verdict, from the findings."""

from __future__ import annotations

from docutils import nodes
from sphinx.util.docutils import SphinxRole

from steadydescent.study.book.sphinx.asked import places_and_open
from steadydescent.study.book.sphinx.elements import badge, findings_of, warn
from steadydescent.study.book.sphinx.lookup import FindingsError, find_verdict, result_text


class ResultRole(SphinxRole):
    """{result}`key`, `key@low`, `key@high`, `key@ci`, or without sign `key@size` and `key@size-ci`.

    Each takes a format: {result}`key@ci:.1f`.
    """

    def run(self):
        findings = findings_of(self.env)
        try:
            text = result_text(findings, self.text)
        except FindingsError as error:
            return self._refuse(str(error))
        if text is not None:
            return [nodes.inline(self.rawtext, text, classes=["result"])], []
        if findings["origin"]["source"] == "published":
            return self._refuse(f"result {self.text!r} has no value in the published results")
        # A reader's smaller profile leaves some results out; the page says so in place.
        return [nodes.inline(self.rawtext, "(not run)", classes=["result", "result-not-run"])], []

    def _refuse(self, message: str):
        warn(self.get_location(), message, "result")
        return [nodes.problematic(self.rawtext, self.rawtext)], []


class VerdictRole(SphinxRole):
    """{verdict}`claim` for its outcome, {verdict}`claim/task/condition` for the word of a row."""

    def run(self):
        try:
            return [badge(find_verdict(findings_of(self.env), self.text))], []
        except FindingsError as error:
            warn(self.get_location(), str(error), "claim")
            return [nodes.problematic(self.rawtext, self.rawtext)], []


class WhereRole(SphinxRole):
    """{where}`claim: outcome, outcome` or {where}`claim@level: outcome` for the tasks whose primary
    rows say so, and those that stay open: *on A and B*.
    """

    def run(self):
        try:
            text = places_and_open(findings_of(self.env), self.text)
            return [nodes.inline(self.rawtext, text, classes=["where"])], []
        except FindingsError as error:
            warn(self.get_location(), str(error), "claim")
            return [nodes.problematic(self.rawtext, self.rawtext)], []
