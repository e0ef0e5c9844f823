"""What the book's extension refuses: whatever the text says and the data do not hold fails the
build.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import docutils_namespace, patch_docutils

import steadydescent.study.book.sphinx as extension
from toy_book import Book, toy_findings


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path, toy_findings())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{result}`nope`", "no result 'nope'"),
        ("{result}`best@low`", "has no 'low'"),
        ("{result}`gain:zz`", "does not format"),
        ("{result}`best:.2f`", "takes no format"),
        ("{result}`absent`", "has no value in the published results"),
        ("{verdict}`nope`", "no claim 'nope'"),
        ("{verdict}`toy-claim/toy-task/linear`", "has 0 rows"),
        ("{verdict}`toy-claim/toy-task`", "neither 'claim' nor"),
        ("```{claim} nope\n```", "no claim 'nope'"),
        ("```{claim} toy-claim\n```", "stands twice"),
        ("```{holds} nope: holds\nText.\n```", "no claim 'nope'"),
        ("```{holds} toy-claim: suported\nText.\n```", "is no outcome of a claim"),
        ("```{holds} toy-claim\nText.\n```", "is not 'claim/task/condition"),
        ("```{holds} toy-claim: supported\nText.\n```", "is no outcome of a claim"),
        ("```{holds} toy-claim: holds\nText.\n```", "but the data say holds when"),
        ("```{holds} toy-claim/toy-task/constant: mixed\nText.\n```", "is no verdict"),
        ("```{datafig} nope\n```", "no figure 'nope'"),
        ("```{vegachart} nope\n```", "no chart 'nope'"),
        ("```{datafig} silent\n```", "has no alt text"),
        ("```{vegachart} silent-chart\n```", "has no alt text"),
        ("```{datafig} stranger\n```", "0 results are named 'unknown/result'"),
        ("{ref}`claim-nope`", "undefined label"),
    ],
)
def test_what_the_data_do_not_hold_fails_the_build(book, body, message):
    book.figure("silent", alt=" ")
    book.figure("silent-chart", "charts", alt="", spec={})
    book.figure("stranger", results=["unknown/result"])
    assert message in book.build(body)[1]


def test_a_claim_on_no_page_fails_the_build(book):
    assert "claim 'toy-claim' is on no page" in book.build("", page="# A page\n\n{body}\n")[1]


def test_a_claim_on_two_pages_that_were_read_side_by_side_is_named(monkeypatch):
    heard = []
    monkeypatch.setattr(
        extension, "warn", lambda where, message, kind: heard.append((where, message))
    )
    env, other = (
        SimpleNamespace(steady_anchors={("claim", "toy-claim"): (page, "claim-toy-claim", "Toy")})
        for page in ("first", "second")
    )
    extension._merge(None, env, {"second"}, other)
    assert heard == [("second", "claim 'toy-claim' stands twice in the book, first on first")]


def test_a_verdict_outside_the_vocabulary_fails_the_build(book):
    book.findings["claims"]["toy-claim"]["rows"][0]["verdict"] = "confirmed"
    assert "'confirmed' is no verdict" in book.build("")[1]


def test_an_outcome_outside_the_vocabulary_fails_the_build(book):
    book.findings["claims"]["toy-claim"]["outcome"] = "mixed"
    assert "'mixed' is no outcome of a claim" in book.build("")[1]


def test_a_result_without_a_receipt_fails_the_build(book):
    (book.source / "results/toy/receipt.json").unlink()
    assert "no receipt at" in book.build("")[1]


def test_a_row_of_an_unknown_result_fails_the_build(book):
    book.findings["claims"]["toy-claim"]["rows"][0] |= {"result": "toy-average/gone@12345678"}
    assert "0 results are named 'toy-average/gone@12345678'" in book.build("")[1]


def test_an_unknown_origin_fails_the_build(book):
    book.findings["origin"]["source"] = "imagined"
    assert "origin.source is 'imagined'" in book.build("```{origin}\n```")[1]


def test_findings_that_were_never_made_are_named(book):
    folders = (str(book.source), None, str(book.out), str(book.out), "html")
    settings = {"extensions": ["steadydescent.study.book.sphinx"]}
    missing = r"findings\.json is missing; `make book` writes it"
    with patch_docutils(), docutils_namespace(), pytest.raises(ExtensionError, match=missing):
        Sphinx(*folders, confoverrides=settings, status=None, warning=None)
