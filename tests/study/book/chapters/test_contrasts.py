"""The figure of contrasts says what its rows say."""

import pytest

from page_cells import without_drawing
from steadydescent.study.book import figures
from steadydescent.study.book.chapters.contrasts import HIDDEN, Look, draw_contrasts

ROW = {
    "id": "a",
    "unit": "pp",
    "estimate": 1.0,
    "ci_low": 0.5,
    "ci_high": 1.5,
    "margin": 0.5,
    "null": 0.0,
    "level": 0.9995,
    "primary": True,
    "measure": "accuracy",
    "verdict": "supported",
    "result": "one",
} | dict.fromkeys(HIDDEN)
ROWS = [
    ROW,
    ROW | {"id": "b", "estimate": -2.0, "verdict": "refuted"},
    ROW | {"id": "c", "unit": "×"},
    ROW | {"id": "exact", "ci_low": None},
]


def test_rows_of_the_unit_that_have_an_interval_are_drawn(monkeypatch):
    saved = {}
    monkeypatch.setattr(figures, "figure", lambda name, draw, **more: saved.update(more))
    look = Look("difference / pp", estimate="+.3g")
    draw_contrasts("contrasts", ROWS, "pp", lambda row: f"row {row['id']}", look)
    assert list(saved["data"].label) == ["row a", "row b"]
    assert set(HIDDEN) & set(saved["data"]) == set()
    assert saved["alt"] == (
        "2 contrasts with intervals, from -2 (row b) to +1 pp (row a). "
        "Verdicts: 1 supported; 1 refuted."
    )
    assert "99.95 % intervals (primary)" in saved["caption"] and saved["results"] == ["one"]


@pytest.mark.parametrize("rows", [[], ROWS[2:]])
def test_without_such_rows_the_figure_says_that_they_were_not_run(monkeypatch, rows):
    drawn = without_drawing(monkeypatch)
    draw_contrasts("contrasts", rows, "pp", lambda row: row["id"], Look("pp"))
    assert drawn.captions == ["These results were not made in this profile."]
