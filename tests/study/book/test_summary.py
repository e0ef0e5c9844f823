"""All verdicts at a glance: the table, the data and the picture that `make publish` writes."""

import pytest

from steadydescent.study.book import summary
from steadydescent.study.judging.verdicts import VERDICTS
from steadydescent.study.results import published

ROW = {"task": "t", "condition": "c", "verdict": "supported", "null": 0.0, "margin": 0.5}
ROW |= {"primary": True, "direction": "for", "size": "open"}
ROW |= {"estimate": 1.0, "ci_low": 0.25, "ci_high": 1.5}
RATIO = ROW | {"null": 1.0, "margin": 1.25, "estimate": 1.25, "ci_low": 0.8, "ci_high": 1.25**3}
EXACT = ROW | {"ci_low": None, "ci_high": None}


def claim(title: str, *rows: dict) -> dict:
    return {"title": title, "source": "a-source", "headline": "Holds on one.", "rows": list(rows)}


CLAIMS = {
    "one": claim("One", ROW, RATIO),
    "exact": claim("Exact", EXACT),
    "two": claim("Two", ROW | {"verdict": "refuted", "estimate": -1.0}),
}


def test_a_row_with_an_interval_is_a_line_in_margins_and_ratios_go_by_logarithms():
    rows = summary.summary(CLAIMS)
    assert list(rows.columns) == list(summary.COLUMNS)
    assert rows.claim.tolist() == ["one", "one", "two"]
    assert rows.estimate.tolist() == pytest.approx([2, 1, -2])
    assert rows.low.tolist() == pytest.approx([0.5, -1, 0.5])
    assert rows.high.tolist() == pytest.approx([3, 3, 3])


def test_every_row_is_drawn_on_the_line_of_its_claim():
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    rows = summary.summary(CLAIMS)
    summary.draw(rows, ax)
    bars = [line for line in ax.lines if len(line.get_xdata()) == 2]
    drawn = {(*map(float, bar.get_xdata()), round(float(bar.get_ydata()[0]))) for bar in bars}
    assert drawn >= {(0.5, 3.0, 0), (0.5, 3.0, 1)}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["One", "Two"]
    named = [text.get_text() for text in ax.get_legend().get_texts()]
    assert named == ["supported", "refuted"]


def test_every_verdict_with_an_interval_has_a_look_of_its_own():
    assert set(summary.LOOKS) == set(VERDICTS) - {"not run"}
    markers = [marker for _, marker in summary.LOOKS.values()]
    assert len(set(markers)) == len(summary.LOOKS)
    shared = {word.removesuffix(", size open"): look[0] for word, look in summary.LOOKS.items()}
    assert len(set(shared.values())) == len(shared)  # a colour a stance


def test_secondary_rows_are_in_the_data_and_not_in_the_picture():
    from matplotlib.figure import Figure

    beside = ROW | {"primary": False, "verdict": "refuted", "condition": "beside"}
    rows = summary.summary({"one": claim("One", ROW, beside), "two": claim("Two", beside)})
    assert rows.primary.tolist() == [True, False, False]
    ax = Figure().subplots()
    summary.draw(rows, ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["One"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["supported"]


def test_what_is_written_is_the_same_again_and_the_picture_names_its_data(tmp_path):
    for name in ("first", "second"):
        published.write("first_edition.csv", b"id\n", tmp_path / name / "published")
        summary.write_summary(CLAIMS, tmp_path / name)
    first, second = (
        sorted(path for path in (tmp_path / name).iterdir() if path.is_file())
        for name in ("first", "second")
    )
    assert [path.name for path in first] == [
        "CHANGES.md",
        "README.md",
        "verdicts-dark.svg",
        "verdicts-light.svg",
        "verdicts.csv",
    ]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    data = (tmp_path / "first/verdicts.csv").read_text(encoding="utf-8")
    assert all(summary.digest(data) in path.read_text(encoding="utf-8") for path in first[2:4])


def test_without_intervals_there_is_a_table_and_no_picture(tmp_path):
    summary.write_summary({"exact": CLAIMS["exact"]}, tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"README.md", "verdicts.csv"}  # nor was there a first edition
