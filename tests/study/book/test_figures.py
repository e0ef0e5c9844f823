"""Figures are saved in both inks, with text and data, and leave matplotlib as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from steadydescent import verified
from steadydescent.study.book import figures

ROOT = Path(__file__).resolve().parents[3]
DATA = pd.DataFrame({"step": [1, 2, 3], "loss": [0.9, 0.5, 0.4]})
TEXT = {"alt": "A falling line.", "caption": "Loss falls.", "data": DATA}


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "GENERATED", tmp_path / "generated")
    return tmp_path / "generated"


def plot(axes) -> None:
    axes.plot(DATA.step, DATA.loss)


def test_a_figure_is_drawn_in_both_inks_with_its_text_and_data(generated):
    figures.figure("toy-loss", plot, results=["toy/task"], **TEXT)
    light, dark = (
        (generated / f"figures/toy-loss-{mode}.svg").read_text() for mode in ("light", "dark")
    )
    for mode, picture in (("light", light), ("dark", dark)):
        assert figures.COLOURS[mode][0] in picture
        assert figures.INK[mode][0] in picture
    side = verified.read_sealed(generated / "figures/toy-loss.json")
    assert side == {
        "alt": TEXT["alt"],
        "caption": TEXT["caption"],
        "results": ["toy/task"],
        "data": "generated/figures/toy-loss.csv",
    }
    assert pd.read_csv(generated / "figures/toy-loss.csv").equals(DATA)


def test_the_same_figure_gives_the_same_bytes(generated):
    pictures = []
    for _ in range(2):
        figures.figure("toy-loss", plot, **TEXT)
        pictures.append((generated / "figures/toy-loss-light.svg").read_bytes())
    assert pictures[0] == pictures[1]


def test_a_figure_may_have_several_axes(generated):
    shapes = []

    def draw(axes):
        shapes.append(axes.shape)
        for axis in axes.flat:
            plot(axis)

    figures.figure("toy-grid", draw, size=(9, 5), nrows=2, ncols=3, sharex=True, **TEXT)
    assert shapes == [(2, 3), (2, 3)]


def test_a_chart_keeps_its_specification(generated):
    class Chart:
        def to_dict(self):
            return {"mark": "point"}

    figures.chart("toy-chart", Chart(), **TEXT)
    assert verified.read_sealed(generated / "charts/toy-chart.json")["spec"] == {"mark": "point"}


@pytest.mark.parametrize("name", ["Toy", "toy_loss", "toy loss", "", "toy-"])
def test_a_name_that_is_no_address_is_refused(generated, name):
    with pytest.raises(ValueError, match="lower-case words joined by hyphens"):
        figures.figure(name, plot, **TEXT)


@pytest.mark.parametrize("part", ["alt", "caption"])
def test_a_figure_without_words_is_refused(generated, part):
    with pytest.raises(ValueError, match=f"needs a text for '{part}'"):
        figures.figure("toy-loss", plot, **(TEXT | {part: " "}))


def test_settings_come_back_after_drawing():
    before = dict(matplotlib.rcParams)
    with figures.theme("dark"):
        assert matplotlib.rcParams["text.color"] == figures.INK["dark"][0]
    assert dict(matplotlib.rcParams) == before


def test_importing_and_drawing_start_no_pyplot():
    code = (
        "import sys, steadydescent.study.book.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT / "src").returncode == 0
    )


def test_charts_in_the_page_have_the_same_colours():
    script = (ROOT / "web/static/charts.js").read_text(encoding="utf-8")
    for mode in ("light", "dark"):
        for colour in (*figures.INK[mode], *figures.COLOURS[mode]):
            assert f'"{colour}"' in script


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` as WCAG 2 defines it, between 0 and 1."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(("mode", "page"), [("light", "#ffffff"), ("dark", "#12161c")])
def test_line_colours_stand_out_from_the_page(mode, page):
    for colour in figures.COLOURS[mode]:
        darker, lighter = sorted((luminance(colour), luminance(page)))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, colour
