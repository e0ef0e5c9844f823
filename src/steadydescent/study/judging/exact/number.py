"""One number that arithmetic gives, and the word that follows from it."""

import math
from dataclasses import dataclass

from steadydescent.checks import check_choice, check_size
from steadydescent.study.judging.verdicts import DECISIONS, DecisionRule, of_number

MATTERS = 10.0
"""Percent; a smaller change of a value does not matter."""
ROUNDING_LEFT = 1e-9
"""What double precision may leave of a zero."""


@dataclass(frozen=True)
class Exact:
    """One number that bears on a claim, and the rule of `verdicts` by which it does.

    The estimate is taken in the claimed direction. There is no interval: arithmetic has no seeds.
    `when` names the case where a claim's cases come out differently, for its sentence.

    >>> Exact("t = 1", "gain", -3.0, 1.0, "%", "superiority").verdict
    'refuted'

    Raises:
        ValueError: for an unknown rule, an estimate that is not finite, or a negative margin.
    """

    condition: str
    measure: str
    estimate: float
    margin: float
    unit: str
    rule: DecisionRule
    when: str = ""

    def __post_init__(self) -> None:
        check_choice(self.rule, DECISIONS, "rule")
        if not math.isfinite(self.estimate):
            raise ValueError(f"estimate must be finite, got {self.estimate} for {self.measure!r}")
        check_size(self.margin, "margin")

    @property
    def verdict(self) -> str:
        """The word for the estimate."""
        return of_number(self.estimate, self.margin, self.rule)
