"""What contrasts between an arm and the best of others have in common."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from steadydescent.study.judging import measures
from steadydescent.study.judging.choosing import Candidate
from steadydescent.study.judging.contrasts.contrast import Contrast
from steadydescent.study.judging.evidence import Candidates, Evidence, NotAnswerable
from steadydescent.study.judging.places import Place, StatedArm
from steadydescent.study.judging.remarks import (
    Censored,
    Remarks,
    arrivals_by_arm,
    arrivals_of,
    choices_of,
    edge_share_of,
    side_in_row,
)
from steadydescent.study.yaml_files import unique


def _several(stated: Any) -> Any:
    """One arm as a list of one."""
    return tuple(stated) if isinstance(stated, list | tuple) else (stated,)


def _each_once(arms: tuple[StatedArm, ...]) -> tuple[StatedArm, ...]:
    if not arms:
        raise ValueError("a contrast needs an arm to stand against, got none")
    unique(arms, "an arm to stand against")
    return arms


Against = Annotated[tuple[StatedArm, ...], BeforeValidator(_several), AfterValidator(_each_once)]
OneOrSeveral = StatedArm | Annotated[tuple[StatedArm, ...], AfterValidator(_each_once)]


class SidedContrast(Contrast):
    """`arm`, or the best of several, beside the best of `against`; the source says that `arm` is
    `better`, or worse. Tuning chooses on both sides, among arms too.
    """

    arm: OneOrSeveral  # type: ignore[assignment]  # a list here alone
    against: Against
    better: bool

    @property
    def arms(self) -> tuple[StatedArm, ...]:
        """The arms whose best stands against the others'."""
        return self.arm if isinstance(self.arm, tuple) else (self.arm,)

    @property
    def scored_in(self) -> str:
        """The measure that sides are scored in."""
        return self.measure

    def places(self, condition: str) -> list[Place]:
        """Those of both sides."""
        return [stated.under(condition) for stated in (*self.arms, *self.against)]

    def sides(self, evidence: Evidence, condition: str) -> tuple[Candidates, Candidates]:
        """The candidates on both sides.

        Raises:
            NotAnswerable: where one side has none.
        """
        arm, against = (
            self.best_of(arms, evidence, condition) for arms in (self.arms, self.against)
        )
        return arm, against

    def best_of(self, arms: Sequence[StatedArm], evidence: Evidence, condition: str) -> Candidates:
        """The candidates of several arms together."""
        return evidence.best_of([stated.under(condition) for stated in arms], self.scored_in)

    def obstacle(self, evidence: Evidence, condition: str) -> str:
        """Where a side has no candidates that are scored in the measure."""
        if not evidence.holds(self.scored_in):
            return f"no run has the measure {self.scored_in!r}"
        try:
            self.sides(evidence, condition)
        except NotAnswerable as reason:
            return str(reason)
        return ""

    def compared_under(self, condition: str) -> tuple[str, ...]:
        """The conditions under which both sides are looked at for a row."""
        return (condition,)

    def tuned_sides(self, evidence: Evidence, condition: str) -> tuple[Candidates, ...]:
        """The sides whose rate or readout tuning chooses."""
        return self.sides(evidence, condition)

    def choices(self, evidence: Evidence, condition: str) -> dict[str, Candidate]:
        """What tuning chose on both sides, by the arm's name in the row.

        Of one arm at two rates the second is `against …`.
        """
        chosen: dict[str, Candidate] = {}
        for where in self.compared_under(condition):
            arm, against = (side.chosen for side in self.sides(evidence, where))
            name, other = (c.place.label(condition) for c in (arm, against))
            twice = arm.place == against.place and arm != against
            chosen |= {name: arm, f"against {other}" if twice else other: against}
        return chosen

    def remarks(self, evidence: Evidence, condition: str) -> Remarks:
        """What redraws choose, which runs miss their target, or why there is no answer."""
        if reason := self.obstacle(evidence, condition):
            return Remarks(reason=reason)
        under = self.compared_under(condition)
        sides = [side_in_row(s, condition) for where in under for s in self.sides(evidence, where)]
        tuned = [side for where in under for side in self.tuned_sides(evidence, where)]
        remarks = self.censored(evidence, condition)
        arrivals = {} if remarks.censored_share is None else arrivals_by_arm(evidence, sides)
        return replace(
            remarks,
            edge_share=edge_share_of(tuned),
            choices=choices_of(sides),
            test_set_sampled=self.test_set_sampled(evidence, condition),
            arrivals=arrivals,
        )

    def censored(self, evidence: Evidence, condition: str) -> Remarks:
        """What runs that miss their target do to a ratio of updates; nothing for other measures."""
        if self.scored_in not in measures.TO_TARGET:
            return Remarks()
        under = self.compared_under(condition)
        shares = [self._censored(evidence, where) for where in under]
        # of a ratio of ratios nobody knows which way it errs
        first = shares[0] if len(shares) == 1 else Censored(*[max(map(max, shares))] * 2)
        value = self.estimate(evidence, condition, level=0.95).value
        return first.judged(value, "arm" if self.better else "against")

    def _censored(self, evidence: Evidence, condition: str) -> Censored:
        return Censored(
            *(
                float(side.weights @ (1 - arrivals_of(evidence, side)))
                for side in self.sides(evidence, condition)
            )
        )

    def test_set_sampled(self, evidence: Evidence, condition: str) -> bool | None:
        """Whether the interval holds the sampling of the test set; None where there is none."""
        return False if measures.on_test_set(self.scored_in) else None

    def networks(self, evidence: Evidence, condition: str) -> int:
        """Runs of all places, each counted once."""
        return len(set().union(*(evidence.runs(*p).run for p in self.places(condition))))
