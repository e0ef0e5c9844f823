"""Claims: a source's sentences, paraphrased, and the contrasts that decide them, from
`experiments/claims.yml`.
"""

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from pydantic import BeforeValidator, Field, model_validator

from steadydescent.checks import check_choice
from steadydescent.study import yaml_files
from steadydescent.study.judging import measures
from steadydescent.study.judging.analyses import ANALYSES, check_options
from steadydescent.study.judging.exact import EXACT
from steadydescent.study.judging.statistics import Rule
from steadydescent.study.paths import EXPERIMENTS
from steadydescent.study.results.design import Design
from steadydescent.study.yaml_files import Checked, Names


def _several(value: object) -> object:
    """One name as a list of one."""
    return (
        (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
    )


Several = Annotated[Names, BeforeValidator(_several)]
DECISIVE = ("measure", "rule", "conditions")
"""What a contrast in the file must state: left out, it would be judged by another question."""
OF_A_DIFFERENCE = ("better", "rate")
"""And besides, where no analysis says itself what it compares."""


class Contrast(Checked):
    """`arm` and `against` in a measure; one row for each task that has a margin and each condition.
    The source says that `arm` is `better`, or worse.

    An arm may name its own condition, `last@linear`. Several arms in `against` stand for the best
    of them, tuning included. `rate` says at which rate the arm stands: its own `tuned` one, that of
    `against` (times `factor`), or a fixed number, such as a default. `minus` takes the same
    contrast under another condition away. `analysis` names a contrast that is no difference of two
    tuned arms (see `steadydescent.study.judging.analyses`), `options` are its own.
    """

    arm: str
    against: Several = ()
    better: bool = True
    measure: str = "accuracy"
    margins: dict[str, Annotated[float, Field(gt=0)]]
    conditions: Annotated[Names, Field(min_length=1)]
    rule: Rule = "superiority"
    rate: Literal["tuned", "against"] | Annotated[float, Field(gt=0)] = "tuned"
    factor: Annotated[float, Field(gt=0)] = 1.0
    tuned_by: str | None = None
    minus: str | None = None
    label: str = ""
    analysis: str | None = None
    options: dict[str, str | int | float] = {}

    @model_validator(mode="after")
    def _consistent(self) -> "Contrast":
        plain = (
            self.rate == "tuned" and self.tuned_by is None and self.minus is None and self.better
        )
        if self.analysis is not None:
            check_choice(self.analysis, sorted(ANALYSES), "analysis")
        check_options(self.analysis, self.options)
        if self.analysis == "matching window" and len(self.against) != 2:
            raise ValueError(
                f"the analysis 'matching window' needs two arms in against, got {list(self.against)}"
            )
        if self.analysis and not plain:
            raise ValueError(
                f"analysis {self.analysis!r} says itself what it compares: leave out better, rate, tuned_by and minus"
            )
        if self.factor != 1 and self.rate != "against":
            raise ValueError(
                f"factor multiplies the rate of the other side: say rate: against, got {self.rate!r}"
            )
        if self.minus and (
            self.rate != "tuned" or any("@" in name for name in (self.arm, *self.against))
        ):
            raise ValueError(
                f"minus={self.minus!r} takes both arms to that condition, so they must be tuned and name none of their "
                f"own; got {self.arm!r} against {self.against} at rate {self.rate}"
            )
        return self

    def named(self, condition: str) -> str:
        """The condition as a row states it."""
        return ", ".join(part for part in (condition, self.label) if part)

    def places(self, condition: str) -> list[tuple[str, str]]:
        """Every (condition, arm) that the contrast looks at."""
        found = [place(name, condition) for name in (self.arm, *self.against)]
        return found + [(self.minus, arm) for _, arm in found if self.minus]


def place(name: str, condition: str) -> tuple[str, str]:
    """Condition and arm of `arm` or `arm@condition`.

    >>> place("last", "constant"), place("last@linear", "constant")
    (('constant', 'last'), ('linear', 'last'))
    """
    arm, _, own = name.partition("@")
    return own or condition, arm


class Claim(Checked):
    """A source's sentence, paraphrased, and what decides it.

    E: arithmetic (`steadydescent.study.judging.exact`, by the claim's id) and the tests that hold
    it. S, T: contrasts of an experiment, on surfaces or tasks. With `needs: all` the claim stands
    only if every row supports it.
    """

    id: str
    title: str
    source: Annotated[Names, Field(min_length=1)]
    sentence: str
    scope: Literal["E", "S", "T", "E, T", "S, T"]
    test: str
    experiment: str
    needs: Literal["common verdict", "all"] = "common verdict"
    contrasts: tuple[Contrast, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Claim":
        if ("E" in self.scope) != (self.id in EXACT):
            raise ValueError(
                f"claim {self.id!r} of scope {self.scope}: exact claims are {sorted(EXACT)}"
            )
        if bool(self.contrasts) == (self.scope == "E"):
            raise ValueError(
                f"claim {self.id!r} of scope {self.scope} has {len(self.contrasts)} contrasts"
            )
        for contrast in self.contrasts:
            self._check(contrast)
        return self

    def _check(self, contrast: Contrast) -> None:
        if contrast.minus in contrast.conditions:
            raise ValueError(
                f"claim {self.id!r}: minus must be another condition than {contrast.minus!r}"
            )
        if not contrast.margins:
            raise ValueError(
                f"claim {self.id!r}: margins are for some tasks of {self.experiment!r}, got none"
            )
        if contrast.analysis is None:
            measures.find(contrast.measure)
            if not contrast.against:
                raise ValueError(
                    f"claim {self.id!r}: a contrast needs an arm to stand against, got none"
                )


class Asked(Protocol):
    """What may answer a row of a claim: a plan, by what it will train, or a result, by its runs."""

    @property
    def design(self) -> Design: ...

    @property
    def conditions(self) -> tuple[str, ...]: ...

    def arms_in(self, condition: str) -> list[str]: ...


class Cell(NamedTuple):
    """One row to be: a contrast on a task under a condition."""

    claim: Claim
    contrast: Contrast
    task: str
    condition: str

    @property
    def labels(self) -> dict[str, Any]:
        """What a row says of itself whether it has been run or not."""
        contrast = self.contrast
        return {
            "id": self.claim.id,
            "scope": self.claim.scope,
            "task": self.task,
            "measure": contrast.measure,
            "condition": contrast.named(self.condition),
            "margin": contrast.margins[self.task],
            "rule": contrast.rule,
        }

    def answered_by(self, source: Asked) -> bool:
        """Whether a plan trains, or a result holds, what the row needs, and measures it."""
        contrast, design = self.contrast, source.design
        if (self.claim.experiment, self.task) != (design.experiment, design.task):
            return False
        measured = (design.probes, design.shifts, design.curve_points)
        if not measures.measured(contrast.measure, *measured):
            return False
        if contrast.analysis == "range test" and contrast.options["updates"] not in design.ramps:
            return False
        if contrast.analysis == "faster size" and not design.timed:
            return False
        return all(
            condition in source.conditions and arm in source.arms_in(condition)
            for condition, arm in contrast.places(self.condition)
        )


@cache
def load_claims() -> dict[str, Claim]:
    """Claim id → claim, from `experiments/claims.yml`; a ValueError names the line of what it
    should not say.
    """
    file = yaml_files.read(EXPERIMENTS / "claims.yml")
    if not isinstance(file.content, list):
        raise file.error((), f"must be a list of claims, got {yaml_files.shown(file.content)}")
    claims: dict[str, Claim] = {}
    for number, entry in enumerate(file.content):
        claim = file.model(Claim, (number,))
        if claim.id in claims:
            raise file.error((number, "id"), f"{claim.id!r} is the id of an earlier claim")
        for position, contrast in enumerate(entry.get("contrasts") or ()):
            for field in (*DECISIVE, *(() if contrast.get("analysis") else OF_A_DIFFERENCE)):
                if field not in contrast:
                    raise file.error(
                        (number, "contrasts", position),
                        f"claim {claim.id!r}: {field} is missing, and it decides the row",
                    )
        claims[claim.id] = claim
    return claims


def error_in(number: int, text: str) -> ValueError:
    """An error about the claim of this number in the file, with its line."""
    return yaml_files.read(EXPERIMENTS / "claims.yml").error((number,), text)


def cells(experiment: str) -> Iterator[Cell]:
    """Every row that an experiment's claims ask for, whatever a profile trains."""
    for claim in load_claims().values():
        if claim.experiment == experiment:
            for contrast in claim.contrasts:
                for task in contrast.margins:
                    for condition in contrast.conditions:
                        yield Cell(claim, contrast, task, condition)


def cells_for(source: Asked) -> list[Cell]:
    """The rows that a plan or a result answers, in the order of the claims."""
    return [cell for cell in cells(source.design.experiment) if cell.answered_by(source)]
