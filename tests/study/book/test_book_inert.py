"""Whatever stands in a text of a file that the book reads, it reaches a page as text, or the build
refuses it.
"""

from __future__ import annotations

import copy
import html
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from docutils import nodes

from page_cells import bill, claims_without_rows, run, without_drawing
from steadydescent import verified
from steadydescent.study import paths
from steadydescent.study.book import edition, figures, page
from steadydescent.study.book.chapters import methods, speed
from steadydescent.study.book.chapters.growth import curves
from steadydescent.study.book.sphinx import outputs, pages
from steadydescent.study.book.sphinx.elements import stressed
from steadydescent.study.paths import PUBLISHED, ROOT
from steadydescent.study.planning import load_study
from steadydescent.study.results import published
from toy_book import Book, toy_findings

SCRIPT = "alert(1)"
MARKER = (
    f"<script>{SCRIPT}</script><img src=x onerror={SCRIPT}>[a](javascript:{SCRIPT})"
    "$$x$$ `b` {ref}`c` "
    f"\\href{{javascript:{SCRIPT}}} <! &amp; >"
)
NAMES = {"source", "verdict", "outcome", "rule", "result", "finals", "quantiles", "receipt"}
"""Fields that are looked up, in a vocabulary or a folder, before anything is shown; another text is
refused.
"""
Path_ = tuple[Any, ...]


def texts(tree: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Places of all texts in nested dicts and lists."""
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield from texts(tree[key], (*path, key))
    elif isinstance(tree, str):
        yield path


def planted(tree: Any, places: list[Path_]) -> Any:
    """The same with the marker behind the texts at these places."""
    made = copy.deepcopy(tree)
    for *parents, last in places:
        node = made
        for key in parents:
            node = node[key]
        node[last] += MARKER
    return made


class Live(HTMLParser):
    """What a page has that could run or load: scripts, handlers, script addresses, and images."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text: list[str] = []
        self.script = ""

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        self.script = tag if tag == "script" else ""
        self.found += [f"{tag} {name}" for name in told if name.startswith("on")]
        self.found += [
            str(value) for value in told.values() if re.match(r"\s*javascript:", value or "")
        ]
        if tag in ("iframe", "object", "embed", "base") or (
            tag == "img" and "_images/" not in told["src"]
        ):
            self.found.append(tag)
        self.text += [value or "" for value in told.values()]
        if tag == "script" and "json" in (told.get("type") or ""):
            self.script = "data"

    def handle_endtag(self, tag):
        self.script = "" if tag == "script" else self.script

    def handle_data(self, data):
        if self.script == "script" and data.strip() and not pages.is_known(data):
            self.found.append(data)
        self.text.append(data)

    @property
    def markers(self) -> int:
        """How often the marker stands there as text, whatever its spaces have become."""
        return "".join("".join(self.text).split()).count("".join(MARKER.split()))


def read(source: str) -> Live:
    live = Live()
    live.feed(source)
    live.close()
    return live


BODY = """
{{result}}`best` {{result}}`gain@ci` {{verdict}}`toy-claim`

```{{origin}}
```

```{{verdicts}}
```

```{{datafig}} toy-curve
```

```{{vegachart}} toy-chart
```

```{{holds}} toy-claim: holds when
Prose.
```
""".format()


def toy(folder: Path, findings: dict, receipt: dict, figure: dict) -> Book:
    folder.mkdir()
    book = Book(folder, findings)
    (book.source / "results/toy/receipt.json").write_bytes(verified.sealed(receipt))
    book.figure("toy-curve", **{key: text for key, text in figure.items() if key != "spec"})
    book.figure("toy-chart", "charts", **figure)
    return book


RECEIPT = {
    "command": "steady run toy",
    "commit": "abc",
    "date": "2026",
    "profile": "desk",
    "device": "cpu",
    "python": "3.12",
    "packages": {"torch": "2.13.0"},
    "trained_on": ["cpu"],
}
FIGURE = {
    "alt": "It falls.",
    "caption": "Loss falls.",
    "spec": {"title": "Loss", "data": {"values": [{"a": "b"}]}},
}


def test_a_marker_in_every_text_that_the_book_reads_is_inert(tmp_path):
    clean = toy_findings()
    clean["origin"]["source"] = "reproduced"
    places = [place for place in texts(clean) if place[-1] not in NAMES]
    assert len(places) > 25
    findings = planted(clean, places)
    book = toy(
        tmp_path / "toy", findings, *(planted(it, list(texts(it))) for it in (RECEIPT, FIGURE))
    )
    page_text, warnings = book.build(BODY)
    assert warnings == ""
    seen = 0
    for built in sorted(book.out.rglob("*.html")):
        source = built.read_text(encoding="utf-8")
        live = read(source)
        assert live.found == []
        policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', source)[1])
        known = [
            pages.hash_source(script)
            for script in pages.inline_scripts(source)
            if pages.is_known(script)
        ]
        assert (
            re.findall(r"'sha256-[^']+'", policy) == known
            and pages.hash_source(SCRIPT) not in policy
        )
        seen += live.markers
    claim_fields, row_fields = ("title", "sentence", "test"), ("task", "condition", "measure")
    assert seen > len(claim_fields) + 3 * len(row_fields) + len(list(texts(RECEIPT))) + len(
        list(texts(FIGURE))
    )
    spec = page_text.split('<script type="application/json">')[1].split("</script>")[0]
    assert json.loads(spec)["title"] == "Loss" + MARKER


@pytest.mark.parametrize(
    "place",
    [p for p in texts(toy_findings()) if p[-1] in NAMES],
    ids=lambda p: "/".join(map(str, p)),
)
def test_a_marker_in_a_name_that_is_looked_up_is_refused_or_inert(tmp_path, place):
    book = toy(tmp_path / "toy", planted(toy_findings(), [place]), RECEIPT, FIGURE)
    page_text, warnings = book.build("```{origin}\n```")
    assert warnings or place[-1] == "source" or "rule" in place
    assert read(page_text).found == []


def test_a_result_id_that_is_none_is_refused(tmp_path):
    findings = toy_findings()
    (name, files) = findings["files"].popitem()
    findings["files"][name + MARKER] = files
    book = toy(tmp_path / "toy", findings, RECEIPT, FIGURE)
    assert "is not 'experiment/task@digest'" in book.build("")[1]


def test_a_caption_stresses_and_does_nothing_else():
    parts = stressed(f"The *fast* one, {MARKER}, 2 * 3 and *** stars.")
    assert [type(part) for part in parts] == [nodes.Text, nodes.emphasis, nodes.Text]
    assert (
        "".join(part.astext() for part in parts) == f"The fast one, {MARKER}, 2 * 3 and *** stars."
    )


# ---- what cells show -----------------------------------------------------------------------------


def test_every_text_of_a_table_is_escaped():
    frame = pd.DataFrame({MARKER: [MARKER, None], "number": [1.5, float("nan")]})
    shown = page.table(frame, caption=MARKER)
    assert outputs.strange_markup(shown.html) == [] and read(shown.html).text.count(MARKER) == 3
    for made in (
        page.paragraph(MARKER, page.strong(MARKER), page.code(MARKER)),
        page.bullets([[MARKER]]),
    ):
        assert outputs.strange_markup(made.html) == [] and MARKER in read(made.html).text


@pytest.mark.parametrize(
    "output",
    [
        nodes.raw("", "<p onclick='x'>a</p>", format="html"),
        nodes.raw("", "<script>x</script>", format="html"),
        nodes.raw("", "<div><style scoped>a</style></div>", format="html"),
        nodes.raw("", "<!-- a -->", format="html"),
        nodes.raw("", "<svg><use href='x'/></svg>", format="html"),
        nodes.raw("", "a", format="latex"),
        nodes.paragraph("", "from Markdown"),
        nodes.reference("", "a", refuri="javascript:x"),
        nodes.image(uri="x.png"),
    ],
    ids=lambda output: output.astext()[:20] or output.tagname,
)
def test_a_cell_that_shows_anything_else_is_refused(monkeypatch, output):
    heard = []
    monkeypatch.setattr(outputs, "warn", lambda where, message, kind: heard.append(message))
    good = nodes.raw("", page.paragraph("<fine>").html, format="html")
    form = nodes.container("", output)
    cell = nodes.container(
        "", nodes.container("", form, nodes.container("", good)), nb_element="cell_code_output"
    )
    document = nodes.Element("", cell)
    check = outputs.CellOutputs.__new__(outputs.CellOutputs)
    check.document = document
    check.run()
    assert len(heard) == 1 and "show tables and text with steadydescent.study.book.page" in heard[0]
    assert form.astext() == "(not shown)" and "fine" in document.astext()


FILES = {
    "bench-cpu.json": "speed",
    "first_edition.csv": "changes",
    "first_seen.csv": "verdicts",
    "growth-cpu.json": "growth",
    "intervals.csv": "methods",
    "intervals-book.csv": "methods",
    "intervals-kinds.csv": "methods",
}
"""Published files of numbers, each with the page that shows it."""


def test_every_published_file_that_is_no_result_is_among_them():
    assert {path.name for path in PUBLISHED.iterdir() if path.is_file()} == {
        *FILES,
        published.MANIFEST,
    }


def in_json(path: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """Every text field of a JSON file, the same one in all rows at once, and the file with the
    marker in it.
    """
    tree = json.loads(path.read_text())
    kinds: dict[str, list[Path_]] = {}
    for place in texts(tree):
        kinds.setdefault(
            "/".join([key for key in place if not isinstance(key, int)][:2]), []
        ).append(place)
    for field, places in kinds.items():
        yield field, lambda places=places: json.dumps(planted(tree, places))


def in_csv(path: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """The same for the columns of text of a CSV file."""
    table = pd.read_csv(path)
    for column in table.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]]:
        yield (
            column,
            lambda column=column: table.assign(**{column: table[column] + MARKER}).to_csv(
                index=False
            ),
        )


FIELDS = [
    (name, field, made)
    for name in FILES
    for field, made in (in_json if name.endswith("json") else in_csv)(PUBLISHED / name)
]


@pytest.fixture
def no_results(monkeypatch) -> None:
    """A book that is being built without any result."""
    monkeypatch.setattr(edition, "claims_shown", claims_without_rows)
    monkeypatch.setattr(edition, "rows_shown", lambda *_: [])
    monkeypatch.setattr(edition, "all_shown", lambda: {})


@pytest.mark.usefixtures("no_results")
@pytest.mark.parametrize(
    ("name", "field", "made"), FIELDS, ids=[f"{name}-{field}" for name, field, _ in FIELDS]
)
def test_a_marker_in_a_published_file_is_refused_or_inert(tmp_path, monkeypatch, name, field, made):
    """Where a page looks a name up, and then finds nothing, its cell fails and so does the book."""
    for other in FILES:
        text = made() if other == name else (PUBLISHED / other).read_text()
        published.write(other, text.encode(), tmp_path)
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path)
    monkeypatch.setattr(methods, "table_of_profiles", bill)
    drawn = without_drawing(monkeypatch)
    for bound in (published, speed, curves):
        monkeypatch.setattr(bound, "PUBLISHED", tmp_path)
        for function in vars(bound).values():
            if PUBLISHED in (usual := getattr(function, "__defaults__", None) or ()):
                own = tuple(tmp_path if value == PUBLISHED else value for value in usual)
                monkeypatch.setattr(function, "__defaults__", own)
    try:
        told = run(ROOT / f"chapters/{FILES[name]}.md", until="steadydescent.study.planning")
    except (KeyError, ValueError, AssertionError):
        return
    assert told and all(isinstance(it, page.Shown) for it in told)
    assert [outputs.strange_markup(it.html) for it in told] == [[]] * len(told)
    for caption in drawn.captions:
        assert all(isinstance(part, nodes.Text | nodes.emphasis) for part in stressed(caption))


def test_titles_of_the_study_are_text(monkeypatch, tmp_path):
    study = {
        name: it.model_copy(update={"title": it.title + MARKER})
        for name, it in load_study().items()
    }
    shown = page.table(pd.DataFrame({"chapter": [it.title for it in study.values()]}))
    assert read(shown.html).text.count(next(iter(study.values())).title) == 1
    assert outputs.strange_markup(shown.html) == []


def test_names_in_a_picture_are_no_formulas(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "GENERATED", tmp_path / "generated")
    name = r"$\frac{$ --> <script>"  # as a formula it is an error

    def draw(ax):
        ax.plot([1, 10], [1, 10], label=name)
        ax.set(xscale="log", title=name, xlabel=name, yticks=[1, 10], yticklabels=[name, "b"])
        ax.legend()

    figures.figure("toy", draw, alt="A line.", caption="A line.", data=pd.DataFrame({"a": [1]}))
    picture = (tmp_path / "generated/figures/toy-light.svg").read_text()
    assert (
        "<script" not in picture and "mathdefault" in picture
    )  # the axis' own powers of ten are still drawn as such


@pytest.mark.usefixtures("no_results")
@pytest.mark.parametrize("stem", sorted(set(FILES.values())))
def test_pages_of_published_files_show_them_as_they_are(stem, monkeypatch):
    without_drawing(monkeypatch)
    monkeypatch.setattr(methods, "table_of_profiles", bill)
    told = run(ROOT / f"chapters/{stem}.md", until="steadydescent.study.planning")
    assert told and all(isinstance(it, page.Shown) for it in told)
