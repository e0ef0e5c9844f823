"""What the cells of a page may show: what `steadydescent.study.book.page` makes, figures by their
directives, and plain text.
"""

from __future__ import annotations

from html.parser import HTMLParser

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

from steadydescent.study.book.page import TAGS
from steadydescent.study.book.sphinx.elements import warn


class _Markup(HTMLParser):
    """Collects what a cell's HTML has besides the bare tags of `steadydescent.study.book.page` and
    text.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.strange: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in TAGS or attrs:
            self.strange.append(self.get_starttag_text() or tag)

    def handle_endtag(self, tag):
        if tag not in TAGS:
            self.strange.append(f"</{tag}>")

    def handle_comment(self, data):
        self.strange.append(f"<!--{data}-->")

    handle_decl = handle_pi = unknown_decl = handle_comment


def strange_markup(html: str) -> list[str]:
    """Tags, attributes and comments that `steadydescent.study.book.page` never writes.

    >>> strange_markup("<table><tr><td>1 &lt; 2</td></tr></table>"), strange_markup("<p onclick=x>")
    ([], ['<p onclick=x>'])
    """
    parser = _Markup()
    parser.feed(html)
    parser.close()
    return parser.strange


def _foreign(output: nodes.Node) -> str:
    """What is wrong with a part of a cell's output; empty if nothing is."""
    if isinstance(output, nodes.raw):
        strange = (
            strange_markup(output.astext())
            if output["format"] == "html"
            else ["raw " + output["format"]]
        )
        return f"markup of its own, {strange[0]!r}" if strange else ""
    return "" if isinstance(output, nodes.literal_block) else f"a {output.tagname}"


INSTEAD = "show tables and text with steadydescent.study.book.page"


class CellOutputs(SphinxPostTransform):
    """Refuse a cell's output that is not plain text or made by `steadydescent.study.book.page`;
    nobody has escaped it.
    """

    default_priority = (
        1  # before myst-nb chooses among the forms of an output, so that all are seen
    )

    def run(self, **_):
        for cell in list(self.document.findall(_is_output)):
            for box in list(cell.findall(nodes.container)):
                for output in [
                    child for child in box.children if not isinstance(child, nodes.container)
                ]:
                    if problem := _foreign(output):
                        warn(cell, f"a cell shows {problem}; {INSTEAD}", "output")
                        box.replace(output, nodes.paragraph("", "(not shown)"))


def _is_output(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container) and node.get("nb_element") == "cell_code_output"
