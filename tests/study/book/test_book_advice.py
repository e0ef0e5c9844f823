"""Advice on a page: it fails the build where it leaves out a task that says otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from steadydescent.study.book.sphinx.advice import asked_alike, side_of, unmentioned
from toy_book import Book, row, toy_findings, words

ADVICE = "```{{advice}} toy-claim/toy-task/constant: supported\nAverage your weights{}.\n```"


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """The claim holds on `toy-task`, and not on `deep-task`."""
    made = Book(tmp_path, toy_findings())
    made.findings["claims"]["toy-claim"]["rows"] += [
        row("deep-task", "constant", "refuted"),
        row("deep-task", "linear", "supported"),
        row("wide-task", "constant", "supported"),
    ]
    return made


def test_advice_that_leaves_out_a_task_that_says_otherwise_fails_the_build(book):
    warnings = book.build(ADVICE.format(""))[1]
    assert "index.md" in warnings and "the advice on 'index' rests on toy-claim" in warnings
    assert "leaves out deep-task, which is refuted (constant)" in warnings
    assert "add {verdict}`toy-claim/deep-task/constant` to the block" in warnings
    assert "other-task" not in warnings and "wide-task" not in warnings


@pytest.mark.parametrize(
    "mention",
    [
        " (not on {verdict}`toy-claim/deep-task/constant`)",
        ", though not on deep-task",
    ],
)
def test_advice_that_cites_the_row_or_names_the_task_stands(book, mention):
    page = words(book.accept(ADVICE.format(mention)))
    assert "Average your weights" in page


def test_a_role_about_another_claim_does_not_name_the_task(book):
    other = dict(book.findings["claims"]["toy-claim"], rows=[row("deep-task", "x", "supported")])
    book.findings["claims"]["next-claim"] = other
    text = " {verdict}`next-claim/deep-task/x`"
    body = ADVICE.format(text) + "\n\n```{claim} next-claim\n```"
    assert "leaves out deep-task" in book.build(body)[1]


def test_advice_gives_way_like_other_prose_that_rests_on_a_verdict(book):
    refuted = ADVICE.format("").replace("constant: supported", "constant: refuted")
    assert "but the data say supported" in book.build(refuted)[1]
    book.findings["origin"]["source"] = "reproduced"
    page = words(book.accept(refuted))
    assert "Average your weights" not in page and "Your run and the published text" in page
    assert "Average your weights" in words(book.accept(ADVICE.format("")))


def test_what_to_do_is_advice(book):
    """In that section prose that rests on a verdict answers for the other tasks."""
    body = "## What to do\n\n" + ADVICE.format(", not on deep-task")
    book.accept(body)
    held = body.replace("{advice}", "{holds}")
    assert "under 'What to do' rests on a verdict; make its {holds} {advice}" in book.build(held)[1]


@pytest.mark.parametrize("verdicts", ["supported, refuted", "inconclusive"])
def test_advice_that_rests_on_no_side_or_on_both_fails_the_build(book, verdicts):
    body = ADVICE.format("").replace("constant: supported", f"constant: {verdicts}")
    assert "advice must rest on verdicts of one side" in book.build(body)[1]


def test_too_small_to_matter_is_otherwise_for_who_advises_it_and_open_for_nobody():
    for word in ("refuted", "refuted, size open", "too small to matter", "no difference"):
        assert side_of(word) == "against"
    assert side_of("supported") == side_of("supported, size open") == "for"
    assert side_of("holds when") == "for" and side_of("does not hold") == "against"
    for word in ("open", "inconclusive", "mixed", "not run"):
        assert side_of(word) == "open"
    rows = [row("a", "x", "supported"), row("b", "x", "too small to matter"), row("c", "x", "open")]
    claim = {"rows": rows}
    assert unmentioned("toy", claim, rows[0], "for", "Do it.") == rows[1:2]
    assert unmentioned("toy", claim, rows[1], "against", "Leave it.") == rows[:1]
    assert not unmentioned("toy", claim, rows[0], "for", "Do it, not on b.")


def test_a_task_asked_under_another_condition_answers_by_its_primary_row():
    named = row("a", "n = m", "supported", primary=True)
    elsewhere = row("b", "n = 512", "refuted", primary=True)
    decayed = row("a", "decayed", "refuted", primary=True)
    second = row("c", "n = 512", "refuted", primary=False)
    claim = {"rows": [named, elsewhere, decayed, second]}
    assert asked_alike(claim, named) == [named, elsewhere]
    assert asked_alike(claim, None) == [named, elsewhere, decayed]
    assert asked_alike(claim, second) == [elsewhere, second]
