"""What intervals of known truth get right, in rows of a table."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from steadydescent.study.judging.statistics import Array, Estimate, level_of, student
from steadydescent.study.judging.verdicts import (
    VERDICTS,
    DecisionRule,
    direction_of,
    of_interval,
)

LEVELS = (level_of(primary=False), level_of(primary=True))
"""Those of secondary and of primary rows."""
EFFECTS = (-1.0, 0.0, 0.2, 0.5, 1.0, 2.0)
"""Planted effects in margins."""
JUDGED_WORDS = tuple(word for word in VERDICTS if word != "not run")


class Intervals(NamedTuple):
    """What one kind of interval gave in N replications of one world.

    `ends` level → `[N, 3]`, value, low and high; `truth` what they ought to hold; `case` what the
    rows say of themselves; planted effects are `effects` margins.
    """

    case: Mapping[str, object]
    ends: Mapping[float, Array]
    truth: float
    margin: float
    rule: DecisionRule = "superiority"
    effects: Sequence[float] = EFFECTS

    def around(self, level: float) -> Array:
        """Value and ends with the truth taken away, `[N, 3]`."""
        return self.ends[level] - self.truth


def at_levels(estimates: Iterable[Estimate], freedom: int | None = None) -> dict[float, Array]:
    """Level → value and ends, `[N, 3]`, of intervals that are Student's, with n − 1 degrees of
    freedom where unsaid.
    """
    made = list(estimates)
    values = np.array([one.value for one in made])
    errors = np.array([one.sd / one.n**0.5 for one in made])
    return {
        level: np.stack([values, values - half, values + half], axis=1)
        for level in LEVELS
        for half in [student(level, freedom or made[0].n - 1) * errors]
    }


def rows_of(made: Intervals) -> list[dict[str, object]]:
    """A row for each level and planted effect: the case, how far estimates lie from the truth, and
    shares of replications.

    - truth: what the intervals ought to hold; bias and sd of the estimate; half_width of the
      interval (root mean square)
    - coverage of the truth
    - effect: the planted one, in margins; for, against: directions that were found; then the words
    """
    rows = []
    for level in made.ends:
        around = made.around(level)
        value, low, high = around.T
        about = {
            "level": level,
            "truth": made.truth,
            "bias": value.mean(),
            "sd": value.std(ddof=1),
            "half_width": float(np.sqrt((((high - low) / 2) ** 2).mean())),
            "coverage": float(((low <= 0) & (high >= 0)).mean()),
        }
        rows += [{**made.case, **about, **_told(made, around, e)} for e in made.effects]
    return rows


def _told(made: Intervals, around: Array, effect: float) -> dict[str, float]:
    """Shares of directions and words where an effect of so many margins is planted."""
    ends = around[:, 1:] + effect * made.margin
    directions = Counter(direction_of(low, high) for low, high in ends)
    words = Counter(of_interval(low, high, made.margin, made.rule) for low, high in ends)
    counts = {"for": directions["for"], "against": directions["against"]} | {
        word: words[word] for word in JUDGED_WORDS
    }
    return {"effect": effect} | {name: count / len(ends) for name, count in counts.items()}


def false_word(word: str, effect: float, rule: DecisionRule = "superiority") -> bool:
    """Whether a word is wrong where the truth is so many margins; at a border no word is.

    >>> false_word("supported", 0.5), false_word("supported, size open", 0.5)
    (True, False)
    """
    large, small = abs(effect) > 1, abs(effect) < 1
    if rule == "superiority":
        wrong = {
            "supported": effect < 1,
            "supported, size open": effect <= 0,
            "too small to matter": large,
            "refuted": effect > -1,
            "refuted, size open": effect >= 0,
        }
    elif rule == "at least":
        wrong = {"supported": effect < -1, "refuted": effect > -1}
    else:
        alike = rule == "equivalence"
        wrong = {"supported": large if alike else small, "refuted": small if alike else large}
    return bool(wrong.get(word, False))
