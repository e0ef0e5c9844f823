"""Findings: all that the book may quote, in one file: origin, numbers, verdicts, tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steadydescent import verified
from steadydescent.files import write_atomically
from steadydescent.study.book.citations import bibtex
from steadydescent.study.book.numbers import design_numbers, numbers_of, row_number, totals
from steadydescent.study.book.saved_results import folder, results
from steadydescent.study.book.verdict_rows import dated
from steadydescent.study.judging.claims import load_claims
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.headlines import headline
from steadydescent.study.judging.judge import all_rows, judge_all
from steadydescent.study.judging.rows import Row
from steadydescent.study.paths import ROOT
from steadydescent.study.planning import PROFILES
from steadydescent.study.results.receipts import run_counts
from steadydescent.study.results.store import Result


def findings(source: str, profile: str | None = None) -> dict[str, Any]:
    """What the book reads (see `steadydescent.study.book.sphinx`).

    Keys: origin (whose run), results (key to number), claims (id to outcome, headline and rows),
    files (result id to tables).
    """
    root = folder(source, profile)
    numbers: dict[str, dict[str, Any]] = {}
    files, receipts, own_rows = {}, [], []
    for name, task, home, result, receipt in results(root):
        receipts.append(receipt)
        files[receipt["result"]] = _files(home, receipt)
        evidence = Evidence(result, receipt)
        numbers |= numbers_of(evidence, f"{name}/{task}")
        numbers |= design_numbers(f"{name}/{task}", receipt)
        own_rows += judge_all(evidence)
    if not receipts:
        raise FileNotFoundError(
            f"no results in {root}; run `make reproduce` first, or build the published book"
        )
    rows = all_rows(dated(own_rows, root))
    for row in rows:
        if row.estimate is not None:
            name = "/".join(("claim", *row.key))
            numbers[name] = row_number(row.as_dict())
    numbers |= totals(receipts)
    return {
        "origin": _origin(source, receipts),
        "results": numbers,
        "claims": claims_of(rows),
        "files": files,
    }


def _origin(source: str, receipts: list[dict[str, Any]]) -> dict[str, Any]:
    newest = max(receipts, key=lambda receipt: receipt["date"])
    profiles = sorted({receipt["profile"] for receipt in receipts}, key=PROFILES.index)
    return {
        "source": source,
        "profile": profiles[0] if len(profiles) == 1 else ", ".join(profiles),
        **run_counts(receipts),
        "device": "; ".join(
            sorted({kind for receipt in receipts for kind in receipt["trained_on"]})
        ),
        "minutes": round(sum(receipt["seconds"] for receipt in receipts) / 60, 1),
        "date": newest["date"][:10],
        "commit": newest["commit"],
        "command": _command(receipts),
    }


def _command(receipts: list[dict[str, Any]]) -> str:
    """The command that made a result, or those that make several."""
    commands = {receipt["command"] for receipt in receipts}
    if len(commands) == 1:
        return commands.pop()
    profiles = sorted({receipt["profile"] for receipt in receipts})
    return "; ".join(f"make reproduce PROFILE={profile}" for profile in profiles)


def claims_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Claim's id → what is asked, what came out, and its rows."""
    out = {}
    for claim in load_claims().values():
        mine = [row for row in rows if row.id == claim.id]
        said = headline(mine)
        out[claim.id] = {
            "title": claim.title,
            "source": ", ".join(claim.source),
            "sentence": claim.sentence,
            "scope": claim.scope,
            "test": claim.test,
            "experiment": claim.experiment,
            "outcome": said.outcome,
            "headline": said.sentence,
            "rows": [row.as_dict() for row in mine],
        }
    return out


def _files(place: Path, receipt: dict[str, Any]) -> dict[str, str]:
    home = place.relative_to(ROOT)
    there = [kind for kind in Result._fields if (place / f"{kind}.parquet").exists()]
    tables = {kind: str(home / f"{kind}.parquet") for kind in there}
    return {"bibtex": bibtex(receipt), "receipt": str(home / "receipt.json"), **tables}


def write(path: Path, content: dict[str, Any]) -> None:
    """Write findings as sealed JSON, for the book to read."""
    write_atomically(path, verified.sealed(content))
