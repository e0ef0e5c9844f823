"""The page of techniques: no empty cell, nothing in it that is not there, nothing left out."""

import ast
import importlib
import inspect
import re
from functools import reduce
from pathlib import Path

import pytest
from typing_extensions import is_protocol

from steadydescent.dataset_shift import MOVES
from steadydescent.engine.tasks import TASKS, Task
from steadydescent.engine.tasks.surfaces import SURFACES
from steadydescent.lr_search import SUGGESTIONS
from steadydescent.normalization import KINDS
from steadydescent.optimizers import RULES
from steadydescent.schedules import SCHEDULES
from steadydescent.weight_averaging import Readout
from test_imports import TECHNIQUES, is_module

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ["technique", "source", "where", "test", "held to"]
TASK_MODULES = [f"engine.tasks{end}" for end in ("", ".surfaces", ".noisy_quadratic")]
KEY = re.compile(r"^@\w+\{([^,\s]+),", re.MULTILINE)


def bibliography() -> set[str]:
    texts = [(ROOT / name).read_text("utf-8") for name in ("references.bib", "sources.bib")]
    return {key for text in texts for key in KEY.findall(text)}


def table() -> list[list[str]]:
    lines = (ROOT / "chapters/techniques.md").read_text("utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]


HEAD, RULER, *ROWS = table()


def test_the_table_has_its_columns_and_no_empty_cell():
    assert HEAD == COLUMNS and len(ROWS) > 50
    assert not [row for row in ROWS if len(row) != len(COLUMNS) or not all(row)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_row_names_a_source_a_place_and_a_test_that_there_are(row):
    _, source, where, test, _ = row
    assert set(re.findall(r"`([^`]+)`", source)) <= bibliography() and "`" in source
    module, *path = where.strip("`").split(".")
    while path and is_module(f"{module}.{path[0]}"):
        module = f"{module}.{path.pop(0)}"
    reduce(getattr, path, importlib.import_module(f"steadydescent.{module}"))
    file, name = test.strip("`").split("::")
    tree = ast.parse(next((ROOT / "tests").rglob(f"test_{file}.py")).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_rule_schedule_norm_suggestion_and_task_is_in_the_table():
    norms = set(KINDS) - {"none"}
    names = [*RULES, *SCHEDULES, "plateau", *norms, *SUGGESTIONS, *SURFACES, *TASKS]
    text = " ".join(cell for row in ROWS for cell in row)
    assert [name for name in names if f"`{name}`" not in text] == []
    shifts = set(re.findall(r"covariate|prior|concept", text))
    assert {kind.split("-")[0] for kind in MOVES} <= shifts


def public(module: str) -> dict[str, object]:
    """Functions and classes of a technique, but for plain records, exceptions and checks."""
    package = importlib.import_module(f"steadydescent.{module}")
    listed = getattr(package, "__all__", None)
    names = listed or [name for name in vars(package) if not name.startswith("_")]
    return {name: it for name in names if is_technique(it := getattr(package, name), module)}


def is_technique(it: object, module: str) -> bool:
    """Whether this is a function or class made in the module that deserves an example."""
    if not (inspect.isfunction(it) or inspect.isclass(it)) or it in (Readout, Task):
        return False
    if not it.__module__.startswith(f"steadydescent.{module}") or it.__name__.startswith("check_"):
        return False
    return inspect.isfunction(it) or not (issubclass(it, tuple | Exception) or is_protocol(it))


@pytest.mark.parametrize("module", [*TECHNIQUES, *TASK_MODULES])
def test_every_public_technique_shows_an_example_that_runs(module):
    lacking = [name for name, it in public(module).items() if ">>>" not in (it.__doc__ or "")]
    assert public(module) and lacking == []


def test_every_work_that_a_docstring_cites_is_in_the_bibliography():
    cited = re.compile(r"\b[a-z]+(?:19|20)\d\d[a-z]+\b")
    sources = [path.read_text() for path in (ROOT / "src").rglob("*.py")]
    assert {key for text in sources for key in cited.findall(text)} <= bibliography()


def test_every_work_in_the_bibliography_is_cited():
    pages = [path for folder in ("src", "chapters") for path in (ROOT / folder).rglob("*")]
    texts = [path.read_text("utf-8") for path in pages if path.suffix in (".py", ".md")]
    everything = " ".join([*texts, (ROOT / "experiments/claims.yml").read_text("utf-8")])
    assert [key for key in sorted(bibliography()) if key not in everything] == []
