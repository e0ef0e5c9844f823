"""What a result's receipt must say, and whether it is true of the tables beside it and of the place
they stand in.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator

from steadydescent.study.results.design import Design
from steadydescent.study.results.store import Result

ROUNDED_SECONDS = 1.0
"""Seconds that sums may be off by rounding."""


class Receipt(BaseModel):
    """The parts of a receipt that are shown and counted; there are more.

    `networks` counts runs, which on a surface are points. `evaluation` is what looks at the
    networks took of the `seconds`, by kind; older receipts do not say.
    """

    result: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+@[\w.-]+$")]
    profile: Literal["smoke", "laptop", "desk", "full"]
    networks: Annotated[int, Field(ge=1)]
    updates: Annotated[int, Field(ge=1)]
    seconds: Annotated[float, Field(ge=0)]
    evaluation: dict[str, Annotated[float, Field(ge=0)]] = {}
    seeds: dict[Literal["tuning", "report"], Annotated[int, Field(ge=0)]]
    date: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d \d\d:\d\d")]
    commit: str
    command: str
    trained_on: list[str]
    target: float | None = None
    design: Design

    @model_validator(mode="after")
    def _check_evaluation(self) -> "Receipt":
        looks = sum(self.evaluation.values())
        if looks > self.seconds + ROUNDED_SECONDS:
            raise ValueError(
                f"evaluation must take at most the {self.seconds} seconds of all, got {looks:.1f}"
            )
        return self


def run_counts(receipts: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many `networks` results trained, and how many `points` they moved on surfaces."""
    counts = {"networks": 0, "points": 0}
    for receipt in receipts:
        kind = "networks" if Design.of(receipt).trains_networks else "points"
        counts[kind] += receipt["networks"]
    return counts


def untrue(
    name: str, task: str, profile: str | None, result: Result, receipt: dict[str, Any]
) -> str | None:
    """What is wrong in a receipt of an experiment on a task, in words, or None.

    What the study asks for today is not looked at: it may change before a result is made anew.

    Args:
        name: the experiment.
        task: what it is run on.
        profile: the one whose folder the result stands in, or None for a published result.
        result: the tables.
        receipt: what is said of them.
    """
    try:
        Receipt.model_validate_json(json.dumps(receipt), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r:.80}"
    for what, stated, true in _facts(name, task, profile, result, receipt):
        if stated != true:
            return f"it says {what} {stated}, which here is {true}"
    return None


def _facts(
    name: str, task: str, profile: str | None, result: Result, receipt: dict[str, Any]
) -> Iterator[tuple[str, object, object]]:
    """What the receipt says, and what tables and place say."""
    design, purpose = receipt["design"], result.roster.set_index("run").purpose
    yield "result", receipt["result"].partition("@")[0], f"{name.replace('_', '-')}/{task}"
    yield "changes of one's own", receipt.get("own", {}), {}
    yield "experiment", design["experiment"], name
    yield "task", design["task"], task
    yield "arms", sorted(design["arms"]), sorted(set(result.roster.arm))
    yield "networks", receipt["networks"], len(result.runs)
    seed = result.runs.set_index("run").seed
    seeds = {
        kind: seed[purpose.index[purpose == kind].unique()].nunique()
        for kind in ("tuning", "report")
    }
    yield "seeds", receipt["seeds"], seeds
    if profile is not None:
        yield "profile", receipt["profile"], profile
