"""Sphinx extension of the book: numbers, verdicts, alt texts and captions come from data.

Roles: ``result``, ``verdict``, ``where``. Directives: ``claim``, ``headlines``, ``verdicts``,
``holds``, ``advice``, ``origin``, ``datafig``, ``vegachart``, ``howtocite``, ``slips``. Whatever
the text refers to and the data do not hold is a warning; the book is built with ``-W``.
"""

from __future__ import annotations

import os
from pathlib import Path

from sphinx.errors import ExtensionError

from steadydescent.study.book.build import prepare_in_place
from steadydescent.study.book.jupyter_book_command import BUILDER
from steadydescent.study.book.sphinx.advice import Advice, advice_answers
from steadydescent.study.book.sphinx.cite import HowToCite
from steadydescent.study.book.sphinx.claims import ClaimBox, HoldsWhile, VerdictTable
from steadydescent.study.book.sphinx.elements import anchors_of, findings_of, warn
from steadydescent.study.book.sphinx.figures import DataFigure, VegaChart
from steadydescent.study.book.sphinx.headlines import Headlines
from steadydescent.study.book.sphinx.origin import Origin
from steadydescent.study.book.sphinx.outputs import CellOutputs
from steadydescent.study.book.sphinx.pages import (
    escape_metatags,
    load_charts,
    protect_pages,
    write_permalinks,
)
from steadydescent.study.book.sphinx.roles import ResultRole, VerdictRole, WhereRole
from steadydescent.study.book.sphinx.slips import Slips
from steadydescent.study.book.sphinx.sources import ResolveSources, source_reference
from steadydescent.study.paths import ROOT

DIRECTIVES = {
    "claim": ClaimBox,
    "headlines": Headlines,
    "verdicts": VerdictTable,
    "holds": HoldsWhile,
    "advice": Advice,
    "origin": Origin,
    "datafig": DataFigure,
    "vegachart": VegaChart,
    "howtocite": HowToCite,
    "slips": Slips,
}


def _prepared(app) -> None:
    """See to it that what pages refer to is there.

    `steady book` has prepared it; `jupyter-book build` alone, in the study's folder, does so here.
    """
    if BUILDER not in os.environ and Path(app.srcdir).resolve() == ROOT.resolve():
        app.steady_lock = prepare_in_place()  # held until this process ends
    path = Path(app.srcdir) / app.config.steady_findings
    if not path.is_file():
        raise ExtensionError(f"{path} is missing; `make book` writes it and then builds the book")


def _configure(app, config) -> None:
    """Take the site's address from ``html: baseurl`` of _config.yml; let pages run side by side."""
    if "ogp_site_url" in config and not config.ogp_site_url:
        config.ogp_site_url = config.html_baseurl
    app.parallel = max(app.parallel, config.steady_jobs)  # jupyter-book has no option for it
    # It works only on the finished environment, but does not say so; without this the build is
    # not parallel.
    numbering = app.extensions.get("sphinx_multitoc_numbering")
    if numbering is not None:
        numbering.parallel_read_safe = True


def _purge(app, env, docname) -> None:
    places = anchors_of(env)
    for key in [key for key, place in places.items() if place[0] == docname]:
        del places[key]


def _merge(app, env, docnames, other) -> None:
    places = anchors_of(env)
    for (kind, name), place in anchors_of(other).items():
        if place[0] not in docnames:
            continue
        if (kind, name) in places:  # pages read side by side do not see each other's claims
            warn(
                place[0],
                f"{kind} {name!r} stands twice in the book, first on {places[kind, name][0]}",
                kind,
            )
        places[kind, name] = place


def _every_claim_on_a_page(app, env) -> None:
    stated = {name for kind, name in anchors_of(env) if kind == "claim"}
    for name in findings_of(env)["claims"]:
        if name not in stated:
            warn(None, f"claim {name!r} is on no page", "claim")


def setup(app) -> dict:
    """Register the roles, directives and page passes with Sphinx."""
    app.add_config_value("steady_findings", "generated/findings.json", "env")
    app.add_config_value("steady_generated", "generated", "env")
    app.add_config_value("steady_csp", True, "html")
    app.add_config_value("steady_jobs", 1, "")
    app.add_role("result", ResultRole())
    app.add_role("verdict", VerdictRole())
    app.add_role("where", WhereRole())
    for name, directive in DIRECTIVES.items():
        app.add_directive(name, directive)
    app.add_node(source_reference)
    app.add_post_transform(ResolveSources)
    app.add_post_transform(CellOutputs)
    app.connect("config-inited", _configure)
    app.connect("builder-inited", _prepared)
    app.connect("env-purge-doc", _purge)
    app.connect("env-merge-info", _merge)
    app.connect("doctree-read", advice_answers)
    app.connect("env-check-consistency", _every_claim_on_a_page)
    app.connect("html-page-context", load_charts)
    app.connect("html-page-context", escape_metatags, priority=900)
    app.connect("build-finished", write_permalinks, priority=800)
    app.connect("build-finished", protect_pages, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
