"""Figures and charts of the book, saved with alt text, caption and data.

A cell of a page calls `figure` or `chart`; the directives ``{datafig}`` and ``{vegachart}`` place
the outcome. Alt text and caption are f-strings over the same table that is drawn, so they cannot
say something else than the picture.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from steadydescent import verified
from steadydescent.files import write_atomically
from steadydescent.study.paths import GENERATED, ROOT

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Ink and grid of each colour scheme, and line colours with at least 4.5:1 contrast to the page;
# charts.js has the same
INK = {"light": ("#1c2430", "#d9dee5"), "dark": ("#e4e8ee", "#414a57")}
COLOURS = {
    "light": ("#0b62a4", "#b8430a", "#0a7558", "#96398a", "#7a6100", "#57616d"),
    "dark": ("#6cb6ff", "#ff9d66", "#5fd3a6", "#e39bd3", "#e2c45a", "#aab4c0"),
}
FONTS = ["Inter", "Segoe UI", "Helvetica Neue", "Liberation Sans", "Arial", "DejaVu Sans"]


def style(mode: str) -> dict[str, Any]:
    """Settings of matplotlib for ``light`` or ``dark``: quiet axes on a clear ground."""
    from cycler import cycler

    ink, grid = INK[mode]
    return {
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "savefig.transparent": True,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.titlecolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "axes.edgecolor": grid,
        "grid.color": grid,
        "legend.labelcolor": ink,
        "legend.frameon": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.linewidth": 0.7,
        "axes.linewidth": 0.9,
        "lines.linewidth": 1.8,
        "lines.markersize": 5.5,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "font.size": 10.5,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.labelsize": 10.5,
        "font.family": ["sans-serif", "DejaVu Sans"],
        "font.sans-serif": FONTS,
        "axes.unicode_minus": True,
        "axes.prop_cycle": cycler(color=COLOURS[mode]),
        "figure.constrained_layout.use": True,
        "svg.fonttype": "path",
        "svg.hashsalt": "steady-descent",
    }


def more_lines(ax: Axes) -> None:
    """Lines after the sixth are dashed and start again with the first colour."""
    from cycler import cycler
    from matplotlib import rcParams

    ax.set_prop_cycle(cycler(linestyle=["-", "--"]) * rcParams["axes.prop_cycle"])


@contextmanager
def theme(mode: str) -> Iterator[None]:
    """Everything drawn inside has the ink of ``mode``; then earlier settings come back."""
    import logging

    import matplotlib

    # A font of the list that this machine lacks is no news: the next one is taken.
    # Signs that a font lacks come from DejaVu, which matplotlib brings.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with matplotlib.rc_context(cast(Any, style(mode))):
        yield


def figure(
    name: str,
    draw: Callable[[Any], object],
    *,
    alt: str,
    caption: str,
    data: pd.DataFrame,
    results: Sequence[str] = (),
    size: tuple[float, float] = (6.8, 3.8),
    **subplots: Any,
) -> None:
    """Draw a figure twice, in light and in dark ink, and save both with the text and the data.

    Args:
        name: lower-case letters, digits and hyphens; its place in the book is ``fig-<name>``.
        draw: takes what ``Figure.subplots`` returns: one axes, or an array of them.
        alt: what the picture shows, for those who do not see it.
        caption: text; ``*stars*`` stress.
        data: the rows that are drawn; they are offered as CSV below the figure.
        results: result ids that the rows come from, with or without their content hash.
        size: width and height in inches.
        subplots: passed to ``Figure.subplots``: ``nrows``, ``ncols``, ``sharey``, ...

    Raises:
        ValueError: if the name does not fit an address, or a text is empty.
    """
    from matplotlib.figure import Figure

    folder = _save_text(
        "figures", name, {"alt": alt, "caption": caption, "results": list(results)}, data
    )
    for mode in INK:
        with theme(mode):
            canvas = Figure(figsize=size)  # not pyplot's: nothing to close, no backend to choose
            draw(canvas.subplots(**subplots))
            _without_formulas(canvas)
            canvas.savefig(folder / f"{name}-{mode}.svg", format="svg", metadata={"Date": None})


def _without_formulas(canvas: Figure) -> None:
    """Draw names as they are, dollar signs too; numbers at ticks stay formulas."""
    from matplotlib.text import Text

    for ax in canvas.axes:
        for axis in (ax.xaxis, ax.yaxis):
            axis.get_ticklabels(which="both")  # brings their texts up to date
    for text in canvas.findobj(Text):
        if r"\mathdefault" not in text.get_text():
            text.set_parse_math("$" not in text.get_text())


def chart(
    name: str, spec: Any, *, alt: str, caption: str, data: pd.DataFrame, results: Sequence[str] = ()
) -> None:
    """Save an Altair chart for the page's own copy of Vega; arguments as for `figure`.

    Args:
        spec: an Altair chart, or anything else whose ``to_dict`` gives a Vega-Lite specification.
    """
    text = {"alt": alt, "caption": caption, "results": list(results), "spec": spec.to_dict()}
    _save_text("charts", name, text, data)


def _save_text(kind: str, name: str, text: dict[str, Any], data: pd.DataFrame) -> Path:
    """Write ``<name>.json`` and ``<name>.csv``; returns the folder."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"figure name must be lower-case words joined by hyphens, got {name!r}")
    for part in ("alt", "caption"):
        if not text[part].strip():
            raise ValueError(f"figure {name!r} needs a text for {part!r}, got {text[part]!r}")
    folder = GENERATED / kind
    folder.mkdir(parents=True, exist_ok=True)
    data.to_csv(folder / f"{name}.csv", index=False)
    text["data"] = (folder / f"{name}.csv").relative_to(ROOT).as_posix()
    write_atomically(folder / f"{name}.json", verified.sealed(text))
    return folder
