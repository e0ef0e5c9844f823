"""Published verdicts and their numbers are what they were, until they are changed on purpose."""

import json
import math
from pathlib import Path

import pytest

from steadydescent.study.book.verdict_rows import cached_rows

WORDS = len(("id", "task", "condition", "primary", "verdict", "direction", "size"))
"""Columns that are no numbers, the first in the file."""
WRITTEN = Path(__file__).with_name("published_verdicts.json")


def test_published_verdicts_are_those_that_are_written_down():
    columns, *written = json.loads(WRITTEN.read_text(encoding="utf-8"))
    names, numbers = columns[:WORDS], columns[WORDS:]
    judged = cached_rows("published", None)
    assert [[row[name] for name in names] for row in judged] == [row[:WORDS] for row in written]
    for row, expected in zip(judged, written, strict=True):
        values = [math.nan if row[name] is None else row[name] for name in numbers]
        before = [math.nan if value is None else value for value in expected[WORDS:]]
        assert values == pytest.approx(before, rel=1e-9, abs=1e-9, nan_ok=True), expected[:3]
