"""How to cite a result: an anchor, BibTeX, the rows to download, and where numbers come from."""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from steadydescent.files import DamagedFile
from steadydescent.study.book.sphinx.elements import (
    download,
    findings_of,
    joined,
    note_anchor,
    note_target,
    permanent_link,
    row_of,
    slug,
    table,
    warn,
)
from steadydescent.study.results.store import read_receipt

RESULT = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]+")
TABLES = {"runs": "runs", "finals": "final rows", "quantiles": "curves", "receipt": "receipt"}
# what a receipt may say, in the order in which it is shown
RECEIPT = {
    "command": "Command",
    "commit": "Commit",
    "date": "Date",
    "profile": "Profile",
    "device": "Device",
    "threads": "Threads",
    "networks": "Runs",
    "seeds": "Seeds",
    "seconds": "Seconds",
    "numerics_version": "Numerics version",
    "python": "Python",
    "packages": "Packages",
}


def receipt_text(value) -> str:
    """A receipt's entry in words: lists with commas, tables as ``name value`` pairs."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {receipt_text(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(receipt_text(part) for part in value)
    if isinstance(value, float):
        return f"{value:,.1f}"
    return str(value)


def provenance(receipt: dict) -> nodes.table | None:
    """What the receipt says, as a table of two columns; None if it says nothing known."""
    rows = [
        row_of(
            [
                label,
                nodes.literal("", receipt[key]) if key == "command" else receipt_text(receipt[key]),
            ]
        )
        for key, label in RECEIPT.items()
        if receipt.get(key) not in (None, "", [], {})
    ]
    return table(["Provenance", "Value"], rows, ["receipt-table"]) if rows else None


def bibtex_block(text: str) -> nodes.literal_block:
    """BibTeX with a copy button."""
    # forced: what the lexer does not understand is shown as it is
    return nodes.literal_block(
        text, text.strip(), language="bibtex", classes=["bibtex"], force=True
    )


class HowToCite(SphinxDirective):
    """```{howtocite}``` lists every result; ```{howtocite} book``` gives the book's own entry."""

    optional_arguments = 1

    def run(self):
        if self.arguments:
            directives.choice(self.arguments[0], ("book",))
            return self._book()
        return [self._result(name, files) for name, files in findings_of(self.env)["files"].items()]

    def _book(self) -> list[nodes.Node]:
        origin, config = findings_of(self.env)["origin"], self.config
        entry = {
            "author": f"{{{config.author}}}",
            "title": f"{{{config.project}}}",
            "year": str(origin.get("date", ""))[:4],
            "url": config.html_baseurl,
            "note": f"Commit {origin['commit'][:12]}" if origin.get("commit") else "",
        }
        lines = [f"  {key} = {{{value}}}" for key, value in entry.items() if value]
        text = f"@misc{{{slug(config.project)},\n" + ",\n".join(lines) + "\n}"
        note_anchor(
            self.env, "result", "book", "cite-book", "How to cite the book", self.get_location()
        )
        note_target(self.env, "cite-book", "How to cite the book")
        return [nodes.container("", bibtex_block(text), ids=["cite-book"])]

    def _result(self, name: str, files: dict) -> nodes.Element:
        if not RESULT.fullmatch(name):  # it is a heading, which the search page shows as markup
            warn(self.get_location(), f"result id {name!r} is not 'experiment/task@digest'", "cite")
            return nodes.comment()
        short = name.partition("@")[0]
        anchors = {form: "cite-" + slug(form) for form in (short, name)}
        section = nodes.section(ids=list(dict.fromkeys(anchors.values())), classes=["cite-result"])
        section += nodes.title("", short)
        for form, anchor in anchors.items():
            note_anchor(
                self.env, "result", form, anchor, f"How to cite {form}", self.get_location()
            )
            note_target(self.env, anchor, f"How to cite {form}")
        line = nodes.paragraph(
            "", "", nodes.strong("", "Result "), nodes.literal("", name), nodes.Text(". Download: ")
        )
        line += joined(
            [download(files[kind], text) for kind, text in TABLES.items() if files.get(kind)]
        )
        line += [nodes.Text(". "), permanent_link(self.env, "result", name, "Permanent link")]
        section += [line, bibtex_block(files["bibtex"])]
        receipt = self._receipt(files)
        if receipt is not None:
            section += receipt
        return section

    def _receipt(self, files: dict) -> nodes.table | None:
        path = Path(self.env.srcdir) / files.get("receipt", "")
        if not path.is_file():
            warn(self.get_location(), f"no receipt at {path}; every result carries one", "cite")
            return None
        self.env.note_dependency(str(path))
        try:
            return provenance(read_receipt(path.parent))
        except DamagedFile as error:
            warn(self.get_location(), str(error), "cite")
            return None
