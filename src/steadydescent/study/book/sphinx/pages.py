"""What happens to finished pages: scripts, addresses, accessibility, content-security policy."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape, unescape
from pathlib import Path

from sphinx.errors import ExtensionError

from steadydescent.study.book.sphinx.elements import anchors_of, slug, warn

VEGA = ("vega.min.js", "vega-lite.min.js", "vega-embed.min.js")
# What axe-core 4.14 calls serious in sphinx-book-theme 1.3.0, myst-nb 1.4.0 and docutils 0.21
MENDS = (
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (r'(<button class="btn search-button-field[^>]*?) title="Search" aria-label="Search"', r"\1"),
    (r'(<i class="theme-switch[^>]*?)\s+title="[^"]*"', r"\1"),
    (r'role="doc-biblioentry"', 'role="listitem"'),
    # viewcode puts the list of a package's modules beside its item, not into it
    (r"</li>\n<ul><li>", "</li>\n<li>"),
    (r"</ul><li>", "<li>"),
    (r'(<div id="pst-primary-sidebar" )', r'\1role="region" aria-label="Sidebar" '),
)
OURS = (  # on a phone these scroll sideways, which must work from the keyboard too
    (
        r'<div class="datafig-pair docutils container">',
        '<div class="datafig-pair docutils container" tabindex="0">',
    ),
)
# All inline scripts that run: of Sphinx 7.4.7, pydata-sphinx-theme 0.17.1 and sphinx-book-theme
# 1.3.0
KNOWN_SCRIPTS = (
    r"DOCUMENTATION_OPTIONS\.search_as_you_type = (true|false);",
    r"DOCUMENTATION_OPTIONS\.pagename = '[\w/-]+';",
    r"document\.getElementById\('searchbox'\)\.style\.display = \"block\"",
    re.escape(
        'document.documentElement.dataset.mode = localStorage.getItem("mode") || "auto";\n'
        '    document.documentElement.dataset.theme = localStorage.getItem("theme") || "auto";'
    ),
    re.escape(
        'window.MathJax = {"options": {"processHtmlClass": '
        '"tex2jax_process|mathjax_process|math|output_area"}}'
    ),
    re.escape(
        "// Activate the search field on page load\n"
        '    let searchInput = document.querySelector("form.bd-search input");\n'
        "    if (searchInput) {\n        searchInput.focus();\n        searchInput.select();\n"
        '        console.log("[PST]: Set focus on search field.");\n    }'
    ),
)
SCRIPT = re.compile(r"<script(?P<attributes>[^>]*)>(?P<body>.*?)</script>", re.S | re.I)
MOVED = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="icon" href="data:,"><link rel="canonical" href="{canonical}">
<meta http-equiv="refresh" content="0; url={url}"></head>
<body><main><h1>{title}</h1><p><a href="{url}">Continue to its place in the book</a></p></main>\
</body></html>
"""


def load_charts(app, pagename, templatename, context, doctree) -> None:
    """Load the chart libraries, but only on pages that have a chart."""
    if app.env.metadata.get(pagename, {}).get("steady_charts"):
        for name in VEGA:
            app.add_js_file(f"vendor/vega/{name}", loading_method="defer")
        app.add_js_file("charts.js", loading_method="defer")


def write_permalinks(app, exception) -> None:
    """A small page for every claim, result and figure; its address outlives a move in the book."""
    if exception or app.builder.name != "html":
        return
    for (kind, name), (docname, anchor, title) in anchors_of(app.env).items():
        target = app.builder.get_target_uri(docname) + "#" + anchor
        page = Path(app.outdir) / f"{kind}s" / f"{slug(name)}.html"
        page.parent.mkdir(exist_ok=True)
        canonical = (
            app.config.html_baseurl.rstrip("/") + "/" + target
            if app.config.html_baseurl
            else "../" + target
        )
        text = MOVED.format(
            title=escape(title), url=escape("../" + target), canonical=escape(canonical)
        )
        page.write_text(text, encoding="utf-8")


def escape_metatags(app, pagename, templatename, context, doctree) -> None:
    """Descriptions for those who link to a page are made of its text, and come with no more than
    quotes escaped.
    """
    whole = lambda match: f'content="{escape(unescape(match[1]))}"'
    context["metatags"] = re.sub(r'content="([^"]*)"', whole, context.get("metatags", ""))


def inline_scripts(html: str) -> list[str]:
    """The scripts that stand in a page itself and would run, known or not."""
    bodies = []
    for match in SCRIPT.finditer(html):
        kind = re.search(r'type="([^"]+)"', match["attributes"])
        runs = kind is None or "javascript" in kind[1] or kind[1] == "module"
        if "src=" in match["attributes"] or not runs:
            continue
        bodies.append(match["body"])
    return list(dict.fromkeys(bodies))


def is_known(script: str) -> bool:
    """Whether a script is one of those that the theme and Sphinx write."""
    return any(re.fullmatch(known, script.strip()) for known in KNOWN_SCRIPTS)


def hash_source(script: str) -> str:
    """Source for ``script-src``: the SHA-256 of a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def policy(html: str) -> str:
    """Content-security policy of one page: nothing foreign, and no script in the page but the known
    ones.
    """
    hashes = [hash_source(script) for script in inline_scripts(html) if is_known(script)]
    rules = (
        "default-src 'none'",
        " ".join(["script-src 'self'", *hashes]),
        "style-src 'self' 'unsafe-inline'",  # MathJax and the icons write styles
        "img-src 'self' data:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
    )
    return "; ".join(rules)


def protect(html: str) -> str:
    """The page with the mends and its policy, which must stand before anything that it governs.

    Raises:
        ExtensionError: if the page has no ``<meta charset>`` to put the policy after.
    """
    for old, new in MENDS + OURS:
        html = re.sub(old, new, html)
    meta = f'<meta http-equiv="Content-Security-Policy" content="{escape(policy(html))}">'
    html, count = re.subn(
        r"<meta charset=[^>]*>", lambda match: f"{match[0]}\n    {meta}", html, count=1
    )
    if not count:
        raise ExtensionError(
            "a page without <meta charset> has no place for the content-security policy"
        )
    return html


def protect_pages(app, exception) -> None:
    """Mend and protect every page of the finished book."""
    if exception or app.builder.format != "html" or not app.config.steady_csp:
        return
    for page in Path(app.outdir).rglob("*.html"):
        if "_static" in page.relative_to(app.outdir).parts:
            continue
        html = protect(page.read_text(encoding="utf-8"))
        page.write_text(html, encoding="utf-8")
        for script in inline_scripts(html):
            if not is_known(script):
                shown = " ".join(script.split())[:80]
                warn(
                    page.relative_to(app.outdir).stem,
                    f"a script that is not known does not run: {shown!r}",
                    "script",
                )
