"""What a slip is: a place where a source prints something wrong, and the right value."""

from collections.abc import Callable
from dataclasses import dataclass

from pandas import DataFrame

from steadydescent.study.book.words import four_digits

Value = float | tuple[float, ...]

LANGUAGES = {
    "uit-slides": "vi",
    "viblo-ema": "vi",
    "viblo-lr": "vi",
    "zh-ema": "zh",
    "opennmt-tf": "ru",
}
"""Source → the language that it is written in."""


@dataclass(frozen=True)
class Remark:
    """Something that a source does not get wrong and that a reader still trips over."""

    source: str
    """The source's key, or those of several, with commas between."""
    title: str
    rule: str
    """What is so; each `{}` takes one value of `right`."""
    right: Callable[[], Value] | None = None
    formerly: int | None = None
    """The number under which it once stood among the slips; its address stays."""

    @property
    def stated(self) -> str:
        """The rule with its values."""
        return fill(self.rule, self.right) if self.right else self.rule


@dataclass(frozen=True)
class Slip:
    """A slip in a source: what is printed, what is right, and what the slip costs.

    `right` is a function without arguments that computes the right value, or several, with the
    library's own formulas, and `rule` the sentence that says them, one `{}` for each; where nothing
    can be computed, `right` is None and `rule` says it all. `shown`, if there is one, sets the
    printed formula and the right one side by side.

    >>> texts = ("A half", "1/2 = 2", "A half is 2.", "A half is {}.")
    >>> half = Slip(99, "uit-slides", *texts, lambda: 1 / 2, "It is 4 ×.")
    >>> half.stated
    'A half is 0.5.'
    """

    number: int
    source: str
    title: str
    quote: str
    """The source's own words, 25 at most, or its formula or `code`."""
    printed: str
    """What that says, in English."""
    rule: str
    right: Callable[[], Value] | None
    why: str
    shown: Callable[[], DataFrame] | None = None

    @property
    def stated(self) -> str:
        """The rule with its values."""
        return fill(self.rule, self.right) if self.right else self.rule


def fill(rule: str, right: Callable[[], Value]) -> str:
    """The rule with the values that `right` computes.

    Raises:
        ValueError: unless there is one `{}` for each value.
    """
    value = right()
    values = value if isinstance(value, tuple) else (value,)
    if rule.count("{}") != len(values):
        raise ValueError(
            f"rule must have one {{}} for each of the {len(values)} values, got {rule!r}"
        )
    return rule.format(*map(four_digits, values))
