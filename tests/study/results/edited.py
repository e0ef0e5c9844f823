"""The package as it would be if some of its text were another; nothing on disk is touched."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy

import pytest

from steadydescent.engine.source_code import Code, _Module
from steadydescent.study.results import fingerprints as numerics


def with_text(code: Code, module: str, text: str) -> Code:
    """The same code but for one module; all that was read of the others is kept."""
    other = copy(code)
    other.modules = {**code.modules, module: _Module(module, text, numerics.TEXTS)}
    other._uses = {unit: uses for unit, uses in code._uses.items() if unit.module != module}
    other.__dict__.pop("_called", None)
    return other


@contextmanager
def edited(module: str, old: str, new: str) -> Iterator[None]:
    """What is trained inside counts as trained by this text."""
    text = numerics.TEXTS[module]
    assert text.count(old) >= 1, f"{module} has no {old!r}"
    with pytest.MonkeyPatch.context() as patch:
        changed = with_text(numerics.code(), module, text.replace(old, new, 1))
        patch.setattr(numerics, "code", lambda: changed)
        numerics._digests.cache_clear()
        try:
            yield
        finally:
            numerics._digests.cache_clear()
