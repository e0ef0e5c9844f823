"""Random search: the trials of an arm, drawn once.

Trial i has a rate and a value of every option that is searched, each by its law. A law takes one
uniform draw; draws go by the option's name and the trial's number alone, so that rules which share
an option try the same values, fewer trials are the first of more, and nothing depends on the task.
"""

import math
import zlib
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from steadydescent.study.yaml_files import Checked

SEARCH_SEED = 20_261_126
"""From which all draws come."""
RATE = "lr"
Positive = Annotated[float, Field(gt=0)]
Ends = tuple[Positive, Positive]


class Law(Checked):
    """How an option is drawn: its logarithm evenly between two ends (`log`), or that of 1 − x
    between two ends (`one_minus`), as for μ and β, whose memory is 1/(1 − β) updates.
    """

    log: Ends | None = None
    one_minus: Ends | None = None

    @model_validator(mode="after")
    def _one(self) -> "Law":
        if (self.log is None) == (self.one_minus is None):
            raise ValueError("a law must state one of log and one_minus")
        low, high = self.log or self.one_minus or (0.0, 0.0)
        if not low < high or (self.one_minus and high > 1):
            raise ValueError(f"ends must rise, those of one_minus up to 1, got {[low, high]}")
        return self

    def value(self, u: float) -> float:
        """The option's value for a draw u from 0 to 1, of four digits.

        >>> Law(one_minus=(0.01, 1.0)).value(0.5), Law(log=(1e-8, 1e-2)).value(0.5)
        (0.9, 1e-05)
        """
        if self.log:
            return between(*self.log, u)
        return round(1 - between(*(self.one_minus or (1.0, 1.0)), u), 8)


class SearchTrial(NamedTuple):
    """What one trial of an arm is trained with."""

    lr: float
    options: dict[str, float]


def between(low: float, high: float, u: float) -> float:
    """The number at a share u of the way from low to high in logarithms, to four digits.

    >>> between(0.01, 1.0, 0.5)
    0.1
    """
    return float(f"{low * (high / low) ** u:.4g}")


def drawn_trials(
    laws: Mapping[str, Law], low: float, high: float, number: int
) -> list[SearchTrial]:
    """So many trials, with rates between low and high.

    A rate that an earlier trial has, to four digits, is passed over: a rate names its trial.

    >>> drawn_trials({"mu": Law(one_minus=(0.01, 1.0))}, 0.001, 1.0, 2)[0].options.keys()
    dict_keys(['mu'])
    """
    draws = {name: _draws(name) for name in (RATE, *laws)}
    found: dict[float, SearchTrial] = {}
    while len(found) < number:
        u = {name: next(stream) for name, stream in draws.items()}
        lr = between(low, high, u[RATE])
        found.setdefault(
            lr, SearchTrial(lr, {name: law.value(u[name]) for name, law in laws.items()})
        )
    return list(found.values())


def near(laws: Mapping[str, Law], usual: Mapping[str, float], tried: list[SearchTrial]) -> int:
    """How many trials lie near a rule's usual options: each within a factor of three, of x or of
    1 − x as its law has it.
    """

    def is_near(name: str, value: float) -> bool:
        one, other = (1 - value, 1 - usual[name]) if laws[name].one_minus else (value, usual[name])
        return abs(math.log(one / other)) <= math.log(3)

    return sum(all(is_near(*option) for option in trial.options.items()) for trial in tried)


def _draws(name: str) -> Iterator[float]:
    """Uniform draws of an option, without an end."""
    generator = np.random.default_rng([SEARCH_SEED, zlib.crc32(name.encode())])
    return (float(generator.random()) for _ in count())
