"""What the book's extension makes of findings: numbers, tables, notes, policies and addresses."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path

import pytest
import yaml

from steadydescent.study.book.sphinx import lookup, pages
from steadydescent.study.book.words import DASH, MINUS
from steadydescent.study.book.words import NO_BREAK as SPACE
from toy_book import Book, toy_findings, words

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path, toy_findings())


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("gain", f"+0.31{SPACE}pp"),
        ("gain@low", f"{MINUS}0.10{SPACE}pp"),
        ("gain@high:.1f", f"+0.5{SPACE}pp"),
        ("gain@ci", f"{MINUS}0.10 to +0.50{SPACE}pp"),
        ("gain@ci:.1f", f"{MINUS}0.1 to +0.5{SPACE}pp"),
        ("loss", f"{MINUS}1.5"),
        ("loss:.2f", f"{MINUS}1.50"),
        ("loss@size", "1.5"),
        ("loss@size-ci:.2f", "1.00 to 2.00"),
        ("gain@size", f"0.31{SPACE}pp"),
        ("zero", "0.00"),
        ("networks", "1234"),
        ("networks:,", "1,234"),
        ("best", "ema-10"),
        ("absent", None),
        ("absent@ci", None),
    ],
)
def test_a_result_reads_as_a_reader_expects(reference, text):
    assert lookup.result_text(toy_findings(), reference) == text


def test_what_lies_on_both_sides_of_zero_has_no_size():
    with pytest.raises(
        lookup.FindingsError, match="both sides of zero and has no size; quote gain@ci"
    ):
        lookup.result_text(toy_findings(), "gain@size-ci")


def test_a_number_that_ones_own_results_lack_reads_as_not_run_and_not_as_a_slip(book):
    own = toy_findings() | {"origin": toy_findings()["origin"] | {"source": "reproduced"}}
    assert lookup.result_text(own, "no/such/key@ci") is None
    with pytest.raises(lookup.FindingsError, match="no result 'no/such/key"):
        lookup.result_text(toy_findings(), "no/such/key@ci")


def test_numbers_verdicts_and_claims_are_rendered(book):
    page = book.accept(
        "Gain {result}`gain@ci`, best {result}`best`, {verdict}`toy-claim/toy-task/constant`."
    )
    assert f"Gain {MINUS}0.10 to +0.50{SPACE}pp , best ema-10 , Supported ." in words(page)
    claim = page[page.index('id="claim-toy-claim"') :]
    assert "Averages beat the last weights Holds when" in words(claim)
    assert "Holds on the toy task; open on the other." in words(claim)
    assert "toy-blog , toy-slides" in words(claim)
    assert "Prose of the claim." in claim
    assert "Decided by: accuracy of the average minus accuracy of the last weights." in words(claim)


def test_the_rows_of_a_claim_are_a_table(book):
    table = words(book.accept("").split("<table", 1)[1].split("</table>")[0])
    assert "Task Condition Verdict Estimate (pp) Margin Seeds Result" in table
    assert f"toy-task constant Supported +0.42 ({MINUS}0.10 to +0.94) ±1 20 0badc0de" in table
    assert f"third-task linear Not run {DASH} ±1 {DASH} {DASH}" in table


def test_secondary_rows_stand_below_a_line_that_says_so(book):
    """In a claim's box and in the table of all; a contrast that came after its results says it."""
    page = book.accept("```{verdicts}\n```")
    for part in page.split("<table")[1:3]:
        primary, head, secondary = words(part.split("</table>")[0]).partition(
            "Secondary, plain 95 %"
        )
        assert head and "Supported, size open" in secondary and "Not run" in primary
        assert "beside" in secondary and "beside" not in primary
    assert "toy-task, beside added or restated after results were seen." in words(page)
    assert "toy-task, beside: added or restated after results were seen" in words(page)
    assert "Primary intervals: 99.95 %." in words(page)


def test_diverged_runs_and_missing_seeds_are_said_below_the_table(book):
    assert "other-task, linear: 3 of 20 diverged and about 57 seeds would decide;" in words(
        book.accept("")
    )


def test_a_row_links_to_how_to_cite_it(book):
    page = book.accept("")
    assert 'href="cite.html#cite-toy-average-toy-task-0badc0de"' in page
    cite = (book.out / "cite.html").read_text(encoding="utf-8")
    assert 'id="cite-toy-average-toy-task-0badc0de"' in cite
    assert 'id="cite-toy-average-toy-task"' in cite
    assert "@misc{toy-0badc0de," in words(cite).replace(" ", "")
    assert "Command steady run toy Seconds 12.3 Packages torch 2.13.0" in words(cite)
    copies = {path.name for path in (book.out / "_downloads").glob("*/*")}
    assert copies == {"finals.parquet", "quantiles.parquet", "receipt.json"}


def test_the_table_of_verdicts_links_each_claim(book):
    page = book.accept("```{verdicts}\n```\n\n```{verdicts}\n:summary:\n```")
    assert page.count('href="#claim-toy-claim"') == 2
    full, summary = (words(part.split("</table>")[0]) for part in page.split("<table")[1:3])
    assert "Averages beat the last weights toy-blog , toy-slides Holds when" in full
    assert f"+0.42{SPACE}pp ({MINUS}0.10 to +0.94)" in full
    assert "3 of 20 diverged" in full and "about 57 seeds would decide" in full
    assert "2026-11-20, 2026-11-21" in full
    assert "other-task" not in summary and "Holds on the toy task" in summary


def test_the_banner_says_whose_numbers_these_are(book):
    page = words(book.accept("```{origin}\n```"))
    facts = (
        "Profile desk · 1,234 networks · a toy machine · 55 minutes · 2026-11-21 · "
        "commit abc1234 · make reproduce"
    )
    assert "Published results, shipped with the repository. " + facts in page
    assert "smoke" not in page


def test_a_smoke_run_says_that_it_supports_no_claim(book):
    book.findings["origin"] |= {"source": "reproduced", "profile": "smoke"}
    page = words(book.accept("```{origin}\n```"))
    assert "Your results, reproduced on this machine." in page
    assert "too few seeds and too short a search to support any claim" in page


HOLDS = "```{{holds}} toy-claim/other-task/linear: {}\nThe text of *this* passage.\n```"


def test_prose_stands_while_its_verdict_holds(book):
    assert "<p>The text of <em>this</em> passage.</p>" in book.accept(
        HOLDS.format("supported, size open, open")
    )


def test_published_prose_against_the_data_fails_the_build(book):
    _, warnings = book.build(HOLDS.format("supported"))
    assert (
        "the text says supported of toy-claim/other-task/linear, but the data say open" in warnings
    )


def test_reproduced_prose_against_the_data_gives_way_to_a_note(book):
    book.findings["origin"]["source"] = "reproduced"
    page = book.accept(HOLDS.format("supported, size open, too small to matter"))
    assert "The text of" not in page
    verdicts = "“supported, size open” or “too small to matter”"
    rests = f"The published text here rests on the verdict {verdicts} for"
    place = "Averages beat the last weights (other-task, linear)"
    came = f"; your run came out Open : +0.42{SPACE}pp ({MINUS}0.10 to +0.94)."
    assert f"{rests} {place}{came}" in words(page)


def test_reproduced_prose_on_what_was_not_run_says_so(book):
    book.findings["origin"]["source"] = "reproduced"
    page = words(book.accept(HOLDS.format("supported").replace("other-task", "third-task")))
    assert "; your run did not include this." in page


def test_prose_may_rest_on_a_claims_outcome(book):
    passage = HOLDS.replace("/other-task/linear", "")
    assert "<em>this</em>" in book.accept(passage.format("holds, holds when"))
    book.findings["origin"]["source"] = "reproduced"
    page = words(book.accept(passage.format("does not hold")))
    assert "rests on the verdict “does not hold” for" in page
    assert "your run came out Holds when ." in page


def test_points_on_surfaces_are_counted_apart(book):
    book.findings["origin"]["points"] = 567
    page = words(book.accept("```{origin}\n```"))
    assert "1,234 networks · 567 points on surfaces ·" in page


def test_a_result_that_a_reader_did_not_run_is_no_error(book):
    book.findings["origin"]["source"] = "reproduced"
    assert "Gain: (not run) ." in words(book.accept("Gain: {result}`absent`."))


def test_figures_carry_alt_text_caption_data_and_how_to_cite(book):
    book.figure("toy-curve")
    page = book.accept("```{datafig} toy-curve\n```\n\nSee {ref}`the curve <fig-toy-curve>`.")
    figure = page[page.index('id="fig-toy-curve"') : page.index("</figure>")]
    assert figure.count('alt="What it shows."') == 2
    assert "A <em>caption</em>." in figure
    assert "toy-curve.csv" in figure
    assert 'href="cite.html#cite-toy-average-toy-task-0badc0de"' in figure
    assert "vega" not in page


def test_charts_bring_their_libraries_and_cannot_break_out_of_their_script(book):
    book.figure("toy-chart", "charts", spec={"title": "</script><b>"})
    page = book.accept("```{vegachart} toy-chart\n```")
    libraries = [f"vendor/vega/{name}" for name in pages.VEGA]
    assert re.findall(r'src="_static/([^"?]+)', page)[-4:] == [*libraries, "charts.js"]
    spec = page.split('<script type="application/json">')[1].split("</script>")[0]
    assert json.loads(spec) == {"title": "</script><b>"}
    assert 'aria-label="What it shows."' in page


def test_each_page_allows_the_known_scripts_alone(book):
    page, warnings = book.build(
        '<script>window.toy = 1</script>\n<script type="application/json">["data"]</script>'
    )
    assert "a script that is not known does not run: 'window.toy = 1'" in warnings
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1])
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    inline = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert inline.pop(inline.index("window.toy = 1")) and all(
        pages.is_known(script) for script in inline
    )
    digests = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in inline
    ]
    assert rules["script-src"] == " ".join(
        ["'self'", *(f"'sha256-{digest}'" for digest in digests)]
    )
    assert page.index("Content-Security-Policy") < page.index("<title>")
    for other in book.out.rglob("*.html"):
        assert (
            "Content-Security-Policy" in other.read_text(encoding="utf-8")
            or "_static" in other.parts
        )


def test_permanent_addresses_lead_to_claims_results_and_figures(book):
    book.figure("toy-curve")
    book.accept("```{datafig} toy-curve\n```")
    short, full = "results/toy-average-toy-task.html", "results/toy-average-toy-task-0badc0de.html"
    for address, place in (
        ("claims/toy-claim.html", "index.html#claim-toy-claim"),
        ("figures/toy-curve.html", "index.html#fig-toy-curve"),
        (short, "cite.html#cite-toy-average-toy-task"),
        (full, "cite.html#cite-toy-average-toy-task-0badc0de"),
    ):
        page = (book.out / address).read_text(encoding="utf-8")
        assert f'content="0; url=../{place}"' in page
        assert f'rel="canonical" href="https://example.org/toy/{place}"' in page


def test_what_the_pages_load_is_in_the_repository():
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    settings, static = config["sphinx"]["config"], ROOT / "web/static"
    libraries = [settings["mathjax_path"], *(f"vendor/vega/{name}" for name in pages.VEGA)]
    for name in (*settings["html_css_files"], *libraries, "charts.js"):
        assert (static / name).is_file(), name
    assert (ROOT / config["html"]["favicon"]).is_file()


def toc_files(node) -> set[str]:
    """Every `root` and `file` in _toc.yml."""
    if isinstance(node, dict):
        own = {value for key, value in node.items() if key in ("root", "file")}
        return own.union(*(toc_files(value) for value in node.values()))
    return set().union(*(toc_files(part) for part in node)) if isinstance(node, list) else set()


def test_every_page_of_the_book_is_in_its_table_of_contents():
    toc = toc_files(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    written = {
        path.relative_to(ROOT).with_suffix("").as_posix()
        for path in (ROOT / "chapters").rglob("*.md")
    }
    assert toc == written | {"index"}


def test_the_same_findings_give_the_same_bytes(tmp_path):
    editions = []
    for number in range(2):
        (folder := tmp_path / str(number)).mkdir()
        book = Book(folder, toy_findings())
        book.figure("toy-curve")
        book.figure("toy-chart", "charts", spec={"title": "Toy"})
        book.accept(
            "```{datafig} toy-curve\n```\n\n```{vegachart} toy-chart\n```\n\n```{verdicts}\n```"
        )
        built = [
            path for path in book.out.rglob("*") if path.is_file() and ".doctrees" not in path.parts
        ]
        editions.append(
            {path.relative_to(book.out).as_posix(): path.read_bytes() for path in built}
        )
    one, other = editions
    assert set(one) == set(other) and [name for name in one if one[name] != other[name]] == []
