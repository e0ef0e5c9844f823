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
from steadydescent.engine.settings import read
from steadydescent.engine.tasks import shifted_tests as shifts
from steadydescent.optimizers import RULES
from steadydescent.weight_averaging import parse

PLATEAU_OPTIONS = {
    "every": None,
    **{field.name: field.default for field in fields(schedules.Plateau)},
}
"""Options of the plateau schedule in a run: updates between observations (an epoch unless given),
and `Plateau`'s.
"""
PROBE_NAMES = (
    "gradient-noise",
    "internal-shift",
    "training-loss",
    "losses",
    "orbit",
    "predictions",
)
"""What a run may be asked to measure besides: see `steadydescent.engine.probes` and the engine."""
NUMERICS_VERSION = 1
"""Raised when a run means something else; changed code is seen by itself (see
`steadydescent.study.results.fingerprints`).
"""


class Run(BaseModel):
    """One network: what it learns, how, and what is read from it.

    `task`, `optimizer` and `schedule` may carry options, `adam(beta1=0)`, and are kept in canonical
    form. `curve_points` evaluations on validation data, evenly spaced and the last one at the end;
    test data are looked at only when `test` is true, once, at the end, and then also as each of
    `shifts` moves them. `probes` measure more at the points of the curve and never change the
    training.
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
        if not self.readouts or len(set(self.readouts)) < len(self.readouts):
            raise ValueError(
                f"readouts must be a non-empty list without repetition, got {self.readouts}"
            )
        for name in self.readouts:
            parse(name, self.steps)
        if "orbit" in self.probes and not any(name.startswith("tail-") for name in self.readouts):
            raise ValueError(
                f"the probe 'orbit' needs a tail mean among the readouts, got {self.readouts}"
            )
        object.__setattr__(
            self,
            "shifts",
            tuple(shifts.canonical(text, tasks.find(self.task)) for text in self.shifts),
        )
        if self.shifts and not self.test:
            raise ValueError(
                f"shifts move test data, which a run with test=False never looks at, got {self.shifts}"
            )
        if unknown := sorted(set(self.probes) - set(PROBE_NAMES)):
            raise ValueError(f"probes must be among {PROBE_NAMES}, got {unknown}")
        if "predictions" in self.probes and not self.test:
            raise ValueError(
                "the probe 'predictions' looks at test data, which a run with test=False never does"
            )
        if "predictions" in self.probes and tasks.find(self.task).surface:
            raise ValueError(
                f"the probe 'predictions' needs classes, which the surface {self.task} has not"
            )
        rule = read(self.optimizer).name
        if "internal-shift" in self.probes and "eps" in RULES[rule].hyper:
            raise ValueError(
                f"the probe 'internal-shift' steps along the gradient, which {rule} does not; "
                "leave it out, or use sgd or a kind of momentum"
            )
        name, options = read(self.schedule)
        if name == "plateau":
            schedules.Plateau(**{key: value for key, value in options.items() if key != "every"})
        else:
            self.rates()
        return self

    def __copy__(self) -> "Run":
        """A copy without the key, which `model_copy` would else hand on to another run."""
        copied = super().__copy__()
        copied.__dict__.pop("key", None)
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
            # what is empty is left out: keys from before there were shifts and probes stay
            "run": self.model_dump(
                exclude={name for name in ("shifts", "probes") if not getattr(self, name)}
            ),
            "data": data.identity(tasks.find(self.task).source),
            "numerics": NUMERICS_VERSION,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def row(self) -> dict[str, Any]:
        """Its key and its settings as a row of a table; readouts, shifts and probes have rows of
        their own.
        """
        return {"run": self.key, **self.model_dump(exclude={"readouts", "shifts", "probes"})}

    @property
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
        return (
            (*settings, self.shifts, plateau, self.probes)
            if self.shifts or plateau or self.probes
            else settings
        )


def stream_seed(source: str, seed: int, purpose: str) -> int:
    """A 63-bit seed for one purpose (`weights`, `order`), from the data source and the run's seed
    alone.
    """
    digest = hashlib.sha256(f"{source}/{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
