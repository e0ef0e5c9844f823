"""Receipts, tables, manifests and other JSON from a generator: what is read is what was written, or
a refusal by name.

500 cases each, 10 000 with STEADY_FUZZ=nightly. Never another exception than ValueError, never a
hang.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import assume, given

from damage import forge
from fabricated import a_run, tables
from steadydescent import verified
from steadydescent.files import DamagedFile
from steadydescent.study.results import published
from steadydescent.study.results import tables as parquet
from steadydescent.study.results.store import Tables, read_folder, write_folder

CASES = 500


def fuzzed(law):
    """A law under `hypothesis.given`, tried on 500 cases, or on 10 000 with STEADY_FUZZ=nightly."""
    profile = hypothesis.settings.default
    cases = max(CASES, profile.max_examples)
    return hypothesis.settings(profile, max_examples=cases)(law)


TEXT = st.text(st.characters(codec=None), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
HERE = Path("some/where/receipt.json")


@cache
def stack() -> Tables:
    probed = lambda run: [("last", "churn", 3, 0.5), ("", "tail-loss-mean", None, float("nan"))]
    return tables(
        [a_run(seed=s, curve_points=2) for s in (0, 1)], probed=probed, predicted=lambda *_: b"\0\1"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A stack's folder."""
    folder = tmp_path_factory.mktemp("fuzzed") / "stack"
    write_folder(
        folder, stack(), {"seconds": 1.0, "device": "2 cores", "nested": {"a": [1, None, "ü"]}}
    )
    return folder


def edited(content: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    """Bytes replaced, put in and taken out at places."""
    for what, place, new in edits:
        at = place % (len(content) + 1)
        content = (
            content[:at]
            + new
            + content[at + (0 if what == "in" else len(new) if what == "over" else 5) :]
        )
    return content


def tried(call: Callable[[], object]) -> object:
    """What a call returns, or the ValueError that it raises; any other exception fails the test."""
    try:
        return call()
    except ValueError as error:
        return error


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["over", "in", "out"]),
        st.integers(0, 2**32),
        st.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


@fuzzed
@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_sealed_content_comes_back_or_is_not_sealed(content):
    try:
        written = verified.sealed(content)
    except ValueError:  # its own name for the digest, or half a character
        assert "sha256" in content or any("\ud800" <= c <= "\udfff" for c in _texts(content))
        return
    assert verified.unsealed(written, HERE) == verified.plain(content)


def _texts(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


@fuzzed
@given(EDITS)
def test_receipt_with_other_bytes_is_refused(folder, edits):
    content = (folder / "receipt.json").read_bytes()
    assume((changed := edited(content, edits)) != content)
    with pytest.raises(DamagedFile, match=r"receipt\.json is refused"):
        verified.unsealed(changed, folder / "receipt.json")


@fuzzed
@given(st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_json_is_read_or_refused(content):
    for reader in (verified.parsed, verified.unsealed):
        found = tried(lambda read=reader: read(content, HERE))
        assert (
            str(HERE) in str(found)
            if isinstance(found, DamagedFile)
            else found == json.loads(content)
        )


@fuzzed
@given(st.dictionaries(st.sampled_from(["files", "seconds", "sha256", "x"]), VALUES))
def test_folder_with_any_receipt_is_read_or_refused(folder, receipt):
    """Its digest holds; what it says of the tables need not."""
    content = (folder / "receipt.json").read_bytes()
    receipt.pop("sha256", None)
    try:
        (folder / "receipt.json").write_bytes(verified.sealed(receipt))
    except UnicodeEncodeError:
        return
    try:
        with pytest.raises(DamagedFile, match="stack"):
            read_folder(folder, Tables)
    finally:
        (folder / "receipt.json").write_bytes(content)


@fuzzed
@given(st.sampled_from(Tables._fields), EDITS)
def test_table_with_other_bytes_is_refused_or_still_a_table(folder, kind, edits):
    """Its digest vouched for anew: Parquet that anybody may have made."""
    path = folder / f"{kind}.parquet"
    changed = edited(path.read_bytes(), edits)
    found = tried(lambda: parquet.table_from_bytes(changed, kind, path))
    if isinstance(found, DamagedFile):
        assert str(path) in str(found)
    else:
        assert (
            found.columns.tolist() == parquet.SCHEMAS[kind].names
            and len(found) <= parquet.MOST_ROWS
        )


NAMES = st.sampled_from(["test", "validation", "train", "", "frozen", "tuning"])
TAME = {
    "string": NAMES,
    "double": st.floats(0.01, 1),
    "int64": st.integers(1, 2**53),
    "bool": st.booleans(),
    "binary": st.binary(max_size=5),
}
WILD = TAME | {"string": NAMES | TEXT, "double": st.floats(), "int64": st.integers(-5, 2**62)}


@st.composite
def frames(draw) -> tuple[str, pd.DataFrame]:
    """A kind, and rows of its types, half of the time such as are refused."""
    kind = draw(st.sampled_from(sorted(parquet.SCHEMAS)))
    kinds = draw(st.sampled_from([TAME, WILD]))
    rows = draw(st.integers(0, 4))
    columns = {}
    for field in parquet.SCHEMAS[kind]:
        values = kinds[str(field.type)]
        if field.name in parquet.MAY_BE_MISSING.get(kind, ()):
            values = values | st.none()
        column = draw(st.lists(values, min_size=rows, max_size=rows))
        types = {"double": float, "int64": "Int64", "bool": bool}
        columns[field.name] = pd.Series(column, dtype=types.get(str(field.type), object))
    return kind, pd.DataFrame(columns)


@fuzzed
@given(frames())
def test_table_comes_back_or_is_not_written(tmp_path_factory, made):
    kind, table = made
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    if isinstance(refusal := tried(lambda: parquet.write_table(table, path, kind)), ValueError):
        assert str(path) in str(refusal) or "surrogates" in str(refusal)
        return
    found = parquet.read_table(path, kind)
    pd.testing.assert_frame_equal(found, table, check_dtype=False)


@fuzzed
@given(
    st.text(max_size=100)
    | st.lists(TEXT, max_size=3).map(lambda names: "".join(f"{'0' * 64}  {n}\n" for n in names))
)
def test_any_manifest_is_read_or_refused(tmp_path_factory, text):
    root = tmp_path_factory.getbasetemp()
    try:
        (root / published.MANIFEST).write_text(text, encoding="utf-8", newline="")
    except UnicodeEncodeError:
        return
    found = tried(lambda: published.listed(root))
    if isinstance(found, DamagedFile):
        assert published.MANIFEST in str(found)
    else:
        assert published._manifest(found) == text
        assert not any(".." in name.split("/") or name.startswith("/") for name in found)


def test_fuzzed_folder_was_left_as_it_was(folder):
    forge(folder)
    assert len(read_folder(folder, Tables)[0].runs) == 2
