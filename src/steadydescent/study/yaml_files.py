"""YAML files as plain, checked data: what a file says is taken as it is meant, or refused with its
file and line.

Beside what YAML itself refuses: a key given twice, a key that is no text, aliases that would unfold
into more than `MOST` values, tags, times, and numbers that YAML 1.1 reads otherwise than people do
(`010` is 8 there, `1:30` is 90). A day, `2026-11-26`, is its text.
"""

import json
import math
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from steadydescent.checks import nearest
from steadydescent.study.paths import ROOT

LARGEST = 2_000_000
"""Bytes of a file that is read at all."""
MOST = 100_000
"""Values in a file, those of aliases counted each time."""
DEEPEST = 20
"""Mappings and lists inside one another."""
MERGE = "tag:yaml.org,2002:merge"
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
SHOWN = 60
"""Characters of a value that a message shows."""
Address = tuple[str | int, ...]
"""Keys and positions that lead to a value in a file."""
M = TypeVar("M", bound=BaseModel)
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlFile(NamedTuple):
    """What a file says, as dicts, lists, texts, numbers, true, false and null; and on which line
    each of it stands.
    """

    path: Path
    content: Any
    lines: dict[Address, int]

    def error(self, place: Address, text: str) -> ValueError:
        """An error that names file, line and place."""
        line = next(
            self.lines[place[:n]] for n in range(len(place), -1, -1) if place[:n] in self.lines
        )
        where = "".join(
            f"{part}: " if isinstance(part, str) else f"number {part + 1}: " for part in place
        )
        told = f"{_short(self.path)}, line {line}: {where}{text}"
        return ValueError("".join(c if c.isprintable() else repr(c)[1:-1] for c in told))

    def model(self, kind: type[M], place: Address = (), **more: Any) -> M:
        """What stands at a place as a model, strictly: no text for a number, no true for 1.

        Raises: ValueError: for a value that the model refuses, with file and line, what it is, and
            what is allowed.
        """
        content = self.content
        for part in place:
            content = content[part]
        if not isinstance(content, dict):
            raise self.error(place, f"must be a mapping, got {value_in_words(content)}")
        if taken := sorted(content.keys() & more.keys()):
            raise self.error((*place, taken[0]), "is not to be stated here")
        try:
            return kind.model_validate_json(json.dumps({**more, **content}), strict=True)
        except ValidationError as error:
            first, *others = error.errors()
            at = tuple(part for part in (*place, *first["loc"]) if isinstance(part, int | str))
            while at not in self.lines and len(at) > len(place):
                at = at[:-1]  # names of union members and of what is missing are in no file
            beyond = f" (and {len(others)} more)" if others else ""
            raise self.error(at, sentence(kind, first, at) + beyond) from None


def sentence(kind: type[BaseModel], error: Any, at: Address = ()) -> str:
    """What a model says in a pydantic error, as part of a sentence: what is allowed, and what was
    given.
    """
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        return str(text)
    if error["type"] == "extra_forbidden":
        near = nearest(error["loc"][-1], known := _model_at(kind, error["loc"]).model_fields)
        return (
            f"is unknown; did you mean {near!r}?"
            if near
            else f"is unknown; known are {list(known)}"
        )
    missing = [str(part) for part in error["loc"] if part not in at]
    if error["type"] == "missing":
        return f"{missing[-1] if missing else error['loc'][-1]} is missing"
    return f"{text[0].lower()}{text[1:]}, got {value_in_words(error['input'])}"


def _model_at(kind: type[BaseModel], place: Sequence[str | int]) -> type[BaseModel]:
    """The model that a place of a model's data is in."""
    for part in place:
        if isinstance(part, str) and part in kind.model_fields:
            inner = _models(kind.model_fields[part].annotation)
            kind = inner[0] if inner else kind
    return kind


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def value_in_words(value: object) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def read(path: Path) -> YamlFile:
    """Read a file.

    Raises: ValueError: for one that is no regular file, too large, no UTF-8, no YAML, or says what
        is refused here. FileNotFoundError: for no file.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no {_short(path)}; run this from a checkout of Steady Descent"
        ) from None
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
        raise ValueError(f"{_short(path)} must be a regular file of at most {LARGEST} bytes")
    try:
        return _parsed(path.read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{_short(path)} is not UTF-8: byte {error.start} is {error.object[error.start]:#x}"
        ) from None


def value_of(text: str, name: str) -> Any:
    """What a text says as YAML, or as JSON, which is YAML; `name` is what it is the value of.

    >>> value_of("[adam, 'noam(d_model=64, warmup=50)', 16]", "schedules")
    ['adam', 'noam(d_model=64, warmup=50)', 16]

    Raises: ValueError: as `read`.
    """
    if len(text) > LARGEST:
        raise ValueError(f"{name} must have at most {LARGEST} characters, got {len(text)}")
    return _parsed(text, Path(name)).content


def _parsed(text: str, path: Path) -> YamlFile:
    try:
        node = yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        problem = error.problem or error.context
        raise ValueError(f"{_short(path)}{line}: is no YAML: {problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{_short(path)}: is no YAML: {reason}") from None
    file = YamlFile(path, None, {(): 1})
    return file._replace(content=None if node is None else _plain(node, (), file))


def _plain(node: yaml.Node, place: Address, file: YamlFile) -> Any:
    """The value of a node; `file` learns its line."""
    if len(file.lines) > MOST:
        raise file.error(place, f"the file unfolds into more than {MOST} values")
    if len(place) > DEEPEST:
        raise file.error(place[:3], f"is nested more than {DEEPEST} deep")
    file.lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_plain(item, (*place, number), file) for number, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        return _mapping(node, place, file)
    return _scalar(node, place, file)


def _mapping(node: yaml.MappingNode, place: Address, file: YamlFile) -> dict[str, Any]:
    """Its own keys over those of the mapping that `<<` takes over."""
    taken: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for key, value in node.value:
        if key.tag == MERGE and isinstance(value, yaml.MappingNode) and not taken:
            taken = _mapping(value, place, file)
            file.lines[place] = node.start_mark.line + 1
            continue
        name = _key(key, place, file)
        if name in own:
            file.lines[(*place, name)] = key.start_mark.line + 1
            raise file.error((*place, name), "is given twice")
        own[name] = _plain(value, (*place, name), file)
    return taken | own


def _key(node: yaml.Node, place: Address, file: YamlFile) -> str:
    """A key, which must be a text: `no: 1` would be `False: 1`."""
    if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
        line = node.start_mark.line + 1
        raise file.error(
            place,
            f"the key on line {line} must be a text, got {value_in_words(node.value)}; "
            "put it in quotes",
        )
    return str(node.value)


def _scalar(node: yaml.Node, place: Address, file: YamlFile) -> Any:
    text, kind = str(node.value), node.tag.removeprefix("tag:yaml.org,2002:")
    if kind == "str":
        if any(ord(character) < 32 and character not in "\n\t" for character in text):
            raise file.error(place, f"holds a control character: {value_in_words(text)}")
        return text
    if kind == "int" and INTEGER.fullmatch(text):
        return int(text)
    if kind == "float" and ":" not in text and "_" not in text:
        number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if math.isfinite(number):
            return number
        raise file.error(place, f"must be finite, got {text}")
    if kind == "timestamp" and DAY.fullmatch(text):
        return text
    if kind == "bool":
        return text.lower() in ("true", "yes", "on")
    if kind == "null":
        return None
    raise file.error(
        place,
        f"must be a plain number or text, got {value_in_words(text)}; "
        "a text that looks so needs quotes",
    )


def unique(values: Sequence[object], what: str) -> None:
    """Refuse a list that says something twice."""
    if twice := sorted({str(value) for value in values if values.count(value) > 1}):
        raise ValueError(f"{what} must not be given twice, got {twice[0]!r} again")


def _short(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    unique(names, "a name in a list")
    return names


Names = Annotated[tuple[str, ...], AfterValidator(_once)]


class Checked(BaseModel):
    """Plain data that refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
