"""Verdicts: the words for an interval, for an exact number, and for all rows of a claim.

A difference is taken in the claimed direction: above 0 is what the source says.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

VERDICTS = ("supported", "refuted", "no difference", "inconclusive", "mixed", "not run")
DecisionRule = Literal["superiority", "equivalence", "difference", "at least"]
Needed = Literal["common verdict", "all"]


def superiority(low: float, high: float, margin: float) -> str:
    """The claim that an arm is better.

    Inside ±margin no difference; else above 0 supported; below 0 refuted; else inconclusive.
    """
    if _inside(low, high, margin):
        return "no difference"
    return _word(supported=low > 0, refuted=high < 0)


def equivalence(low: float, high: float, margin: float) -> str:
    """The claim that arms are alike.

    Inside ±margin supported; wholly outside refuted; else inconclusive.
    """
    return _word(_inside(low, high, margin), _outside(low, high, margin))


def unlikeness(low: float, high: float, margin: float) -> str:
    """The claim that arms differ, either way: what refutes equivalence supports it."""
    return _word(_outside(low, high, margin), _inside(low, high, margin))


def at_least(low: float, high: float, margin: float) -> str:
    """The claim that an arm is not worse by the margin.

    Above −margin supported; below it refuted; else inconclusive.
    """
    return _word(supported=low > -margin, refuted=high < -margin)


DECISIONS: dict[DecisionRule, Callable[[float, float, float], str]] = {
    "superiority": superiority,
    "equivalence": equivalence,
    "difference": unlikeness,
    "at least": at_least,
}


def _inside(low: float, high: float, margin: float) -> bool:
    return -margin <= low and high <= margin


def _outside(low: float, high: float, margin: float) -> bool:
    return low > margin or high < -margin


def _word(supported: bool, refuted: bool) -> str:
    return "supported" if supported else "refuted" if refuted else "inconclusive"


def _decision(rule: DecisionRule) -> Callable[[float, float, float], str]:
    if rule not in DECISIONS:
        raise ValueError(f"rule must be one of {get_args(DecisionRule)}, got {rule!r}")
    return DECISIONS[rule]


def of_interval(low: float, high: float, margin: float, rule: DecisionRule = "superiority") -> str:
    """The word for an interval of a difference.

    >>> of_interval(-0.2, 0.3, margin=1.0), of_interval(0.4, 2.0, margin=1.0)
    ('no difference', 'supported')
    >>> of_interval(-1.5, 2.0, margin=1.0), of_interval(-0.2, 3.0, 1.0, "at least")
    ('inconclusive', 'supported')

    Raises:
        ValueError: for ends that are no interval, a margin that is not positive, an unknown rule.
    """
    if not (low <= high and margin > 0):
        raise ValueError(f"need low <= high and margin > 0, got {low}, {high}, {margin}")
    return _decision(rule)(low, high, margin)


def of_number(value: float, margin: float, rule: DecisionRule) -> str:
    """The word for a difference that is known exactly; its margin may be 0.

    >>> of_number(-3.0, 1.0, "superiority"), of_number(0.0, 0.0, "difference")
    ('refuted', 'refuted')

    Raises:
        ValueError: for a value that is not finite, a negative margin, an unknown rule.
    """
    if not (math.isfinite(value) and margin >= 0):
        raise ValueError(f"need a finite value and margin >= 0, got {value}, {margin}")
    return _decision(rule)(value, value, margin)


def of_claim(words: Sequence[str], needed: Needed = "common verdict") -> str:
    """The word for a claim, from those of its rows that were run.

    `common verdict`: the one that all rows share, else mixed. `all`: every row must support it;
    one that refutes it or finds no difference refutes the claim.

    >>> of_claim(["supported", "no difference"]), of_claim([])
    ('mixed', 'not run')
    >>> of_claim(["supported", "no difference"], "all"), of_claim(["supported", "mixed"], "all")
    ('refuted', 'inconclusive')

    Raises:
        ValueError: for an unknown need.
    """
    if needed not in get_args(Needed):
        raise ValueError(f"needed must be one of {get_args(Needed)}, got {needed!r}")
    if not words:
        return "not run"
    if len(set(words)) == 1 and (needed == "common verdict" or words[0] == "supported"):
        return words[0]
    if needed == "common verdict":
        return "mixed"
    return "refuted" if {"refuted", "no difference"} & set(words) else "inconclusive"
