"""A run, one network trained, as plain data with a key: equal data, equal result."""

import hashlib
import json
from dataclasses import fields
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from steadydescent import schedules
from steadydescent.checks import check_choice
from steadydescent.engine import data, tasks
from steadydescent.engine.probes import check_probes
from steadydescent.engine.settings import read
from steadydescent.engine.shifted_tests import Shift
from steadydescent.optimizers import RULES
from steadydescent.weight_averaging import Readout

PLATEAU_OPTIONS = {
    "every": None,
    **{field.name: field.default for field in fields(schedules.Plateau)},
}
"""Options of the plateau schedule in a run: updates between observations (an epoch unless given),
and `Plateau`'s.
"""
LATER = ("shifts", "shifted_readouts", "probes")
"""Fields of a run that came after the first keys; they hold something or are not in the key."""
NUMERICS_VERSION = 1
"""Raised when a run means something else; changed code is seen by itself (see
`steadydescent.study.results.fingerprints`).
"""


class Run(BaseModel):
    """One network: what it learns, how, and what is read from it.

    `task`, `optimizer` and `schedule` may carry options, `adam(beta1=0)`, and are kept in canonical
    form. `curve_points` evaluations on validation data, evenly spaced and the last one at the end;
    test data are looked at only when `test` is true, once, at the end, and then also as each of
    `shifts` moves them, with `shifted_readouts` alone where some are named. `probes` measure more
    at the points of the curve and never change the training.
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
    shifts: tuple[str, ...] = ()
    shifted_readouts: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()

    @field_validator("task")
    @classmethod
    def _task(cls, value: str) -> str:
        return tasks.canonical(value)

    @field_validator("optimizer")
    @classmethod
    def _optimizer(cls, value: str) -> str:
        setting = read(value)
        check_choice(setting.name, sorted(RULES), "optimizer")
        RULES[setting.name].checked(**setting.options)
        return setting.text(RULES[setting.name].hyper)

    @field_validator("schedule")
    @classmethod
    def _schedule(cls, value: str) -> str:
        setting, known = read(value), [*schedules.SCHEDULES, "plateau"]
        check_choice(setting.name, sorted(known), "schedule")
        usual = PLATEAU_OPTIONS if setting.name == "plateau" else schedules.options_of(setting.name)
        if unknown := sorted(set(setting.options) - set(usual)):
            raise ValueError(
                f"schedule {setting.name!r} has no option {unknown}; allowed are {list(usual)}"
            )
        return setting.text(usual)

    @model_validator(mode="after")
    def _fits(self) -> "Run":
        if self.curve_points > self.steps:
            raise ValueError(
                f"curve_points must be at most the {self.steps} steps, got {self.curve_points}"
            )
        self._check_readouts()
        self._check_shifts()
        check_probes(self.probes, self)
        self._check_schedule()
        return self

    def _check_readouts(self) -> None:
        if not self.readouts or len(set(self.readouts)) < len(self.readouts):
            raise ValueError(
                f"readouts must be a non-empty list without repetition, got {self.readouts}"
            )
        for text in self.readouts:
            Readout.parse(text).weights(self.steps)

    def _check_shifts(self) -> None:
        """See that the data can be shifted like this; texts are kept in canonical form."""
        shifts = [Shift.parse(text) for text in self.shifts]
        for shift in shifts:
            shift.check_data(tasks.find(self.task).source)
        object.__setattr__(self, "shifts", tuple(shift.text for shift in shifts))
        if self.shifts and not self.test:
            raise ValueError(
                "shifts move test data, which a run with test=False never looks at, "
                f"got {self.shifts}"
            )
        if self.shifted_readouts and not self.shifts:
            raise ValueError(
                f"shifted_readouts need shifts, got {self.shifted_readouts} and no shift"
            )
        if unknown := [text for text in self.shifted_readouts if text not in self.readouts]:
            raise ValueError(f"shifted_readouts must be among the readouts, got {unknown}")

    def _check_schedule(self) -> None:
        name, options = read(self.schedule)
        if name == "plateau":
            schedules.Plateau(**{key: value for key, value in options.items() if key != "every"})
        else:
            self.rates()

    def __copy__(self) -> "Run":
        """A copy without key and shape, which `model_copy` would else hand on to another run."""
        copied = super().__copy__()
        for name in ("key", "shape"):
            copied.__dict__.pop(name, None)
        return copied

    @property
    def epoch(self) -> int:
        """Updates an epoch: how often the batch size goes into the training set."""
        task = tasks.find(self.task)
        return max(1, (task.examples or data.SPLIT_SIZES[task.source]["train"]) // self.batch_size)

    def rates(self) -> np.ndarray:
        """Learning rates of all updates, `[T]`; a plateau schedule has none beforehand."""
        name, options = read(self.schedule)
        return schedules.rates(name, self.lr, self.steps, epoch=self.epoch, **options)

    @cached_property
    def key(self) -> str:
        """SHA-256 of the canonical description: this run, its data, and the numerics version."""
        identity = {
            # what is empty is left out: keys from before there were such fields stay
            "run": self.model_dump(exclude={name for name in LATER if not getattr(self, name)}),
            "data": data.identity(tasks.find(self.task).source),
            "numerics": NUMERICS_VERSION,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def row(self) -> dict[str, Any]:
        """Its key and its settings as a row of a table; readouts, shifts and probes have rows of
        their own.
        """
        return {"run": self.key, **self.model_dump(exclude={"readouts", *LATER})}

    @cached_property
    def shape(self) -> tuple:
        """Runs of equal shape can be stacked: they differ in seed, rate and schedule alone.

        Plateau schedules keep to themselves: they hold validation examples back.
        """
        plateau = self.schedule if read(self.schedule).name == "plateau" else ""
        settings = (
            self.task,
            self.optimizer,
            self.batch_size,
            self.steps,
            self.readouts,
            self.curve_points,
            self.test,
        )
        later = (self.shifts, plateau, self.probes)
        return (*settings, *later, *self.shifted_readouts) if any(later) else settings
