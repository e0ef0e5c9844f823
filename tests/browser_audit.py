"""Open every page of a built book in Chromium and report what a reader would stumble over.

    python tests/browser_audit.py _build/html --shots screenshots

Fails (exit status 1) on a foreign request, a failed request, a message of the console, a chart or a
formula that was not drawn, a page wider than its window, an accessibility finding that axe-core
calls serious or critical, and a permanent address that leads nowhere. Screenshots are taken in
light and dark, on a wide screen and at 390 pixels. axe-core comes from ``npm ci`` in web/npm;
without it the accessibility check is skipped, and said to be.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import multiprocessing
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
AXE = Path(__file__).resolve().parents[1] / "web/npm/node_modules/axe-core/axe.min.js"
VIEWS = {  # name: width, height, colour scheme
    "light": (1280, 900, "light"),
    "dark": (1280, 900, "dark"),
    "phone-light": (390, 844, "light"),
    "phone-dark": (390, 844, "dark"),
}
REDIRECTS = ("claims/", "results/", "figures/")
REFRESH = re.compile(r'<meta http-equiv="refresh" content="0; url=(?P<url>[^"]+)">')


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@contextmanager
def served(root: Path) -> Iterator[str]:
    """Address of a local server for the folder."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(root))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def watch(page: Page, findings: list[str]) -> None:
    """Note foreign and failed requests and whatever the console says, while the page lives."""

    def on_request(request):
        address = urlparse(request.url)
        if address.scheme in ("http", "https", "ws", "wss") and address.hostname != "127.0.0.1":
            findings.append(f"foreign request: {request.url}")

    def on_console(message):
        if message.type in ("error", "warning"):
            findings.append(f"console {message.type}: {message.text[:300]}")

    page.on("request", on_request)
    page.on(
        "requestfailed",
        lambda request: findings.append(f"failed request: {request.url} {request.failure}"),
    )
    page.on(
        "response",
        lambda r: findings.append(f"status {r.status}: {r.url}") if r.status >= 400 else None,
    )
    page.on("console", on_console)
    page.on("pageerror", lambda error: findings.append(f"page error: {str(error)[:300]}"))


def settle(page: Page, findings: list[str]) -> None:
    """Wait until charts and formulas are drawn."""
    page.evaluate("async () => { if (window.MathJax?.startup) await MathJax.startup.promise }")
    ready = "[...document.querySelectorAll('.vegachart')].every(box => box.dataset.ready)"
    page.wait_for_function(ready, timeout=15_000)
    if page.locator('.vegachart[data-ready="failed"]').count():
        findings.append("a chart was not drawn")
    if page.locator("mjx-merror").count():
        findings.append("a formula was not understood")
    page.wait_for_timeout(150)


def overflow(page: Page) -> list[str]:
    """Pages may scroll down, not sideways."""
    wide, room = page.evaluate("[document.scrollingElement.scrollWidth, window.innerWidth]")
    return [f"page is {wide} px wide in a window of {room} px"] if wide > room + 1 else []


def accessibility(page: Page, axe: str) -> list[str]:
    """What axe-core calls serious or critical."""
    page.evaluate(axe)
    violations = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    grave = [v for v in violations if v["impact"] in ("serious", "critical")]
    return [f"axe {v['impact']} {v['id']}: {v['help']} at {v['nodes'][0]['target']}" for v in grave]


def audit_view(
    browser: Browser, base: str, pages: list[str], view: str, shots: Path | None
) -> dict[str, list[str]]:
    """Open all pages in one view; returns the findings of each page that has some."""
    width, height, scheme = VIEWS[view]
    viewport = {"width": width, "height": height}
    context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    axe = AXE.read_text(encoding="utf-8") if AXE.exists() else None
    bad = {}
    for name in pages:
        findings: list[str] = []
        page = context.new_page()
        watch(page, findings)
        page.goto(f"{base}/{name}", wait_until="load")
        settle(page, findings)
        findings += overflow(page)
        if shots is not None:
            page.screenshot(
                path=shots / f"{name.removesuffix('.html').replace('/', '-')}-{view}.png",
                full_page=True,
            )
        if axe is not None:
            findings += accessibility(page, axe)
        page.close()
        if findings:
            bad[f"{name} ({view})"] = sorted(set(findings))
    context.close()
    return bad


def audit_redirects(root: Path, names: list[str]) -> dict[str, list[str]]:
    """Permanent addresses must lead to an element that exists."""
    bad = {}
    for name in names:
        found = REFRESH.search((root / name).read_text(encoding="utf-8"))
        target = urlparse(found["url"]) if found else urlparse("")
        page = (root / name).parent / target.path
        if not (
            target.fragment
            and page.is_file()
            and f'id="{target.fragment}"' in page.read_text(encoding="utf-8")
        ):
            bad[name] = [f"leads to {target.geturl() or 'nowhere'}, where no element has that id"]
    return bad


def follow(browser: Browser, base: str, name: str) -> dict[str, list[str]]:
    """A permanent address in the browser itself."""
    findings: list[str] = []
    page = browser.new_page()
    watch(page, findings)
    page.goto(f"{base}/{name}")
    page.wait_for_url("**/*#*", wait_until="load")
    page.close()
    return {name: findings} if findings else {}


def look(
    root: Path, pages: list[str], addresses: list[str], view: str, shots: Path | None
) -> dict[str, list[str]]:
    """In a browser of its own: all pages in one view, and these permanent addresses."""
    with sync_playwright() as playwright, served(root) as base:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        bad = audit_view(browser, base, pages, view, shots)
        for name in addresses:
            bad |= follow(browser, base, name)
        browser.close()
    return bad


def audit(root: Path, shots: Path | None, views: list[str]) -> dict[str, list[str]]:
    """Findings of the whole book, page by page; two views at a time.

    Pages of source code are all alike: the shortest and the longest stand for them.
    """
    names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.html"))]
    names = [name for name in names if not name.startswith("_static/")]
    size = lambda name: (root / name).stat().st_size
    sources = sorted((name for name in names if name.startswith("_modules/")), key=size)
    pages = [name for name in names if not name.startswith(REDIRECTS) and name not in sources[1:-1]]
    addresses = [name for name in names if name.startswith(REDIRECTS)]
    bad = audit_redirects(root, addresses)
    one_of_each = [next(name for name in addresses if name.startswith(kind)) for kind in REDIRECTS]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [
            pool.submit(look, root, pages, one_of_each if view == views[0] else [], view, shots)
            for view in views
        ]
        for job in jobs:
            bad |= job.result()
    print(f"{len(pages)} pages in {len(views)} views, {len(addresses)} permanent addresses")
    return bad


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "root", type=Path, nargs="?", default=Path("_build/html"), help="folder of the built book"
    )
    parser.add_argument(
        "--shots", type=Path, help="folder for screenshots; none are taken without it"
    )
    parser.add_argument(
        "--views", nargs="+", choices=list(VIEWS), default=list(VIEWS), help="which views to open"
    )
    options = parser.parse_args(arguments)
    if not (options.root / "index.html").is_file():
        parser.error(f"{options.root} holds no index.html; build the book first (make book)")
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
    if not AXE.exists():
        print(
            f"axe-core skipped: {AXE} is missing ('npm ci --ignore-scripts' in web/npm installs it)"
        )
    bad = audit(options.root.resolve(), options.shots, options.views)
    for name, findings in bad.items():
        print(name, *findings, sep="\n    ")
    print("no findings" if not bad else f"{len(bad)} pages with findings")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
