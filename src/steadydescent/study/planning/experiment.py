"""What `experiments/study.yml` says, as checked data."""

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from steadydescent.checks import check_choice
from steadydescent.engine.tasks import TASKS
from steadydescent.study import yaml_files
from steadydescent.study.judging.places import StatedArm
from steadydescent.study.paths import EXPERIMENTS
from steadydescent.study.planning.search import Law
from steadydescent.study.yaml_files import Checked, Names

FIRST_REPORT_SEED, FIRST_TUNING_SEED = 1_000, 11_000
"""Where seeds start. Those of the book's first edition, reports from 0 and tuning from 10 000, are
never used again: what it suggested is confirmed on runs that nobody has seen.
"""
MOST_SEEDS = 9_000
"""So many seeds end below the first edition's tuning seeds, and so below the tuning seeds."""
MOST_POINTS = 201
PROFILES = ("smoke", "laptop", "desk", "full")
AxisName = Literal[
    "batch_sizes", "optimizers", "schedules", "readouts", "arms", "shifts", "rates", "ramps"
]
Count = Annotated[int, Field(ge=1, le=10**7)]
CurvePoints = Annotated[int, Field(ge=2, le=100_000)]
Factor = Annotated[float, Field(gt=0, le=1e6)]


def _odd(points: int) -> int:
    if points < 3 or points % 2 == 0:
        raise ValueError(
            f"points must be odd and at least 3, so that a grid has a centre, got {points}"
        )
    if points > MOST_POINTS:
        raise ValueError(f"points must be at most {MOST_POINTS}, got {points}")
    return points


Points = Annotated[int, AfterValidator(_odd)]


class Grid(Checked):
    """A log grid of learning rates, `center`·`ratio`^i for i = −(points−1)/2 … (points−1)/2."""

    center: Annotated[float, Field(gt=0)]
    ratio: Annotated[float, Field(gt=1)]
    points: Points = 9

    def rate(self, index: int) -> float:
        """The rate `index` steps above the centre, to four digits, so that it prints as it is."""
        return float(f"{self.center * self.ratio**index:.4g}")

    @property
    def half(self) -> int:
        return self.points // 2


class Recipe(Checked):
    """What runs are made with; all runs, a condition and an arm may each say some of it.

    `task` holds options of the task (`{norm: batch}`); `steps` multiplies the updates of the
    profile and `unit` the rates of the grid, which so have the natural unit of each rule.
    """

    optimizer: str | None = None
    schedule: str | None = None
    batch_size: Count | None = None
    task: dict[str, str | int | float] = {}
    steps: Factor = 1.0
    unit: Factor = 1.0

    def under(self, other: "Recipe") -> "Recipe":
        """This recipe where `other` says nothing else; factors multiply, task options add up."""
        parts = ("optimizer", "schedule", "batch_size")
        given = {part: value for part in parts if (value := getattr(other, part))}
        factors = {"steps": self.steps * other.steps, "unit": self.unit * other.unit}
        own = self.model_dump(include=set(Recipe.model_fields))
        return Recipe(**own | given | factors | {"task": self.task | other.task})


class Arm(Recipe):
    """One of the things compared: a recipe, and the readouts among which tuning chooses.

    Report seeds also run the grid point nearest to `default`, the rate that people use untuned, and
    those nearest to the rate that was chosen for the arm `at_rate_of` and to its neighbours, which
    another tuning might choose. With a `search` its grid points are trials: random rates on the
    grid's range, and these options of its rule by their laws
    (`steadydescent.study.planning.search`); `{}` searches the rate alone.
    """

    default: Annotated[float, Field(gt=0)] | None = None
    at_rate_of: str | None = None
    readouts: Annotated[Names, Field(min_length=1)] = ("last",)
    search: dict[str, Law] | None = None


class Condition(Recipe):
    """What arms are compared under; some arms alone, on a smaller grid, or with another number of
    trials, where it says so.
    """

    arms: Names | None = None
    points: Points | None = None
    trials: Count | None = None


class Size(Checked):
    """How large a task's grid is in a profile: updates, seeds, and what is left out of it.

    `batch_size` stands in for the experiment's, as for surfaces, whose batches are noise.
    `examples` caps what a run may see, so that small minibatches make more updates than large ones.
    `ramps` are the lengths in updates of range tests, `timed` the minibatch sizes whose time per
    example is taken, `trials` how many every searched arm has.
    """

    steps: Count
    batch_size: Count | None = None
    examples: Count | None = None
    tuning: Annotated[int, Field(ge=2, le=MOST_SEEDS)]
    report: Annotated[int, Field(ge=2, le=MOST_SEEDS)]
    points: Points | None = None
    curve_points: CurvePoints | None = None
    conditions: Names | None = None
    arms: Names | None = None
    shifts: Names = ()
    probes: Names = ()
    ramps: tuple[Count, ...] = ()
    timed: tuple[Count, ...] = ()
    trials: Count | None = None


class Experiment(Checked):
    """One comparison: one notebook, a grid of runs per task.

    `tune_by` names what rates are chosen by; each has its own choice. `report` says which rates run
    the report seeds: those of an arm's `choices` and their neighbours, the choices of `all-arms`,
    or `everything`. Where the steps to a target count, `targets` states it for each task: an
    accuracy on validation data, or a surface's height. `readouts` are shown besides those of the
    arms; `shifted` names the arms that are scored on shifted test sets, all where it names none;
    `secondary` pairs of arms whose difference is shown and bears no verdict. `axes` are what its
    notebook may be run with otherwise (`steadydescent.study.planning.variations`).
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
    title: str
    question: str
    notebook: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*\.ipynb$", max_length=60)]
    axes: tuple[AxisName, ...] = ()
    runs: Recipe
    readouts: Names = ()
    conditions: dict[str, Condition]
    arms: dict[str, Arm]
    curve_points: CurvePoints
    tune_by: tuple[Literal["accuracy", "loss", "steps to target"], ...] = ("accuracy",)
    report: Literal["choices", "all-arms", "everything"] = "choices"
    targets: dict[str, float] = {}
    shifted: Names = ()
    secondary: tuple[tuple[StatedArm, StatedArm], ...] = ()
    rates: dict[str, Grid]
    profiles: dict[str, dict[str, Size]]

    @model_validator(mode="after")
    def _consistent(self) -> "Experiment":
        for name, arm in self.arms.items():
            if arm.at_rate_of is not None:
                check_choice(arm.at_rate_of, self.arms, f"at_rate_of of {name!r}")
        for name, condition in self.conditions.items():
            for arm_name in condition.arms or ():
                check_choice(arm_name, self.arms, f"an arm of the condition {name!r}")
        for name in self.shifted:
            check_choice(name, self.arms, "an arm in shifted")
        for task in self.rates:
            check_choice(task, TASKS, "a task with rates")
        for stated in (stated for pair in self.secondary for stated in pair):
            check_choice(stated.arm, self.arms, "an arm in secondary")
            if stated.condition is not None:
                check_choice(stated.condition, self.conditions, "a condition in secondary")
        self._check_search()
        for profile, tasks in self.profiles.items():
            check_choice(profile, PROFILES, "profile")
            for task, size in tasks.items():
                self._check_size(size, f"{profile}/{task}")
            if unknown := sorted(set(tasks) - set(self.rates)):
                raise ValueError(
                    f"profile {profile!r} names {unknown}, which have no rates or are no tasks"
                )
            without = sorted(set(tasks) - set(self.targets))
            if without and "steps to target" in self.tune_by:
                raise ValueError(
                    "targets must state one for each task tuned by steps to target, "
                    f"not for {without}"
                )
        return self

    @property
    def searched(self) -> bool:
        """Whether its arms have random trials in place of a grid."""
        return any(arm.search is not None for arm in self.arms.values())

    def _check_search(self) -> None:
        """See that trials are the same lot for every arm: all are searched, and all are reported.

        Raises:
            ValueError: where they are not.
        """
        if not self.searched:
            return
        if left := [name for name, arm in self.arms.items() if arm.search is None]:
            raise ValueError(
                f"search must be stated for all arms or none, not for {left}; {{}} is "
                "a search of the rate alone"
            )
        if self.report != "everything":
            raise ValueError(
                f"report must be 'everything' where arms are searched, got {self.report!r}"
            )

    def _check_size(self, size: Size, where: str) -> None:
        for name in (size.conditions or self.conditions) if self.searched else ():
            if not (size.trials or self.conditions[name].trials):
                raise ValueError(f"trials must be stated for {name!r} in {where}")
        for name in size.conditions or ():
            check_choice(name, self.conditions, f"a condition in {where}")
        for name in size.arms or ():
            check_choice(name, self.arms, f"an arm in {where}")
        for name in size.conditions or self.conditions:
            condition, arms = self.conditions[name], size.arms or tuple(self.arms)
            for arm in (arm for arm in arms if arm in (condition.arms or self.arms)):
                recipe = self.runs.under(condition).under(self.arms[arm])
                recipe = recipe.under(Recipe(batch_size=size.batch_size))
                for part in ("optimizer", "schedule", "batch_size"):
                    if getattr(recipe, part) is None:
                        place = f"{arm!r} under {name!r} in {where}"
                        raise ValueError(f"{part} of {place} is stated nowhere")


class Parameters(Checked):
    """What a notebook is run with; checked before papermill sees it."""

    experiment: str
    task: str
    profile: str
    device: str = "auto"

    @model_validator(mode="after")
    def _known(self) -> "Parameters":
        study = load_study()
        check_choice(self.experiment, study, "experiment")
        check_choice(self.profile, PROFILES, "profile")
        check_choice(
            self.task,
            study[self.experiment].profiles.get(self.profile, {}),
            f"task in {self.profile!r}",
        )
        check_choice(self.device, ("auto", "cpu", "cuda"), "device")
        return self


def load_study() -> dict[str, Experiment]:
    """Experiment name → experiment, from `experiments/study.yml`.

    Raises: ValueError: for a file that says what it should not, with its line, what it says and
        what is allowed.
    """
    return study_in(EXPERIMENTS / "study.yml")


@cache
def study_in(path: Path) -> dict[str, Experiment]:
    """The same of any file, which is read once."""
    file = yaml_files.read(path)
    if not isinstance(file.content, dict) or not file.content:
        raise file.error(
            (), f"must hold experiments by name, got {yaml_files.value_in_words(file.content)}"
        )
    return {name: file.model(Experiment, (name,), name=name) for name in file.content}
