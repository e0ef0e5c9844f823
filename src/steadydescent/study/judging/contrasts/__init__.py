"""Kinds of contrast: what a row of a claim compares, and how it is estimated; one class a file.

Each is what `experiments/claims.yml` may say of it, as a checked schema, and asks evidence for
scores; it may use all of judging but claims, questions and verdicts. A new kind is one file here,
its test, and its line in `claims.yml`: a module of this folder is imported and its class known by
its `kind`.
"""

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules

from steadydescent.study.judging.contrasts.contrast import (
    CONTRASTS,
    Contrast,
    Needs,
    StatedContrast,
)


def register(folders: Iterable[str]) -> None:
    """Import every module of these folders, which enters its kind."""
    for module in iter_modules(folders):
        import_module(f"{__name__}.{module.name}")


register(__path__)

__all__ = ["CONTRASTS", "Contrast", "Needs", "StatedContrast", "register"]
