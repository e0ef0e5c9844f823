"""A book of one experiment, or of one task alone: every page has all of its figures, drawn or said
not to be run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from page_cells import PAGES, bill, claims_without_rows, names_placed, run, without_drawing
from steadydescent.study.book import chapter_figures, edition
from steadydescent.study.book import numbers as book_numbers
from steadydescent.study.book.chapters import methods
from steadydescent.study.book.chapters.batch_size import quadratic as batch_quadratic
from steadydescent.study.book.chapters.weight_averaging import quadratic as averaged_quadratic
from steadydescent.study.book.page import Shown
from steadydescent.study.judging.claims import questions_for
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.statistics import Estimate
from steadydescent.study.paths import PUBLISHED, ROOT
from steadydescent.study.planning import load_study
from steadydescent.study.results.store import Result, read_folder

RESULTS = [
    (name, task)
    for name, experiment in load_study().items()
    for task in experiment.rates
    if (PUBLISHED / name / task / "receipt.json").exists()
]
EXPERIMENTS = list(dict.fromkeys(name for name, _ in RESULTS))
SHOWN_ELSEWHERE = {"optimizer_search": "optimizers"}
"""Experiment without a page of its own → the chapter that has it."""
EVERYWHERE = [
    page
    for page in PAGES
    if page.stem not in EXPERIMENTS and "steadydescent.study.book.edition" in page.read_text()
]
"""Pages of no single experiment that show results."""


@cache
def result(name: str, task: str) -> edition.ShownResult:
    read, receipt = read_folder(PUBLISHED / name / task, Result)
    return edition.ShownResult(Evidence(read, receipt), receipt)


@cache
def numbers(name: str, task: str) -> dict[str, Any]:
    """All that findings has of a result; scores and their differences, which take long, are made
    up.
    """
    found = result(name, task)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book_numbers, "tuned", lambda *_: Estimate(0.1, 0.0, 0.2, 1.0, 20))
        patch.setattr(book_numbers, "_chosen_scores", lambda *_: np.arange(3.0))
        made = book_numbers.numbers_of(found.evidence, f"{name}/{task}")
    return made | book_numbers.design_numbers(f"{name}/{task}", found.receipt)


def rows(name: str, task: str) -> Iterator[dict[str, Any]]:
    """Rows with made-up estimates for all that the result holds: what pages do with them does not
    depend on values.
    """
    shown = result(name, task)
    for place, question in enumerate(questions_for(shown.evidence)):
        contrast = question.contrast
        value = 1.2 if contrast.ratio else 0.3 * (place + 1)
        made_up = {
            "estimate": value,
            "ci_low": value / 1.1,
            "ci_high": 1.1 * value,
            "verdict": "supported",
            "unit": contrast.unit,
            "null": 1.0 if contrast.ratio else 0.0,
            "level": 0.99,
            "n_seeds": 20,
            "networks": 100,
            "diverged": 0,
            "result": shown.id,
        }
        yield question.row.as_dict() | made_up | {"experiment": name}


@pytest.fixture
def drawn(monkeypatch) -> dict[str, set[str]]:
    """Names of the figures and charts that cells draw."""
    return without_drawing(monkeypatch).names


def shown_in(monkeypatch, there: list[tuple[str, str]]) -> None:
    """What the cells of a page see when these are all the results there are."""
    told = [row | {"title": row["id"]} for place in there for row in rows(*place)]
    mine = lambda experiment: {
        task: result(name, task) for name, task in there if name == experiment
    }
    every = {key: value for place in there for key, value in numbers(*place).items()}
    monkeypatch.setattr(edition, "shown", mine)
    names = dict.fromkeys(name for name, _ in there)
    monkeypatch.setattr(edition, "all_shown", lambda: {name: mine(name) for name in names})
    monkeypatch.setattr(chapter_figures, "shown", mine)
    monkeypatch.setattr(edition, "numbers_shown", lambda: every)
    monkeypatch.setattr(edition, "claims_shown", claims_without_rows)
    of = lambda experiment="": [row for row in told if experiment in ("", row["experiment"])]
    monkeypatch.setattr(methods, "table_of_profiles", bill)
    for page in (batch_quadratic, averaged_quadratic):  # exact, and slow
        monkeypatch.setattr(page, "expected_curve", lambda *_: np.ones(1))
    monkeypatch.setattr(edition, "rows_shown", of)
    monkeypatch.setattr(chapter_figures, "rows_shown", of)


def is_whole(page: Path, drawn: dict[str, set[str]]) -> None:
    """The page runs, shows nothing in a way that is not escaped, and leaves every figure that its
    text places.
    """
    assert [it for it in run(page) if not isinstance(it, Shown)] == []
    for directive, names in drawn.items():
        assert names_placed(page, directive) <= names


@pytest.mark.parametrize(("name", "task"), RESULTS)
def test_chapter_of_one_task_alone(name, task, monkeypatch, drawn):
    shown_in(monkeypatch, [(name, task)])
    is_whole(ROOT / f"chapters/{SHOWN_ELSEWHERE.get(name, name)}.md", drawn)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_chapter_of_an_experiment_that_was_not_run(name, monkeypatch, drawn):
    shown_in(monkeypatch, [])
    is_whole(ROOT / f"chapters/{SHOWN_ELSEWHERE.get(name, name)}.md", drawn)


@pytest.mark.parametrize("page", EVERYWHERE, ids=lambda page: page.stem)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_page_of_the_whole_study_with_one_experiment_alone(page, name, monkeypatch, drawn):
    shown_in(monkeypatch, [place for place in RESULTS if place[0] == name])
    is_whole(page, drawn)


def test_every_experiment_and_every_page_with_cells_is_among_them():
    assert list(load_study()) == EXPERIMENTS
    assert {page.stem for page in PAGES} >= set(EXPERIMENTS) - SHOWN_ELSEWHERE.keys()
    assert EVERYWHERE


# ---- the real books, which take minutes each -----------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "place", [*EXPERIMENTS, *(f"{name}/{task}" for name, task in dict(RESULTS).items())]
)
def test_a_book_from_one_experiment_or_one_task_alone_builds(tmp_path, place):
    for name in (
        "_config.yml",
        "_toc.yml",
        "pyproject.toml",
        "README.md",
        "index.md",
        "references.bib",
        "sources.bib",
    ):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("chapters", "experiments", "web/static", "src", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in PUBLISHED.iterdir():
        if path.is_file():
            (tmp_path / "results/published").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "results/published")
    shutil.copytree(PUBLISHED / place, tmp_path / "results/reproduced/desk" / place)
    words = [
        sys.executable,
        "-m",
        "steadydescent.cli",
        "book",
        "--source",
        "reproduced",
        "--profile",
        "desk",
    ]
    own = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PROFILE", "DEVICE", "ONLY")
    }
    done = subprocess.run(
        words, env=own | {"STEADY_HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    text = (tmp_path / f"_build/html/chapters/{place.partition('/')[0]}.html").read_text(
        encoding="utf-8"
    )
    assert "not run" in text
