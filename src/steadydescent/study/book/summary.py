"""All verdicts at a glance, outside the book: a table, a picture and its data in `results/`.

`make publish` writes them, README shows the picture. They hold what is published and nothing else.
"""

import hashlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from steadydescent.files import write_atomically
from steadydescent.study.book import edition_changes
from steadydescent.study.book.figures import INK, theme
from steadydescent.study.book.words import verdict_table
from steadydescent.study.judging.rows import in_margins
from steadydescent.study.paths import PUBLISHED
from steadydescent.study.results import published

TABLE, DATA, CHANGES = "README.md", "verdicts.csv", "CHANGES.md"
LOOKS = {"supported": ("C0", "o"), "supported, size open": ("C0", "^")}
LOOKS |= {"too small to matter": ("C2", "s"), "open": ("C5", "D")}
LOOKS |= {"refuted, size open": ("C1", "v"), "refuted": ("C1", "X")}
"""Verdict → colour and marker; who cannot tell the colours apart has the markers."""
CHANGED = """# Both editions, claim by claim

Written by `make publish`. Left the word of the first edition and how many of its rows said what,
then the sentence of this one. For all claims: new seeds, one registered question a claim, direction
and size kept apart, and open rows that no longer make a claim mixed. What changed besides stands on
the right.

"""
SAID_OF_A_ROW = ("task", "condition", "primary", "verdict", "direction", "size")
COLUMNS = ("claim", "title", *SAID_OF_A_ROW, "estimate", "low", "high")
TICKS = (-100, -10, -1, 0, 1, 10, 100)
BAND = 0.7
"""Share of a claim's line over which its rows are spread."""
INTRODUCTION = """# What was found

Written by `make publish` from `published/`; `make claims` prints every row.

<picture>
  <source media="(prefers-color-scheme: dark)" srcset="verdicts-dark.svg">
  <img src="verdicts-light.svg"
       alt="Every claim with the estimates and intervals of its primary rows, in margins">
</picture>

Each primary row of a claim is a point with its interval, in units of the margin that was fixed
before the run: beyond one, or minus one, a difference is large enough to care about.
[`verdicts.csv`](verdicts.csv) holds these rows and the secondary ones. What arithmetic decides has
no interval and stands in the table alone.

A claim's line is made from its primary rows: one registered question on stated tasks, whose
intervals hold together with 95 %. Secondary rows have plain 95 % intervals and make no line.
*Size open*: which side of zero is known, whether it matters is not. *Not run*: the published
profile leaves the row out. The book's chapter on method says more.

"""


def summary(claims: dict[str, Any]) -> pd.DataFrame:
    """A line for each row that has an interval, in the order of the claims.

    Columns claim, title, `SAID_OF_A_ROW`, and estimate, low and high in margins.
    """
    rows = [
        {
            "claim": name,
            "title": claim["title"],
            **{column: row[column] for column in SAID_OF_A_ROW},
            "estimate": in_margins(row["estimate"], row["null"], row["margin"]),
            "low": in_margins(row["ci_low"], row["null"], row["margin"]),
            "high": in_margins(row["ci_high"], row["null"], row["margin"]),
        }
        for name, claim in claims.items()
        for row in claim["rows"]
        if row["ci_low"] is not None
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def draw(rows: pd.DataFrame, ax: Any) -> None:
    """One line a claim from the top down, its primary rows spread over it; the margin is shaded."""
    rows = rows[rows.primary.astype(bool)]
    titles = list(dict.fromkeys(rows.title))
    ax.axvspan(-1, 1, color="0.5", alpha=0.18, linewidth=0)
    ax.axvline(0, color="0.5", linewidth=0.8)
    for place, row in zip(_places(rows), rows.itertuples(), strict=True):
        colour, marker = LOOKS[row.verdict]
        ax.plot([row.low, row.high], [place, place], color=colour, linewidth=0.9, alpha=0.75)
        ax.plot([row.estimate], [place], marker, color=colour, markersize=3.2, markeredgewidth=0)
    for verdict, (colour, marker) in LOOKS.items():
        if verdict in set(rows.verdict):
            ax.plot([], [], marker, color=colour, markersize=5, markeredgewidth=0, label=verdict)
    ax.set(yticks=range(len(titles)), yticklabels=titles, ylim=(len(titles) - 0.4, -0.6))
    ax.set_xscale("symlog", linthresh=1, linscale=0.7)
    ax.set_xticks(TICKS, [f"{tick:g}".replace("-", "−") for tick in TICKS])
    ax.set_xlabel("against the claim  ←  estimate and interval, in margins  →  for it")
    ax.tick_params(axis="y", labelsize="small")
    ax.grid(axis="y", visible=False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, fontsize="small")


def _places(rows: pd.DataFrame) -> Iterator[float]:
    """Where each row lies from the top down: claims at whole numbers, their rows around them."""
    for line, (_, group) in enumerate(rows.groupby("claim", sort=False)):
        for number in range(len(group)):
            yield line + BAND * ((number + 0.5) / len(group) - 0.5)


def texts(claims: dict[str, Any], root: Path = PUBLISHED) -> dict[str, str]:
    """The table, the data and, where there was a first edition, what changed, by name of file."""
    data = summary(claims).to_csv(index=False, float_format="%.5g")
    written = {TABLE: INTRODUCTION + verdict_table(claims) + "\n", DATA: data}
    if published.published(edition_changes.FIRST, root):
        written[CHANGES] = CHANGED + edition_changes.markdown(claims) + "\n"
    return written


def digest(data: str) -> str:
    """What a picture says of the data that it was drawn from."""
    return f"drawn from {DATA} with SHA-256 {hashlib.sha256(data.encode()).hexdigest()}"


def write_summary(claims: dict[str, Any], folder: Path) -> None:
    """Write the table, the data, and the picture in light and in dark ink."""
    written = texts(claims, folder / PUBLISHED.name)
    for name, text in written.items():
        write_atomically(folder / name, text.encode())
    rows = summary(claims)
    for mode in INK if rows.primary.any() else ():
        write_atomically(folder / f"verdicts-{mode}.svg", picture(rows, mode, written[DATA]))


def picture(rows: pd.DataFrame, mode: str, data: str) -> bytes:
    """The drawing as SVG, which says what it is and which data it was drawn from."""
    from matplotlib.figure import Figure

    height = 1.5 + 0.205 * rows[rows.primary.astype(bool)].title.nunique()
    notes = {"Date": None, "Title": "Verdicts of all claims", "Description": digest(data)}
    with theme(mode):
        canvas = Figure(figsize=(9.2, height))
        draw(rows, canvas.subplots())
        file = BytesIO()
        canvas.savefig(file, format="svg", metadata=notes)
    return file.getvalue()
