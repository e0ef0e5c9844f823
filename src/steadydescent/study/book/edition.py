"""What the cells of the book's pages read: rows, numbers and results of the book being built."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from steadydescent import verified
from steadydescent.files import DamagedFile
from steadydescent.study.book.saved_results import read_result
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.paths import GENERATED, ROOT


def _generated() -> dict[str, Any]:
    return verified.read_sealed(GENERATED / "findings.json")


def rows_shown(experiment: str = "") -> list[dict[str, Any]]:
    """Rows with an estimate in the book being built, of an experiment's claims or of all."""
    claims = _generated()["claims"].values()
    rows = [
        row | {"title": c["title"]}
        for c in claims
        if experiment in ("", c["experiment"])
        for row in c["rows"]
    ]
    return [row for row in rows if row["estimate"] is not None]


def claims_shown() -> dict[str, dict[str, Any]]:
    """Claims of the book being built, by id: title, outcome, headline, rows and so on."""
    return _generated()["claims"]


Numbers = Mapping[str, Mapping[str, Any]]
"""The book's numbers by key."""


def numbers_shown() -> dict[str, dict[str, Any]]:
    """Result numbers of the book being built, by key."""
    return _generated()["results"]


class ShownResult(NamedTuple):
    """One result as the pages of a book use it."""

    evidence: Evidence
    receipt: dict[str, Any]

    @property
    def id(self) -> str:
        return self.receipt["result"]


def shown(experiment: str) -> dict[str, ShownResult]:
    """Task → what the book being built shows of an experiment."""
    by_task = {}
    for name, entry in _generated()["files"].items():
        home = (ROOT / entry["receipt"]).parent
        if home.parent.name == experiment:
            result, receipt = read_result(home.parents[1], experiment, home.name)
            if receipt["result"] != name:
                raise DamagedFile(
                    f"{home} is {receipt['result']}, but the book is being built of {name}; "
                    "build it anew"
                )
            by_task[home.name] = ShownResult(Evidence(result, receipt), receipt)
    return by_task


def all_shown() -> dict[str, dict[str, ShownResult]]:
    """Experiment → what the book being built shows of it, in the order of the findings."""
    homes = [(ROOT / entry["receipt"]).parent for entry in _generated()["files"].values()]
    return {name: shown(name) for name in dict.fromkeys(home.parent.name for home in homes)}
