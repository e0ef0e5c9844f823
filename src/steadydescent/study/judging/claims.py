"""Claims: a source's sentences, paraphrased, and the contrasts that decide them.

They stand in `experiments/claims.yml`. A claim asks one registered question, by its primary
contrasts; whatever else bears on it is secondary, and never decides it.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Protocol

from pydantic import Field, model_validator

from steadydescent.study import yaml_files
from steadydescent.study.judging.contrasts import Contrast, StatedContrast
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.exact import EXACT
from steadydescent.study.judging.rows import Row
from steadydescent.study.judging.statistics import PRIMARY_PLACES
from steadydescent.study.paths import EXPERIMENTS
from steadydescent.study.results.design import Design
from steadydescent.study.yaml_files import Checked, Names, unique


class Claim(Checked):
    """A source's sentence, paraphrased, and what decides it.

    E: arithmetic (`steadydescent.study.judging.exact`, by the claim's id) and the tests that hold
    it. S, T: contrasts of an experiment, on surfaces or tasks. `primary` is the claim's one
    question: several contrasts there are levels of one moderator, each with its `when` and a single
    condition; those of one level are about different tasks. None are primary where arithmetic
    decides. `secondary` contrasts are shown beside.
    """

    id: str
    title: str
    source: Annotated[Names, Field(min_length=1)]
    sentence: str
    scope: Literal["E", "S", "T", "E, T", "S, T"]
    test: str
    experiment: str
    primary: tuple[StatedContrast, ...]
    secondary: tuple[StatedContrast, ...] = ()

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
        self._check_one_question()
        self._check_names()
        return self

    def _check_one_question(self) -> None:
        if not self.primary and self.id not in EXACT:
            raise ValueError(
                f"claim {self.id!r} has no primary contrast; only arithmetic decides without one"
            )
        for contrast in self.primary:
            where = f"claim {self.id!r}, the primary contrast {_named(contrast)!r}"
            if len(contrast.conditions) != 1:
                raise ValueError(
                    f"{where}: one condition is one question, got {list(contrast.conditions)}; "
                    "state a contrast for each, with when, or make it secondary"
                )
            if bool(contrast.when) != (len(self.primary) > 1):
                raise ValueError(
                    f"{where}: when is stated where a claim has several primary contrasts, which "
                    f"are levels of one moderator, and there alone; it has {len(self.primary)}, "
                    f"got when {contrast.when!r}"
                )
        asked = [
            f"{contrast.when} on {task}"
            for contrast in self.primary
            if contrast.when
            for task in contrast.margins
        ]
        unique(asked, f"claim {self.id!r}: a primary contrast's when and task")
        if stray := [contrast for contrast in self.secondary if contrast.when]:
            raise ValueError(
                f"claim {self.id!r}, the secondary contrast {_named(stray[0])!r}: when is stated "
                f"of primary contrasts alone, got {stray[0].when!r}"
            )

    def _check_names(self) -> None:
        names = [
            f"{task}/{contrast.named(condition)}"
            for contrast in self.contrasts
            for task in contrast.margins
            for condition in contrast.conditions
        ]
        unique(names, f"claim {self.id!r}: a row's task and condition")

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """All contrasts, the primary ones first."""
        return self.primary + self.secondary

    @property
    def levels(self) -> tuple[str, ...]:
        """When the claim's question is asked, in the order of the file; one level may be plain."""
        return tuple(dict.fromkeys(contrast.when for contrast in self.primary))

    def experiment_of(self, contrast: Contrast) -> str:
        """The experiment whose runs decide one of its contrasts."""
        return contrast.experiment or self.experiment


def _named(contrast: Contrast) -> str:
    return contrast.named(", ".join(contrast.conditions))


class Answering(Protocol):
    """What may answer a row of a claim: a plan, by what it will train, or a result, by its runs."""

    @property
    def design(self) -> Design:
        """What is compared, observed and timed."""

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions that arms are compared under."""

    def arms_in(self, condition: str) -> list[str]:
        """The arms that are compared under a condition."""


class Question(NamedTuple):
    """One row to be: a contrast on a task under a condition."""

    claim: Claim
    contrast: Contrast
    task: str
    condition: str
    primary: bool = False

    @property
    def row(self) -> Row:
        """The row as it is without an answer: not run."""
        contrast = self.contrast
        return Row(
            id=self.claim.id,
            scope=self.claim.scope,
            task=self.task,
            measure=contrast.measure,
            condition=contrast.named(self.condition),
            margin=contrast.margins[self.task],
            rule=contrast.rule,
            primary=self.primary,
            when=contrast.when,
            registered=contrast.registered.isoformat(),
        )

    def answered_by(self, source: Answering) -> bool:
        """Whether a plan trains, or a result holds, what the row needs, and measures it."""
        design = source.design
        return (
            (self.claim.experiment_of(self.contrast), self.task) == (design.experiment, design.task)
            and self.contrast.needs.met(design)
            and all(
                condition in source.conditions and arm in source.arms_in(condition)
                for condition, arm in self.contrast.places(self.condition)
            )
        )

    def held_by(self, evidence: Evidence) -> bool:
        """Whether a result has all that the row compares, whatever was planned."""
        return self.answered_by(evidence) and self.contrast.answerable(evidence, self.condition)


def load_claims() -> dict[str, Claim]:
    """Claim id → claim, from `experiments/claims.yml`.

    Raises:
        ValueError: for what the file should not say, with its line.
    """
    return claims_in(EXPERIMENTS / "claims.yml")


@cache
def claims_in(path: Path) -> dict[str, Claim]:
    """The same of any file, which is read once."""
    file = yaml_files.read(path)
    if not isinstance(file.content, list):
        raise file.error(
            (), f"must be a list of claims, got {yaml_files.value_in_words(file.content)}"
        )
    claims: dict[str, Claim] = {}
    for number in range(len(file.content)):
        claim = file.model(Claim, (number,))
        if claim.id in claims:
            raise file.error((number, "id"), f"{claim.id!r} is the id of an earlier claim")
        claims[claim.id] = claim
    rows = sum(len(c.margins) for claim in claims.values() for c in claim.primary)
    if rows > PRIMARY_PLACES:
        said = f"primary rows share {PRIMARY_PLACES} places, fixed for good; got {rows}"
        raise file.error((), said)
    return claims


def error_in(number: int, text: str) -> ValueError:
    """An error about the claim of this number in the file, with its line."""
    return yaml_files.read(EXPERIMENTS / "claims.yml").error((number,), text)


def questions_of(claim: Claim) -> Iterator[Question]:
    """Every row that a claim asks for, the primary ones first, whatever a profile trains."""
    for number, contrast in enumerate(claim.contrasts):
        for task in contrast.margins:
            for condition in contrast.conditions:
                yield Question(claim, contrast, task, condition, number < len(claim.primary))


def questions(experiment: str) -> Iterator[Question]:
    """Every row that claims ask of an experiment, whatever a profile trains."""
    for claim in load_claims().values():
        for question in questions_of(claim):
            if claim.experiment_of(question.contrast) == experiment:
                yield question


def questions_for(source: Answering) -> list[Question]:
    """The rows that a plan or a result answers, in the order of the claims."""
    mine = questions(source.design.experiment)
    return [question for question in mine if question.answered_by(source)]
