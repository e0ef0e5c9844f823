"""What the cells of the book's pages show: tables and sentences in which text is text.

Names, notes and numbers of a page come from files that somebody may have changed. Here every one is
escaped, so that none can become markup, a link or a script. The build refuses what a cell shows in
any other way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

TAGS = (
    *("table", "thead", "tbody", "tr", "th", "td", "caption"),
    *("p", "ul", "li", "strong", "em", "code"),
)
"""All that the HTML of a cell is made of; none of them has an attribute."""

LONGEST_LINE = 24
"""Characters of a table's cell that stay on one line."""


class Shown(NamedTuple):
    """Something that a cell shows: as HTML, and as plain text where there is no HTML."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


class Marked(NamedTuple):
    """A part of a sentence with a tag."""

    tag: str
    text: str


Part = str | Marked


def strong(text: str) -> Marked:
    """Text of weight."""
    return Marked("strong", text)


def emphasis(text: str) -> Marked:
    """Stressed text."""
    return Marked("em", text)


def code(text: str) -> Marked:
    """A command or a name in code."""
    return Marked("code", text)


def paragraph(*parts: Part) -> Shown:
    """Sentences; a part without a tag is plain text.

    >>> paragraph("Run ", code("make"), ", not <b>.").html
    '<p>Run <code>make</code>, not &lt;b&gt;.</p>'
    """
    return Shown(_element("p", _inline(parts)), _plain(parts))


def bullets(items: Iterable[Iterable[Part]]) -> Shown:
    """A list, an item a line."""
    lines = [tuple(item) for item in items]
    html = _element("ul", "".join(_element("li", _inline(line)) for line in lines))
    return Shown(html, "\n".join(f"- {_plain(line)}" for line in lines))


def table(
    frame: pd.DataFrame,
    *,
    precision: int = 2,
    formats: Mapping[str, str] | None = None,
    thousands: str = "",
    missing: str = "–",
    caption: str = "",
) -> Shown:
    """The columns of a table without its index; `NOT_RUN` where it has no rows.

    Args:
        frame: what is shown; floats in fixed point, whole numbers and text as they are.
        precision: digits behind the point.
        formats: column → format of its numbers, ``"{:+.2f}"``, in place of `precision`.
        thousands: what stands between groups of three digits.
        missing: what stands where there is no value.
        caption: a sentence above the table.

    >>> import pandas as pd
    >>> table(pd.DataFrame({"rate": [0.125], "<b>": ["a & b"]})).text
    'rate  <b>\\n0.12  a & b'
    """
    if not len(frame):
        return NOT_RUN
    wanted = dict(formats or {})
    if unknown := set(wanted) - {str(name) for name in frame.columns}:
        raise ValueError(f"no column {sorted(unknown)} to format; there are {list(frame.columns)}")
    head = [str(name) for name in frame.columns]

    def cell(name: str, value: Any) -> str:
        return _cell_text(value, wanted.get(name, ""), precision, thousands, missing)

    body = [
        [cell(name, value) for name, value in zip(head, row, strict=True)]
        for row in frame.itertuples(index=False, name=None)
    ]
    top = _element("caption", escape(caption)) if caption else ""
    top += _element("thead", _row("th", head))
    html = _element("table", top + _element("tbody", "".join(_row("td", row) for row in body)))
    return Shown(html, "\n".join("  ".join(row) for row in [head, *body]))


def _cell_text(value: Any, wanted: str, precision: int, thousands: str, missing: str) -> str:
    """A cell in words."""
    import numpy as np
    import pandas as pd

    if value is None or value is pd.NA or value != value:
        return missing
    if isinstance(value, str | bool | np.bool_):
        return str(value)
    if wanted:
        return wanted.format(value)
    if isinstance(value, int | np.integer):
        return f"{value:,}".replace(",", thousands)
    if isinstance(value, float | np.floating):
        return f"{value:,.{precision}f}".replace(",", thousands)
    return str(value)


def _element(tag: str, inside: str) -> str:
    return f"<{tag}>{inside}</{tag}>"


def _row(tag: str, cells: Iterable[str]) -> str:
    return _element("tr", "".join(_element(tag, _cell(cell)) for cell in cells))


def _cell(text: str) -> str:
    """A cell's text; a long one is a paragraph, whose lines the page may break."""
    return _element("p", escape(text)) if len(text) > LONGEST_LINE else escape(text)


def _inline(parts: Iterable[Part]) -> str:
    return "".join(
        _element(part.tag, escape(part.text)) if isinstance(part, Marked) else escape(part)
        for part in parts
    )


def _plain(parts: Iterable[Part]) -> str:
    return "".join(part.text if isinstance(part, Marked) else part for part in parts)


NOT_RUN = paragraph("Not run in this profile.")
"""In place of what needs results that this profile did not make."""
