"""The banner that says whose numbers a page shows."""

from __future__ import annotations

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from steadydescent.study.book.sphinx.elements import findings_of, warn

SMOKE = (
    "This is a smoke run: it shows that everything works from end to end, "
    "with too few seeds and too short a search to support any claim."
)
WHOSE = {
    "published": "Published results, shipped with the repository.",
    "reproduced": "Your results, reproduced on this machine.",
}


def facts(origin: dict) -> list[str]:
    """What is known of the run, in words; what is not known is left out."""
    minutes = origin.get("minutes")
    parts = [
        f"Profile {origin['profile']}" if origin.get("profile") else None,
        f"{origin['networks']:,} networks" if origin.get("networks") is not None else None,
        f"{origin['points']:,} points on surfaces" if origin.get("points") else None,
        origin.get("device"),
        None
        if minutes is None
        else f"{minutes:.1f} minutes"
        if minutes < 10
        else f"{minutes:,.0f} minutes",
        origin.get("date"),
        f"commit {origin['commit'][:12]}" if origin.get("commit") else None,
    ]
    return [part for part in parts if part]


class Origin(SphinxDirective):
    """```{origin}```: published or one's own, profile, networks, machine, minutes, commit."""

    def run(self):
        origin = findings_of(self.env)["origin"]
        source = origin.get("source")
        if source not in WHOSE:
            warn(
                self.get_location(),
                f"origin.source is {source!r}; allowed are {', '.join(WHOSE)}",
                "origin",
            )
            return []
        line = nodes.paragraph("", "", nodes.strong("", WHOSE[source]), nodes.Text(" "))
        line += nodes.Text(" · ".join(facts(origin)))
        if origin.get("command"):
            line += [nodes.Text(" · "), nodes.literal("", origin["command"])]
        box = nodes.container("", line, classes=["origin", f"origin-{source}"])
        if origin.get("profile") == "smoke":
            box["classes"].append("origin-smoke")
            box += nodes.paragraph("", SMOKE)
        return [box]
