"""Verdicts attacked: their rows estimated anew from other seeds, at other rates, elsewhere."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from steadydescent.study.book import page
from steadydescent.study.book.chapters.results import Results
from steadydescent.study.book.words import DASH, estimate_and_interval
from steadydescent.study.judging.claims import Question, questions
from steadydescent.study.judging.contrasts.tuned import TunedDifference
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.judge import judge
from steadydescent.study.judging.statistics import Estimate

CLAIMS = (
    *("adam-general", "adam-faster", "momentum-faster", "rmsprop-stabler"),
    *("lr-too-large-oscillates", "momentum-local-minima"),
)
"""The claims that are attacked; those of momentum and Adam among them."""
FEWEST = 8
"""Report seeds of which halves still say something."""
LEVEL = 0.95
AGAIN = ("even seeds", "odd seeds", "a rate lower", "a rate higher", "another condition")
"""How a row is estimated anew: the table's columns."""
Experiments = Mapping[str, Results]
"""Experiment → its results in the book being built."""


class Attack(NamedTuple):
    """A primary row with its verdict, its estimate at 95 %, and those made anew, by `AGAIN`."""

    question: Question
    word: str
    whole: Estimate
    again: dict[str, Estimate]

    @property
    def agreeing(self) -> int:
        """How many of those made anew lie on the same side of zero."""
        return sum(part.value * self.whole.value > 0 for part in self.again.values())


def attacks(shown: Experiments) -> list[Attack]:
    """Every primary row of `CLAIMS` that a result answers, in the order of `CLAIMS`."""
    found = [
        _attack(question, result.evidence)
        for experiment, results in shown.items()
        for task, result in results.items()
        for question in _judged(experiment, task, result.evidence)
    ]
    return sorted(found, key=lambda attack: CLAIMS.index(attack.question.claim.id))


def _judged(experiment: str, task: str, evidence: Evidence) -> Iterator[Question]:
    """The primary rows of `CLAIMS` that the result answers."""
    for question in questions(experiment):
        asked = question.primary and question.claim.id in CLAIMS and question.task == task
        if asked and question.held_by(evidence):
            yield question


def _attack(question: Question, evidence: Evidence) -> Attack:
    contrast, condition = question.contrast, question.condition
    whole = contrast.estimate(evidence, condition, LEVEL)
    word = judge(question, evidence).verdict
    made = {
        name: part
        for name, make in _again(question, evidence).items()
        if (part := _or_none(make)) is not None
    }
    return Attack(question, word, whole, made)


def _again(question: Question, evidence: Evidence) -> dict[str, Callable[[], Estimate]]:
    """Ways of `AGAIN` that the result may hold → how to estimate the row so."""
    contrast, condition = question.contrast, question.condition
    ways: dict[str, Callable[[], Estimate]] = {}
    if evidence.receipt["seeds"]["report"] >= FEWEST:
        for parity, name in enumerate(AGAIN[:2]):
            half = evidence.half(parity)
            ways[name] = partial(contrast.estimate, half, condition, LEVEL)
    for name, neighbour in _at_neighbours(contrast, evidence, condition).items():
        ways[name] = partial(neighbour.estimate, evidence, condition, LEVEL)
    for other in _other_conditions(question, evidence):
        ways[AGAIN[4]] = partial(contrast.estimate, evidence, other, LEVEL)
    return ways


def _at_neighbours(contrast: Any, evidence: Evidence, condition: str) -> dict[str, TunedDifference]:
    """The contrast with its one arm at the rate next to the tuned one, on either side.

    Trials of a random search have no neighbours, and an arm at another's rate no choice.
    """
    if not isinstance(contrast, TunedDifference) or contrast.rate != "tuned":
        return {}
    if len(contrast.arms) > 1:
        return {}
    place = contrast.arms[0].under(condition)
    if evidence.runs(*place).optimizer.nunique() > 1:
        return {}
    arm = contrast.sides(evidence, condition)[0]
    rates = sorted({label.lr for label in arm.labels})
    at = rates.index(arm.chosen.lr)
    sides = {AGAIN[2]: at - 1, AGAIN[3]: at + 1}
    return {
        name: contrast.model_copy(update={"rate": rates[index]})
        for name, index in sides.items()
        if 0 <= index < len(rates)
    }


def _other_conditions(question: Question, evidence: Evidence) -> Iterator[str]:
    """Conditions beside the row's under which all arms were run; no primary row asks about them."""
    for other in evidence.conditions:
        places = question.contrast.places(other)
        if other not in question.contrast.conditions and all(
            place.arm in evidence.arms_in(place.condition) for place in places
        ):
            yield other


def _or_none(make: Callable[[], Estimate]) -> Estimate | None:
    """An estimate, where the runs allow it: halves may have too few, a rate may not have run."""
    try:
        return make()
    except ValueError:
        return None


def table_of_attacks(found: list[Attack]) -> pd.DataFrame:
    """A row an attacked row: its word, the estimate of all seeds, and those of `AGAIN`."""
    return pd.DataFrame(
        [
            {
                "claim": attack.question.claim.title,
                "task": attack.question.task,
                "verdict": attack.word,
                "all seeds": _text(attack.question, attack.whole),
                **{
                    name: _text(attack.question, attack.again[name])
                    if name in attack.again
                    else DASH
                    for name in AGAIN
                },
            }
            for attack in found
        ]
    )


def _text(question: Question, estimate: Estimate) -> str:
    """An estimate with its interval; ratios as factors."""
    ratio = question.contrast.ratio
    ends = (estimate.value, estimate.low, estimate.high)
    value, low, high = map(math.exp, ends) if ratio else ends
    row = {"estimate": value, "ci_low": low, "ci_high": high, "null": float(ratio)}
    unit, margin = question.contrast.unit, question.contrast.margins[question.task]
    return estimate_and_interval(row | {"unit": unit, "margin": margin})


def in_words(found: list[Attack]) -> page.Shown:
    """How many of the estimates made anew lie on the same side as the whole."""
    if not found:
        return page.NOT_RUN
    made, agreeing = (
        sum(len(attack.again) for attack in found),
        sum(attack.agreeing for attack in found),
    )
    turned = [
        f"{attack.question.claim.title} ({attack.question.task})"
        for attack in found
        if attack.agreeing < len(attack.again)
    ]
    words = f"Of {made} estimates made anew {agreeing} lie on the same side as that of all seeds"
    return page.paragraph(words + (f"; others do in: {'; '.join(turned)}." if turned else "."))
