"""Whether a wrong rate costs more than a wrong rule."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field, model_validator

from steadydescent.study.judging import measures
from steadydescent.study.judging.choosing import Candidate
from steadydescent.study.judging.contrasts.contrast import Contrast, Needs
from steadydescent.study.judging.contrasts.sides import Against
from steadydescent.study.judging.contrasts.tuned import SAME_RATE, at_rates_of
from steadydescent.study.judging.evidence import Candidates, Evidence
from steadydescent.study.judging.places import Place
from steadydescent.study.judging.remarks import Remarks, choices_of, edge_share_of, side_in_row
from steadydescent.study.judging.statistics import Estimate, Side, combined


class CostOfAWrongChoice(Contrast, kind="cost of a wrong choice"):
    """What the arm loses at `factor` times its best rate, minus what is lost by the worst of
    `rules`, each at its own best rate, beside the best of them.

        (arm at its best rate − arm at factor times that) − (best rule − worst rule)

    Tuning chooses all of it on the same redraws: the rate, each rule's own, and which rules are the
    best and the worst.
    """

    factor: Annotated[float, Field(gt=0)]
    rules: Against

    @model_validator(mode="after")
    def _consistent(self) -> "CostOfAWrongChoice":
        measure = measures.measure_named(self.measure)
        if measure.ratio or not measure.higher:
            raise ValueError(
                f"measure must be one whose difference is a loss, as accuracy, got {self.measure!r}"
            )
        if len(self.rules) < 2 or self.factor == 1:
            raise ValueError(
                "a wrong choice needs two rules or more, and a factor other than 1; "
                f"got {len(self.rules)} and {self.factor}"
            )
        return self

    @property
    def unit(self) -> str:
        """The measure's unit."""
        return measures.measure_named(self.measure).unit

    @property
    def needs(self) -> Needs:
        """The measure."""
        return Needs(measure=self.measure)

    def places(self, condition: str) -> list[Place]:
        """Those of the arm and of the rules."""
        return [stated.under(condition) for stated in (self.arm, *self.rules)]

    def obstacle(self, evidence: Evidence, condition: str) -> str:
        """Where the arm did not run the wrong rate."""
        if not evidence.holds(self.measure):
            return f"no run has the measure {self.measure!r}"
        right, wrong, _ = self._candidates(evidence, condition)
        wanted, found = right.chosen.lr * self.factor, wrong.chosen.lr
        if abs(math.log(found / wanted)) < math.log(SAME_RATE):
            return ""
        return f"the arm ran no rate near {wanted:.3g}, the nearest is {found:.3g}"

    def estimate(self, evidence: Evidence, condition: str, level: float) -> Estimate:
        """The interval of the difference of both costs, in the measure's unit."""
        sides = self._sides(evidence, condition)
        estimate = combined([side for side, _ in sides], level)
        test_set = self._test_set(evidence, sides)
        return estimate.widened(*test_set, level) if test_set else estimate

    def choices(self, evidence: Evidence, condition: str) -> dict[str, Candidate]:
        """What tuning chose of the arm and of every rule."""
        found = [evidence.candidates(*p, self.measure).chosen for p in self.places(condition)]
        return {candidate.place.label(condition): candidate for candidate in found}

    def remarks(self, evidence: Evidence, condition: str) -> Remarks:
        """What redraws choose, or why there is no answer."""
        if reason := self.obstacle(evidence, condition):
            return Remarks(reason=reason)
        each = [evidence.candidates(*p, self.measure) for p in self.places(condition)]
        sides = self._sides(evidence, condition)
        sampled = measures.on_test_set(self.measure)
        return replace(
            Remarks(edge_share=edge_share_of(each)),
            choices=choices_of([side_in_row(side, condition) for side in each]),
            test_set_sampled=self._test_set(evidence, sides) is not None if sampled else None,
        )

    def networks(self, evidence: Evidence, condition: str) -> int:
        """Runs of all places, each counted once."""
        return len(set().union(*(evidence.runs(*p).run for p in self.places(condition))))

    def _candidates(
        self, evidence: Evidence, condition: str
    ) -> tuple[Candidates, Candidates, Candidates]:
        """The arm, the arm at the wrong rate, and all rules."""
        arm = evidence.candidates(*self.arm.under(condition), self.measure)
        places = [stated.under(condition) for stated in self.rules]
        rules = evidence.best_of(places, self.measure)
        return arm, at_rates_of(arm, arm, self.factor), rules

    def _sides(self, evidence: Evidence, condition: str) -> list[tuple[Side, list[Candidate]]]:
        """What counts to the estimate, with the candidates behind each."""
        right, wrong, rules = self._candidates(evidence, condition)
        order = {stated.under(condition): i for i, stated in enumerate(self.rules)}
        groups = tuple(order[label.place] for label in rules.labels)
        return [
            (Side(right.scores), right.labels),
            (Side(wrong.scores, -1.0), wrong.labels),
            (Side(rules.scores, -1.0), rules.labels),
            (Side(rules.scores, 1.0, groups), rules.labels),
        ]

    def _test_set(
        self, evidence: Evidence, sides: Sequence[tuple[Side, list[Candidate]]]
    ) -> tuple[float, int] | None:
        """The variance that another test set would give, and its degrees of freedom."""
        if self.measure != "accuracy":
            return None
        weights: dict[Candidate, float] = {}
        for side, labels in sides:
            for label, weight in zip(labels, side.weights, strict=True):
                if weight:
                    weights[label] = weights.get(label, 0.0) + float(weight)
        return evidence.test_set(weights)
