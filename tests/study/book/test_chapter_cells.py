"""A page's cell asks for what the package computes and draws: a call or two, no program."""

import ast

import pytest

from page_cells import cells_of
from steadydescent.study.paths import ROOT

LINES, CHARACTERS = 8, 100
PROGRAM = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda),
    *(ast.For, ast.AsyncFor, ast.While),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
)
"""What belongs into a module, where it is typed, linted and tested; a comprehension is a loop."""
CELLS = [
    pytest.param(source, id=f"{page.stem}-{line}")
    for page in [ROOT / "index.md", *sorted((ROOT / "chapters").glob("*.md"))]
    for line, source in cells_of(page)
]


def faults(source: str) -> list[str]:
    """What makes a cell a program, or hard to read."""
    lines = source.rstrip().splitlines()
    long = [f"{len(line)} characters: {line}" for line in lines if len(line) > CHARACTERS]
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, PROGRAM)]
    many = [f"{len(lines)} lines"] if len(lines) > LINES else []
    return many + long + [f"line {node.lineno} has a {type(node).__name__}" for node in nodes]


@pytest.mark.parametrize("source", CELLS)
def test_cell_is_a_call_or_two(source):
    assert not faults(source)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def f():\n    pass", "FunctionDef"),
        ("class A:\n    pass", "ClassDef"),
        ("f = lambda: 1", "Lambda"),
        ("for i in (1, 2):\n    print(i)", "For"),
        ("while x:\n    pass", "While"),
        ("[i for i in (1, 2)]", "ListComp"),
        ("dict((i, i) for i in (1, 2))", "GeneratorExp"),
        ("f()\n" * 9, "9 lines"),
        (f"f({'x' * 98})", "101 characters"),
    ],
)
def test_program_in_a_cell_is_a_fault(source, fault):
    assert any(fault in words for words in faults(source))


def test_eight_short_lines_are_none():
    assert not faults("f()\n" * 8 + "\n") and CELLS
