"""What is drawn to estimate a row is a small part of its interval, on every published row."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from steadydescent.study.book.saved_results import results
from steadydescent.study.judging.claims import Question, questions
from steadydescent.study.judging.contrasts import CONTRASTS, Contrast
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.statistics import level_of
from steadydescent.study.paths import PUBLISHED

SEEDS = 4
MOST = 0.1
"""Standard deviation over seeds of the estimate and of both ends, in half-widths."""
NEGLIGIBLE = 0.01
"""Share of the margin below which a half-width counts as this: where almost all redraws compare a
candidate with itself, the interval is a point, and how long a point is decides nothing.
"""


@cache
def published_rows() -> list[tuple[Question, Evidence]]:
    def held() -> Iterator[tuple[Question, Evidence]]:
        for *_, result, receipt in results(PUBLISHED):
            evidence = Evidence(result, receipt)
            for question in questions(evidence.experiment):
                if question.held_by(evidence):
                    yield question, evidence

    return list(held())


def errors(question: Question, evidence: Evidence, monkeypatch) -> np.ndarray:
    """Of the estimate and both ends, in half-widths."""
    level, made = level_of(question.primary), []
    for seed in range(SEEDS):
        monkeypatch.setattr(Contrast, "draws_from", seed)
        made.append(question.contrast.estimate(evidence, question.condition, level)[:3])
    _, low, high = np.transpose(made)
    margin = question.contrast.margins[question.task]
    least = NEGLIGIBLE * (np.log(margin) if question.contrast.ratio else margin)
    return np.std(made, axis=0, ddof=1) / max((high - low).mean() / 2, least)


@pytest.mark.parametrize("kind", sorted(CONTRASTS))
def test_monte_carlo_error_of_a_row_of_each_kind_is_below_a_tenth(kind, monkeypatch):
    rows = [row for row in published_rows() if row[0].contrast.kind == kind]
    if not rows:
        pytest.skip(f"no published row is of the kind {kind!r}")
    # the first one that draws at all: of searches the coarse-to-fine ones
    for question, evidence in sorted(rows, key=lambda row: "coarse" not in repr(row[0].contrast)):
        found = errors(question, evidence, monkeypatch)
        assert (found < MOST).all(), (question.row.key, found.round(3))
        break


@pytest.mark.slow
def test_monte_carlo_error_of_every_published_row_is_below_a_tenth(monkeypatch):
    wrong = {
        question.row.key: found.round(3)
        for question, evidence in published_rows()
        if (found := errors(question, evidence, monkeypatch)).max() >= MOST
    }
    assert not wrong


def test_another_seed_gives_another_estimate_where_a_kind_draws(monkeypatch):
    """Else the tests above would test nothing."""
    drawing = {"tuned", "range test"}
    for kind in drawing:
        question, evidence = next(r for r in published_rows() if r[0].contrast.kind == kind)
        assert errors(question, evidence, monkeypatch).max() > 0, question.row.key
