"""What a result's receipt must say, and whether it is true of the tables beside it and of the place
they stand in.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from steadydescent.study.results.store import Result


class Receipt(BaseModel):
    """The parts of a receipt that are shown and counted; there are more."""

    result: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+@[\w.-]+$")]
    profile: Literal["smoke", "laptop", "desk", "full"]
    networks: Annotated[int, Field(ge=1)]
    updates: Annotated[int, Field(ge=1)]
    seconds: Annotated[float, Field(ge=0)]
    seeds: dict[Literal["tuning", "report"], Annotated[int, Field(ge=0)]]
    date: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\d \d\d:\d\d")]
    commit: str
    command: str
    trained_on: list[str]
    target: float | None = None


def untrue(
    name: str, task: str, profile: str | None, result: Result, receipt: dict[str, Any]
) -> str | None:
    """What is wrong in a receipt of an experiment on a task, in words, or None.

    Args: name: the experiment. task: what it is run on. profile: the one whose folder the result
        stands in, or None for a published result. What the study asks for
            today is not looked at: a plan may change before its results are made anew.
        result: the tables.
        receipt: what is said of them.
    """
    try:
        Receipt.model_validate(receipt, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']!r:.80}"
    for what, said, found in _facts(name, task, profile, result, receipt):
        if said != found:
            return f"it says {what} {said}, which here is {found}"
    return None


def _facts(
    name: str, task: str, profile: str | None, result: Result, receipt: dict[str, Any]
) -> Iterator[tuple[str, object, object]]:
    """What the receipt says, and what tables and place say."""
    runs, search = result.runs, result.runs.schedule.str.startswith("ramp")
    yield "result", receipt["result"].partition("@")[0], f"{name.replace('_', '-')}/{task}"
    yield "networks", receipt["networks"], len(runs)
    seeds = {
        "tuning": runs[~runs.test & ~search].seed.nunique(),
        "report": runs[runs.test].seed.nunique(),
    }
    yield "seeds", receipt["seeds"], seeds
    if profile is not None:
        yield "profile", receipt["profile"], profile
