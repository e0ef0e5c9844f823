"""What may import what: techniques stand on their own, references never lean on what they check."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "steadydescent"
TECHNIQUES: dict[str, set[str]] = {
    "averages": set(),
    "schedules": set(),
    "optimizers": {"averages"},
    "normalization": {"averages"},
    "weight_averaging": {"averages", "files"},
    "minibatches": set(),
    "dataset_shift": {"data.mnist1d", "torchvision_shim"},
    "lr_search": {"averages", "schedules"},
}
"""Technique → the modules of the package that it may import."""
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
TRAINING = {
    *("engine", "blocks", "stepping", "probes", "results", "study", "sweep", "trial"),
    *("claims", "judging", "measures", "analyses", "findings", "reproduce", "cli"),
}


def part(name: str) -> str:
    """The module, or the package of several, that a module belongs to."""
    return name.split(".")[0]


def imported(source: str, package: str = "") -> set[str]:
    """Dotted names of all that a source imports, at its top or inside a function; `from a import b` gives a and a.b.

    `package` is the package that the source stands in, which relative imports start from.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def own(name: str) -> set[str]:
    """The package's modules that one of them imports, by their names inside the package."""
    path = MODULES[name]
    package = ".".join(("steadydescent", *path.relative_to(PACKAGE).parts[:-1]))
    found = imported(path.read_text(), package)
    inside = {other.removeprefix("steadydescent.") for other in found if other.startswith("steadydescent.")}
    return {other for other in inside if other in MODULES or f"{other}.__init__" in MODULES}


def test_the_parser_sees_every_way_to_import():
    source = "import a.b\nfrom c import d\ndef f():\n    from p import e\n    from . import g\n    from ..h import i\n"
    assert imported(source, "p.q") == {"a.b", "c", "c.d", "p", "p.e", "p.q", "p.q.g", "p.h", "p.h.i"}
    assert "book.elements" in own("book.roles") and "study" in own("claims")


def test_there_are_techniques_to_look_at():
    assert set(TECHNIQUES) <= {technique_of(name) for name in MODULES}


def technique_of(name: str) -> str | None:
    """The technique that a module belongs to: a technique is one module or a package of them."""
    return part(name) if part(name) in TECHNIQUES else None


@pytest.mark.parametrize("name", sorted(name for name in MODULES if technique_of(name)))
def test_technique_imports_only_what_its_arrow_allows(name):
    outside = {other for other in own(name) if technique_of(other) != technique_of(name)}
    assert {other.removesuffix(".__init__") for other in outside} <= TECHNIQUES[technique_of(name)] | {"checks"}


PLAIN = {
    *("evaluation", "exact", "models", "noisy_quadratic", "planted", "regret", "runs", "settings", "statistics"),
    *("surfaces", "tasks", "timing", "transformer"),
}


@pytest.mark.parametrize("name", sorted(name for name in MODULES if part(name) in PLAIN))
def test_plain_parts_know_nothing_of_training_and_results(name):
    assert {part(name) for name in MODULES} >= PLAIN and not {part(other) for other in own(name)} & TRAINING


def test_data_know_nothing_of_what_is_done_with_them():
    for name in (name for name in MODULES if name.startswith("data.")):
        own_parts = {part(other) for other in own(name)}
        assert not own_parts & (TRAINING | set(TECHNIQUES) | {"runs", "tasks", "models"}), name


def test_only_the_sweep_starts_the_engine():
    """One place trains; the plan asks only how much evaluations look at, and probes look at a stack from outside."""
    users = {part(name) for name in MODULES if {"engine", "stepping"} & own(name)} - {"engine", "blocks"}
    assert users <= {"sweep", "study", "probes"}
    probes = [path for name, path in MODULES.items() if part(name) == "probes"]
    blocks = [block for path in probes for block in ast.parse(path.read_text()).body if not isinstance(block, ast.If)]
    run = [node for block in blocks for node in ast.walk(block) if isinstance(node, ast.ImportFrom)]
    assert probes and "steadydescent.engine" not in {node.module for node in run}  # types alone


def test_no_module_is_named_utils():
    assert not [name for name in MODULES if "util" in name.lower() or "helper" in name.lower()]


NARROWS = re.compile(r"assert (isinstance\(.*\)|[\w.]+ is not None)$")
"""Assertions that tell a type checker what is so; `python -O` may leave them out."""


def test_no_assertion_carries_meaning_that_python_without_assertions_would_lose():
    chapters = [*(ROOT / "chapters").glob("*.md"), *(ROOT / "experiments").glob("*.ipynb")]
    lines = [(path.name, line.strip()) for path in chapters for line in path.read_text("utf-8").splitlines()]
    texts = {name: path.read_text("utf-8") for name, path in MODULES.items()}
    asserts = [(name, ast.unparse(ast.Assert(node.test))) for name, text in texts.items()
               for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Assert)]  # fmt: skip
    assert not [pair for pair in lines if pair[1].lstrip('"').startswith("assert ")]
    assert not [pair for pair in asserts if not NARROWS.match(pair[1])]


def test_nothing_is_pickled():
    unsafe = {"pickle", "dill", "joblib", "shelve", "marshal"}
    assert not {name: bad for name, path in MODULES.items() if (bad := imported(path.read_text()) & unsafe)}


def test_the_slow_references_never_import_the_package():
    path = ROOT / "tests" / "oracles.py"
    assert path.exists() and not [name for name in imported(path.read_text()) if name.startswith("steadydescent")]


def test_no_docstring_has_a_letter_behind_a_code_span():
    """Sphinx takes it for a span without an end, and the book's build fails."""
    sources = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    behind = re.compile(r"(?<!`)`[\w.]+`[A-Za-z]")
    spans = [
        f"{path.name}: {found[0]}"
        for path, text in sources.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        for found in behind.finditer(ast.get_docstring(node) or "")
    ]
    assert spans == []
