"""The study: what `experiments/study.yml` says, as checked data, and the runs it asks for."""

from functools import cache
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from steadydescent.data import SPLIT_SIZES
from steadydescent.engine import evaluated
from steadydescent.paths import EXPERIMENTS
from steadydescent.runs import Run
from steadydescent.sweep import stack_plans, stacks
from steadydescent.tasks import TASKS, base, find

FIRST_TUNING_SEED = 10_000
EXTENSIONS = 4
"""How many points a grid may grow beyond an edge before the study says that the optimum lies there."""
PROFILES = ("smoke", "laptop", "desk", "full")
Count = Annotated[int, Field(ge=1)]


def _odd(points: int) -> int:
    if points < 3 or points % 2 == 0:
        raise ValueError(f"points must be odd and at least 3, so that a grid has a centre, got {points}")
    return points


Points = Annotated[int, AfterValidator(_odd)]


class Checked(BaseModel):
    """Plain data that refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Grid(Checked):
    """A log grid of learning rates, `center`·`ratio`^i for i = −(points−1)/2 … (points−1)/2."""

    center: Annotated[float, Field(gt=0)]
    ratio: Annotated[float, Field(gt=1)]
    points: Points = 9

    def rate(self, index: int) -> float:
        """The rate `index` steps above the centre; four significant digits, so that it prints as it is."""
        return float(f"{self.center * self.ratio**index:.4g}")

    @property
    def half(self) -> int:
        return self.points // 2


class Size(Checked):
    """How large a task's grid is in a profile: updates a run, tuning and report seeds, fewer grid or curve points."""

    steps: Count
    tuning: Annotated[int, Field(ge=2)]
    report: Annotated[int, Field(ge=2, le=FIRST_TUNING_SEED)]
    points: Points | None = None
    curve_points: Count | None = None


class Experiment(Checked):
    """One comparison: one notebook, a grid of runs per task."""

    name: str
    title: str
    question: str
    notebook: str
    optimizer: str
    batch_size: Count
    schedules: tuple[str, ...]
    curve_points: Count
    readouts: tuple[str, ...]
    arms: dict[str, tuple[str, ...]]
    rates: dict[str, Grid]
    profiles: dict[str, dict[str, Size]]

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
        for arm, readouts in self.arms.items():
            if unknown := set(readouts) - set(self.readouts):
                raise ValueError(f"arm {arm!r} uses readouts {sorted(unknown)}, which are not among {self.readouts}")
        for profile, tasks in self.profiles.items():
            if profile not in PROFILES:
                raise ValueError(f"profile must be one of {PROFILES}, got {profile!r}")
            if unknown := {task for task in tasks if task not in self.rates or base(task) not in TASKS}:
                raise ValueError(f"profile {profile!r} names {sorted(unknown)}, which have no rates or are no tasks")
        return self


class Parameters(Checked):
    """What a notebook is run with; checked before papermill sees it."""

    experiment: str
    task: str
    profile: str
    device: str = "auto"

    @model_validator(mode="after")
    def _known(self) -> "Parameters":
        study = load_study()
        for name, value, allowed in (("experiment", self.experiment, study), ("profile", self.profile, PROFILES)):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {sorted(allowed)}, got {value!r}")
        tasks = study[self.experiment].profiles.get(self.profile, {})
        if self.task not in tasks:
            raise ValueError(f"task must be one of {sorted(tasks)} in profile {self.profile!r}, got {self.task!r}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device must be auto, cpu or cuda, got {self.device!r}")
        return self


@cache
def load_study() -> dict[str, Experiment]:
    """Experiment name → experiment, from `experiments/study.yml`."""
    table = yaml.safe_load((EXPERIMENTS / "study.yml").read_text())
    return {name: Experiment(name=name, **fields) for name, fields in table.items()}


class Plan(BaseModel):
    """The runs of one experiment on one task in one profile."""

    model_config = ConfigDict(frozen=True)

    experiment: Experiment
    task: str
    profile: str

    @property
    def size(self) -> Size:
        return self.experiment.profiles[self.profile][self.task]

    @property
    def grid(self) -> Grid:
        grid = self.experiment.rates[self.task]
        return grid.model_copy(update={"points": self.size.points or grid.points})

    def _run(self, schedule: str, index: int, seed: int, report: bool) -> Run:
        experiment = self.experiment
        return Run(
            task=self.task, optimizer=experiment.optimizer, schedule=schedule, lr=self.grid.rate(index),
            batch_size=experiment.batch_size, steps=self.size.steps, seed=seed, readouts=experiment.readouts,
            curve_points=(self.size.curve_points or experiment.curve_points) if report else 1, test=report,
        )  # fmt: skip

    def tuning(self, schedule: str, indices: range) -> list[Run]:
        """Tuning runs of these grid points: validation data only."""
        seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.size.tuning)
        return [self._run(schedule, index, seed, report=False) for index in indices for seed in seeds]

    def reporting(self, schedule: str, indices: list[int]) -> list[Run]:
        """Report runs of these grid points: validation curves, and test data once at the end."""
        return [self._run(schedule, index, seed, report=True) for index in indices for seed in range(self.size.report)]

    @property
    def expected(self) -> list[Run]:
        """The runs to expect before tuning has chosen: the whole grid, then five rates around the choices."""
        whole = range(-self.grid.half, self.grid.half + 1)
        near = list(whole)[self.grid.half - 2 : self.grid.half + 3] if self.grid.points > 5 else list(whole)
        schedules = self.experiment.schedules
        return [r for s in schedules for r in self.tuning(s, whole)] + [
            r for s in schedules for r in self.reporting(s, near)
        ]

    def cost(self, device: str) -> dict[str, float | str]:
        """Networks, replica-steps, minutes, memory and disk to expect, from the measured table of stack plans."""
        runs, plan = self.expected, stack_plans()[device][base(self.task)]
        steps = sum(run.steps for run in runs)
        sizes = SPLIT_SIZES[find(self.task).source]
        looked_at = sum(evaluated(run, sizes["validation"], sizes["test"]) for run in runs)
        return {
            "experiment": self.experiment.name, "task": self.task, "profile": self.profile, "networks": len(runs),
            "replica_steps": steps, "stacks": len(stacks(runs, device)),
            "minutes": round((steps / plan.rate + looked_at / plan.evaluation) / 60, 1),
            "memory_gib": plan.memory, "disk_mb": round(len(runs) * BYTES_PER_NETWORK / 1e6, 1),
        }  # fmt: skip


BYTES_PER_NETWORK = 8_000


def plans(profile: str, only: str | None = None) -> list[Plan]:
    """What a profile runs; `only` keeps one experiment, or `experiment/task`."""
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {PROFILES}, got {profile!r}")
    found = [
        Plan(experiment=experiment, task=task, profile=profile)
        for experiment in load_study().values()
        for task in experiment.profiles.get(profile, {})
        if only in (None, "", experiment.name, f"{experiment.name}/{task}")
    ]
    if not found:
        names = [f"{e.name}/{t}" for e in load_study().values() for t in e.profiles.get(profile, {})]
        raise ValueError(
            f"only={only!r} matches nothing in profile {profile!r}; allowed: {sorted(load_study())} or {names}"
        )
    return found


def left_out(profile: str) -> list[str]:
    """What a profile leaves out, by name: tasks of an experiment that another profile runs."""
    return [
        f"{experiment.name}/{task}"
        for experiment in load_study().values()
        for task in sorted({t for tasks in experiment.profiles.values() for t in tasks})
        if task not in experiment.profiles.get(profile, {})
    ]
