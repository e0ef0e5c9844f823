"""The runs that an experiment asks for on one task in one profile."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from steadydescent.engine.data import SPLIT_SIZES
from steadydescent.engine.runs import Run
from steadydescent.engine.settings import Setting, read
from steadydescent.engine.tasks import find
from steadydescent.study.planning.cost import cost
from steadydescent.study.planning.experiment import (
    FIRST_REPORT_SEED,
    FIRST_TUNING_SEED,
    Arm,
    Experiment,
    Grid,
    Recipe,
    Size,
)
from steadydescent.study.planning.search import SearchTrial, drawn_trials
from steadydescent.study.results.design import Design, Named, TunedBy
from steadydescent.study.results.roster import Trajectory
from steadydescent.weight_averaging import Readout
from steadydescent.weight_averaging.readouts import STATISTICS

Choices = Mapping[str, Sequence[int]]
"""Arm → the grid points that tuning chose."""
RAMP = (1e-5, 10.0)
"""Rates where a range test starts and ends."""
EXTENSIONS = 4
"""How many points a grid may grow beyond an edge before the study says that the optimum lies there.
"""


class Plan(BaseModel):
    """The runs of one experiment on one task in one profile.

    `own` holds what a variation changes (`steadydescent.study.planning.variations`); the study's
    own plans have none.
    """

    model_config = ConfigDict(frozen=True)

    experiment: Experiment
    task: str
    profile: str
    own: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The experiment's name; that of a variation says that it is one's own."""
        return f"own-{self.experiment.name}" if self.own else self.experiment.name

    @property
    def place(self) -> Path:
        """The folder of its result among those reproduced; each variation has its own."""
        if not self.own:
            return Path(self.profile, self.experiment.name, self.task)
        changes = json.dumps(self.own, sort_keys=True).encode()
        digest = hashlib.sha256(changes).hexdigest()[:8]
        return Path("own", self.profile, self.experiment.name, f"{self.task}-{digest}")

    @property
    def size(self) -> Size:
        return self.experiment.profiles[self.profile][self.task]

    @property
    def grid(self) -> Grid:
        grid = self.experiment.rates[self.task]
        return grid.model_copy(update={"points": self.size.points or grid.points})

    @property
    def conditions(self) -> tuple[str, ...]:
        return self.size.conditions or tuple(self.experiment.conditions)

    @property
    def arms(self) -> dict[str, Arm]:
        return {name: self.experiment.arms[name] for name in self.size.arms or self.experiment.arms}

    def readouts(self, condition: str) -> tuple[str, ...]:
        """The readouts of every run under a condition: its arms', and those shown besides."""
        ours = [readout for arm in self.arms_in(condition) for readout in self.arms[arm].readouts]
        return tuple(dict.fromkeys([*self.experiment.readouts, *ours]))

    def _shifted_readouts(self, condition: str) -> tuple[str, ...]:
        """Those that are scored on shifted test sets; none stands for all."""
        arms = [arm for arm in self.arms_in(condition) if arm in self.experiment.shifted]
        named = [readout for arm in arms for readout in self.arms[arm].readouts]
        return tuple(readout for readout in self.readouts(condition) if readout in named)

    def arms_in(self, condition: str) -> list[str]:
        """The arms that are compared under a condition.

        An arm that differs from others in its batch-norm statistics alone is left out where
        networks have no such norm.
        """
        only = self.experiment.conditions[condition].arms
        named = [arm for arm in self.arms if only is None or arm in only]
        return [
            arm
            for arm in named
            if not self._needs_batch_norm(arm) or "batch" in self._norm(condition, arm)
        ]

    def _needs_batch_norm(self, arm: str) -> bool:
        readouts = [Readout.parse(text) for text in self.arms[arm].readouts]
        return all(readout.statistics != STATISTICS[0] for readout in readouts)

    def _norm(self, condition: str, arm: str) -> str:
        return find(self._task(self.recipe(condition, arm))).norm or ""

    def _task(self, recipe: Recipe) -> str:
        """The task with the options that a recipe adds."""
        task = read(self.task)
        return Setting(task.name, task.options | recipe.task).text()

    def half(self, condition: str) -> int:
        """Points of a condition's grid on either side of its centre."""
        return (self.experiment.conditions[condition].points or self.grid.points) // 2

    def grid_points(self, condition: str) -> range:
        """The points of a condition's grid as it is laid; of a search, its trials."""
        if self.experiment.searched:
            return range(self.experiment.conditions[condition].trials or self.size.trials or 0)
        half = self.half(condition)
        return range(-half, half + 1)

    def trials(self, condition: str, arm: str) -> list[SearchTrial]:
        """The trials of a searched arm: rates on its grid's range, options by their laws."""
        half, number = self.half(condition), len(self.grid_points(condition))
        low, high = (self._grid_rate(condition, arm, i) for i in (-half, half))
        return drawn_trials(self.arms[arm].search or {}, low, high, number)

    @property
    def tune_by(self) -> tuple[TunedBy, ...]:
        """What rates are chosen by; a surface has a height in place of an accuracy."""
        score = find(self.task).score
        return tuple(score if by == "accuracy" else by for by in self.experiment.tune_by)

    @property
    def curve_points(self) -> int:
        """How many times along training a report run is evaluated."""
        return self.size.curve_points or self.experiment.curve_points

    @property
    def target(self) -> float | None:
        return self.experiment.targets.get(self.task)

    @property
    def design(self) -> Design:
        """What its result says of it; an arm that no condition compares is left out."""
        size = self.size
        compared = {arm for condition in self.conditions for arm in self.arms_in(condition)}
        return Design(
            experiment=self.experiment.name,
            task=self.task,
            arms={name: arm.readouts for name, arm in self.arms.items() if name in compared},
            tuned_by=self.tune_by,
            secondary=tuple(
                (Named(arm.arm, arm.condition or ""), Named(against.arm, against.condition or ""))
                for arm, against in self.experiment.secondary
            ),
            centres={
                condition: {
                    arm: self._grid_rate(condition, arm, 0) for arm in self.arms_in(condition)
                }
                for condition in self.conditions
            },
            curve_points=self.curve_points,
            probes=size.probes,
            shifts=size.shifts,
            ramps=size.ramps,
            timed=size.timed,
        )

    def recipe(self, condition: str, arm: str) -> Recipe:
        """What the runs of an arm are made with under a condition."""
        return self.experiment.runs.under(self.experiment.conditions[condition]).under(
            self.experiment.arms[arm]
        )

    def rate(self, condition: str, arm: str, index: int) -> float:
        """The arm's rate `index` steps above the grid's centre, in its unit, to four digits; of a
        search, that of a trial.
        """
        if self.experiment.searched:
            return self.trials(condition, arm)[index].lr
        return self._grid_rate(condition, arm, index)

    def _grid_rate(self, condition: str, arm: str, index: int) -> float:
        return float(f"{self.grid.rate(index) * self.recipe(condition, arm).unit:.4g}")

    def besides(
        self, condition: str, arm: str, indices: Iterable[int], choices: Choices
    ) -> set[int]:
        """The grid points that report seeds run besides those around the arm's own choices."""
        default, other = self.arms[arm].default, self.arms[arm].at_rate_of
        rates = [default] if default else []
        if other in self.arms_in(condition):
            indices_there = [i + step for i in choices[other] for step in (-1, 0, 1)]
            rates += [self.rate(condition, other, i) for i in indices_there]
        grid = {i: math.log(self.rate(condition, arm, i)) for i in indices}
        return {min(grid, key=lambda i: abs(grid[i] - math.log(rate))) for rate in rates}

    def _run(self, condition: str, arm: str, index: int, report: bool) -> Run:
        """The arm's run at a grid point, with the first seed of its purpose."""
        recipe, size = self.recipe(condition, arm), self.size
        batch_size = size.batch_size or recipe.batch_size
        if batch_size is None or recipe.optimizer is None or recipe.schedule is None:
            raise ValueError(f"batch_size, optimizer and schedule must be stated, got {recipe}")
        lr, rule = self.rate(condition, arm, index), read(recipe.optimizer)
        if self.experiment.searched:
            lr, options = self.trials(condition, arm)[index]
            rule = Setting(rule.name, rule.options | options)
        steps = round(size.steps * recipe.steps)
        steps = min(steps, max(1, size.examples // batch_size)) if size.examples else steps
        most = int(recipe.task.get("examples") or SPLIT_SIZES[find(self.task).source]["train"])
        followed = report or "steps to target" in self.tune_by
        shifts = size.shifts if report else ()
        return Run(
            task=self._task(recipe),
            optimizer=rule.text(),
            schedule=recipe.schedule,
            lr=lr,
            batch_size=min(batch_size, most),
            steps=steps,
            seed=FIRST_REPORT_SEED if report else FIRST_TUNING_SEED,
            readouts=self.readouts(condition),
            curve_points=min(self.curve_points if followed else 1, steps),
            test=report,
            shifts=shifts,
            shifted_readouts=self._shifted_readouts(condition) if shifts else (),
            probes=size.probes if report else (),
        )

    def trajectory(self, condition: str, arm: str) -> Trajectory:
        """What an arm's runs have in common under a condition; of a search, the rule's name."""
        run = self._run(condition, arm, 0, report=False)
        common = Trajectory(**{name: getattr(run, name) for name in Trajectory._fields})
        name = read(common.optimizer).name
        return common._replace(optimizer=name) if self.experiment.searched else common

    def sharing(self, condition: str) -> list[list[str]]:
        """The arms of a condition; those that are readouts of the same runs stand together."""
        sharing: dict[tuple[Trajectory, float, str], list[str]] = {}
        for arm in self.arms_in(condition):
            unit, search = self.recipe(condition, arm).unit, repr(self.arms[arm].search)
            alike = self.trajectory(condition, arm), unit, search
            sharing.setdefault(alike, []).append(arm)
        return list(sharing.values())

    def tuning(self, condition: str, arm: str, indices: Iterable[int]) -> list[Run]:
        """Tuning runs of these grid points: validation data only."""
        runs = [self._run(condition, arm, index, report=False) for index in indices]
        return _seeded(runs, FIRST_TUNING_SEED, self.size.tuning)

    def reporting(self, condition: str, arm: str, indices: Iterable[int]) -> list[Run]:
        """Report runs of these grid points: validation curves, and test data once at the end."""
        runs = [self._run(condition, arm, index, report=True) for index in indices]
        return _seeded(runs, FIRST_REPORT_SEED, self.size.report)

    def range_tests(self, length: int) -> list[Run]:
        """Range tests of one length, one a report seed: the rate rises over a search's range."""
        run = self._run(self.conditions[0], next(iter(self.arms)), 0, report=False)
        schedule = Setting("ramp", {"low": RAMP[0], "high": RAMP[1]}).text()
        ramp = {"schedule": schedule, "lr": 1.0, "steps": length, "curve_points": 1}
        first = Run(**run.model_dump() | ramp | {"probes": ("losses",)})
        return _seeded([first], FIRST_REPORT_SEED, self.size.report)

    def check(self, source: str = "study.yml") -> None:
        """See that all runs can be made, before anything starts.

        Raises:
            ValueError: for a setting that a run refuses, with its source, experiment, task,
                condition and arm.
        """
        where = f"{source}: {self.experiment.name}, {self.task} in {self.profile!r}"
        for condition in self.conditions:
            with _placed(f"{where}, under {condition!r}"):
                arms = self.arms_in(condition)
            for arm in arms:
                with _placed(f"{where}, {arm!r} under {condition!r}"):
                    self._run(condition, arm, 0, report=True)
        for length in self.size.ramps:
            with _placed(f"{where}, range tests of {length} updates"):
                self.range_tests(length)

    @property
    def expected(self) -> list[Run]:
        """The runs to expect before tuning has chosen: the whole grid, and rates around its centre.

        Arms that share a trajectory choose different rates: about five together; an arm alone has
        three. One more stands for those that are reported because redraws crowd at the edge.
        """
        runs, centres = [], {arm: [0] for arm in self.arms}
        for condition in self.conditions:
            whole = self.grid_points(condition)
            for arms in self.sharing(condition):
                near = self._near_the_centre(whole, len(arms))
                near = near.union(*(self.besides(condition, arm, whole, centres) for arm in arms))
                runs += self.tuning(condition, arms[0], whole)
                runs += self.reporting(condition, arms[0], sorted(near))
        runs += [run for length in self.size.ramps for run in self.range_tests(length)]
        return list(dict.fromkeys(runs))

    def _near_the_centre(self, whole: range, sharing: int) -> set[int]:
        """Grid points that arms which share their runs are expected to report."""
        if self.experiment.report == "everything":
            return set(whole)
        width = 2 if sharing > 1 or self.experiment.report == "all-arms" else 1
        further = 0 if self.profile == "smoke" else 1
        return {i for i in whole if -width <= i <= width + further}

    def cost(self, device: str) -> dict[str, float | str]:
        """What the expected runs cost (`steadydescent.study.planning.cost`), and of what."""
        names = {"experiment": self.experiment.name, "task": self.task, "profile": self.profile}
        return {**names, **cost(self.expected, self.task, device)}


@contextmanager
def _placed(where: str) -> Iterator[None]:
    """Say of a refused run where it is asked for."""
    try:
        yield
    except ValueError as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ValueError(f"{where}: {reason.removeprefix('Value error, ')}") from None


def _seeded(runs: Iterable[Run], first: int, count: int) -> list[Run]:
    """Each run with so many seeds from the first on, unchecked: no check depends on a seed, and one
    takes a millisecond.
    """
    seeds = range(first, first + count)
    return [run.model_copy(update={"seed": seed}) for run in runs for seed in seeds]
