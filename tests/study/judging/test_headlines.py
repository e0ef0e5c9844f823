"""A claim's sentence follows from its primary rows, and from nothing else."""

import itertools
from dataclasses import replace

import pytest

from fabricated import (
    SMALL_CLAIM,
    SMALL_CONTRAST,
    experiments_from,
    result,
    write_experiments,
)
from judged import score, steep, toy_evidence, toy_plan
from steadydescent.engine.tasks import TASKS
from steadydescent.study.judging.claims import load_claims
from steadydescent.study.judging.headlines import OUTCOMES, headline
from steadydescent.study.judging.judge import all_rows, exact_rows, judge_all
from steadydescent.study.judging.rows import Row
from steadydescent.study.judging.task_names import TASK_NAMES
from steadydescent.study.judging.verdicts import VERDICTS

CONSTANT, LINEAR = "the rate is constant", "the rate decays linearly"
FASHION, SIGNALS, CNN = "fashion-mnist-mlp", "mnist1d-mlp", "mnist1d-cnn"
FOR, SIZED, AGAINST = "supported", "supported, size open", "refuted"
SMALL, OPEN, NOT_RUN = "too small to matter", "open", "not run"


def row(task: str, verdict: str, when: str = "", **more) -> Row:
    """A primary row with this word."""
    usual = {"measure": "accuracy", "condition": when, "margin": 1.0, "rule": "superiority"}
    told = usual | {"verdict": verdict, "when": when, "primary": True} | more
    return Row(id="claim", scope="T", task=task, **told)


@pytest.mark.parametrize(
    ("rows", "outcome", "sentence"),
    [
        ([row(FASHION, FOR)], "holds", "Holds on Fashion-MNIST's perceptron."),
        (
            [row(FASHION, FOR), row(SIGNALS, SIZED), row(CNN, OPEN)],
            "holds",
            "Holds (2 of 3 tasks agree; size open on 1; 1 open).",
        ),
        (
            [row(FASHION, FOR), row(SIGNALS, AGAINST)],
            "holds when",
            "Holds on Fashion-MNIST's perceptron; does not hold on MNIST-1D's perceptron.",
        ),
        (
            [row(FASHION, SMALL), row(SIGNALS, AGAINST), row(CNN, OPEN)],
            "does not hold",
            "Does not hold on MNIST-1D's perceptron; too small to matter on Fashion-MNIST's "
            "perceptron (1 open).",
        ),
        ([row(FASHION, SMALL)], SMALL, "Too small to matter on Fashion-MNIST's perceptron."),
        (
            [row(FASHION, OPEN, seeds_needed=1_200), row(CNN, OPEN, seeds_needed="never")],
            OPEN,
            "Open: about 1,200 seeds would decide Fashion-MNIST's perceptron, more seeds "
            "alone would not decide MNIST-1D's CNN.",
        ),
        ([row(FASHION, NOT_RUN)], NOT_RUN, "Not run."),
        (
            [row(FASHION, NOT_RUN), row(CNN, NOT_RUN, reason="nothing was timed")],
            NOT_RUN,
            "Not run: on MNIST-1D's CNN nothing was timed.",
        ),
        (
            [row(CNN, OPEN, reason="30 % of the runs miss the target")],
            OPEN,
            "Open: on MNIST-1D's CNN 30 % of the runs miss the target.",
        ),
        (
            [
                *(row(task, FOR, CONSTANT) for task in (FASHION, SIGNALS, CNN)),
                *(row(task, SMALL, LINEAR) for task in (FASHION, SIGNALS)),
                row(CNN, OPEN, LINEAR),
            ],
            "holds when",
            "Holds when the rate is constant (3 of 3 tasks agree); too small to matter when the "
            "rate decays linearly (2 of 3 tasks agree; 1 open).",
        ),
        (
            [row(task, FOR, when) for when in (CONSTANT, LINEAR) for task in (FASHION, CNN)],
            "holds",
            "Holds when the rate is constant (2 of 2 tasks agree) and when the rate decays "
            "linearly (2 of 2 tasks agree).",
        ),
        (
            [row(FASHION, FOR, CONSTANT), row(FASHION, OPEN, LINEAR, seeds_needed=40)],
            "holds when",
            "Holds when the rate is constant (Fashion-MNIST's perceptron); open when the rate "
            "decays linearly (about 40 seeds would decide Fashion-MNIST's perceptron).",
        ),
        (
            [row(FASHION, FOR, CONSTANT), row(CNN, AGAINST, CONSTANT), row(CNN, FOR, LINEAR)],
            "holds when",
            "When the rate is constant: holds on Fashion-MNIST's perceptron, does not hold on "
            "MNIST-1D's CNN; holds when the rate decays linearly (MNIST-1D's CNN).",
        ),
        ([row("arithmetic", AGAINST)] * 3, "does not hold", "Does not hold (3 of 3 cases agree)."),
        (
            [row("arithmetic", FOR)] * 3 + [row("arithmetic", AGAINST)],
            "holds when",
            "Holds in 3 cases; does not hold in 1 case.",
        ),
        (
            [row("arithmetic", FOR, "it decays"), row("arithmetic", AGAINST, "it is constant")]
            + [row("arithmetic", FOR, "it is cut")],
            "holds when",
            "Holds when it decays and when it is cut; does not hold when it is constant.",
        ),
    ],
)
def test_sentence_says_where_a_claim_holds(rows, outcome, sentence):
    assert headline(rows) == (outcome, sentence)


def test_an_open_row_takes_nothing_from_what_is_decided():
    """Among all words of three rows: with another open row the outcome stays, unless none was."""
    for words in itertools.product(VERDICTS, repeat=3):
        rows = [row(task, word) for task, word in zip((FASHION, SIGNALS, CNN), words, strict=True)]
        outcome = headline(rows).outcome
        assert outcome in OUTCOMES
        more = headline([*rows, row("saddle", OPEN)]).outcome
        assert more == (OPEN if outcome == NOT_RUN else outcome)
        assert (outcome == "holds") == (
            {"supported", "supported, size open"} & set(words) != set()
            and not {"refuted", "refuted, size open", SMALL} & set(words)
        )


def test_secondary_rows_say_nothing_in_a_headline():
    decided = [row(FASHION, FOR)]
    beside = [replace(row(CNN, word), primary=False) for word in VERDICTS]
    assert headline([*decided, *beside]) == headline(decided)
    assert headline(beside).outcome == NOT_RUN


def test_every_task_has_a_name():
    assert set(TASKS) <= set(TASK_NAMES)


def test_exact_claims_have_headlines_of_their_arithmetic():
    for claim in load_claims().values():
        if claim.scope == "E":
            rows = exact_rows(claim)
            assert all(one.primary for one in rows)
            said = headline(rows)
            assert said.outcome in ("holds", "holds when", "does not hold", SMALL), claim.id
            if said.outcome == "holds when":
                assert said.sentence.startswith("Holds when "), said.sentence


# ---- one row, one verdict ------------------------------------------------------------------------


def judged(folder, how, *claims: dict) -> dict:
    """Rows of these claims on a result of the small study, by key."""
    write_experiments(folder, claims=claims)
    with experiments_from(folder):
        rows = all_rows(judge_all(toy_evidence(result(toy_plan(), how))))
    return {one.key: one for one in rows}


@pytest.mark.parametrize("how", [score, steep({"ema-10": 0.05})])
def test_a_further_row_or_claim_changes_no_other_row_and_no_headline(tmp_path, how):
    """Neither a secondary row nor another claim, whatever they come out as."""
    alone = judged(tmp_path, how, SMALL_CLAIM)
    worse = SMALL_CONTRAST | {"better": False, "label": "worse"}
    other = SMALL_CLAIM | {"id": "other", "primary": [worse | {"conditions": ["linear"]}]}
    for claims in ([SMALL_CLAIM | {"secondary": [worse]}], [other, SMALL_CLAIM]):
        more = judged(tmp_path, how, *claims)
        assert set(more) > set(alone)
        assert {key: more[key] for key in alone} == alone


def test_secondary_rows_have_plain_intervals(tmp_path):
    """The same contrast as a secondary one is judged at 95 %, and is narrower by the quantiles."""
    again = SMALL_CONTRAST | {"label": "again"}
    rows = judged(tmp_path, score, SMALL_CLAIM | {"secondary": [again]})
    first = rows["ema-wins", "mnist1d-mlp", "constant"]
    second = rows["ema-wins", "mnist1d-mlp", "constant, again"]
    assert (first.primary, second.primary) == (True, False) and second.level == 0.95
    assert first.estimate == second.estimate
    # Student's quantiles of 4 degrees of freedom at 99.975 and 95 %
    ratio = (first.ci_high - first.ci_low) / (second.ci_high - second.ci_low)
    assert ratio == pytest.approx(12.3121 / 2.7764, rel=1e-3)
