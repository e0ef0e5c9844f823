"""Advice on a page: it fails the build where it leaves out a task that says otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from steadydescent.study.book.sphinx.advice import asked_alike, side_of, unmentioned
from steadydescent.study.book.sphinx.asked import Asked
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


def group(*blocks: tuple[str, str], on: str = "toy-claim") -> str:
    """Consecutive advice on the same, a block an outcome."""
    return "\n\n".join(f"```{{advice}} {on}: {words}\n{text}\n```" for words, text in blocks)


def test_of_a_group_the_page_shows_the_block_whose_outcome_came_out(book):
    blocks = group(("holds", "Always."), ("holds when", "Sometimes, not on deep-task."))
    page = words(book.accept(blocks))
    assert "Sometimes" in page and "Always" not in page


def test_a_group_without_a_block_for_what_came_out_fails_the_build(book):
    blocks = group(("holds", "Always."), ("does not hold, too small to matter", "Never."))
    warnings = book.build(blocks)[1]
    assert "no advice on toy-claim fits: the data say holds when" in warnings
    assert "blocks for holds, does not hold, too small to matter" in warnings
    assert warnings.count("no advice on") == 1


def test_blocks_with_other_prose_between_them_are_groups_of_their_own(book):
    fits = group(("holds when", "Sometimes, not on deep-task."))
    other = group(("holds", "Always."))
    assert "no advice on" not in book.build(f"{fits}\n\n{other}")[1]
    assert "no advice on toy-claim fits" in book.build(f"{fits}\n\nProse.\n\n{other}")[1]


def test_what_was_not_run_needs_no_advice(book):
    book.findings["claims"]["toy-claim"]["outcome"] = "not run"
    assert "Always" not in words(book.accept(group(("holds", "Always."))))


def test_ones_own_run_says_where_no_advice_fits_it(book):
    book.findings["origin"]["source"] = "reproduced"
    page = words(book.accept(group(("holds", "Always."), ("open", "Who knows."))))
    assert "Always" not in page and "Who knows" not in page
    assert page.count("No advice of the published text fits your run") == 1
    assert "Sometimes" in words(book.accept(group(("holds when", "Sometimes."))))


def test_advice_may_rest_on_a_level_of_the_moderator(book):
    rows = book.findings["claims"]["toy-claim"]["rows"]
    rows[:] = [
        row("toy-task", "constant", "supported", when="the rate is constant"),
        row("deep-task", "constant", "too small to matter", when="the rate is constant"),
        row("toy-task", "linear", "too small to matter", when="the rate decays"),
        row("deep-task", "linear", "open", when="the rate decays"),
    ]
    constant, decays = "toy-claim@the rate is constant", "toy-claim@the rate decays"
    where = "Do it {where}`" + constant + ": holds`; not {where}`" + constant
    body = group(("holds when", where + ": too small to matter`."), on=constant)
    body += "\n\n" + group(("too small to matter", "Leave it."), ("holds", "Do it."), on=decays)
    page = words(book.accept(body))
    assert "Do it on toy-task ; not on deep-task ." in page and "Leave it." in page
    short = group(("holds when", "Do it {where}`" + constant + ": holds`."), on=constant)
    assert "leaves out deep-task, which is too small to matter" in book.build(short)[1]
    unknown = group(("holds", "Do it."), on="toy-claim@no level")
    assert "has no level 'no level'; it has the rate is constant; the" in book.build(unknown)[1]


def test_tasks_of_several_levels_are_named_with_them(book):
    rows = book.findings["claims"]["toy-claim"]["rows"]
    rows[:] = [
        row("mnist1d-mlp", "constant", "supported, size open", when="the rate is constant"),
        row("fashion-mnist-mlp", "constant", "supported", when="the rate is constant"),
        row("mnist1d-mlp", "linear", "supported", when="the rate decays"),
    ]
    page = words(book.accept("It holds {where}`toy-claim: holds`.")).replace("’", "'")
    assert "on MNIST-1D's perceptron and Fashion-MNIST's perceptron when the rate is" in page
    assert "constant and on MNIST-1D's perceptron when the rate decays" in page


def test_tasks_that_stay_open_are_named_once_beside_the_others(book):
    rows = book.findings["claims"]["toy-claim"]["rows"]
    rows[:] = [
        row("mnist1d-mlp", "constant", "supported"),
        row("fashion-mnist-mlp", "constant", "too small to matter"),
        row("toy-task", "constant", "open"),
    ]
    roles = ("{where}`toy-claim: " + said + "`" for said in ("holds", "too small to matter"))
    page = words(book.accept("It holds " + ", not ".join(roles) + ".")).replace("’", "'")
    assert "on MNIST-1D's perceptron (on toy-task it stays open) , not on Fashion" in page
    assert page.count("it stays open") == 1


def test_a_task_that_is_open_at_one_level_is_not_thereby_named_for_another(book):
    """On the deep task it is open at a constant rate, and too small to matter under decay."""
    rows = book.findings["claims"]["toy-claim"]["rows"]
    rows[:] = [
        row("toy-task", "constant", "supported", when="the rate is constant"),
        row("deep-task", "constant", "open", when="the rate is constant"),
        row("deep-task", "linear", "too small to matter", when="the rate decays"),
    ]
    book.findings["claims"]["toy-claim"]["outcome"] = "holds when"
    said = book.build(group(("holds when", "Do it {where}`toy-claim: holds`.")))[1]
    assert "leaves out deep-task, which is too small to matter" in said


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("toy-claim: does not hold", "no primary row of 'toy-claim' says does not hold"),
        ("toy-claim: holds when", "is not 'claim: outcome' with outcomes among holds, does not"),
        ("no-claim: holds", "no claim 'no-claim' in the findings"),
    ],
)
def test_a_role_that_names_no_task_fails_the_build(book, role, message):
    rows = book.findings["claims"]["toy-claim"]["rows"]
    rows[:] = [row("toy-task", "constant", "supported")]
    assert message in book.build("It is so {where}`" + role + "`.")[1]


def test_what_to_do_is_advice(book):
    """In that section prose that rests on a verdict answers for the other tasks."""
    body = "## What to do\n\n" + ADVICE.format(", not on deep-task")
    book.accept(body)
    held = body.replace("{advice}", "{holds}")
    assert "under 'What to do' rests on a verdict; make its {holds} {advice}" in book.build(held)[1]


def test_advice_that_rests_on_both_sides_fails_the_build(book):
    body = ADVICE.format("").replace("constant: supported", "constant: supported, refuted")
    assert "advice must rest on verdicts of one side" in book.build(body)[1]


def test_a_task_is_named_by_what_readers_call_it_too(book):
    claim = book.findings["claims"]["toy-claim"]
    claim["rows"].append(row("mnist1d-cnn", "constant", "refuted"))
    said = ", neither on deep-task nor on "
    book.accept(ADVICE.format(said + "MNIST-1D’s CNN"))
    other = ADVICE.format(said + "MNIST-1D's perceptron")
    assert "leaves out mnist1d-cnn" in book.build(other)[1]


def test_too_small_to_matter_is_otherwise_for_who_advises_it_and_open_for_nobody():
    for word in ("refuted", "refuted, size open", "too small to matter"):
        assert side_of(word) == "against"
    assert side_of("supported") == side_of("supported, size open") == "for"
    assert side_of("holds when") == "for" and side_of("does not hold") == "against"
    for word in ("open", "not run"):
        assert side_of(word) == "open"
    rows = [row("a", "x", "supported"), row("b", "x", "too small to matter"), row("c", "x", "open")]
    first, second = (Asked("toy", {"rows": rows}, row=named) for named in rows[:2])
    assert unmentioned(first, "for", "Do it.", {}) == rows[1:2]
    assert unmentioned(second, "against", "Leave it.", {}) == rows[:1]
    assert not unmentioned(first, "for", "Do it, not on b.", {})


def test_a_task_asked_under_another_condition_answers_by_its_primary_row():
    named = row("a", "n = m", "supported", primary=True)
    elsewhere = row("b", "n = 512", "refuted", primary=True)
    decayed = row("a", "decayed", "refuted", primary=True)
    second = row("c", "n = 512", "refuted", primary=False)
    claim = {"rows": [named, elsewhere, decayed, second]}
    assert asked_alike(Asked("toy", claim, row=named)) == [named, elsewhere]
    assert asked_alike(Asked("toy", claim)) == [named, elsewhere, decayed]
    assert asked_alike(Asked("toy", claim, row=second)) == [elsewhere, second]
