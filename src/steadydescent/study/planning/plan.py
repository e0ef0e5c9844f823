"""The runs that an experiment asks for on one task in one profile, and what they cost."""

import math
from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from steadydescent.checks import check_choice
from steadydescent.engine.data import SPLIT_SIZES
from steadydescent.engine.runs import Run
from steadydescent.engine.settings import Setting, read
from steadydescent.engine.stack import evaluated, looks
from steadydescent.engine.tasks import TASKS, base, find
from steadydescent.study.judging.claims import questions_for
from steadydescent.study.paths import EXPERIMENTS
from steadydescent.study.planning.claims import check_claims
from steadydescent.study.planning.experiment import (
    FIRST_TUNING_SEED,
    PROFILES,
    Arm,
    Experiment,
    Grid,
    Settings,
    Size,
    load_study,
)
from steadydescent.study.planning.stacks import stack_plans, stacks
from steadydescent.study.results.design import Design, Named, TunedBy
from steadydescent.study.results.roster import Trajectory

Choices = Mapping[str, Sequence[int]]
"""Arm → the grid points that tuning chose."""
RAMP = (1e-5, 10.0)
"""Rates where a range test starts and ends."""
EXTENSIONS = 4
"""How many points a grid may grow beyond an edge before the study says that the optimum lies there.
"""
BYTES_PER_NETWORK = 8_000
NORMED = 1.5
"""A normalised network's update against that of one without."""
START = 0.3
"""Minutes that an experiment takes on a task besides: its kernel, its verdicts, compiling."""


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

    @property
    def conditions(self) -> tuple[str, ...]:
        return self.size.conditions or tuple(self.experiment.conditions)

    @property
    def arms(self) -> dict[str, Arm]:
        return {name: self.experiment.arms[name] for name in self.size.arms or self.experiment.arms}

    def readouts(self, condition: str) -> tuple[str, ...]:
        """The readouts of every run under a condition: those of its arms, and those that are shown
        besides.
        """
        ours = [readout for arm in self.arms_in(condition) for readout in self.arms[arm].readouts]
        return tuple(dict.fromkeys([*self.experiment.readouts, *ours]))

    def arms_in(self, condition: str) -> list[str]:
        """The arms that are compared under a condition.

        An arm that is told from others by its batch-norm statistics alone is none where networks
        have no such norm.
        """
        only = self.experiment.conditions[condition].arms
        named = [arm for arm in self.arms if only is None or arm in only]
        return [
            arm
            for arm in named
            if not self._needs_batch_norm(arm) or "batch" in self._norm(condition, arm)
        ]

    def _needs_batch_norm(self, arm: str) -> bool:
        return all("/" in readout for readout in self.arms[arm].readouts)

    def _norm(self, condition: str, arm: str) -> str:
        return find(self._task(self.settings(condition, arm))).norm or ""

    def _task(self, told: Settings) -> str:
        """The task with the options that these settings add."""
        task = read(self.task)
        return Setting(task.name, task.options | told.task).text()

    def half(self, condition: str) -> int:
        """Points of a condition's grid on either side of its centre."""
        return (self.experiment.conditions[condition].points or self.grid.points) // 2

    @property
    def tune_by(self) -> tuple[TunedBy, ...]:
        """What rates are chosen by; a surface has a height in place of an accuracy."""
        surface = find(self.task).surface
        return tuple(
            "loss" if surface and by == "accuracy" else by for by in self.experiment.tune_by
        )

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
                condition: {arm: self.rate(condition, arm, 0) for arm in self.arms_in(condition)}
                for condition in self.conditions
            },
            curve_points=self.curve_points,
            probes=size.probes,
            shifts=size.shifts,
            ramps=size.ramps,
            timed=size.timed,
        )

    @property
    def primary_contrasts(self) -> int:
        """k, the number of rows that the experiment's claims ask of this profile, on all its tasks:
        among these 5 % are shared.
        """
        tasks = self.experiment.profiles[self.profile]
        return sum(len(questions_for(self.model_copy(update={"task": task}))) for task in tasks)

    def settings(self, condition: str, arm: str) -> Settings:
        """What the runs of an arm are made with under a condition."""
        return self.experiment.runs.under(self.experiment.conditions[condition]).under(
            self.experiment.arms[arm]
        )

    def rate(self, condition: str, arm: str, index: int) -> float:
        """The arm's rate `index` steps above the centre of the grid, in its unit; four significant
        digits.
        """
        return float(f"{self.grid.rate(index) * self.settings(condition, arm).unit:.4g}")

    def besides(
        self, condition: str, arm: str, indices: Iterable[int], choices: Choices
    ) -> set[int]:
        """The grid points that report seeds run besides those around the arm's own choices."""
        told = self.arms[arm]
        other = told.at_rate_of if told.at_rate_of in self.arms_in(condition) else None
        rates = (
            [self.rate(condition, other, i + step) for i in choices[other] for step in (-1, 0, 1)]
            if other
            else []
        )
        rates += [told.default] if told.default else []
        grid = {i: math.log(self.rate(condition, arm, i)) for i in indices}
        return {min(grid, key=lambda i: abs(grid[i] - math.log(rate))) for rate in rates}

    def _run(self, condition: str, arm: str, index: int, seed: int, report: bool) -> Run:
        told, size = self.settings(condition, arm), self.size
        batch_size, most = (
            size.batch_size or told.batch_size,
            SPLIT_SIZES[find(self.task).source]["train"],
        )
        if batch_size is None or told.optimizer is None or told.schedule is None:
            raise ValueError(f"batch_size, optimizer and schedule must be stated, got {told}")
        steps = round(size.steps * told.steps)
        steps = min(steps, max(1, size.examples // batch_size)) if size.examples else steps
        followed = report or "steps to target" in self.tune_by
        curve = self.curve_points if followed else 1
        return Run(
            task=self._task(told),
            optimizer=told.optimizer,
            schedule=told.schedule,
            lr=self.rate(condition, arm, index),
            batch_size=min(batch_size, int(told.task.get("examples") or most)),
            steps=steps,
            seed=seed,
            readouts=self.readouts(condition),
            curve_points=min(curve, steps),
            test=report,
            shifts=size.shifts if report else (),
            probes=size.probes if report else (),
        )

    def trajectory(self, condition: str, arm: str) -> Trajectory:
        """What an arm's runs have in common under a condition."""
        run = self._run(condition, arm, 0, 0, report=False)
        return Trajectory(**{name: getattr(run, name) for name in Trajectory._fields})

    def sharing(self, condition: str) -> list[list[str]]:
        """The arms of a condition; those that are readouts of the same runs stand together."""
        found: dict[tuple[Trajectory, float], list[str]] = {}
        for arm in self.arms_in(condition):
            alike = self.trajectory(condition, arm), self.settings(condition, arm).unit
            found.setdefault(alike, []).append(arm)
        return list(found.values())

    def tuning(self, condition: str, arm: str, indices: Iterable[int]) -> list[Run]:
        """Tuning runs of these grid points: validation data only."""
        seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.size.tuning)
        return _seeded(
            [
                self._run(condition, arm, index, FIRST_TUNING_SEED, report=False)
                for index in indices
            ],
            seeds,
        )

    def reporting(self, condition: str, arm: str, indices: Iterable[int]) -> list[Run]:
        """Report runs of these grid points: validation curves, and test data once at the end."""
        firsts = [self._run(condition, arm, index, 0, report=True) for index in indices]
        return _seeded(firsts, range(self.size.report))

    def range_tests(self, length: int) -> list[Run]:
        """Range tests of one length, one a report seed: the rate rises over what a search would
        look through.
        """
        run = self._run(self.conditions[0], next(iter(self.arms)), 0, 0, report=False)
        schedule = Setting("ramp", {"low": RAMP[0], "high": RAMP[1]}).text()
        told = {
            "schedule": schedule,
            "lr": 1.0,
            "steps": length,
            "probes": ("losses",),
            "curve_points": 1,
        }
        return [Run(**run.model_dump() | told | {"seed": seed}) for seed in range(self.size.report)]

    def check(self) -> None:
        """See that every arm's runs can be made, before anything starts.

        Raises:
            ValueError: for a setting that a run refuses, with experiment, task, condition and arm.
        """
        for condition in self.conditions:
            for arm in self.arms_in(condition):
                try:
                    self._run(condition, arm, 0, 0, report=True)
                except ValueError as error:
                    told = (
                        error.errors()[0]["msg"]
                        if isinstance(error, ValidationError)
                        else str(error)
                    )
                    raise ValueError(
                        f"study.yml: {self.experiment.name}, {self.task} in {self.profile!r}, {arm!r} under "
                        f"{condition!r}: {told.removeprefix('Value error, ')}"
                    ) from None

    @property
    def expected(self) -> list[Run]:
        """The runs to expect before tuning has chosen: the whole grid, then some rates around the
        choices.

        Arms that share a trajectory choose different rates: about five together; an arm alone has
        three.
        """
        runs, centres = [], {arm: [0] for arm in self.arms}
        for condition in self.conditions:
            whole = range(-self.half(condition), self.half(condition) + 1)
            for arms in self.sharing(condition):
                wide = 2 if len(arms) > 1 or self.experiment.report == "all-arms" else 1
                near = {
                    i for i in whole if abs(i) <= wide or self.experiment.report == "everything"
                }
                near = near.union(*(self.besides(condition, arm, whole, centres) for arm in arms))
                runs += self.tuning(condition, arms[0], whole) + self.reporting(
                    condition, arms[0], sorted(near)
                )
        runs += [run for length in self.size.ramps for run in self.range_tests(length)]
        return list({run.key: run for run in runs}.values())

    def cost(self, device: str) -> dict[str, float | str]:
        """Networks, replica-steps, minutes, memory and disk to expect, from the measured table of
        stack plans.
        """
        runs, plan = self.expected, stack_plans()[device][base(self.task)]
        steps = sum(run.steps for run in runs)
        work = sum(run.steps * _effort(run) for run in runs)
        sizes = SPLIT_SIZES[find(self.task).source]
        looked_at = sum(evaluated(run, sizes["validation"], sizes["test"]) for run in runs)
        probed = sum(looks(run) for run in runs)
        return {
            "experiment": self.experiment.name,
            "task": self.task,
            "profile": self.profile,
            "networks": len(runs),
            "replica_steps": steps,
            "stacks": len(stacks(runs, device)),
            "minutes": round(
                (work / plan.rate + looked_at / plan.evaluation + probed * plan.probe) / 60 + START,
                1,
            ),
            "memory_gib": plan.memory,
            "disk_mb": round(len(runs) * BYTES_PER_NETWORK / 1e6, 1),
        }


def _effort(run: Run) -> float:
    """An update's time against one of a plain network on 100 examples, as measured from 1 to 512."""
    normed = find(run.task).norm != TASKS[base(run.task)].norm
    return (0.4 + 0.6 * run.batch_size / 100) * (NORMED if normed else 1)


def _seeded(runs: Iterable[Run], seeds: range) -> list[Run]:
    """Each run with each seed; checking a run takes a millisecond, and its seed bears on nothing
    that is checked.
    """
    return [run.model_copy(update={"seed": seed}) for run in runs for seed in seeds]


def plans(profile: str, only: str | None = None) -> list[Plan]:
    """What a profile runs; `only` keeps one experiment, or `experiment/task`."""
    check_choice(profile, PROFILES, "profile")
    found = [
        Plan(experiment=experiment, task=task, profile=profile)
        for experiment in load_study().values()
        for task in experiment.profiles.get(profile, {})
        if only in (None, "", experiment.name, f"{experiment.name}/{task}")
    ]
    if not found:
        tasks = {
            e.name: [f"{e.name}/{t}" for t in e.profiles.get(profile, {})]
            for e in load_study().values()
        }
        known = [name for e, own in tasks.items() if own for name in (e, *own)]
        if not known:
            raise ValueError(f"{EXPERIMENTS / 'study.yml'} has no task in profile {profile!r}")
        check_choice(only, known, f"in profile {profile!r}, only")
    for plan in found:
        plan.check()
    check_claims(load_study())
    return found


def left_out(profile: str) -> list[str]:
    """What a profile leaves out, by name: whole tasks, and conditions and arms of a task."""
    missing = []
    for experiment in load_study().values():
        ran = experiment.profiles.get(profile, {})
        for task in sorted({task for tasks in experiment.profiles.values() for task in tasks}):
            if task not in ran:
                missing.append(f"{experiment.name}/{task}")
                continue
            for kind, known in (("conditions", experiment.conditions), ("arms", experiment.arms)):
                gone = [name for name in known if name not in (getattr(ran[task], kind) or known)]
                missing += [f"{experiment.name}/{task} without {', '.join(gone)}"] if gone else []
    return missing
