"""Verdicts: what an interval says of direction and size, and the one word for both.

A difference is taken in the claimed direction: above 0 is what the source says. A margin is the
smallest difference that matters. More data refine a word and never turn it: whatever interval lies
within another keeps its direction and its size wherever the other had them decided.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

VERDICTS = (
    "supported",
    "supported, size open",
    "too small to matter",
    "refuted",
    "refuted, size open",
    "open",
    "not run",
)
"""Every word that a row may have."""
Direction = Literal["for", "against", "open"]
EffectSize = Literal["large", "small", "open"]
Stance = Literal["for", "against", "small", "open", "not run"]
DecisionRule = Literal["superiority", "equivalence", "difference", "at least"]


def direction_of(low: float, high: float) -> Direction:
    """On which side of 0 an interval lies; an end that touches 0 leaves it open."""
    return "for" if low > 0 else "against" if high < 0 else "open"


def size_of(low: float, high: float, margin: float) -> EffectSize:
    """Where an interval lies beside ±margin: beyond it on one side, within it, or neither.

    The margin itself is within, so that an interval that shrinks onto it never changes its size.
    """
    if -margin <= low and high <= margin:
        return "small"
    return "large" if low > margin or high < -margin else "open"


def superiority(low: float, high: float, margin: float) -> str:
    """The claim that an arm is better, by enough to matter.

    Inside ±margin too small to matter, whichever its sign; above 0 supported, below it refuted,
    either with its size open where the interval holds the margin; else open.
    """
    size = size_of(low, high, margin)
    if size == "small":
        return "too small to matter"
    word = {"for": "supported", "against": "refuted", "open": "open"}[direction_of(low, high)]
    return f"{word}, size open" if word != "open" and size == "open" else word


def equivalence(low: float, high: float, margin: float) -> str:
    """The claim that arms are alike: inside ±margin supported, beyond it refuted; else open."""
    words = {"small": "supported", "large": "refuted", "open": "open"}
    return words[size_of(low, high, margin)]


def unlikeness(low: float, high: float, margin: float) -> str:
    """The claim that arms differ, either way: what refutes equivalence supports it."""
    words = {"large": "supported", "small": "refuted", "open": "open"}
    return words[size_of(low, high, margin)]


def at_least(low: float, high: float, margin: float) -> str:
    """The claim that an arm is not worse by the margin.

    Above −margin supported; below it refuted; else open.
    """
    return "supported" if low > -margin else "refuted" if high < -margin else "open"


DECISIONS: dict[DecisionRule, Callable[[float, float, float], str]] = {
    "superiority": superiority,
    "equivalence": equivalence,
    "difference": unlikeness,
    "at least": at_least,
}


def _word(low: float, high: float, margin: float, rule: DecisionRule) -> str:
    if rule not in DECISIONS:
        raise ValueError(f"rule must be one of {get_args(DecisionRule)}, got {rule!r}")
    return DECISIONS[rule](low, high, margin)


def of_interval(low: float, high: float, margin: float, rule: DecisionRule = "superiority") -> str:
    """The word for an interval of a difference.

    >>> of_interval(0.4, 2.0, margin=1.0), of_interval(1.4, 2.0, margin=1.0)
    ('supported, size open', 'supported')
    >>> of_interval(0.1, 0.3, margin=1.0), of_interval(-1.5, 2.0, margin=1.0)
    ('too small to matter', 'open')
    >>> of_interval(-0.2, 3.0, 1.0, "at least"), of_interval(-0.2, 0.3, 1.0, "equivalence")
    ('supported', 'supported')

    Raises:
        ValueError: for ends that are no interval, a margin that is not positive, an unknown rule.
    """
    if not (low <= high and margin > 0):
        raise ValueError(f"need low <= high and margin > 0, got {low}, {high}, {margin}")
    return _word(low, high, margin, rule)


def of_number(value: float, margin: float, rule: DecisionRule) -> str:
    """The word for a difference that is known exactly; its margin may be 0.

    >>> of_number(-3.0, 1.0, "superiority"), of_number(0.0, 0.0, "difference")
    ('refuted', 'refuted')

    Raises:
        ValueError: for a value that is not finite, a negative margin, an unknown rule.
    """
    if not (math.isfinite(value) and margin >= 0):
        raise ValueError(f"need a finite value and margin >= 0, got {value}, {margin}")
    return _word(value, value, margin, rule)


def stance(word: str) -> Stance:
    """What a row's word says of its claim, whether or not the size is known.

    >>> stance("supported, size open"), stance("refuted"), stance("too small to matter")
    ('for', 'against', 'small')

    Raises:
        ValueError: for what is no verdict.
    """
    stances: dict[str, Stance] = {
        "supported": "for",
        "refuted": "against",
        "too small to matter": "small",
        "open": "open",
        "not run": "not run",
    }
    if word not in VERDICTS:
        raise ValueError(f"a verdict must be one of {VERDICTS}, got {word!r}")
    return stances[word.removesuffix(", size open")]
