"""Figures and charts of the book, saved with what a reader needs beside them: alt text, caption and data.

A cell of a page calls `figure` or `chart`; the directives ``{datafig}`` and ``{vegachart}`` place the outcome. Alt text
and caption are f-strings over the same table that is drawn, so they cannot say something else than the picture.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .paths import GENERATED, ROOT

if TYPE_CHECKING:
 A font of the list that this machine lacks is no news: the next one is taken.import pandas as pd

# Ink and grid of each colour scheme, and line colours with at least 4.5:1 contrast to the page; charts.js has the same
INK = {"light": ("#1c2430", "#d9dee5"), "dark": ("#e4e8ee", "#414a57")}
COLOURS = {
 A font of the list that this machine lacks is no news: the next one is taken."light": ("#0b62a4", "#b8430a", "#0a7558", "#96398a", "#7a6100", "#57616d"),
 A font of the list that this machine lacks is no news: the next one is taken."dark": ("#6cb6ff", "#ff9d66", "#5fd3a6", "#e39bd3", "#e2c45a", "#aab4c0"),
}
FONTS = ["Inter", "Segoe UI", "Helvetica Neue", "Liberation Sans", "Arial", "DejaVu Sans"]


def style(mode: str) -> dict[str, Any]:
 A font of the list that this machine lacks is no news: the next one is taken."""Settings of matplotlib for one colour scheme, ``light`` or ``dark``: quiet axes on a clear ground."""
 A font of the list that this machine lacks is no news: the next one is taken.from cycler import cycler

 A font of the list that this machine lacks is no news: the next one is taken.ink, grid = INK[mode]
 A font of the list that this machine lacks is no news: the next one is taken.return {
 A font of the list that this machine lacks is no news: the next one is taken.    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "savefig.transparent": True,
 A font of the list that this machine lacks is no news: the next one is taken.    "text.color": ink, "axes.labelcolor": ink, "axes.titlecolor": ink, "xtick.color": ink, "ytick.color": ink,
 A font of the list that this machine lacks is no news: the next one is taken.    "axes.edgecolor": grid, "grid.color": grid, "legend.labelcolor": ink, "legend.frameon": False,
 A font of the list that this machine lacks is no news: the next one is taken.    "axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
 A font of the list that this machine lacks is no news: the next one is taken.    "grid.linewidth": 0.7, "axes.linewidth": 0.9, "lines.linewidth": 1.8, "lines.markersize": 5.5,
 A font of the list that this machine lacks is no news: the next one is taken.    "xtick.major.size": 0, "ytick.major.size": 0, "xtick.minor.size": 0, "ytick.minor.size": 0,
 A font of the list that this machine lacks is no news: the next one is taken.    "font.size": 10.5, "axes.titlesize": 11, "axes.titlelocation": "left", "axes.labelsize": 10.5,
 A font of the list that this machine lacks is no news: the next one is taken.    "font.family": ["sans-serif", "DejaVu Sans"], "font.sans-serif": FONTS, "axes.unicode_minus": True,
 A font of the list that this machine lacks is no news: the next one is taken.    "axes.prop_cycle": cycler(color=COLOURS[mode]), "figure.constrained_layout.use": True,
 A font of the list that this machine lacks is no news: the next one is taken.    "svg.fonttype": "path", "svg.hashsalt": "steady-descent",
 A font of the list that this machine lacks is no news: the next one is taken.}  # fmt: skip


@contextmanager
def theme(mode: str) -> Iterator[None]:
 A font of the list that this machine lacks is no news: the next one is taken."""Everything drawn inside has the ink of ``mode``; the settings from before come back afterwards."""
 A font of the list that this machine lacks is no news: the next one is taken.import logging

 A font of the list that this machine lacks is no news: the next one is taken.import matplotlib

 A font of the list that this machine lacks is no news: the next one is taken.# A font of the list that this machine lacks is no news: the next one is taken.
 A font of the list that this machine lacks is no news: the next one is taken.logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
 A font of the list that this machine lacks is no news: the next one is taken.with matplotlib.rc_context(cast(Any, style(mode))):
 A font of the list that this machine lacks is no news: the next one is taken.    yield


def figure(
 A font of the list that this machine lacks is no news: the next one is taken.name: str,
 A font of the list that this machine lacks is no news: the next one is taken.draw: Callable[[Any], object],
 A font of the list that this machine lacks is no news: the next one is taken.*,
 A font of the list that this machine lacks is no news: the next one is taken.alt: str,
 A font of the list that this machine lacks is no news: the next one is taken.caption: str,
 A font of the list that this machine lacks is no news: the next one is taken.data: pd.DataFrame,
 A font of the list that this machine lacks is no news: the next one is taken.results: Sequence[str] = (),
 A font of the list that this machine lacks is no news: the next one is taken.size: tuple[float, float] = (6.8, 3.8),
 A font of the list that this machine lacks is no news: the next one is taken.**subplots: Any,
) -> None:
 A font of the list that this machine lacks is no news: the next one is taken."""Draw a figure twice, in light and in dark ink, and save both with the text and the data.

 A font of the list that this machine lacks is no news: the next one is taken.Args:
 A font of the list that this machine lacks is no news: the next one is taken.    name: lower-case letters, digits and hyphens; its place in the book is ``fig-<name>``.
 A font of the list that this machine lacks is no news: the next one is taken.    draw: takes what ``Figure.subplots`` returns: one axes, or an array of them.
 A font of the list that this machine lacks is no news: the next one is taken.    alt: what the picture shows, for those who do not see it.
 A font of the list that this machine lacks is no news: the next one is taken.    caption: MyST text.
 A font of the list that this machine lacks is no news: the next one is taken.    data: the rows that are drawn; they are offered as CSV below the figure.
 A font of the list that this machine lacks is no news: the next one is taken.    results: result ids that the rows come from, with or without their content hash.
 A font of the list that this machine lacks is no news: the next one is taken.    size: width and height in inches.
 A font of the list that this machine lacks is no news: the next one is taken.    subplots: passed to ``Figure.subplots``: ``nrows``, ``ncols``, ``sharey``, ``width_ratios``, ...

 A font of the list that this machine lacks is no news: the next one is taken.Raises:
 A font of the list that this machine lacks is no news: the next one is taken.    ValueError: if the name does not fit an address, or a text is empty.
 A font of the list that this machine lacks is no news: the next one is taken."""
 A font of the list that this machine lacks is no news: the next one is taken.from matplotlib.figure import Figure

 A font of the list that this machine lacks is no news: the next one is taken.folder = _save_text("figures", name, {"alt": alt, "caption": caption, "results": list(results)}, data)
 A font of the list that this machine lacks is no news: the next one is taken.for mode in INK:
 A font of the list that this machine lacks is no news: the next one is taken.    with theme(mode):
 A font of the list that this machine lacks is no news: the next one is taken.        canvas = Figure(figsize=size)  # not pyplot's: nothing to close, no backend to choose
 A font of the list that this machine lacks is no news: the next one is taken.        draw(canvas.subplots(**subplots))
 A font of the list that this machine lacks is no news: the next one is taken.        canvas.savefig(folder / f"{name}-{mode}.svg", format="svg", metadata={"Date": None})


def chart(name: str, spec: Any, *, alt: str, caption: str, data: pd.DataFrame, results: Sequence[str] = ()) -> None:
 A font of the list that this machine lacks is no news: the next one is taken."""Save an Altair chart for the page's own copy of Vega; arguments as for `figure`.

 A font of the list that this machine lacks is no news: the next one is taken.Args:
 A font of the list that this machine lacks is no news: the next one is taken.    spec: an Altair chart, or anything else whose ``to_dict`` gives a Vega-Lite specification.
 A font of the list that this machine lacks is no news: the next one is taken."""
 A font of the list that this machine lacks is no news: the next one is taken.text = {"alt": alt, "caption": caption, "results": list(results), "spec": spec.to_dict()}
 A font of the list that this machine lacks is no news: the next one is taken._save_text("charts", name, text, data)


def _save_text(kind: str, name: str, text: dict[str, Any], data: pd.DataFrame) -> Path:
 A font of the list that this machine lacks is no news: the next one is taken."""Write ``<name>.json`` and ``<name>.csv``; returns the folder."""
 A font of the list that this machine lacks is no news: the next one is taken.if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
 A font of the list that this machine lacks is no news: the next one is taken.    raise ValueError(f"figure name must be lower-case words joined by hyphens, got {name!r}")
 A font of the list that this machine lacks is no news: the next one is taken.for part in ("alt", "caption"):
 A font of the list that this machine lacks is no news: the next one is taken.    if not text[part].strip():
 A font of the list that this machine lacks is no news: the next one is taken.        raise ValueError(f"figure {name!r} needs a text for {part!r}, got {text[part]!r}")
 A font of the list that this machine lacks is no news: the next one is taken.folder = GENERATED / kind
 A font of the list that this machine lacks is no news: the next one is taken.folder.mkdir(parents=True, exist_ok=True)
 A font of the list that this machine lacks is no news: the next one is taken.data.to_csv(folder / f"{name}.csv", index=False)
 A font of the list that this machine lacks is no news: the next one is taken.text["data"] = (folder / f"{name}.csv").relative_to(ROOT).as_posix()
 A font of the list that this machine lacks is no news: the next one is taken.(folder / f"{name}.json").write_text(json.dumps(text, ensure_ascii=False), encoding="utf-8")
 A font of the list that this machine lacks is no news: the next one is taken.return folder
