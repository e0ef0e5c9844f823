"""A setting with options as one line of text: `adam(beta1=0)`, `noam(d_model=64, warmup=200)`."""

import ast
import json
import math
import re
from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from typing import Any, NamedTuple

LONGEST_SETTING = 2_000
"""Characters of a setting: text that is longer, or nested deep, is no setting."""
PATTERN = re.compile(r"(?P<name>[a-z0-9]+(-[a-z0-9]+)*)(\((?P<options>.*)\))?", re.DOTALL)


class Setting(NamedTuple):
    """A name and its options."""

    name: str
    options: dict[str, Any]

    def text(self, defaults: Mapping[str, Any] | None = None) -> str:
        """The canonical text: options by name, those that equal their default left out.

        >>> Setting("adam", {"beta2": 0.99, "beta1": 0.9}).text(defaults={"beta1": 0.9})
        'adam(beta2=0.99)'
        """
        usual = defaults or {}
        inside = ", ".join(
            f"{key}={json.dumps(_plain(value), ensure_ascii=False)}"
            for key, value in sorted(self.options.items())
            if usual.get(key) != value
        )
        return f"{self.name}({inside})" if inside else self.name


def read(text: str) -> Setting:
    """Read a setting; values are numbers, strings, true, false, or lists of them.

    >>> read('steps(shares=[0.5, 0.75], factors=[0.1, 0.1])')
    Setting(name='steps', options={'shares': [0.5, 0.75], 'factors': [0.1, 0.1]})

    Raises:
        ValueError: for text that is not of this form.
    """
    name, options = _parsed(text)
    return Setting(name, deepcopy(options) if options else {})


@lru_cache(maxsize=10_000)
def _parsed(text: str) -> Setting:
    """The setting itself, which nobody may change: a study's plan reads the same few a million
    times.
    """
    if len(text) > LONGEST_SETTING:
        raise ValueError(
            f"a setting must have at most {LONGEST_SETTING} characters, "
            f"got {len(text)}: {text[:40]!r}…"
        )
    match = PATTERN.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError("no name")
        call = ast.parse(f"f({match['options'] or ''})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(k.arg is None for k in call.keywords):
            raise ValueError("options need names")
        options = {str(k.arg): _value(k.value) for k in call.keywords}
        if len(options) < len(call.keywords):
            raise ValueError("an option is given twice")
    # the last two: nested too deep
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"{text!r} is not of the form name or name(option=value, ...): {error}"
        ) from None
    return Setting(match["name"], options)


def _plain(value: Any) -> Any:
    """1.0 as 1, so that one number has one text."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return {"true": True, "false": False}.get(node.id, node.id)
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    value = ast.literal_eval(node)
    if isinstance(value, str) or (isinstance(value, int | float) and abs(value) < math.inf):
        return value
    raise ValueError(
        f"values are finite numbers, texts, true, false, or lists of them, got {value!r}"
    )
