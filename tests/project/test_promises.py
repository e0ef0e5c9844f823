"""The page "What can go wrong, and what then": each row names a fault, a promise, and a test that
there is.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "chapters/what_can_go_wrong.md").read_text(encoding="utf-8")
COLUMNS = ["fault", "what is promised", "test"]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ")
]
HEADS = [row for row in ROWS if row == COLUMNS]
PROMISES = [row for row in ROWS if row != COLUMNS]


@cache
def functions_in(file: str) -> frozenset[str]:
    """Names of the test functions of a file of `tests/`."""
    tree = ast.parse(next((ROOT / "tests").rglob(f"test_{file}.py")).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_every_table_has_the_columns_and_every_section_a_table():
    assert len(HEADS) == len(re.findall(r"^## ", PAGE, re.M)) > 3 and len(PROMISES) > 30
    assert [row for row in PROMISES if len(row) != len(COLUMNS) or not all(row)] == []


def test_no_fault_is_told_twice():
    faults = [row[0] for row in PROMISES]
    assert [fault for fault in faults if faults.count(fault) > 1] == []


@pytest.mark.parametrize("row", PROMISES, ids=lambda row: row[0])
def test_a_row_names_tests_that_there_are(row):
    named = re.findall(r"`(\w+)::(test_\w+)`", row[2])
    assert named and re.sub(r"`\w+::test_\w+`|,|\s", "", row[2]) == ""
    assert [f"{file}::{name}" for file, name in named if name not in functions_in(file)] == []


def test_security_says_what_is_promised_what_is_not_and_how_to_report():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.M) == [
        "What is promised",
        "What is not promised",
        "How to report",
    ]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "SECURITY.md" in readme and "What can go wrong, and what then" in readme
