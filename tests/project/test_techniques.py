"""README's table of techniques: no empty cell, nothing in it that is not there, nothing there that
is not in it.
"""

import ast
import importlib
import inspect
import re
from functools import reduce
from pathlib import Path

import pytest
from test_imports import TECHNIQUES
from typing_extensions import is_protocol

from steadydescent.dataset_shift import MOVES
from steadydescent.engine.tasks import TASKS, Task
from steadydescent.engine.tasks.surfaces import SURFACES
from steadydescent.lr_search import SUGGESTIONS
from steadydescent.normalization import KINDS
from steadydescent.optimizers import RULES
from steadydescent.schedules import SCHEDULES
from steadydescent.weight_averaging import Readout

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ["technique", "source", "where", "test", "held to"]
KEY = re.compile(r"^@\w+\{([^,\s]+),", re.MULTILINE)


def bibliography() -> set[str]:
    return {
        key
        for name in ("references.bib", "sources.bib")
        for key in KEY.findall((ROOT / name).read_text())
    }


def table() -> list[list[str]]:
    text = (ROOT / "README.md").read_text()
    lines = (
        text.split("<!-- techniques:")[1]
        .split("<!-- end of techniques -->")[0]
        .strip()
        .splitlines()[1:]
    )
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


HEAD, RULER, *ROWS = table()


def test_the_table_has_its_columns_and_no_empty_cell():
    assert HEAD == COLUMNS and len(ROWS) > 50
    assert not [row for row in ROWS if len(row) != len(COLUMNS) or not all(row)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_row_names_a_source_a_place_and_a_test_that_there_are(row):
    _, source, where, test, _ = row
    assert set(re.findall(r"`([^`]+)`", source)) <= bibliography() and "`" in source
    module, *path = where.strip("`").split(".")
    for part in list(path):  # as long as it is a module
        place = ROOT / "src/steadydescent" / module.replace(".", "/") / part
        if place.is_dir() or place.with_suffix(".py").exists():
            module = f"{module}.{path.pop(0)}"
    reduce(getattr, path, importlib.import_module(f"steadydescent.{module}"))
    file, name = test.strip("`").split("::")
    tree = ast.parse(next((ROOT / "tests").rglob(f"test_{file}.py")).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_rule_schedule_norm_suggestion_and_task_is_in_the_table():
    names = [
        *RULES,
        *SCHEDULES,
        "plateau",
        *(set(KINDS) - {"none"}),
        *SUGGESTIONS,
        *SURFACES,
        *TASKS,
    ]
    text = " ".join(cell for row in ROWS for cell in row)
    assert [name for name in names if f"`{name}`" not in text] == []
    assert {kind.split("-")[0] for kind in MOVES} <= set(
        re.findall(r"covariate|prior|concept", text)
    )


def public(module: str) -> dict[str, object]:
    """Functions and classes that a technique module offers, but for its plain records, exceptions
    and checks.
    """
    found = importlib.import_module(f"steadydescent.{module}")
    names = getattr(found, "__all__", [name for name in vars(found) if not name.startswith("_")])
    own = {
        name: getattr(found, name)
        for name in names
        if getattr(found, name).__class__ is not type(ast)
    }
    record = lambda it: (
        inspect.isclass(it) and (issubclass(it, tuple | Exception) or is_protocol(it))
    )
    return {
        name: it
        for name, it in own.items()
        if (inspect.isfunction(it) or inspect.isclass(it))
        and it.__module__.startswith(f"steadydescent.{module}")
        and not (record(it) or name.startswith("check_") or it in (Readout, Task))
    }


@pytest.mark.parametrize(
    "module",
    [*TECHNIQUES, *(f"engine.tasks.{name}" for name in ("surfaces", "noisy_quadratic", "task"))],
)
def test_every_public_technique_shows_an_example_that_runs(module):
    lacking = [name for name, it in public(module).items() if ">>>" not in (it.__doc__ or "")]
    assert public(module) and lacking == []


def test_every_work_that_a_docstring_cites_is_in_the_bibliography():
    cited = re.compile(r"\b[a-z]+(?:19|20)\d\d[a-z]+\b")
    sources = [path.read_text() for path in (ROOT / "src").rglob("*.py")]
    assert {key for text in sources for key in cited.findall(text)} <= bibliography()


def test_every_work_in_the_bibliography_is_cited():
    texts = [
        p.read_text()
        for folder in ("src", "chapters")
        for p in (ROOT / folder).rglob("*")
        if p.suffix in (".py", ".md")
    ]
    everything = " ".join(
        [*texts, (ROOT / "README.md").read_text(), (ROOT / "experiments/claims.yml").read_text()]
    )
    assert [key for key in sorted(bibliography()) if key not in everything] == []
