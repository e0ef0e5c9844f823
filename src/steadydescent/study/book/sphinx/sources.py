"""Links from a claim to who makes it, that is to the entry in the bibliography."""

from __future__ import annotations

from typing import Any, cast

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

from steadydescent.study.book.sphinx.elements import warn


class source_reference(nodes.Inline, nodes.TextElement):
    """A source's key, to be linked once the bibliography is known."""


def source_keys(text: str) -> list[str]:
    """Keys in ``viblo-ema, zh-ema``."""
    return [key.strip() for key in text.split(",") if key.strip()]


def source_links(text: str, docname: str) -> list[nodes.Node]:
    """One node for each source key."""
    return [source_reference("", key, key=key, refdoc=docname) for key in source_keys(text)]


class ResolveSources(SphinxPostTransform):
    """Link each key to its bibliography entry; without sphinxcontrib-bibtex the key stays plain
    text.
    """

    default_priority = 5

    def run(self, **_):
        places = self._places()
        for node in list(self.document.findall(source_reference)):
            key, text = node["key"], nodes.Text(node["key"])
            if places is None:
                node.replace_self(nodes.inline("", "", text, classes=["source"]))
                continue
            if key not in places:
                warn(node, f"source {key!r} is not in the bibliography", "source")
                node.replace_self(nodes.inline("", "", text, classes=["source"]))
                continue
            page, anchor = places[key]
            uri = self.app.builder.get_relative_uri(node["refdoc"], page) + "#" + anchor
            node.replace_self(
                nodes.reference("", "", text, internal=True, refuri=uri, classes=["source"])
            )

    def _places(self) -> dict[str, tuple[str, str]] | None:
        domain = self.env.domains.get("cite")
        if domain is None:
            return None
        citations = cast(Any, domain).citations
        return {item.key: (item.bibliography_key.docname, item.citation_id) for item in citations}
