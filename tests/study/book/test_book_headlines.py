"""A chapter opens with what its claims came to."""

from __future__ import annotations

from pathlib import Path

import pytest

from toy_book import Book, row, toy_findings, words


@pytest.fixture
def book(tmp_path: Path) -> Book:
    made = Book(tmp_path, toy_findings())
    claim = made.findings["claims"]["toy-claim"]
    claim["headline"] = "Holds when the rate is constant (1 of 1 tasks agrees)."
    claim["rows"] = [
        row("mnist1d-mlp", "constant", "supported") | {"when": "the rate is constant"},
        row("toy-task", "linear", "refuted") | {"primary": False},
    ]
    return made


def test_each_claim_has_its_line_and_the_estimates_of_its_primary_rows_alone(book):
    page = words(book.accept("```{headlines}\ntoy-claim\n```")).replace(" .", ".")
    claim = book.findings["claims"]["toy-claim"]
    top = page[: page.index("Decided by")] if "Decided by" in page else page
    assert f"{claim['title']}. Holds when the rate is constant (1 of 1 tasks agrees)." in top
    assert "MNIST-1D's perceptron, the rate is constant: " in top.replace("’", "'")
    assert "toy-task" not in top[: top.index("constant: ") + 40]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no-claim", "no claim 'no-claim' in the findings"),
        ("toy-claim/mnist1d-mlp/constant", "headlines are those of claims, got a row"),
    ],
)
def test_a_line_that_is_no_claim_fails_the_build(book, line, message):
    assert message in book.build(f"```{{headlines}}\n{line}\n```")[1]
