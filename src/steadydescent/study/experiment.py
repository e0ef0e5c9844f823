"""What `experiments/study.yml` says, as checked data."""

from functools import cache
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from steadydescent.paths import EXPERIMENTS
from steadydescent.tasks import TASKS, base

FIRST_TUNING_SEED = 10_000
PROFILES = ("smoke", "laptop", "desk", "full")
Count = Annotated[int, Field(ge=1)]
CurvePoints = Annotated[int, Field(ge=2)]


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


class Settings(Checked):
    """What runs are made with; each level of an experiment (all runs, a condition, an arm) may say some of it.

    `task` holds options of the task (`{norm: batch}`); `steps` multiplies the updates of the profile and `unit` the
    rates of the grid, which so have the natural unit of each rule.
    """

    optimizer: str | None = None
    schedule: str | None = None
    batch_size: Count | None = None
    task: dict[str, str | int | float] = {}
    steps: Annotated[float, Field(gt=0)] = 1.0
    unit: Annotated[float, Field(gt=0)] = 1.0

    def under(self, other: "Settings") -> "Settings":
        """These settings where `other` says nothing else; factors multiply, task options add up."""
        told = {name: value for name in ("optimizer", "schedule", "batch_size") if (value := getattr(other, name))}
        factors = {"steps": self.steps * other.steps, "unit": self.unit * other.unit}
        return Settings(**(self.model_dump(include=set(Settings.model_fields)) | told | factors)
                        | {"task": self.task | other.task})  # fmt: skip


class Arm(Settings):
    """One of the things compared: settings of its own runs, and the readouts among which tuning chooses.

    Report seeds also run the grid point nearest to `default`, the rate that people use untuned, and those nearest to
    the rate that was chosen for the arm `at_rate_of` and to its neighbours, which another tuning might choose.
    """

    default: Annotated[float, Field(gt=0)] | None = None
    at_rate_of: str | None = None
    readouts: Annotated[tuple[str, ...], Field(min_length=1)] = ("last",)


class Condition(Settings):
    """What arms are compared under; some arms alone, or on a smaller grid, where it says so."""

    arms: tuple[str, ...] | None = None
    points: Points | None = None


class Size(Checked):
    """How large a task's grid is in a profile: updates a run, tuning and report seeds, and what is left out of it.

    `batch_size` stands in for the experiment's, as for surfaces, whose batches are noise. `examples` caps what a run
    may see, so that small minibatches make more updates than large ones. `ramps` are the lengths in updates of range
    tests, `timed` the minibatch sizes whose time per example is taken.
    """

    steps: Count
    batch_size: Count | None = None
    examples: Count | None = None
    tuning: Annotated[int, Field(ge=2)]
    report: Annotated[int, Field(ge=2, le=FIRST_TUNING_SEED)]
    points: Points | None = None
    curve_points: CurvePoints | None = None
    conditions: tuple[str, ...] | None = None
    arms: tuple[str, ...] | None = None
    shifts: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    ramps: tuple[Count, ...] = ()
    timed: tuple[Count, ...] = ()


class Experiment(Checked):
    """One comparison: one notebook, a grid of runs per task.

    `tune_by` names what rates are chosen by; each has its own choice. `report` says which rates run the report seeds:
    those of an arm's `choices` and their neighbours, the choices of `all-arms`, or `everything`. Where the steps to a
    target count, `targets` states it for each task: an accuracy on validation data, or a surface's height. `readouts`
    are shown besides those of the arms; `secondary` names pairs of arms whose difference is shown and bears no verdict.
    """

    name: str
    title: str
    question: str
    notebook: str
    runs: Settings
    readouts: tuple[str, ...] = ()
    conditions: dict[str, Condition]
    arms: dict[str, Arm]
    curve_points: CurvePoints
    tune_by: tuple[Literal["accuracy", "loss", "steps to target"], ...] = ("accuracy",)
    report: Literal["choices", "all-arms", "everything"] = "choices"
    targets: dict[str, float] = {}
    secondary: tuple[tuple[str, str], ...] = ()
    rates: dict[str, Grid]
    profiles: dict[str, dict[str, Size]]

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
        for name, arm in self.arms.items():
            if arm.at_rate_of not in (None, *self.arms):
                raise ValueError(f"at_rate_of of {name!r} must be one of {list(self.arms)}, got {arm.at_rate_of!r}")
        for profile, tasks in self.profiles.items():
            if profile not in PROFILES:
                raise ValueError(f"profile must be one of {PROFILES}, got {profile!r}")
            if unknown := {task for task in tasks if task not in self.rates or base(task) not in TASKS}:
                raise ValueError(f"profile {profile!r} names {sorted(unknown)}, which have no rates or are no tasks")
            for size in tasks.values():
                for kind, known in (("conditions", self.conditions), ("arms", self.arms)):
                    if unknown := set(getattr(size, kind) or ()) - set(known):
                        raise ValueError(f"profile {profile!r} names {kind} {sorted(unknown)}; there are {list(known)}")
            if "steps to target" in self.tune_by and (without := sorted(set(tasks) - set(self.targets))):
                raise ValueError(f"targets must state one for each task tuned by steps to target, not for {without}")
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
