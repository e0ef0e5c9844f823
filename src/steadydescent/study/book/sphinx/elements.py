"""Small builders of document nodes, shared by the roles and directives of the book."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeAlias, cast

from docutils import nodes
from sphinx import addnodes
from sphinx.domains.std import StandardDomain
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from steadydescent.study.book.sphinx.lookup import full_result_id, load

LOG = logging.getLogger(__name__)
Inline: TypeAlias = nodes.Node | str
Content: TypeAlias = Inline | list[Inline]


def slug(text: str) -> str:
    """Part of an address, of letters, digits and hyphens: ``averaging-mnist1d-mlp-3f9c2a7e``."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def warn(where, message: str, kind: str) -> None:
    """Warn in the reader's terms; the book is built with warnings as errors."""
    LOG.warning(message, location=where, type="steady", subtype=kind)


def findings_of(env: BuildEnvironment) -> dict:
    """The findings of this build; the page being read is rebuilt when they change."""
    path = Path(env.srcdir) / env.config.steady_findings
    if "docname" in env.temp_data:
        env.note_dependency(str(path))
    return load(path)


def anchors_of(env: BuildEnvironment) -> dict:
    """Permanent places in the book: (kind, name) to (page, anchor, title)."""
    # Sphinx pickles what an extension hangs on its environment
    own = cast(Any, env)
    if not hasattr(own, "steady_anchors"):
        own.steady_anchors = {}
    return own.steady_anchors


def note_anchor(
    env: BuildEnvironment, kind: str, name: str, anchor: str, title: str, where
) -> None:
    """Give a place its permanent address; a second place of the same name is a warning."""
    places = anchors_of(env)
    if (kind, name) in places:
        warn(
            where,
            f"{kind} {name!r} stands twice in the book, first on {places[kind, name][0]}",
            kind,
        )
    places[kind, name] = (env.docname, anchor, title)


def note_target(env: BuildEnvironment, anchor: str, title: str) -> None:
    """Let ``{ref}`` and `link_to` find an anchor that no heading or figure has declared."""
    cast(StandardDomain, env.get_domain("std")).note_hyperlink_target(
        anchor, env.docname, anchor, title
    )


def badge(verdict: str) -> nodes.inline:
    """Verdict as a coloured word."""
    return nodes.inline("", verdict.capitalize(), classes=["verdict", "verdict-" + slug(verdict)])


def link_to(env: BuildEnvironment, anchor: str, text: str) -> addnodes.pending_xref:
    """Link to an anchor on any page; an anchor that does not exist is a warning."""
    link = addnodes.pending_xref(
        "",
        refdomain="std",
        reftype="ref",
        reftarget=anchor,
        refexplicit=True,
        refwarn=True,
        refdoc=env.docname,
    )
    link += nodes.inline("", text)
    return link


def link_to_result(env: BuildEnvironment, result: str, text: str) -> addnodes.pending_xref:
    """Link to the place that says how to cite a result and where its rows are."""
    return link_to(env, "cite-" + slug(full_result_id(findings_of(env), result)), text)


def download(path: str, text: str) -> addnodes.download_reference:
    """Link to a copy of a file of the repository; ``path`` is relative to its root."""
    link = addnodes.download_reference(
        "", "", reftarget="/" + path.lstrip("/"), classes=["download"]
    )
    link += nodes.inline("", text)
    return link


def permanent_link(env: BuildEnvironment, kind: str, name: str, text: str) -> nodes.reference:
    """Link to the small page that keeps leading here when the text moves."""
    up = "../" * env.docname.count("/")
    return nodes.reference("", text, internal=True, refuri=f"{up}{kind}s/{slug(name)}.html")


def joined(parts: list, separator: str = ", ") -> list[nodes.Node]:
    """Inline nodes and texts with a separator between them."""
    out: list[nodes.Node] = []
    for part in parts:
        if out:
            out.append(nodes.Text(separator))
        out.append(nodes.Text(part) if isinstance(part, str) else part)
    return out


def stressed(text: str) -> list[nodes.Node]:
    """A caption: text in which ``*stars*`` stress and nothing else means anything.

    Names in it come from files.
    """
    parts = re.split(r"\*(?=\S)([^*]+)(?<=\S)\*", text)  # plain and stressed in turn
    return [
        nodes.emphasis("", part) if place % 2 else nodes.Text(part)
        for place, part in enumerate(parts)
        if part
    ]


def entry(cell: Content, **attributes) -> nodes.entry:
    """Cell of a table around text, one inline node or several."""
    content = cell if isinstance(cell, list) else [cell]
    paragraph = nodes.paragraph()
    paragraph += [nodes.Text(part) if isinstance(part, str) else part for part in content]
    return nodes.entry("", paragraph, **attributes)


def row_of(cells: list, classes: list[str] | None = None) -> nodes.row:
    """Row of a table; a cell that already is an entry stays as it is."""
    return nodes.row(
        "", *(c if isinstance(c, nodes.entry) else entry(c) for c in cells), classes=classes or []
    )


def table(header: list[str], rows: list[nodes.row], classes: list[str]) -> nodes.table:
    """Table with a header row; its columns take the width that they need."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in header), cols=len(header))
    group += nodes.thead("", row_of(list(header)))
    group += nodes.tbody("", *rows)
    return nodes.table("", group, classes=["steady-table", "colwidths-auto", *classes])
