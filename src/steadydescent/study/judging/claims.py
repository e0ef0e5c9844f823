"""Claims: a source's sentences, paraphrased, and the contrasts that decide them.

They stand in `experiments/claims.yml`.
"""

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from steadydescent.checks import check_choice
from steadydescent.study import yaml_files
from steadydescent.study.judging.contrasts import Contrast, StatedContrast
from steadydescent.study.judging.exact import EXACT
from steadydescent.study.judging.rows import Row
from steadydescent.study.judging.verdicts import Needed
from steadydescent.study.paths import EXPERIMENTS
from steadydescent.study.planning import PROFILES, Experiment, Plan, load_study, plans
from steadydescent.study.yaml_files import Checked, Names


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
    needs: Needed = "common verdict"
    contrasts: tuple[StatedContrast, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Claim":
        study = load_study()
        check_choice(self.experiment, sorted(study), f"claim {self.id!r}: experiment")
        if ("E" in self.scope) != (self.id in EXACT):
            raise ValueError(
                f"claim {self.id!r} of scope {self.scope}: exact claims are {sorted(EXACT)}"
            )
        if bool(self.contrasts) == (self.scope == "E"):
            raise ValueError(
                f"claim {self.id!r} of scope {self.scope} has {len(self.contrasts)} contrasts"
            )
        for contrast in self.contrasts:
            self._check(contrast, study[self.experiment])
        return self

    def _check(self, contrast: Contrast, experiment: Experiment) -> None:
        arms, conditions, tasks = experiment.arms, experiment.conditions, experiment.rates
        for own in contrast.conditions or conditions:
            check_choice(own, conditions, f"claim {self.id!r}: condition")
            for condition, arm in contrast.places(own):
                check_choice(condition, conditions, f"claim {self.id!r}: condition")
                check_choice(arm, sorted(arms), f"claim {self.id!r}: arm")
        if not contrast.margins or set(contrast.margins) - set(tasks):
            given = contrast.margins or "none"
            raise ValueError(
                f"claim {self.id!r}: margins are for some of {sorted(tasks)}, got {given}"
            )


class Question(NamedTuple):
    """One row to be: a contrast on a task under a condition."""

    claim: Claim
    contrast: Contrast
    task: str
    condition: str

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
        )

    def in_profile(self, plan: Plan) -> bool:
        """Whether the plan trains what the row needs, and measures it."""
        return self.contrast.needs.met(plan.size, plan.curve_points) and all(
            condition in plan.conditions and arm in plan.arms_in(condition)
            for condition, arm in self.contrast.places(self.condition)
        )


@cache
def load_claims() -> dict[str, Claim]:
    """Claim id → claim, from `experiments/claims.yml`.

    Raises:
        ValueError: for what the file should not say, with its line.
    """
    file = yaml_files.read(EXPERIMENTS / "claims.yml")
    if not isinstance(file.content, list):
        raise file.error((), f"must be a list of claims, got {yaml_files.shown(file.content)}")
    claims: dict[str, Claim] = {}
    for number in range(len(file.content)):
        claim = file.model(Claim, (number,))
        if claim.id in claims:
            raise file.error((number, "id"), f"{claim.id!r} is the id of an earlier claim")
        claims[claim.id] = claim
    return claims


def questions(experiment: str) -> Iterator[Question]:
    """Every row that an experiment's claims ask for, whatever a profile trains."""
    for claim in load_claims().values():
        if claim.experiment == experiment:
            for contrast in claim.contrasts:
                for task in contrast.margins:
                    for condition in contrast.conditions or load_study()[experiment].conditions:
                        yield Question(claim, contrast, task, condition)


def planned(experiment: str, profile: str) -> list[Question]:
    """The rows that a profile trains for: the primary contrasts of a chapter."""
    check_choice(experiment, load_study(), "experiment")
    check_choice(profile, PROFILES, "profile")
    if not load_study()[experiment].profiles.get(profile):
        return []
    known = {plan.task: plan for plan in plans(profile, experiment)}
    return [
        question
        for question in questions(experiment)
        if question.task in known and question.in_profile(known[question.task])
    ]


def primary_contrasts(experiment: str, profile: str) -> int:
    """k, the number of a chapter's primary contrasts, among which 5 % are shared."""
    return len(planned(experiment, profile))
