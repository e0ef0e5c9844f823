"""The code cells of the book's pages, run here without a kernel, and the figures that their text
places.
"""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from steadydescent.study.book import chapter_figures, figures
from steadydescent.study.book.chapters import methods
from steadydescent.study.judging.claims import load_claims
from steadydescent.study.paths import ROOT

CELL = re.compile(r"^(?P<fence>`{3,})\{code-cell\}[^\n]*\n(?P<body>.*?)^(?P=fence)$", re.M | re.S)
PAGES = [
    path
    for path in sorted((ROOT / "chapters").glob("*.md"))
    if "{code-cell}" in path.read_text(encoding="utf-8")
]
"""Pages that run code."""


bill = cache(methods.table_of_profiles)
"""What each profile of the study costs; it takes long, and no result changes it."""


def claims_without_rows() -> dict[str, dict[str, str]]:
    """What pages read of claims, by id, in a book that is being built without any result."""
    return {claim.id: {"title": claim.title, "headline": ""} for claim in load_claims().values()}


def cells_of(page: Path) -> list[tuple[int, str]]:
    """Line and source of each cell, its options left out."""
    text = page.read_text(encoding="utf-8")
    found = []
    for cell in CELL.finditer(text):
        options = re.match(r"(?::[^\n]*\n)*", cell["body"])
        found.append(
            (text[: cell.start()].count("\n") + 1, cell["body"][options.end() if options else 0 :])
        )
    return found


def names_placed(page: Path, directive: str) -> set[str]:
    """Names of the figures, or charts, that the text places with a directive."""
    return set(re.findall(rf"\{{{directive}\}} ([a-z0-9-]+)", page.read_text(encoding="utf-8")))


class Drawn:
    """What cells have drawn: names by directive, and captions. Each figure is drawn once, and
    nothing is saved.
    """

    def __init__(self) -> None:
        self.names: dict[str, set[str]] = {"datafig": set(), "vegachart": set()}
        self.captions: list[str] = []

    def figure(
        self, name, draw, *, alt, caption, data, results=(), size=(6.8, 3.8), **subplots
    ) -> None:
        assert alt.strip() and caption.strip() and len(data.columns)
        draw(Figure(figsize=size).subplots(**subplots))
        self.names["datafig"].add(name)
        self.captions.append(caption)

    def chart(self, name, spec, *, alt, caption, data, results=()) -> None:
        assert alt.strip() and caption.strip() and spec.to_dict()
        self.names["vegachart"].add(name)
        self.captions.append(caption)


def without_drawing(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """Have cells leave their figures with `Drawn` rather than on disk."""
    drawn = Drawn()
    for module in (figures, chapter_figures):
        for name in ("figure", "chart"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(drawn, name))
    return drawn


def run(page: Path, until: str = "") -> list[object]:
    """Run the page's cells one after another, as a kernel does; returns all that they show.

    The cell that holds the text `until` and all after it are left out.
    """
    told: list[object] = []
    scope: dict[str, Any] = {"__name__": "page", "display": told.append}
    for place, source in cells_of(page):
        if until and until in source:
            break
        tree = ast.parse(source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"{page.name}, line {place}", "exec"), scope)
        if isinstance(last, ast.Expr):
            told.append(
                eval(
                    compile(ast.Expression(last.value), f"{page.name}, line {place}", "eval"), scope
                )
            )
    return [it for it in told if it is not None]
