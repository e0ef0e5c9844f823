"""The tests that hold the arithmetic of a claim to closed forms, found by their marks."""

import ast
from collections.abc import Iterator
from functools import cache

from steadydescent.study.paths import ROOT


def tests_of(claim: str) -> list[str]:
    """The tests marked with a claim's id, as `tests/room/test_x.py::test_y`.

    None where the tests are not at hand.
    """
    return [test for marked, test in _marked_tests() if marked == claim]


@cache
def _marked_tests() -> list[tuple[str, str]]:
    """Every (claim, test), by file and line."""
    return [
        (claim, f"{path.relative_to(ROOT).as_posix()}::{function.name}")
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for function in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(function, ast.FunctionDef)
        for claim in _marks(function)
    ]


def _marks(function: ast.FunctionDef) -> Iterator[str]:
    for mark in function.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.claim":
            yield ast.literal_eval(mark.args[0])
