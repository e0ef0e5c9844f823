"""A run, one network trained, as plain data with a key: equal data, equal result."""

import hashlib
import json
from functools import cached_property
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from steadydescent import data
from steadydescent.optimizers import RULES
from steadydescent.schedules import SCHEDULES
from steadydescent.tasks import TASKS
from steadydescent.weight_averaging import parse

NUMERICS_VERSION = 1
"""Raised whenever the same run no longer gives the same losses; a golden-loss test watches over it."""


class Run(BaseModel):
    """One network: what it learns, how, and what is read from it.

    `curve_points` evaluations on validation data, evenly spaced and the last one at the end;
    test data are looked at only when `test` is true, once, at the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    task: str
    optimizer: str
    schedule: str
    lr: Annotated[float, Field(gt=0)]
    batch_size: Annotated[int, Field(ge=1)]
    steps: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]
    readouts: tuple[str, ...]
    curve_points: Annotated[int, Field(ge=1)] = 1
    test: bool = False

    @field_validator("task", "optimizer", "schedule")
    @classmethod
    def _known(cls, value: str, info) -> str:
        allowed = {"task": sorted(TASKS), "optimizer": sorted(RULES), "schedule": sorted(SCHEDULES)}[info.field_name]
        if value not in allowed:
            raise ValueError(f"{info.field_name} must be one of {allowed}, got {value!r}")
        return value

    @model_validator(mode="after")
    def _fits(self) -> "Run":
        if self.curve_points > self.steps:
            raise ValueError(f"curve_points must be at most the {self.steps} steps, got {self.curve_points}")
        if not self.readouts or len(set(self.readouts)) < len(self.readouts):
            raise ValueError(f"readouts must be a non-empty list without repetition, got {self.readouts}")
        for name in self.readouts:
            parse(name, self.steps)
        return self

    @cached_property
    def key(self) -> str:
        """SHA-256 of the canonical description: this run, its data, and the numerics version."""
        identity = {
            "run": self.model_dump(),
            "data": data.identity(TASKS[self.task].source),
            "numerics": NUMERICS_VERSION,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def shape(self) -> tuple:
        """Runs of equal shape can be stacked: they differ in seed, rate and schedule alone."""
        return (self.task, self.optimizer, self.batch_size, self.steps, self.readouts, self.curve_points, self.test)


def stream_seed(source: str, seed: int, purpose: str) -> int:
    """A 63-bit seed for one purpose (`weights`, `order`), from the data source and the run's seed alone."""
    digest = hashlib.sha256(f"{source}/{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
