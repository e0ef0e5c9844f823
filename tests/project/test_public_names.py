"""Every public name has one home: what a module defines at its top, no other module defines.

Pages and notebooks are apart: what is in `study.book.chapters` or `study.book.comparisons` is
called by its own page or notebook alone.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "steadydescent"


PAGES = ("study.book.chapters.", "study.book.comparisons.")


def public_names(source: str) -> set[str]:
    """Names that a module defines at its top, in branches there, too; imported ones are others'."""
    return {name for name in _defined(ast.parse(source).body) if not name.startswith("_")}


def _defined(body: list[ast.stmt]) -> set[str]:
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for part in ("body", "orelse", "finalbody"):
                names |= _defined(getattr(node, part, []))
    return names


def homes() -> dict[str, list[str]]:
    """Public name → the modules that define it."""
    modules: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if module.startswith(PAGES):
            continue
        for name in public_names(path.read_text(encoding="utf-8")):
            modules[name].append(module)
    return modules


EVERY_SOURCE = {"fetch", "identity", "load"}
"""What each source of data has: the modules of `engine.data` are called by these names."""
LEFT_OVER = {
    *("Array", "CELL_HOURS", "CLASSES", "COUNTS", "DATA", "DEEPEST", "EXAMPLES", "IGNORED"),
    *("KINDS", "LARGEST", "LONGEST", "LOST", "Names", "PACKAGE", "PACKAGES", "POLL_SECONDS"),
    *("Part", "RECEIPT", "SHOWN", "SPLIT_RULE", "SPLIT_SEED", "Step", "T", "TABLES", "TEXTS"),
    *("View", "WRAPPERS", "code", "differences", "digest", "draw", "parsed", "ramp", "rates"),
    *("read", "read_folder", "refuse_unfit", "split", "summary", "table", "verify", "write"),
    "write_table",
}
"""Names that still have several homes; none may be added."""


def test_names_of_a_module_are_those_that_it_defines_at_its_top():
    source = """
from a import b
import c
X, (Y, _Z) = 1, (2, 3)
W: int = 4
if X:
    V = 5
else:
    def u(): inner = 6
class T:
    s = 7
def _r(): ...
"""
    assert public_names(source) == {"X", "Y", "W", "V", "u", "T"}


def test_no_excuse_is_left_over():
    twice = {name for name, modules in homes().items() if len(modules) > 1}
    assert twice >= EVERY_SOURCE | LEFT_OVER


@pytest.mark.parametrize("name", sorted(n for n, modules in homes().items() if len(modules) > 1))
def test_public_name_has_one_home(name):
    assert name in EVERY_SOURCE | LEFT_OVER, f"{name} has homes in {homes()[name]}"
