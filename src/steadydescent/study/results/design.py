"""What a result was made to compare, as far as it is no row of its tables: a checked part of its
receipt.

With it and the roster a result is read, judged and shown without the plan that it was made by.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from steadydescent.engine.tasks import TASKS
from steadydescent.study.results.tables import LONGEST, TEXT

Name = Annotated[
    str, StringConstraints(pattern=f"^{TEXT.pattern}$", min_length=1, max_length=LONGEST)
]
Names = tuple[Name, ...]
Sizes = tuple[Annotated[int, Field(ge=1)], ...]
TunedBy = Literal["accuracy", "loss", "steps to target"]


class Named(NamedTuple):
    """An arm as a pair names it: under the condition that is looked at (""), or under its own."""

    arm: Name
    condition: Annotated[str, StringConstraints(pattern=f"^{TEXT.pattern}$", max_length=LONGEST)]

    @property
    def text(self) -> str:
        """As it stands in the key of a number.

        >>> Named("last", "linear").text
        'last@linear'
        """
        return f"{self.arm}@{self.condition}" if self.condition else self.arm


class Design(BaseModel):
    """What a plan asked for on one task.

    `arms` are all arms in the study's order, with the readouts that each chooses among; `tuned_by`
    is what rates are chosen by, the main one first; `secondary` are pairs that are shown without a
    verdict. `centres` are the rates at the centres of the grids as they were laid, by condition and
    arm. `probes`, `shifts` and `curve_points` are those of report runs, `ramps` the lengths of
    range tests, `timed` the minibatch sizes that were timed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    experiment: Name
    task: Name
    arms: dict[Name, Annotated[Names, Field(min_length=1)]]
    tuned_by: Annotated[tuple[TunedBy, ...], Field(min_length=1)]
    secondary: tuple[tuple[Named, Named], ...] = ()
    centres: dict[Name, dict[Name, Annotated[float, Field(gt=0, allow_inf_nan=False)]]]
    curve_points: Annotated[int, Field(ge=1)]
    probes: Names = ()
    shifts: Names = ()
    ramps: Sizes = ()
    timed: Sizes = ()

    @property
    def trains_networks(self) -> bool:
        """Whether the task has data: on a surface, or the quadratic, a run is a point that moves.

        A task that the engine no longer has is one with data.
        """
        return self.task not in TASKS or not TASKS[self.task].surface

    @classmethod
    def of(cls, receipt: Mapping[str, Any]) -> "Design":
        """The design in a receipt; raises pydantic's ValidationError, a ValueError, for none."""
        return cls.model_validate_json(json.dumps(receipt["design"]))
