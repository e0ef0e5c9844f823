"""Rows of claims: what was asked of a result, and the answer."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """What became of one contrast of a claim, or of one exact number, on a task.

    `estimate` with its ends lies in `unit`, in the claimed direction from `null`; ratios are
    factors, whose null is 1. `level` is that of the interval, `margin` and `rule` make it a
    verdict. `rates` and `readouts` are what tuning chose, by arm; `diverged` counts report runs at
    those rates, and `on_edge` says that a grid went no further. None: there is no such number.
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
    seeds_needed: int | None = None
    networks: int | None = None
    rates: dict[str, float] = field(default_factory=dict)
    readouts: dict[str, str] = field(default_factory=dict)
    on_edge: bool = False
    tests: list[str] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str, str]:
        """By what a row is known: claim, task and condition."""
        return self.id, self.task, self.condition

    def as_dict(self) -> dict[str, Any]:
        """The row for JSON."""
        return asdict(self)
