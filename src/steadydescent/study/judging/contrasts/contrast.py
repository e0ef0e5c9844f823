"""What every kind of contrast has: where it looks, what it needs, what it estimates."""

import json
from abc import abstractmethod
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, ValidationInfo

from steadydescent.checks import check_choice
from steadydescent.study.judging import measures
from steadydescent.study.judging.choosing import Candidate
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.places import Place, StatedArm
from steadydescent.study.judging.remarks import Remarks
from steadydescent.study.judging.statistics import Estimate
from steadydescent.study.judging.verdicts import DecisionRule
from steadydescent.study.results.design import Design
from steadydescent.study.yaml_files import Checked, Names

USUAL = "tuned"
"""The kind of a contrast that names none."""
CONTRASTS: dict[str, type["Contrast"]] = {}
"""Kind → class; a class is entered where it is defined."""


@dataclass(frozen=True)
class Needs:
    """What must be observed for a contrast, besides runs of the places that it looks at.

    `measure` is one of `measures`, `probe` one of the engine's, `ramp` the length of a range test
    in updates; `timed`: times per example.
    """

    measure: str | None = None
    probe: str | None = None
    ramp: int | None = None
    timed: bool = False

    def met(self, design: Design) -> bool:
        """Whether a plan observes all of it, or a result did."""
        observed = (design.probes, design.shifts, design.curve_points)
        return (
            (self.measure is None or measures.measured(self.measure, *observed))
            and (self.probe is None or self.probe in design.probes)
            and (self.ramp is None or self.ramp in design.ramps)
            and (not self.timed or len(design.timed) > 0)
        )


class Contrast(Checked):
    """One row of a claim for each of its `margins` (task → margin) and `conditions`.

    The estimate is above 0 where the source is right; `rule` makes it a verdict. `measure` is what
    a row says that it compares, `label` tells rows of one claim apart. `registered` is the day on
    which the contrast was fixed, as it stands. `when` names the level of the claim's moderator that
    a primary contrast is asked at; `experiment` is stated where it is not the claim's.
    """

    kind: ClassVar[str]
    draws_from: ClassVar[int] = 0
    """The seed of what a kind draws to estimate; another one gives nearly the same interval."""
    arm: StatedArm
    margins: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    conditions: Annotated[Names, Field(min_length=1)]
    measure: str
    rule: DecisionRule
    label: str = ""
    registered: date
    when: str = ""
    experiment: str | None = None

    def __init_subclass__(cls, kind: str = "", **more: Any) -> None:
        super().__init_subclass__(**more)
        if not kind:  # what several kinds have in common is none
            return
        if kind in CONTRASTS:
            raise ValueError(f"kind {kind!r} is that of {CONTRASTS[kind].__name__}")
        cls.kind = kind
        CONTRASTS[kind] = cls

    @property
    @abstractmethod
    def unit(self) -> str:
        """The unit of the estimate as a row shows it."""

    @property
    def ratio(self) -> bool:
        """Whether estimate and interval are logarithms of ratios."""
        return False

    @property
    def needs(self) -> Needs:
        """What must be observed for it."""
        return Needs()

    def named(self, condition: str) -> str:
        """The condition as a row states it."""
        return ", ".join(part for part in (condition, self.label) if part)

    def places(self, condition: str) -> list[Place]:
        """Every place that the contrast looks at."""
        return [self.arm.under(condition)]

    def obstacle(self, evidence: Evidence, condition: str) -> str:
        """Why a result with all places, so observed, has not what the contrast compares; nothing
        where it has.
        """
        return ""

    def answerable(self, evidence: Evidence, condition: str) -> bool:
        """Whether a result with all places, so observed, has what the contrast compares."""
        return not self.obstacle(evidence, condition)

    @abstractmethod
    def estimate(self, evidence: Evidence, condition: str, level: float) -> Estimate:
        """The interval at a level, above 0 as the source claims; of ratios the logarithm."""

    def choices(self, evidence: Evidence, condition: str) -> dict[str, Candidate]:
        """What tuning chose, by the name that a row gives to the arm; none where nothing is."""
        return {}

    def remarks(self, evidence: Evidence, condition: str) -> Remarks:
        """What a row says beside its estimate; where it is not answerable, why."""
        return Remarks(reason=self.obstacle(evidence, condition))

    def networks(self, evidence: Evidence, condition: str) -> int:
        """How many runs the contrast rests on, those of tuning included."""
        return len(evidence.result.runs)


def _of_its_kind(stated: Any, info: ValidationInfo) -> Any:
    """A contrast of the kind that a file states, read by that kind's schema."""
    if not isinstance(stated, dict):
        return stated
    options = {name: value for name, value in stated.items() if name != "kind"}
    schema = CONTRASTS[check_choice(stated.get("kind", USUAL), sorted(CONTRASTS), "kind")]
    for name in options:
        check_choice(name, schema.model_fields, f"an option of a contrast {schema.kind!r}:")
    if info.mode == "json":
        return schema.model_validate_json(json.dumps(options), strict=True)
    return schema.model_validate(options)


StatedContrast = Annotated[Contrast, BeforeValidator(_of_its_kind)]
"""The type of a field that holds a contrast of any kind."""
