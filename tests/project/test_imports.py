"""What may import what: techniques stand on their own, references never lean on what they check."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "steadydescent"
GUIDE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def rooms_of(guide: str) -> tuple[str, ...]:
    """The names in the first column of the table of rooms, from top to bottom."""
    table = guide.partition("\n| room |")[2].partition("\n\n")[0]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return tuple(re.findall(r"`([\w.]+)`", " ".join(first)))


ROOMS = rooms_of(GUIDE)
"""The rooms in order: a module imports from its own room and from those before it, no other."""
TECHNIQUES = ROOMS[ROOMS.index("averages") : ROOMS.index("engine.settings")]
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
}


def room(name: str) -> str:
    """The room that a module lies in: the longest name of a room that its own begins with."""
    plain = name.removesuffix(".__init__")
    return max((r for r in ROOMS if f"{plain}.".startswith(f"{r}.")), key=len, default="")


def imported(source: str, package: str = "") -> set[str]:
    """Dotted names of all that a source imports; `from a import b` gives a and a.b.

    Imports inside functions count, too. `package` is the one that the source stands in, which
    relative imports start from.
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
    names = {
        other.removeprefix("steadydescent.")
        for other in imported(path.read_text(encoding="utf-8"), package)
        if other.startswith("steadydescent.")
    }
    modules = {other for other in names if is_module(other)}
    # `from a import b` names the package a, too, which only holds b where b is a module
    holders = {other for other in modules if any(o.startswith(f"{other}.") for o in modules)}
    return modules - (holders - taken_from(path))


def is_module(name: str) -> bool:
    """Whether there is a module or a package of this name inside the package."""
    return name in MODULES or f"{name}.__init__" in MODULES


def taken_from(path: Path) -> set[str]:
    """Packages of which a file takes something that is no module."""
    nodes = [
        (node.module or "", alias.name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    inside = [(module.removeprefix("steadydescent."), name) for module, name in nodes]
    return {module for module, name in inside if not is_module(f"{module}.{name}")}


def test_the_parser_sees_every_way_to_import():
    inside = ("from p import e", "from . import g", "from ..h import i")
    source = "\n    ".join(("import a.b\nfrom c import d\ndef f():", *inside))
    names = "a.b c c.d p p.e p.q p.q.g p.h p.h.i"
    assert imported(source, "p.q") == set(names.split())
    assert "study.book.sphinx.elements" in own("study.book.sphinx.roles")
    assert "study.results.store" in own("study.training.trial")


FACES = {"__init__", "study.__init__"}
"""Packages of several rooms, whose own file says what they are and imports nothing."""


def test_the_guide_names_the_rooms_in_their_order():
    guide = "\n| room | what |\n|---|---|\n| `a` `b.c` | `no` |\n| `d` | e |\n\n| `f` |"
    assert rooms_of(guide) == ("a", "b.c", "d")
    assert len(ROOMS) == len(set(ROOMS)) > 20


def test_every_place_that_the_guide_names_is_there():
    """Files and folders of the checkout, or of the package, whole or from a room on."""
    places = re.findall(r"`([\w./-]+(?:/|\.(?:py|md|yml|json)))`", GUIDE)
    made = {"generated/findings.json", "_build/html"}
    bases = (
        ROOT,
        ROOT / "experiments",
        PACKAGE,
        PACKAGE / "study",
        PACKAGE / "engine",
        PACKAGE / "study" / "book",
    )
    gone = {p for p in set(places) - made if not any((base / p).exists() for base in bases)}
    assert len(places) > 30 and {p for p in gone if "NAME" not in p} == set()


def test_every_module_lies_in_a_room_and_every_room_is_there():
    assert {room(name) for name in set(MODULES) - FACES} == set(ROOMS)
    assert not any(own(name) for name in FACES)


@pytest.mark.parametrize("name", sorted(set(MODULES) - FACES))
def test_module_imports_from_its_own_room_and_those_before_it(name):
    allowed = ROOMS[: ROOMS.index(room(name)) + 1]
    assert not {other for other in own(name) if room(other) not in allowed}


def test_no_modules_import_each_other_in_a_circle():
    """What is imported inside a function or for types alone counts, too."""
    plain = lambda name: name.removesuffix(".__init__")
    left = {plain(name): {plain(used) for used in own(name)} - {plain(name)} for name in MODULES}
    while free := {name for name, used in left.items() if not used & set(left)}:
        left = {name: used for name, used in left.items() if name not in free}
    assert not left


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_technique_needs_nothing_of_the_study(technique):
    """Anyone can use one without the engine: torch, numpy and what lies before it are enough."""
    mine = {other for name in MODULES if room(name) == technique for other in own(name)}
    assert not {other for other in mine if room(other).startswith(("engine", "study"))}


HEAVY = {
    "torch._dynamo",
    "torch._inductor",
    "torchvision",
    "scipy",
    "pandas",
    "pyarrow",
    "matplotlib",
    "seaborn",
    "altair",
    "sphinx",
    "docutils",
    "jupyter_book",
    "papermill",
    "nbformat",
    "IPython",
    "dask",
    "distributed",
    "mnist1d",
    "sympy",
    "timm",
    "ema_pytorch",
    "jax",
}
"""What takes long to import and is needed by some of those who import us: imported where used."""
NEEDS = {"engine.recorder": {"pandas", "pyarrow"}}
"""Modules of techniques and engine that cannot be without, and so are imported late themselves."""
LISTENING = """
import importlib, json, sys
heavy, names = json.loads(sys.argv[1])
seen, new = set(), {}
for name in names:
    importlib.import_module(name)
    new[name] = sorted(set(heavy) & set(sys.modules) - seen)
    seen |= set(new[name])
print(json.dumps(new))
"""


def newly_loaded(names: list[str], heavy: set[str]) -> dict[str, list[str]]:
    """Which heavy modules a fresh interpreter has after each import that it had not before."""
    request = json.dumps([sorted(heavy), names])
    words = [sys.executable, "-c", LISTENING, request]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_command_starts_without_torch_and_what_torch_brings():
    assert newly_loaded(["steadydescent.cli"], HEAVY | {"torch", "numpy"}) == {
        "steadydescent.cli": []
    }


def test_techniques_and_engine_import_nothing_heavy_beside_torch():
    """All their modules in turn, in one interpreter that has torch; what needs more comes last."""
    rooms = (*ROOMS[: ROOMS.index("averages")], *TECHNIQUES)
    rooms += tuple(name for name in ROOMS if name.startswith("engine"))
    modules = [name for name in MODULES if room(name) in rooms]
    assert {name for name in modules if "engine.stack" in name} and set(modules) > set(NEEDS)
    plain = [name for name in modules if name not in NEEDS]
    whole = lambda name: f"steadydescent.{name}".removesuffix(".__init__")
    new = newly_loaded(["torch", "numpy", *map(whole, [*sorted(plain), *NEEDS])], HEAVY)
    loaded = {name: set(heavy) for name, heavy in new.items() if heavy and name != "torch"}
    assert loaded == {whole(name): heavy for name, heavy in NEEDS.items()}


def test_top_level_shows_the_design_at_a_glance():
    folders = [p for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"]
    files = [path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    assert len(folders) <= 9 and len(files) <= 5
    for folder in folders:
        assert len(ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or "") > 80


@pytest.mark.parametrize("name", [r for r in ROOMS if f"{r}.__init__" in MODULES])
def test_a_room_that_is_a_folder_says_what_it_may_use(name):
    text = ast.get_docstring(ast.parse(MODULES[f"{name}.__init__"].read_text("utf-8"))) or ""
    assert re.search(r"\b(may use|may import|[Ii]mports|uses)\b", text), text


def test_no_module_is_named_utils():
    assert not [name for name in MODULES if "util" in name.lower() or "helper" in name.lower()]


NARROWS = re.compile(r"assert (isinstance\(.*\)|[\w.]+ is not None)$")
"""Assertions that tell a type checker what is so; `python -O` may leave them out."""


def test_no_assertion_carries_meaning_that_python_without_assertions_would_lose():
    chapters = [*(ROOT / "chapters").glob("*.md"), *(ROOT / "experiments").glob("*.ipynb")]
    lines = [
        (path.name, line.strip())
        for path in chapters
        for line in path.read_text("utf-8").splitlines()
    ]
    texts = {name: path.read_text("utf-8") for name, path in MODULES.items()}
    asserts = [
        (name, ast.unparse(ast.Assert(node.test)))
        for name, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Assert)
    ]
    assert not [pair for pair in lines if pair[1].lstrip('"').startswith("assert ")]
    assert not [pair for pair in asserts if not NARROWS.match(pair[1])]


def test_nothing_is_pickled():
    unsafe = {"pickle", "dill", "joblib", "shelve", "marshal"}
    used = {name: imported(path.read_text("utf-8")) & unsafe for name, path in MODULES.items()}
    assert not {name: modules for name, modules in used.items() if modules}


def test_the_slow_references_never_import_the_package():
    names = imported((ROOT / "tests" / "oracles.py").read_text(encoding="utf-8"))
    assert names and not [name for name in names if name.startswith("steadydescent")]


def test_no_docstring_has_a_letter_behind_a_code_span():
    """Sphinx takes it for a span without an end, and the book's build fails."""
    sources = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    behind = re.compile(r"(?<!`)`[\w.]+`[A-Za-z]")
    spans = [
        f"{path.name}: {span[0]}"
        for path, text in sources.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        for span in behind.finditer(ast.get_docstring(node) or "")
    ]
    assert spans == []
