"""Figures and charts that a cell has drawn: images, alt text, caption, data, how to cite."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from steadydescent import verified
from steadydescent.files import DamagedFile
from steadydescent.study.book.sphinx.elements import (
    download,
    findings_of,
    joined,
    link_to,
    link_to_result,
    note_anchor,
    permanent_link,
    stressed,
    warn,
)
from steadydescent.study.book.sphinx.lookup import FindingsError, full_result_id

CHART = (
    '<div class="vegachart" id="chart-{name}" role="group" aria-label="{alt}">'
    '<script type="application/json">{spec}</script><div class="vegachart-view"></div>'
    "<noscript>This chart needs JavaScript; its data are linked below.</noscript></div>"
)


class GeneratedFigure(SphinxDirective):
    """What a static figure and a chart share; `folder` and `noun` say which it is."""

    required_arguments = 1
    folder: str
    noun: str

    def run(self):
        name = self.arguments[0]
        side = Path(self.env.srcdir) / self.config.steady_generated / self.folder / f"{name}.json"
        if not side.exists():
            warn(
                self.get_location(),
                f"no {self.noun} {name!r}; a cell above must draw it ({side})",
                "figure",
            )
            return []
        self.env.note_dependency(str(side))
        try:
            item = verified.read_sealed(side)
        except DamagedFile as error:
            warn(self.get_location(), f"{self.noun} {name!r}: {error}", "figure")
            return []
        for part in ("alt", "caption"):
            if not item.get(part, "").strip():
                warn(self.get_location(), f"{self.noun} {name!r} has no {part} text", "figure")
        figure = nodes.figure(
            "", self.picture(name, item), classes=["datafig"], names=[f"fig-{name}"]
        )
        figure += nodes.caption(item["caption"], "", *stressed(item["caption"]))
        figure += nodes.legend("", self._links(name, item))
        self.set_source_info(figure)
        self.state.document.note_explicit_target(figure, figure)
        note_anchor(self.env, "figure", name, f"fig-{name}", name, self.get_location())
        return [figure]

    def picture(self, name: str, item: dict) -> nodes.Node:
        """The picture itself."""
        raise NotImplementedError

    def _links(self, name: str, item: dict) -> nodes.paragraph:
        line = nodes.paragraph(classes=["figure-links"])
        parts: list = []
        if item.get("data"):
            parts.append(download(item["data"], "Data"))
        try:
            parts += self._how_to_cite(item.get("results", []))
        except FindingsError as error:
            warn(self.get_location(), f"{self.noun} {name!r}: {error}", "figure")
        parts.append(permanent_link(self.env, "figure", name, "Permanent link"))
        line += joined(parts, " · ")
        return line

    def _how_to_cite(self, results: list[str]) -> list[nodes.Node]:
        if not results:
            return [link_to(self.env, "cite-book", "How to cite")]
        names = [full_result_id(findings_of(self.env), result) for result in results]
        if len(names) == 1:
            return [link_to_result(self.env, names[0], "How to cite")]
        links = [
            link_to_result(self.env, name, name.partition("@")[0].rpartition("/")[2])
            for name in names
        ]
        return [nodes.inline("", "", nodes.Text("How to cite: "), *joined(links))]


class DataFigure(GeneratedFigure):
    """```{datafig} name```: drawn by `steadydescent.study.book.figures.figure`, in both inks."""

    folder, noun = "figures", "figure"

    def picture(self, name: str, item: dict) -> nodes.Node:
        # A box of their own: the theme hides any figcaption that is a sibling of .only-dark
        pair = nodes.container(classes=["datafig-pair"])
        for mode in ("light", "dark"):
            uri = f"/{self.config.steady_generated}/figures/{name}-{mode}.svg"
            pair += nodes.image(uri=uri, alt=item["alt"], classes=[f"only-{mode}"])
        return pair


class VegaChart(GeneratedFigure):
    """```{vegachart} name```: saved by `steadydescent.study.book.figures.chart`, run by Vega."""

    folder, noun = "charts", "chart"

    def picture(self, name: str, item: dict) -> nodes.Node:
        self.env.metadata[self.env.docname]["steady_charts"] = True
        spec = json.dumps(item["spec"], ensure_ascii=False).replace("<", "\\u003c")
        html = CHART.format(name=escape(name), alt=escape(item["alt"]), spec=spec)
        return nodes.raw("", html, format="html")
