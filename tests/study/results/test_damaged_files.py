"""Every file that the study reads, with another byte or cut: the same outcome as before, or a
refusal by name.

Files are not listed here: whatever the operations below open under `results`, `data` and
`generated` is spoiled in turn, so that a new kind of file without a check fails; and code that
reads in another way than through `steadydescent.verified` fails the last test.
"""

import ast
import gzip
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

import suite
from damage import cut, flip, places
from fabricated import a_run, experiments_from, result, tables, write_experiments, write_result
from judged import TASK, score, toy_plan
from steadydescent import verified
from steadydescent.engine import data
from steadydescent.engine.data import fashion_mnist, mnist1d
from steadydescent.files import DamagedFile, sha256
from steadydescent.study import reproduce
from steadydescent.study.book import edition, figures, findings, saved_results, verdict_rows
from steadydescent.study.book.chapters import speed
from steadydescent.study.book.chapters.growth import curves
from steadydescent.study.book.sphinx import lookup
from steadydescent.study.paths import ROOT
from steadydescent.study.results import published
from steadydescent.study.results.provenance import TOKEN
from steadydescent.study.results.store import Result, Store, read_folder
from steadydescent.study.results.up_to_date import remember
from steadydescent.study.training import kernels, notebooks

# ---- which files are read ------------------------------------------------------------------------

_watched: list[Path] = []
_opened: set[Path] = set()


def _note(event: str, arguments: tuple) -> None:
    """Note each file that is opened for reading below the watched folder."""
    if event == "open" and _watched and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        path = Path(os.fsdecode(arguments[0])) if isinstance(arguments[0], str | bytes) else None
        if path is not None and path.is_relative_to(_watched[0]) and path.is_file():
            _opened.add(path)


sys.addaudithook(_note)


def read_by(operation: Callable[[], object], home: Path) -> tuple[object, set[Path]]:
    """What an operation gives, and the files below a folder that it reads."""
    _opened.clear()
    _watched.append(home)
    try:
        return operation(), set(_opened)
    finally:
        _watched.clear()


# ---- a small study with a file of every kind -----------------------------------------------------

RUNS = [a_run(seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Results, data and a book's findings of the toy experiment, where commands look for them."""
    home = tmp_path_factory.mktemp("study")
    write_experiments(home / "experiments")
    (home / "experiments" / "toy.ipynb").write_text("{}")
    where = {
        "ROOT": home,
        "RESULTS": home / "results",
        "EXPERIMENTS": home / "experiments",
        "DATA": home / "data",
    }
    where |= {"GENERATED": home / "generated", "PUBLISHED": home / "results/published"}
    where |= {"REPRODUCED": home / "results/reproduced", "STORE": home / "results/store"}
    with experiments_from(home / "experiments"), pytest.MonkeyPatch.context() as patch:
        book = (findings, edition, saved_results, verdict_rows, figures)
        for module in (*book, reproduce, notebooks, curves):
            for name in where.keys() & vars(module).keys():
                patch.setattr(module, name, where[name])
        patch.setattr(reproduce.data, "fetch", lambda *_: None)
        patch.setattr(kernels, "execute", partial(left_by_notebook, home))
        patch.setattr(kernels, "check_parameters", lambda *_: None)
        patch.setattr(mnist1d, "COUNTS", {"train": 20, "validation": 10, "test": 10})
        tiny = {name: fashion_bytes(name) for name in fashion_mnist.DIGESTS}
        patch.setattr(
            fashion_mnist, "DIGESTS", {name: sha256(content) for name, content in tiny.items()}
        )
        patch.setattr(
            fashion_mnist, "SUPPLIERS", {"a copy already in place": fashion_mnist._existing}
        )
        fill(home, tiny)
        yield home


def fashion_bytes(name: str) -> bytes:
    """An idx file of 70 or 10 made-up images or labels."""
    shape = (
        (60_000 // 1000, 28, 28)
        if "train-images" in name
        else (60,)
        if "train" in name
        else (10, 28, 28)
    )
    shape = (10,) if name.startswith("t10k-labels") else shape
    head = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
    return head + np.random.default_rng(len(name)).integers(0, 10, shape, np.uint8).tobytes()


@cache
def made() -> Result:
    return result(toy_plan(), score)


def keep(home: Path, place: str, **noted: str) -> None:
    write_result(
        home / "results" / place / "toy" / TASK, made(), "laptop", f"toy/{TASK}@12345678", **noted
    )


def left_by_notebook(
    home: Path, notebook: Path, output: Path, parameters: dict, start: dict, seconds: float
) -> None:
    """What a notebook leaves that ends well."""
    keep(home, "reproduced/laptop", token=start["env"][TOKEN], device_kind=parameters["device"])
    output.write_text("{}")


def fill(home: Path, fashion: dict[str, bytes]) -> None:
    """Write what the commands, the benchmarks and the simulations write."""
    root = home / "results/published"
    keep(home, "published")
    keep(home, "reproduced/laptop")
    rows = [{"case": "train toy", "peer_name": "P0", "ours": 2.0, "peer": 1.0, "ratio": 2.0}]
    suite.save(rows, "cpu", 1.0, root)
    published.write_json(
        "growth-cpu.json", {"receipt": {"cores": 2}, "rows": [{"curve": "replicas"}]}, root
    )
    published.write_table(
        "intervals.csv", pd.DataFrame({"world": ["alike"], "coverage": [0.95]}), root
    )
    Store(home / "results/store").save(tables(RUNS), {"seconds": 1.0})
    findings.write(home / "generated/findings.json", findings.findings("published"))
    figures._save_text("figures", "toy", {"alt": "A.", "caption": "C."}, pd.DataFrame({"a": [1]}))
    folder = home / "data" / fashion_mnist.FOLDER
    folder.mkdir(parents=True)
    for name, content in fashion.items():  # two as they are, two zipped
        zipped = "labels" in name
        (folder / (name + ".gz" * zipped)).write_bytes(
            gzip.compress(content, mtime=0) if zipped else content
        )
    data.load("mnist1d", [0], home / "data", print)
    plan = toy_plan()
    remember(
        notebooks._note(plan), notebooks._inputs(plan, "cpu") + notebooks._digest_of_result(plan)
    )


def trained(home: Path) -> dict:
    """The runs of a store, trained again where it has lost them."""
    store = Store(home / "results/store", warn=lambda text: None)
    have = store.keys()
    if missing := [run for run in RUNS if run.key not in have]:
        store.save(tables(missing), {"seconds": 1.0})
    return _told(store.load([run.key for run in RUNS])[0])


def ran(home: Path) -> dict:
    reproduce.run_study("laptop", "cpu", asked="1")
    return _told(read_folder(home / "results/reproduced/laptop/toy" / TASK, Result)[0])


def pages(home: Path) -> list:
    """What the cells and directives of a book's pages read."""
    shown = edition.shown("toy")
    told = [(name, one.receipt, _told(one.evidence.result)) for name, one in shown.items()]
    side = verified.read_sealed(home / "generated/figures/toy.json")
    lookup._read.cache_clear()
    return [told, edition.rows_shown(), lookup.load(home / "generated/findings.json"), side]


def _told(found) -> dict:
    return {name: table.to_json() for name, table in found._asdict().items()}


OPERATIONS: dict[str, Callable[[Path], object]] = {
    "claims": lambda home: verdict_rows.cached_rows("published", None),
    "claims of one's own": lambda home: verdict_rows.cached_rows("reproduced", "laptop"),
    "verify": lambda home: reproduce.compare("laptop"),
    "cite": lambda home: [
        receipt for *_, receipt in saved_results.results(home / "results/published")
    ],
    "findings": lambda home: findings.findings("published"),
    "pages": pages,
    "benchmarks": lambda home: speed.saved("cpu", home / "results/published").rows.to_json(),
    "growth": lambda home: [str(part) for part in curves.measured("cpu")],
    "simulations": lambda home: published.table(
        "intervals.csv", home / "results/published"
    ).to_json(),
    "a study run again": ran,
    "the store": trained,
    "MNIST-1D": lambda home: data.load("mnist1d", [0], home / "data", lambda text: None).checksum,
    "Fashion-MNIST": lambda home: sorted(
        fashion_mnist.read_folder(home / "data" / fashion_mnist.FOLDER).items()
    ),
}
KINDS = {
    "receipt.json",
    *(f"{kind}.parquet" for kind in Result._fields),
    "curves.parquet",
    "predictions.parquet",
    "SHA256SUMS",
    "bench-cpu.json",
    "growth-cpu.json",
    "intervals.csv",
    "findings.json",
    "toy.json",
    "verdicts-published.json",
    "verdicts-reproduced-laptop.json",
    f"toy-{TASK}.made-from",
    "test.safetensors",
    "validation.safetensors",
    "train-0.safetensors",
    "train-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte.gz",
}
NOT_READ = {
    ".jsonl": "a journal of progress",
    ".lock": "held, not read",
    ".csv": "offered for download beside a figure",
}


def restored(home: Path, kept: Path) -> None:
    for name in ("results", "data", "generated"):
        shutil.rmtree(home / name, ignore_errors=True)
        shutil.copytree(kept / name, home / name)


@pytest.fixture(scope="module")
def whole(home, tmp_path_factory):
    """What every operation gives on sound files, which files it reads, and a copy of them all."""
    for operation in OPERATIONS.values():
        operation(home)  # what is kept between calls is there now
    found = {
        name: read_by(lambda run=operation: run(home), home)
        for name, operation in OPERATIONS.items()
    }
    kept = tmp_path_factory.mktemp("kept")
    for name in ("results", "data", "generated"):
        shutil.copytree(home / name, kept / name)
    return found, kept


def test_operations_read_a_file_of_every_kind(home, whole):
    found, _ = whole
    read = {path for _, paths in found.values() for path in paths}
    assert {path.name for path in read} >= KINDS
    there = {
        path
        for name in ("results", "data", "generated")
        for path in (home / name).rglob("*")
        if path.is_file()
    }
    assert not {path for path in there - read if path.suffix not in NOT_READ}, (
        "a kind of file that no operation reads"
    )


def spoilt(path: Path) -> Iterator[str]:
    """Spoil a file in one way after another: bytes flipped here and there and at its end, cut in
    the middle and at its end. Says how.
    """
    content, size = path.read_bytes(), path.stat().st_size
    for spoil, place in (
        (flip, places(size, 1, path.name)[-2]),
        (flip, size - 1),
        (cut, size // 2),
        (cut, size - 1),
    ):
        spoil(path, place)
        yield f"{path}, {spoil.__name__} at {place} of {size} bytes"
        path.write_bytes(content)


@pytest.mark.parametrize("name", OPERATIONS)
def test_spoiled_file_is_found_by_whoever_reads_it(home, whole, name):
    found, kept = whole
    expected, paths = found[name]
    mine = sorted(path for path in paths if not path.is_relative_to(home / "experiments"))
    assert mine
    for path in mine:
        for how in spoilt(path):
            try:
                said, outcome = "", OPERATIONS[name](home)
            except (DamagedFile, FileNotFoundError) as error:
                said, outcome = str(error), None
            assert path.name in said or outcome == expected, f"{how}: {said or 'taken for sound'}"
            restored(home, kept)


# ---- every byte of the files that were published -------------------------------------------------


def test_every_published_file_is_listed_and_refused_with_another_byte(tmp_path):
    root = tmp_path / "published"
    shutil.copytree(ROOT / "results/published", root)
    published.check(root)
    listed = published.listed(root)
    assert len(listed) > 100 and {
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()
    } == {
        *listed,
        published.MANIFEST,
    }
    for name in listed:
        content = (root / name).read_bytes()
        for place in places(len(content), 1, name):
            flip(root / name, place, mask=1)
            with pytest.raises(
                DamagedFile, match=re.escape(f"{root / name} is refused: truncated or altered")
            ):
                published._read(name, root, listed)
            (root / name).write_bytes(content)


def test_every_byte_of_the_manifest_counts(tmp_path):
    """One in a digest or a name no longer fits a file, another no longer fits the form; no cut
    leaves it whole.
    """
    (tmp_path / "a.csv").write_text("x\n1\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c.json").write_text("{}")
    published.record(["a.csv", "b"], tmp_path)
    published.check(tmp_path)
    manifest = tmp_path / published.MANIFEST
    content = manifest.read_bytes()
    for place in range(len(content)):
        for spoil in (flip, cut):
            spoil(manifest, place)
            with pytest.raises(DamagedFile, match=re.escape(str(tmp_path))):
                published.check(tmp_path)
            manifest.write_bytes(content)
    manifest.unlink()
    with pytest.raises(DamagedFile, match=r"a\.csv is refused: SHA256SUMS does not list it"):
        published.check(tmp_path)


@pytest.mark.parametrize("command", ["claims", "verify", "cite", "findings"])
def test_published_folder_that_vanished_is_missed_by_name(home, whole, command):
    shutil.rmtree(home / "results/published/toy")
    try:
        with pytest.raises(
            DamagedFile, match=rf"published/toy/{TASK}/.* is missing, but SHA256SUMS lists it"
        ):
            OPERATIONS[command](home)
    finally:
        restored(home, whole[1])


@pytest.mark.parametrize("command", ["claims of one's own", "verify"])
def test_result_of_ones_own_that_vanished_is_missed_by_name(home, whole, command):
    shutil.rmtree(home / "results/reproduced/laptop/toy")
    try:
        with pytest.raises(
            DamagedFile,
            match=rf"laptop/toy/{TASK} is gone, .*steady run --profile laptop --only toy/",
        ):
            OPERATIONS[command](home)
        assert OPERATIONS["a study run again"](home) == whole[0]["a study run again"][0]
    finally:
        restored(home, whole[1])


# ---- no other way to read ------------------------------------------------------------------------

READERS = {
    "read_text",
    "read_bytes",
    "read_csv",
    "read_parquet",
    "read_table",
    "ParquetFile",
    "read_json",
    "open",
    "safe_open",
    "fromfile",
    "memmap",
    "loadtxt",
    "genfromtxt",
    "read_feather",
    "read_pickle",
    "read_metadata",
}
ALLOWED = {
    "src/steadydescent/verified.py": "the one place that reads",
    "src/steadydescent/study/results/tables.py": "Parquet from bytes that were read there",
    "src/steadydescent/study/results/published.py": "CSV from bytes that were read there",
    "src/steadydescent/study/results/up_to_date.py": "digests of sources",
    "src/steadydescent/study/results/store.py": "digests of tables just written",
    "src/steadydescent/engine/data/fashion_mnist.py": "unzips bytes that were read there",
    "src/steadydescent/study/yaml_files.py": "the study's own YAML, sources",
    "src/steadydescent/study/judging/exact/marked_tests.py": "tests, sources",
    "src/steadydescent/study/gpu_box/facts.py": "tests, sources",
    "src/steadydescent/study/book/sphinx/pages.py": "pages just built",
    "src/steadydescent/study/results/provenance.py": "/proc",
    "src/steadydescent/study/paths.py": "pyproject.toml, a source",
    "src/steadydescent/engine/source_code.py": "sources",
    "src/steadydescent/study/training/progress.py": "the journal of a run under way",
    "src/steadydescent/study/training/processes.py": "/dev/null",
    "src/steadydescent/study/terminal.py": "/dev/null",
    "src/steadydescent/files.py": "flushes and locks",
    "src/steadydescent/weight_averaging/checkpoint_files.py": (
        "checkpoints of people's own, with checks of its own"
    ),
    "benchmarks/growth.py": "/sys",
}
"""File → what it reads without `verified`, or how it takes part in it."""


def code_of(path: Path) -> str:
    """Python of a module, a notebook, or the cells of a page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        return "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    if path.suffix == ".md":
        cells = re.findall(r"```\{code-cell\}[^\n]*\n(.*?)```", text, re.DOTALL)
        return "\n".join(
            re.sub(r"^(:\w.*\n|---\n.*?---\n)+", "", cell, flags=re.DOTALL | re.MULTILINE)
            for cell in cells
        )
    return text


def readers_in(source: str) -> set[str]:
    """Names of reading functions that a source calls or hands on."""
    names = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    return names & READERS


def test_nothing_is_read_but_through_the_one_place():
    assert readers_in("import pandas as pd\nx = pd.read_csv('a')\nopen('b')") == {
        "read_csv",
        "open",
    }
    found = {}
    for pattern in (
        "src/**/*.py",
        "benchmarks/*.py",
        "chapters/*.md",
        "experiments/*.ipynb",
        "*.md",
    ):
        for path in ROOT.glob(pattern):
            if path.name != "README.md" and (names := readers_in(code_of(path))):
                found[path.relative_to(ROOT).as_posix()] = names
    assert not {name: names for name, names in found.items() if name not in ALLOWED}
