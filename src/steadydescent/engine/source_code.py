"""Digests of the code that a number rests on: a definition and all that it uses, whatever its
layout or place.

What counts is what runs. Comments, docstrings, formatting, type annotations, the sentences of
errors and reports, and the module that a definition stands in leave a digest as it is; a name that
comes from another package counts with the place it comes from. A *unit* is the smallest piece that
is in or out: a function, a constant, a method, the rest of a class, one entry of a table of
choices.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from copy import copy, deepcopy
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1]
STATEMENTS = "<statements>"
"""The unit of what a module does at its top beside defining names."""
SAYING = {"report", "warn", "warning", "info", "debug"}
"""Functions that say something and change nothing."""


class Unit(NamedTuple):
    """A definition of a module (`data.mnist1d`, `draw`), or a `part` of one: a method, an entry."""

    module: str
    name: str
    part: str = ""

    def __str__(self) -> str:
        return ".".join(filter(None, self))


class _Uses(NamedTuple):
    """What a unit consists of, and what it names."""

    text: str
    units: frozenset[Unit]
    modules: frozenset[str]
    attributes: frozenset[str]


def sources(package: Path = PACKAGE) -> dict[str, str]:
    """Module → its text, by its name inside the package; the package's own is ''."""
    texts = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        texts[name] = path.read_text(encoding="utf-8")
    return texts


class Code:
    """A package's modules as units that use one another.

    `tables` are dictionaries whose entries are choices: `RULES["adam"]`. `choices` are other
    definitions that only some need. Neither is part of what uses it, unless it is asked for by
    name: whoever chooses asks. `roots` are used by whoever trains, in full.
    """

    def __init__(
        self,
        texts: Mapping[str, str],
        roots: Iterable[Unit],
        tables: Iterable[Unit],
        choices: Iterable[Unit],
    ) -> None:
        self.modules = {name: _Module(name, text, texts) for name, text in texts.items()}
        self.roots, self.tables = list(roots), set(tables)
        self.choices = set(choices) | {
            entry for table in self.tables for entry in self.entries(table)
        }
        self._uses: dict[Unit, _Uses] = {}

    def entries(self, table: Unit) -> list[Unit]:
        """The entries that a table's text names; what it takes from elsewhere is the entry `**`."""
        return [
            Unit(table.module, table.name, key)
            for key in self.modules[table.module].entries(table.name)
        ]

    def has(self, table: Unit, key: str) -> bool:
        """Whether the table's text names the key."""
        return Unit(table.module, table.name, key) in self.choices

    def entry(self, table: Unit, key: str) -> Unit:
        """The unit of a table's key: its own, or that of all that is not written key by key."""
        return Unit(table.module, table.name, key if self.has(table, key) else "**")

    def digest(self, *units: Unit) -> str:
        """SHA-256 of the texts of these units and of all that they use."""
        texts = sorted({self._of(unit).text for unit in self.closure(units)})
        return hashlib.sha256("\n\n".join(texts).encode()).hexdigest()

    def closure(self, units: Iterable[Unit]) -> set[Unit]:
        """These units and all that they use, choices left out.

        Of methods it has those that any code here calls by name.
        """
        return self._closure(units, self._called)

    @cached_property
    def _called(self) -> frozenset[str]:
        """Names of attributes that the roots and all choices look at.

        Methods of no such name are never called.
        """
        called: frozenset[str] = frozenset()
        while True:
            everything = self._closure([*self.roots, *self.choices], called)
            attributes = [self._of(unit).attributes for unit in everything]
            wider = frozenset[str]().union(*attributes)
            if wider == called:
                return called
            called = wider

    def _closure(self, units: Iterable[Unit], called: frozenset[str]) -> set[Unit]:
        seen: set[Unit] = set()
        left = [self._origin(unit) for unit in units]
        while left:
            unit = left.pop()
            if unit in seen:
                continue
            seen.add(unit)
            uses = self._of(unit)
            used = {self._origin(other) for other in uses.units}
            used |= {
                self._origin(Unit(name, other))
                for name in uses.modules
                for other in self._defined(name, called)
            }
            used |= set(self._methods(unit, called)) | {Unit(unit.module, STATEMENTS)}
            left += used - self.choices - self.tables
        return seen

    def _defined(self, module: str, called: frozenset[str]) -> Iterator[str]:
        """Definitions of a module that is handed around as a value."""
        return (name for name in self.modules[module].definitions if name in called)

    def _methods(self, unit: Unit, called: frozenset[str]) -> Iterator[Unit]:
        if unit.part:
            return
        whole = unit in self.roots
        for name, always in self.modules[unit.module].methods(unit.name):
            if whole or always or name in called:
                yield Unit(unit.module, unit.name, name)

    def _origin(self, unit: Unit) -> Unit:
        """Where a name that a module imports from another one is defined."""
        module = self.modules[unit.module]
        while unit.name not in module.definitions and unit.name in module.own_imports:
            target = module.own_imports[unit.name]
            if target.module not in self.modules or target[:2] == unit[:2]:
                break
            unit, module = Unit(target.module, target.name, unit.part), self.modules[target.module]
        return unit

    def _of(self, unit: Unit) -> _Uses:
        if unit not in self._uses:
            self._uses[unit] = self._read(unit)
        return self._uses[unit]

    def _read(self, unit: Unit) -> _Uses:
        module = self.modules[unit.module]
        nodes = module.nodes(unit)
        imported = _Imports(
            module.name, self.modules, [node for part in nodes for node in ast.walk(part)]
        )
        own, foreign = module.own_imports | imported.own, module.foreign_imports | imported.foreign
        stripped = [_Bare().visit(deepcopy(node)) for node in nodes]
        bare = [node for node in stripped if node is not None]
        inside = [inner for part in bare for inner in ast.walk(part)]
        # the starts of longer names
        starts = {id(node.value) for node in inside if isinstance(node, ast.Attribute)}
        units, modules, places = set[Unit](), set[str](), set[str]()
        for node in inside:
            names = _dotted(node)
            if not names:
                continue
            if names[0] in own:
                self._follow(own[names[0]], names[1:], units, modules, whole=id(node) not in starts)
            elif names[0] in module.definitions:
                units.add(Unit(module.name, names[0]))
            elif names[0] in foreign:
                places.add(f"{names[0]} is {foreign[names[0]]}")
        text = "\n".join([*sorted(places), *map(ast.unparse, bare)])
        called = frozenset(node.attr for node in inside if isinstance(node, ast.Attribute))
        return _Uses(text, frozenset(units), frozenset(modules), called)

    def _follow(
        self, target: Unit, rest: list[str], units: set[Unit], modules: set[str], whole: bool
    ) -> None:
        """Note what `target.rest` stands for: a definition, or a module whose name ends it."""
        name = ".".join(filter(None, (target.module, target.name)))
        if name not in self.modules or (
            target.name and target.name in self.modules[target.module].definitions
        ):
            units.add(target)
        elif rest:
            self._follow(Unit(name, rest[0]), rest[1:], units, modules, whole)
        elif whole:
            modules.add(name)


def _dotted(node: ast.AST) -> list[str]:
    """The names of `a.b.c`, or none for anything else."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id, *reversed(names)] if isinstance(node, ast.Name) else []


class _Imports:
    """What imported names stand for: `own` of the package, `foreign` of others."""

    def __init__(
        self, module: str, modules: Mapping[str, object], nodes: Iterable[ast.AST]
    ) -> None:
        self.own: dict[str, Unit] = {}
        self.foreign: dict[str, str] = {}
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    bound = alias.asname or alias.name.partition(".")[0]
                    self._bind(bound, alias.name if alias.asname else bound, "")
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self._bind(
                        alias.asname or alias.name,
                        self._absolute(node, module, modules),
                        alias.name,
                    )

    @staticmethod
    def _absolute(node: ast.ImportFrom, module: str, modules: Mapping[str, object]) -> str:
        if not node.level:
            return node.module or ""
        package = (
            module
            if any(name.startswith(f"{module}.") for name in modules)
            else module.rpartition(".")[0]
        )
        parts = [*filter(None, package.split("."))]
        return ".".join(
            [PACKAGE.name, *parts[: len(parts) + 1 - node.level], *filter(None, [node.module])]
        )

    def _bind(self, name: str, place: str, what: str) -> None:
        if place == PACKAGE.name or place.startswith(f"{PACKAGE.name}."):
            self.own[name] = Unit(place.removeprefix(PACKAGE.name).removeprefix("."), what)
        else:
            self.foreign[name] = ".".join(filter(None, (place, what)))


class _Module:
    """One module's definitions, read when they are first asked for."""

    def __init__(self, name: str, text: str, modules: Mapping[str, object]) -> None:
        self.name, self._text, self._modules = name, text, modules

    @cached_property
    def _statements(self) -> list[ast.stmt]:
        return ast.parse(self._text).body

    @cached_property
    def _imports(self) -> _Imports:
        runs = [
            s
            for s in self._statements
            if not isinstance(s, ast.FunctionDef | ast.ClassDef) and not _only_types(s)
        ]
        return _Imports(
            self.name, self._modules, [node for statement in runs for node in ast.walk(statement)]
        )

    @property
    def own_imports(self) -> dict[str, Unit]:
        return self._imports.own

    @property
    def foreign_imports(self) -> dict[str, str]:
        return self._imports.foreign

    @cached_property
    def definitions(self) -> dict[str, list[ast.stmt]]:
        """Name → the statements that define it; all else at the top goes by `STATEMENTS`."""
        statements: dict[str, list[ast.stmt]] = {STATEMENTS: []}
        for statement in self._statements:
            for name in _defines(statement):
                statements.setdefault(name, []).append(statement)
        return statements

    def nodes(self, unit: Unit) -> list[ast.AST]:
        """A unit's statements; of a class without its methods, of a table the value of one key."""
        statements = self.definitions.get(unit.name, [])
        if unit.part and isinstance(statements[0], ast.ClassDef):
            return [node for node in statements[0].body if getattr(node, "name", "") == unit.part]
        if unit.part:
            return self._entries(unit.name)[unit.part]
        return [
            _without_methods(node) if isinstance(node, ast.ClassDef) else node
            for node in statements
        ]

    def methods(self, name: str) -> list[tuple[str, bool]]:
        """A class's methods, and whether they may be called though nothing here names them."""
        statements = self.definitions.get(name, [])
        if not statements or not isinstance(statements[0], ast.ClassDef):
            return []
        head = statements[0]
        bases = {ast.unparse(base).partition("[")[0] for base in head.bases} - {
            "NamedTuple",
            "Protocol",
            "Generic",
        }
        framework = not bases <= set(self.definitions)
        functions = [node for node in head.body if isinstance(node, ast.FunctionDef)]
        return [(f.name, framework or f.name.startswith("__") or _registered(f)) for f in functions]

    def entries(self, name: str) -> list[str]:
        return list(self._entries(name))

    def _entries(self, name: str) -> dict[str, list[ast.AST]]:
        """Key → value of a table written as a dictionary; any other is the one entry `**`."""
        statements = self.definitions[name]
        value = getattr(statements[0], "value", None)
        if len(statements) > 1 or not isinstance(value, ast.Dict):
            return {"**": list[ast.AST](statements)}
        entries: dict[str, list[ast.AST]] = {"**": []}
        for key, entry in zip(value.keys, value.values, strict=True):
            text = key.value if isinstance(key, ast.Constant) else "**"
            entries.setdefault(str(text), []).append(entry)
        return entries


def _defines(statement: ast.stmt) -> list[str]:
    """The names that a statement at the top of a module defines."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [node.id for t in targets for node in ast.walk(t) if isinstance(node, ast.Name)]
        plain = all(isinstance(t, ast.Name | ast.Tuple) for t in targets)
        # `table[key] = …` changes what is defined elsewhere
        return names if plain else [STATEMENTS]
    if isinstance(statement, ast.Import | ast.ImportFrom) or _only_types(statement):
        return []
    if isinstance(statement, ast.If | ast.Try | ast.For | ast.While | ast.With):
        inner = [
            node
            for node in ast.walk(statement)
            if isinstance(node, ast.stmt) and node is not statement
        ]
        return [
            STATEMENTS,
            *(name for node in inner for name in _defines(node) if name != STATEMENTS),
        ]
    return [STATEMENTS]


def _only_types(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"


def _without_methods(node: ast.ClassDef) -> ast.ClassDef:
    body = [part for part in node.body if not isinstance(part, ast.FunctionDef)]
    head = copy(node)
    head.body = body
    return head


def _registered(function: ast.FunctionDef) -> bool:
    """Whether a decorator hands the function to somebody who calls it, as a validator's does."""
    plain = {"property", "staticmethod", "classmethod", "cached_property", "cache", "overload"}
    return any(ast.unparse(decorator) not in plain for decorator in function.decorator_list)


class _Bare(ast.NodeTransformer):
    """What runs, and no more."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant):
            return None  # a docstring
        if isinstance(node.value, ast.Call) and {*_dotted(node.value.func)[-1:]} & SAYING:
            return None
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        node.exc, node.cause = node.exc.func if isinstance(node.exc, ast.Call) else node.exc, None
        return self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        fields = [
            part for part in node.body if isinstance(part, ast.AnnAssign)
        ]  # there annotations do something
        node.body = [part for part in node.body if part not in fields]
        self.generic_visit(node)
        node.body = [*fields, *node.body]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return None
        return self.visit(ast.copy_location(ast.Assign([node.target], node.value), node))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        if any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list):
            return None
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node
