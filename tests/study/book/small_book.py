"""A whole checkout of a small study: one result, four pages, one with cells; built as `make book`
does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from fabricated import experiments_from, result, write_experiments, write_result
from steadydescent.study.paths import ROOT
from steadydescent.study.planning import Plan, load_study

TASK = "mnist1d-mlp"
TOC = """format: jb-book
root: index
chapters:
  - file: chapters/cells
  - file: chapters/cite
  - file: chapters/references
"""
INDEX = (
    "# A small book\n\n```{origin}\n```\n\n```{verdicts}\n```\n\n```{claim} ema-wins\nProse.\n```\n"
)
CITE = "# Citing\n\n```{howtocite} book\n```\n\n```{howtocite}\n```\n"
REFERENCES = "# References\n\n```{bibliography}\n:all:\n```\n"
SOURCES = "@misc{somewhere, title = {Somewhere}, author = {Nobody}, year = {2020}}\n"
CELLS = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---
# Cells

```{code-cell} ipython3
import altair as alt
import pandas as pd
from steadydescent.study.book import figures, page
from steadydescent.study.book.edition import numbers_shown, rows_shown

rows = [{"label": row["condition"], "estimate": row["estimate"]} for row in rows_shown()]
frame = pd.DataFrame(rows)
draw = lambda ax: ax.barh(frame.label, frame.estimate)
figures.figure("bars", draw, alt="Bars.", caption="*Bars*.", data=frame)
chart = alt.Chart(frame).mark_point().encode(x="estimate:Q", y="label:N")
figures.chart("points", chart, alt="Points.", caption="Points.", data=frame)
page.table(frame)
```

```{datafig} bars
```

```{vegachart} points
```

```{code-cell} ipython3
page.paragraph(f"There are {len(numbers_shown())} numbers, ", page.strong("all of them"), ".")
```
"""
GAINS = {"constant": 0.05, "linear": 0.0}


def checkout(home: Path) -> Path:
    """The folder with everything that a build reads."""
    write_experiments(home / "experiments")
    write(home, "published", GAINS)
    pages = {
        "index": INDEX,
        "chapters/cells": CELLS,
        "chapters/cite": CITE,
        "chapters/references": REFERENCES,
    }
    for name, text in pages.items():
        (home / name).parent.mkdir(exist_ok=True)
        (home / f"{name}.md").write_text(text)
    (home / "_toc.yml").write_text(TOC)
    (home / "sources.bib").write_text(SOURCES)
    (home / "references.bib").write_text("")
    shutil.copy(ROOT / "_config.yml", home)
    shutil.copytree(ROOT / "web/static", home / "web/static")
    return home


def write(home: Path, source: str, gains: dict[str, float], profile: str = "laptop") -> None:
    """A published or reproduced result in which averages gain so much in each condition."""
    folder = (
        home
        / "results"
        / (source if source == "published" else f"{source}/{profile}")
        / "toy"
        / TASK
    )
    with experiments_from(home / "experiments"):
        plan = Plan(experiment=load_study()["toy"], task=TASK, profile=profile)
        gain = lambda run, readout: gains[run.schedule] if readout.startswith("ema") else 0.0
        made = result(
            plan, lambda run, readout, split: 0.6 + gain(run, readout) + 0.001 * (run.seed % 3)
        )
        write_result(folder, made, profile, f"toy/{TASK}@12345678")


def build(home: Path, source: str = "published") -> subprocess.Popen:
    """The command that builds it, started."""
    words = [
        sys.executable,
        "-m",
        "steadydescent.cli",
        "book",
        "--source",
        source,
        "--profile",
        "laptop",
    ]
    own = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PROFILE", "DEVICE", "ONLY")
    }
    return subprocess.Popen(
        words,
        env=own | {"STEADY_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def content(book: Path) -> dict[str, bytes]:
    """Every file of a built book."""
    return {
        path.relative_to(book).as_posix(): path.read_bytes()
        for path in book.rglob("*")
        if path.is_file()
    }
