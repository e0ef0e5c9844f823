"""What an argument may be: each check returns the value, or raises a ValueError that names it."""

import math
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch


def check_count(value: Any, name: str, least: int = 1) -> int:
    """A whole number of at least `least`, as a plain int."""
    if not isinstance(value, Integral) or isinstance(value, bool | np.bool_) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def check_number(value: Any, name: str) -> float:
    """A number, as a plain float: "1e-3" out of a YAML file is text."""
    if not isinstance(value, Real) or isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return float(value)


def check_positive(value: Any, name: str) -> float:
    """A number above 0 and finite."""
    if not 0 < (number := check_number(value, name)) < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return number


def check_size(value: Any, name: str) -> float:
    """A number of at least 0 and finite."""
    if not 0 <= (number := check_number(value, name)) < math.inf:
        raise ValueError(f"{name} must be at least 0 and finite, got {value}")
    return number


def check_share(value: Any, name: str) -> float:
    """A number in [0, 1), as the decay of an average is."""
    if not 0 <= (number := check_number(value, name)) < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
    return number


def check_fraction(value: Any, name: str) -> float:
    """A number in (0, 1)."""
    if not 0 < (number := check_number(value, name)) < 1:
        raise ValueError(f"{name} must be in (0, 1), got {value}")
    return number


def check_generator(value: Any, name: str = "generator") -> torch.Generator:
    """A torch generator; without one torch would draw from the global one."""
    if not isinstance(value, torch.Generator):
        raise ValueError(
            f"{name} must be a torch.Generator, got {value!r}; "
            "torch.Generator().manual_seed(0) makes one"
        )
    return value


def check_numpy_generator(value: Any, name: str = "generator") -> np.random.Generator:
    """A numpy generator; the module `np.random` would be the global one."""
    if not isinstance(value, np.random.Generator):
        raise ValueError(
            f"{name} must be a numpy.random.Generator, got {value!r}; "
            "np.random.default_rng(0) makes one"
        )
    return value


def check_choice(value: Any, allowed: Iterable[str], name: str) -> str:
    """One of the names that are allowed; the error suggests the nearest, as most are misspelt.

    >>> check_choice("lapto", ["smoke", "laptop"], "profile")
    Traceback (most recent call last):
        ...
    ValueError: profile 'lapto' is unknown; did you mean 'laptop'? Known are ['smoke', 'laptop']
    """
    known = list(allowed)
    if isinstance(value, str) and value in known:
        return value
    if near := nearest(value, known):
        raise ValueError(f"{name} {value!r} is unknown; did you mean {near!r}? Known are {known}")
    raise ValueError(f"{name} must be one of {known}, got {value!r}")


def nearest(value: Any, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one is nearest to, None if none is near.

    Capitals, hyphens and underscores make no difference.
    """
    plain = {_letters(name): name for name in known}
    matches = get_close_matches(_letters(str(value)), plain, n=1)
    return plain[matches[0]] if matches else None


def _letters(name: str) -> str:
    return name.casefold().replace("_", "-").replace(" ", "-")
