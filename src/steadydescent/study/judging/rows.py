"""Rows of claims: what was asked of a result, and the answer."""

from dataclasses import asdict, dataclass, field
from math import log
from typing import Any, Literal

from steadydescent.study.judging.verdicts import Direction, EffectSize


@dataclass(frozen=True)
class Row:
    """What became of one contrast of a claim, or of one exact number, on a task.

    `estimate` with its ends lies in `unit`, in the claimed direction from `null`; ratios are
    factors, whose null is 1. `level` is that of the interval, `margin` and `rule` make it a
    verdict, whose `direction` and `size` stand apart. A `primary` row is part of the claim's
    registered question, at the level of a moderator that `when` names; others are secondary.
    `seeds_needed` is how many report seeds would decide an open row in four runs of five, were its
    estimate the truth, or "never". `networks` and, on surfaces, `points` are the runs that it rests
    on. `rates` and `readouts` are what tuning chose, by arm; `diverged` counts report runs at those
    rates, and `on_edge` says that a grid went no further. `edge_share` is the share of redraws that
    choose the outermost reported candidate, `choices` what they choose, by arm: lr, readout and
    share of each that at least 5 % choose. `censored_share` is that of runs that never hold their
    target, `arrivals` by arm those that do; `bound` says that the estimate is one. Unless
    `test_set_sampled`, the interval is about this test set; `reason` says why a row is not
    decided. `registered` is the day on which the contrast was fixed,
    `first_seen` that of its first result, `headline` the claim's sentence. None: there is no such
    number.
    """

    id: str
    scope: str
    task: str
    measure: str
    condition: str
    margin: float
    rule: str
    verdict: str = "not run"
    estimate: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    unit: str = ""
    null: float = 0.0
    level: float | None = None
    n_seeds: int | None = None
    profile: str | None = None
    result: str | None = None
    diverged: int | None = None
    seeds_needed: int | Literal["never"] | None = None
    networks: int | None = None
    points: int | None = None
    rates: dict[str, float] = field(default_factory=dict)
    readouts: dict[str, str] = field(default_factory=dict)
    on_edge: bool = False
    tests: list[str] = field(default_factory=list)
    primary: bool = False
    when: str = ""
    direction: Direction | None = None
    size: EffectSize | None = None
    registered: str | None = None
    first_seen: str | None = None
    edge_share: float | None = None
    censored_share: float | None = None
    choices: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    bound: Literal["", "at least", "at most"] = ""
    arrivals: dict[str, float] = field(default_factory=dict)
    test_set_sampled: bool | None = None
    reason: str = ""
    headline: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """By what a row is known: claim, task and condition."""
        return self.id, self.task, self.condition

    @property
    def added_after_results(self) -> bool:
        """Whether the contrast was fixed on a later day than its first result was seen."""
        return bool(self.registered and self.first_seen and self.registered > self.first_seen)

    def as_dict(self) -> dict[str, Any]:
        """The row for JSON."""
        return asdict(self)


def in_margins(value: float, null: float, margin: float) -> float:
    """An estimate, or an end of its interval, in units of its margin; ratios by their logarithms.

    >>> in_margins(-0.6, null=0.0, margin=0.3), round(in_margins(1.25**2, null=1.0, margin=1.25), 9)
    (-2.0, 2.0)
    """
    return log(value) / log(margin) if null else value / margin
