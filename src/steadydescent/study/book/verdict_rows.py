"""Every claim's rows, judged from saved results, and cached beside one's own."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from steadydescent import verified
from steadydescent.files import DamagedFile, write_atomically
from steadydescent.study.book.saved_results import folder, homes, results
from steadydescent.study.judging.evidence import Evidence
from steadydescent.study.judging.judge import all_rows, judge_all
from steadydescent.study.judging.rows import Row
from steadydescent.study.paths import EXPERIMENTS, PACKAGE, PUBLISHED, REPRODUCED, ROOT
from steadydescent.study.results import published
from steadydescent.study.results.first_seen import LEDGER, first_seen
from steadydescent.study.results.provenance import packages
from steadydescent.study.results.up_to_date import digest


def rows(root: Path) -> list[dict[str, Any]]:
    """Every claim's rows: of the results below `root`, of arithmetic, and what was not run."""
    own_rows: list[Row] = []
    for *_, result, receipt in results(root):
        own_rows += judge_all(Evidence(result, receipt))
    return [row.as_dict() for row in all_rows(dated(own_rows, root))]


def dated(rows: Iterable[Row], root: Path) -> list[Row]:
    """Published rows with the day on which they were first seen; of one's own it is their run's."""
    ledger = first_seen(root) if root == PUBLISHED else {}
    return [replace(row, first_seen=ledger.get(row.key, row.first_seen)) for row in rows]


def cached_rows(source: str, profile: str | None) -> list[dict[str, Any]]:
    """`rows`, cached beside one's own results where these can be written.

    The cache holds the digest of its sources and of itself; damaged or older, it is made again.
    """
    root = folder(source, profile)
    folders = [home for *_, home in homes(root)]
    if root == PUBLISHED:
        published.check(root)
    sources = [PACKAGE, ROOT / "tests", EXPERIMENTS, *folders, root / LEDGER]
    made_from = digest(
        sources, [path.relative_to(root) for path in sorted(root.glob("*/*"))], packages()
    )
    cache = REPRODUCED / (
        "verdicts-published.json" if root == PUBLISHED else f"verdicts-{source}-{profile}.json"
    )
    with suppress(FileNotFoundError, DamagedFile):
        content = verified.read_sealed(cache)
        if content.get("made from") == made_from:
            return content["rows"]
    content = {"made from": made_from, "rows": verified.plain(rows(root))}
    with suppress(OSError):  # verdicts can be read where nothing can be written
        write_atomically(cache, verified.sealed(content))
    return content["rows"]
