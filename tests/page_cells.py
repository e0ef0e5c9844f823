"""The code cells of the book's pages, and the figures that their text places."""

import re
from pathlib import Path

from steadydescent.paths import ROOT

CELL = re.compile(r"^(?P<fence>`{3,})\{code-cell\}[^\n]*\n(?P<body>.*?)^(?P=fence)$", re.M | re.S)
PAGES = [path for path in sorted((ROOT / "chapters").glob("*.md")) if "{code-cell}" in path.read_text(encoding="utf-8")]
"""Pages that run code."""


def cells_of(page: Path) -> list[tuple[int, str]]:
    """Line and source of each cell, its options left out."""
    text = page.read_text(encoding="utf-8")
    found = []
    for cell in CELL.finditer(text):
        options = re.match(r"(?::[^\n]*\n)*", cell["body"])
        found.append((text[: cell.start()].count("\n") + 1, cell["body"][options.end() if options else 0 :]))
    return found


def names_placed(page: Path, directive: str) -> set[str]:
    """Names of the figures, or charts, that the text places with a directive."""
    return set(re.findall(rf"\{{{directive}\}} ([a-z0-9-]+)", page.read_text(encoding="utf-8")))
