"""The errata: what the sources print, and what is right, from `steadydescent.study.book.slips`."""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

import steadydescent.study.book.slips as data
from steadydescent.study.book.sphinx.elements import (
    Content,
    joined,
    link_to,
    note_target,
    row_of,
    table,
    warn,
)
from steadydescent.study.book.sphinx.sources import source_links
from steadydescent.study.book.words import four_digits


def slip_anchor(number: int) -> str:
    """Anchor of a slip, the same in every edition of the book; `{ref}` finds it."""
    return f"slip-{number}"


def shown_table(frame) -> nodes.table:
    """A frame as a table: numbers as the sentences have them, text as it is."""
    rows = [
        [cell if isinstance(cell, str) else four_digits(cell) for cell in row]
        for row in frame.itertuples(index=False)
    ]
    return table(list(frame.columns), [row_of(row) for row in rows], ["claim-table", "slip-table"])


class Slips(SphinxDirective):
    """```{slips}``` is a table of all slips; ```{slips} viblo-lr``` shows a source's one by one.

    With `:remarks:` it lists, without a source, what is right and still easy to trip over.
    """

    optional_arguments = 1
    option_spec = {"remarks": directives.flag}

    def run(self):
        for path in sorted(Path(data.__file__).parent.glob("*.py")):
            self.env.note_dependency(str(path))
        if "remarks" in self.options:
            return [nodes.bullet_list("", *(self._remark(remark) for remark in data.REMARKS))]
        if not self.arguments:
            return [
                table(
                    ["Slip", "Source", "What is printed"],
                    [self._line(slip) for slip in data.SLIPS],
                    ["slips-table"],
                )
            ]
        slips = [slip for slip in data.SLIPS if slip.source == self.arguments[0]]
        if not slips:
            warn(
                self.get_location(),
                f"no slips of {self.arguments[0]!r}; sources are {', '.join(data.LANGUAGES)}",
                "slips",
            )
        return [self._box(slip) for slip in slips]

    def _line(self, slip: data.Slip) -> nodes.row:
        title = link_to(self.env, slip_anchor(slip.number), f"{slip.number}. {slip.title}")
        source = nodes.inline("", "", *joined(source_links(slip.source, self.env.docname)))
        return row_of([title, source, self._inline(slip.printed)])

    def _box(self, slip: data.Slip) -> nodes.container:
        anchor = slip_anchor(slip.number)
        note_target(self.env, anchor, slip.title)
        box = nodes.container(ids=[anchor], classes=["claim", "slip"])
        box += nodes.paragraph(
            "", "", nodes.strong("", f"{slip.number}. {slip.title}"), classes=["claim-title"]
        )
        box += self._labelled(
            "Printed", [*self._quote(slip), nodes.Text(" — "), *self._inline(slip.printed)]
        )
        box += self._labelled("Right", self._inline(slip.stated))
        box += self._labelled("Why it matters", self._inline(slip.why))
        if slip.shown:
            box += shown_table(slip.shown())
        self.set_source_info(box)
        return box

    def _quote(self, slip: data.Slip) -> list[nodes.Node]:
        """The source's words, marked with their language; code as code.

        Screen readers and hyphenation need to know it.
        """
        if slip.quote.startswith("`"):
            return [nodes.literal("", slip.quote.strip("`"))]
        words = nodes.inline("", slip.quote, classes=[f"language-{data.LANGUAGES[slip.source]}"])
        return [nodes.Text("“"), words, nodes.Text("”")]

    def _remark(self, remark: data.Remark) -> nodes.list_item:
        line = self._labelled(remark.title, self._inline(remark.stated))
        links = joined(source_links(remark.source, self.env.docname))
        line += [nodes.Text(" ("), *links, nodes.Text(")")]
        item = nodes.list_item("", line)
        if remark.formerly is not None:
            anchor = slip_anchor(remark.formerly)
            note_target(self.env, anchor, remark.title)
            item["ids"].append(anchor)
        return item

    def _labelled(self, label: str, content: Content) -> nodes.paragraph:
        content = content if isinstance(content, list) else [content]
        return nodes.paragraph("", "", nodes.strong("", f"{label}."), nodes.Text(" "), *content)

    def _inline(self, text: str) -> list[nodes.Node]:
        """Inline Markdown, for code and emphasis."""
        return self.parse_inline(text)[0]
