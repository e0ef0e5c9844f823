"""The difference or the ratio between two tuned arms in a measure."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from steadydescent.study.judging import measures
from steadydescent.study.judging.choosing import Candidate
from steadydescent.study.judging.contrasts.contrast import Needs
from steadydescent.study.judging.contrasts.sides import SidedContrast
from steadydescent.study.judging.evidence import Candidates, Evidence
from steadydescent.study.judging.places import Place, StatedArm
from steadydescent.study.judging.remarks import Remarks, apart
from steadydescent.study.judging.statistics import Estimate, Side, combined, pseudo_values

SAME_RATE = 1.25
"""Rates that differ by a smaller factor count as one; grids have no rates between their points."""
DEPENDS_ON_CHOICE = (
    "tuning chooses among candidates that lie further apart than the margin, which more tuning "
    "seeds must decide first"
)
SAMPLED = ("accuracy", "generalisation gap")
"""Measures whose variance from test set to test set follows from predictions."""


class TunedDifference(SidedContrast, kind="tuned"):
    """`arm`, or the best of several, minus the best of `against`; the source says that `arm` is
    `better`, or worse.

    `rate` says at which rate the arm stands: its own `tuned` one, that of `against` (times
    `factor`), or a fixed number, such as a default. `minus` takes the same contrast under another
    condition away. `tuned_by` chooses rates by something else than the measure does.
    """

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
        arms = (*self.arms, *self.against)
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
        here = super().places(condition)
        return here + [Place(self.minus, place.arm) for place in here if self.minus]

    def compared_under(self, condition: str) -> tuple[str, ...]:
        """The row's condition, and that of `minus`."""
        return (condition, *([self.minus] if self.minus else []))

    def obstacle(self, evidence: Evidence, condition: str) -> str:
        """Also where runs have no such score, having diverged, or the arm did not run the rate of
        the other side.
        """
        if reason := super().obstacle(evidence, condition) or self._no_statistic(
            evidence, condition
        ):
            return reason
        if self.rate != "against":
            return ""
        arm, against = (side.chosen.lr for side in self.sides(evidence, condition))
        if abs(math.log(arm / (against * self.factor))) < math.log(SAME_RATE):
            return ""
        return f"the arm ran no rate near {against * self.factor:.3g}, the nearest is {arm:.3g}"

    def _no_statistic(self, evidence: Evidence, condition: str) -> str:
        """Why report scores of what redraws choose have no such statistic; nothing if they have."""
        statistic = measures.measure_named(self.measure).statistic
        for where in self.compared_under(condition):
            for side in self.sides(evidence, where):
                try:
                    pseudo_values(side.scores.report[:, side.weights > 0], statistic)
                except ValueError as reason:
                    return f"no ratio or difference in {self.measure!r}: {reason}"
        return ""

    def estimate(self, evidence: Evidence, condition: str, level: float) -> Estimate:
        """The interval between both sides, minus that under another condition, seed by seed; turned
        round where smaller is better, or worse meant.
        """
        measure = measures.measure_named(self.measure)
        sides = []
        for sign, where in zip((1.0, -1.0), self.compared_under(condition), strict=False):
            arm, against = self.sides(evidence, where)
            sides += [Side(arm.scores, sign), Side(against.scores, -sign)]
        estimate = combined(sides, level, self.draws_from, statistic=measure.statistic)
        estimate = estimate if measure.higher == self.better else estimate.turned()
        if self.measure == measures.ARRIVAL:
            return estimate.widened(*_of_two_more(estimate.n), level)
        test_set = self._test_set(evidence, condition)
        return estimate.widened(*test_set, level) if test_set else estimate

    def remarks(self, evidence: Evidence, condition: str) -> Remarks:
        """Also whether the answer depends, by more than the margin, on what tuning chooses."""
        remarks = super().remarks(evidence, condition)
        if remarks.reason:
            return remarks
        measure, margin = measures.measure_named(self.measure), self.margins[evidence.task]
        under = self.compared_under(condition)
        sides = [side for where in under for side in self.sides(evidence, where)]
        furthest = max(apart(side, measure.statistic) for side in sides)
        if furthest <= (math.log(margin) if self.ratio else margin):
            return remarks
        return replace(remarks, undecided=DEPENDS_ON_CHOICE)

    def _test_set(self, evidence: Evidence, condition: str) -> tuple[float, int] | None:
        """The variance that another test set would give, and its degrees of freedom."""
        if self.measure not in SAMPLED:
            return None
        weights: dict[Candidate, float] = {}
        for sign, where in zip((1, -1), self.compared_under(condition), strict=False):
            arm, against = self.sides(evidence, where)
            for way, side in ((sign, arm), (-sign, against)):
                for label, share in zip(side.labels, side.weights, strict=True):
                    if share:
                        weights[label] = weights.get(label, 0.0) + way * float(share)
        return evidence.test_set(weights)

    def test_set_sampled(self, evidence: Evidence, condition: str) -> bool | None:
        """Whether predictions of all that redraws choose are known."""
        if self.measure not in SAMPLED:
            return super().test_set_sampled(evidence, condition)
        return self._test_set(evidence, condition) is not None

    def sides(self, evidence: Evidence, condition: str) -> tuple[Candidates, Candidates]:
        """The candidates on both sides, the arm's at the rate that is asked for."""
        arm, against = super().sides(evidence, condition)
        if self.rate == "tuned":
            return arm, against
        if self.rate == "against":
            return at_rates_of(against, arm, self.factor), against
        fixed = (math.isclose(label.lr, self.rate, rel_tol=1e-3) for label in arm.labels)
        return arm.only(fixed, f"the rate {self.rate:g}"), against

    def tuned_sides(self, evidence: Evidence, condition: str) -> tuple[Candidates, ...]:
        """Both, but for an arm that takes the other side's rate."""
        arm, against = self.sides(evidence, condition)
        return (against,) if self.rate == "against" else (arm, against)

    def best_of(self, arms: Sequence[StatedArm], evidence: Evidence, condition: str) -> Candidates:
        """The candidates of several arms together."""
        places = [stated.under(condition) for stated in arms]
        return evidence.best_of(places, self.measure, self.tuned_by)


def at_rates_of(chooser: Candidates, arm: Candidates, factor: float) -> Candidates:
    """The arm at `factor` times the chooser's rates, whose tuning scores so choose for both.

    Where the arm did not run that rate, its nearest stands in; a grid has no rates between its
    points.
    """
    lrs = np.log([label.lr for label in arm.labels])
    wanted = [math.log(label.lr * factor) for label in chooser.labels]
    nearest = [int(np.abs(lrs - lr).argmin()) for lr in wanted]
    labels = [arm.labels[i] for i in nearest]
    return Candidates(labels, chooser.scores._replace(report=arm.scores.report[:, nearest]))


def _of_two_more(seeds: int) -> tuple[float, int]:
    """The variance, in percent squared, that two more seeds give the difference of two shares, and
    its degrees of freedom: with one the arm alone arrives, with the other its rival alone.

    Without them runs that all arrive would have an interval without width. Agresti and Caffo (2000)
    add them to both samples.
    """
    return 2 * 100**2 / ((seeds + 1) * (seeds + 2)), seeds + 1
