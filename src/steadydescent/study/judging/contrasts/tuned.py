"""The difference or the ratio between two tuned arms in a measure."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from steadydescent.study.judging import measures
from steadydescent.study.judging.choosing import Candidate
from steadydescent.study.judging.contrasts.contrast import Contrast, Needs
from steadydescent.study.judging.evidence import Candidates, Evidence
from steadydescent.study.judging.places import Place, StatedArm
from steadydescent.study.judging.statistics import Estimate, Side, combined
from steadydescent.study.yaml_files import unique

SAME_RATE = 1.25
"""Rates that differ by a smaller factor count as one; grids have no rates between their points."""


def _several(stated: Any) -> Any:
    """One arm as a list of one."""
    return tuple(stated) if isinstance(stated, list | tuple) else (stated,)


def _each_once(arms: tuple[StatedArm, ...]) -> tuple[StatedArm, ...]:
    if not arms:
        raise ValueError("a contrast needs an arm to stand against, got none")
    unique(arms, "an arm to stand against")
    return arms


Against = Annotated[tuple[StatedArm, ...], BeforeValidator(_several), AfterValidator(_each_once)]


class TunedDifference(Contrast, kind="tuned"):
    """`arm` minus the best of `against`; the source says that `arm` is `better`, or worse.

    `rate` says at which rate the arm stands: its own `tuned` one, that of `against` (times
    `factor`), or a fixed number, such as a default. `minus` takes the same contrast under another
    condition away. `tuned_by` chooses rates by something else than the measure does.
    """

    against: Against
    better: bool
    rate: Literal["tuned", "against"] | Annotated[float, Field(gt=0)]
    factor: Annotated[float, Field(gt=0)] = 1.0
    tuned_by: str | None = None
    minus: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "TunedDifference":
        measures.measure_named(self.measure)
        if self.factor != 1 and self.rate != "against":
            raise ValueError(
                "factor multiplies the rate of the other side: say rate: against, "
                f"got {self.rate!r}"
            )
        arms = (self.arm, *self.against)
        elsewhere = [stated for stated in arms if stated.condition is not None]
        if self.minus and (self.rate != "tuned" or elsewhere):
            raise ValueError(
                f"minus={self.minus!r} takes both arms to that condition, so they must be tuned "
                "and name no condition of their own; "
                f"got {[stated.model_dump() for stated in arms]} at rate {self.rate}"
            )
        if self.minus in self.conditions:
            raise ValueError(f"minus must be another condition than {self.minus!r}")
        return self

    @property
    def unit(self) -> str:
        """The measure's unit."""
        return measures.measure_named(self.measure).unit

    @property
    def ratio(self) -> bool:
        """Whether the measure is compared as a ratio."""
        return measures.measure_named(self.measure).ratio

    @property
    def needs(self) -> Needs:
        """The measure."""
        return Needs(measure=self.measure)

    def places(self, condition: str) -> list[Place]:
        """Those of both sides, under `minus`, too."""
        here = [stated.under(condition) for stated in (self.arm, *self.against)]
        return here + [Place(self.minus, place.arm) for place in here if self.minus]

    def answerable(self, evidence: Evidence, condition: str) -> bool:
        """Whether the measure, and the arm at the rate of the other side are there."""
        if not evidence.holds(self.measure):
            return False
        if self.rate != "against":
            return True
        arm, against = (side.chosen.lr for side in self.sides(evidence, condition))
        return abs(math.log(arm / (against * self.factor))) < math.log(SAME_RATE)

    def estimate(self, evidence: Evidence, condition: str, level: float) -> Estimate:
        """The interval between both sides, minus that under another condition, seed by seed."""
        measure = measures.measure_named(self.measure)
        sides = []
        for sign, where in zip((1.0, -1.0), self._conditions(condition), strict=False):
            arm, against = self.sides(evidence, where)
            sides += [Side(arm.scores, sign), Side(against.scores, -sign)]
        estimate = combined(sides, level, self.draws_from, statistic=measure.statistic)
        return estimate if measure.higher == self.better else estimate.turned()

    def _conditions(self, condition: str) -> tuple[str, ...]:
        """The row's condition, and that of `minus`."""
        return (condition, *([self.minus] if self.minus else []))

    def sides(self, evidence: Evidence, condition: str) -> tuple[Candidates, Candidates]:
        """The candidates on both sides."""
        arm = self._best_of([self.arm], evidence, condition)
        against = self._best_of(self.against, evidence, condition)
        if self.rate == "tuned":
            return arm, against
        if self.rate == "against":
            return _at_rates_of(against, arm, self.factor), against
        fixed = (math.isclose(label.lr, self.rate, rel_tol=1e-3) for label in arm.labels)
        return arm.only(fixed), against

    def _best_of(self, arms: Sequence[StatedArm], evidence: Evidence, condition: str) -> Candidates:
        places = [stated.under(condition) for stated in arms]
        return evidence.best_of(places, self.measure, self.tuned_by)

    def choices(self, evidence: Evidence, condition: str) -> dict[str, Candidate]:
        """What tuning chose on both sides, under `minus`, too, by the arm's name in the row.

        Of one arm at two rates the second is `against …`.
        """
        chosen: dict[str, Candidate] = {}
        for where in (condition, *([self.minus] if self.minus else [])):
            arm, against = (side.chosen for side in self.sides(evidence, where))
            name, other = (c.place.label(condition) for c in (arm, against))
            twice = arm.place == against.place and arm != against
            chosen |= {name: arm, f"against {other}" if twice else other: against}
        return chosen

    def networks(self, evidence: Evidence, condition: str) -> int:
        """Runs of all places, each counted once."""
        return len(set().union(*(evidence.runs(*p).run for p in self.places(condition))))


def _at_rates_of(chooser: Candidates, arm: Candidates, factor: float) -> Candidates:
    """The arm at `factor` times the chooser's rates, whose tuning scores so choose for both.

    Where the arm did not run that rate, its nearest stands in; a grid has no rates between its
    points.
    """
    lrs = np.log([label.lr for label in arm.labels])
    wanted = [math.log(label.lr * factor) for label in chooser.labels]
    nearest = [int(np.abs(lrs - lr).argmin()) for lr in wanted]
    labels = [arm.labels[i] for i in nearest]
    return Candidates(labels, chooser.scores._replace(report=arm.scores.report[:, nearest]))
