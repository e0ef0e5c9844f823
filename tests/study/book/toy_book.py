"""A small book with invented findings, for the tests of the book's extension."""

from __future__ import annotations

import html
import io
import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from steadydescent import verified

TOY = "toy-average/toy-task@0badc0de"


def row(task: str, condition: str, verdict: str, **changes) -> dict:
    """A row of a claim as the findings hold it."""
    made = {
        "id": "toy",
        "scope": "T",
        "task": task,
        "condition": condition,
        "measure": "test accuracy",
        "verdict": verdict,
        "estimate": 0.42,
        "ci_low": -0.104,
        "ci_high": 0.94,
        "unit": "pp",
        "margin": 1.0,
        "n_seeds": 20,
        "diverged": 0,
        "profile": "desk",
        "result": TOY,
        "seeds_needed": None,
        "rates": {},
        "primary": True,
        "level": 0.9995,
        "registered": "2026-11-20",
        "first_seen": "2026-11-21",
    }
    return made | changes


def toy_findings() -> dict:
    """Invented findings of one claim over two tasks."""
    open_row = row("other-task", "linear", "open", diverged=3, seeds_needed=57)
    skipped = row(
        "third-task",
        "linear",
        "not run",
        estimate=None,
        ci_low=None,
        ci_high=None,
        n_seeds=0,
        result=None,
    )
    beside = row("toy-task", "beside", "supported, size open", primary=False, level=0.95)
    beside["registered"] = "2026-11-22"
    claim = {
        "title": "Averages beat the last weights",
        "source": "toy-blog, toy-slides",
        "sentence": "Averages are better.",
        "scope": "T",
        "test": "accuracy of the average minus accuracy of the last weights",
        "outcome": "holds when",
        "headline": "Holds on the toy task; open on the other.",
        "rows": [row("toy-task", "constant", "supported"), open_row, skipped, beside],
    }
    files = {
        kind: f"results/toy/{kind}"
        for kind in ("finals.parquet", "quantiles.parquet", "receipt.json")
    }
    return {
        "origin": {
            "source": "published",
            "profile": "desk",
            "networks": 1234,
            "device": "a toy machine",
            "minutes": 55.1,
            "date": "2026-11-21",
            "commit": "abc1234",
            "command": "make reproduce",
        },
        "results": {
            "gain": {
                "value": 0.31,
                "low": -0.1,
                "high": 0.5,
                "unit": " pp",
                "digits": 2,
                "signed": True,
            },
            "loss": {"value": -1.5, "low": -2.0, "high": -1.0, "unit": "", "digits": 1},
            "zero": {"value": -0.001, "digits": 2, "signed": True, "unit": ""},
            "networks": {"value": 1234, "unit": ""},
            "best": {"value": "ema-10", "unit": ""},
            "absent": {"value": None, "digits": 2, "unit": " pp"},
        },
        "claims": {"toy-claim": claim},
        "files": {
            TOY: {
                kind.partition(".")[0]: path
                for kind, path in zip(files, files.values(), strict=True)
            }
            | {"bibtex": "@misc{toy-0badc0de,\n  year = {2026}\n}"}
        },
    }


PAGE = "# A page\n\n{body}\n\n```{{claim}} toy-claim\nProse of the claim.\n```\n"
CITE = "# How to cite\n\n```{howtocite} book\n```\n\n## Each result\n\n```{howtocite}\n```\n"


class Book:
    """A book of two pages in a folder: `index` with the given text and the claim, `cite` with how
    to cite.
    """

    def __init__(self, folder: Path, findings: dict):
        self.source, self.out, self.findings = folder / "source", folder / "out", findings
        (self.source / "results/toy").mkdir(parents=True)
        for kind in ("finals.parquet", "quantiles.parquet"):
            (self.source / "results/toy" / kind).write_text(kind)
        receipt = {
            "command": "steady run toy",
            "packages": {"torch": "2.13.0"},
            "seconds": 12.34,
            "device": "",
        }
        (self.source / "results/toy/receipt.json").write_bytes(verified.sealed(receipt))
        (self.source / "generated/figures").mkdir(parents=True)
        (self.source / "generated/charts").mkdir()

    def figure(self, name: str, folder: str = "figures", **changes) -> None:
        """Leave a figure or chart as a cell of the page would have."""
        made = {
            "alt": "What it shows.",
            "caption": "A *caption*.",
            "results": [TOY.partition("@")[0]],
        } | changes
        made["data"] = f"generated/{folder}/{name}.csv"
        (self.source / made["data"]).write_text("a,b\n1,2\n")
        (self.source / f"generated/{folder}/{name}.json").write_bytes(verified.sealed(made))
        for mode in ("light", "dark"):
            picture = self.source / f"generated/figures/{name}-{mode}.svg"
            picture.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")

    def build(self, body: str, page: str = PAGE) -> tuple[str, str]:
        """Build as `make book` does, warnings as errors; returns index page and warnings."""
        (self.source / "generated/findings.json").write_bytes(verified.sealed(self.findings))
        toctree = "\n```{toctree}\ncite\n```\n"
        (self.source / "index.md").write_text(page.format(body=body) + toctree, encoding="utf-8")
        (self.source / "cite.md").write_text(CITE, encoding="utf-8")
        config = {
            "extensions": ["myst_parser", "steadydescent.study.book.sphinx"],
            "html_theme": "basic",
            "project": "Toy",
            "author": "The toy contributors",
            "html_baseurl": "https://example.org/toy/",
            "nitpicky": True,
            "suppress_warnings": ["config.cache"],
            "exclude_patterns": ["generated", "results"],
        }
        heard = io.StringIO()
        with patch_docutils(), docutils_namespace():
            folders = (str(self.source), None, str(self.out), str(self.out / ".doctrees"), "html")
            strict = {"warningiserror": True, "keep_going": True}
            app = Sphinx(*folders, confoverrides=config, status=None, warning=heard, **strict)
            app.build()
        assert bool(app.statuscode) == bool(heard.getvalue()), (
            "a warning must fail the build, and nothing else"
        )
        return (self.out / "index.html").read_text(encoding="utf-8"), heard.getvalue()

    def accept(self, body: str, page: str = PAGE) -> str:
        """The index page of a book that builds without a warning."""
        text, warnings = self.build(body, page)
        assert not warnings
        return text


def words(page: str) -> str:
    """What a reader sees: no tags, single spaces."""
    return re.sub(r"[ \n]+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))
