"""Files made to do harm: bombs, links, pipes, forged receipts. Each is refused by name, and nothing
waits for it.
"""

import errno
import gzip
import os
import shutil
import signal
import tracemalloc
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from damage import forge
from fabricated import a_run, result, result_of, tables
from fabricated import write_result as keep
from judged import TASK, score, toy_plan
from steadydescent import verified
from steadydescent.engine.data import fashion_mnist
from steadydescent.files import DamagedFile, sha256
from steadydescent.study.book import saved_results, verdict_rows
from steadydescent.study.results import published, up_to_date
from steadydescent.study.results import tables as parquet
from steadydescent.study.results.store import (
    SCHEMAS,
    Result,
    Store,
    Tables,
    read_folder,
    write_folder,
    write_table,
)


@pytest.fixture(autouse=True)
def _without_waiting():
    """A reader that waits, for a pipe or in a loop, fails after a minute."""

    def late(*_):
        raise TimeoutError("still reading after a minute")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.fixture
def stack(tmp_path):
    """The folder of a stack of two runs."""
    write_folder(tmp_path / "stack", tables([a_run(seed=0), a_run(seed=1)]), {"seconds": 1.0})
    return tmp_path / "stack"


def finals(rows: int, readout: pa.Array | None = None) -> pa.Table:
    """A table of final rows, as large as asked for."""
    scores = dict.fromkeys(("accuracy", "loss", "calibration_error"), 0.5)
    row = {"run": "", "readout": "", "split": "test", "shift": "", "severity": None}
    row |= {"statistics": "", "batch": None} | scores
    types = {field.name: field.type for field in SCHEMAS["finals"]}
    columns = {name: pa.array([value] * rows, types[name]) for name, value in row.items()}
    return pa.table(columns | ({} if readout is None else {"readout": readout}))


def refused(path: Path, kind: str = "finals", match: str = "") -> None:
    with pytest.raises(DamagedFile, match=match) as told:
        parquet.read_table(path, kind)
    assert str(path) in str(told.value)


# ---- Parquet -------------------------------------------------------------------------------------


def test_rows_are_counted_before_they_are_unpacked(tmp_path):
    """Ten million rows in a few hundred kB; what is read of them is the footer."""
    path, part = tmp_path / "t.parquet", finals(500_000)
    with pq.ParquetWriter(path, part.schema, compression="zstd") as writer:
        for _ in range(20):
            writer.write_table(part)
    del part
    assert path.stat().st_size < 1e6
    before = pa.total_allocated_bytes()
    refused(path, match=f"has 10000000 rows, expected at most {parquet.MOST_ROWS}")
    assert pa.total_allocated_bytes() - before < 1e6


@pytest.mark.parametrize("says_so", [True, False])
def test_text_that_is_long_only_once_written_out_is_refused(tmp_path, says_so):
    """One text of a million letters in four thousand rows: 4 GB, as a dictionary of one entry."""
    long = pa.DictionaryArray.from_arrays(
        pa.array([0] * 4_000, pa.int32()), pa.array(["x" * 1_000_000])
    )
    pq.write_table(
        finals(4_000, long), tmp_path / "t.parquet", compression="zstd", store_schema=says_so
    )
    assert (tmp_path / "t.parquet").stat().st_size < 1e5
    refused(tmp_path / "t.parquet", match="unpacked it has 4000")


def test_size_by_the_files_own_account_is_bounded(tmp_path, monkeypatch):
    pq.write_table(finals(2_000), tmp_path / "t.parquet", compression="zstd", use_dictionary=False)
    monkeypatch.setattr(parquet, "MOST_UNPACKED", 50_000)
    refused(tmp_path / "t.parquet", match="unpacked it has")


def test_file_of_many_bytes_is_not_read(tmp_path):
    with (tmp_path / "t.parquet").open("wb") as stream:
        stream.truncate(verified.MOST_BYTES + 1)  # a hole, which takes no room on disk
    refused(tmp_path / "t.parquet", match="expected at most")


@pytest.mark.parametrize(
    "told", [b"{", b'{"columns": 5}', b'{"index_columns": ["run", {}], "columns": [{}]}', b"\xff"]
)
def test_what_a_file_says_to_pandas_is_not_listened_to(tmp_path, told):
    table = finals(1).replace_schema_metadata({b"pandas": told})
    pq.write_table(table, tmp_path / "t.parquet")
    found = parquet.read_table(tmp_path / "t.parquet", "finals")
    assert found.columns.tolist() == SCHEMAS["finals"].names and found.index.tolist() == [0]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([["a"]]),
        pa.array([{"a": 1}]),
        pa.array([1]),
        pa.array([b"a"]),
        pa.array([None], pa.null()),
        pa.DictionaryArray.from_arrays(pa.array([0]), pa.array([1])),
    ],
    ids=lambda column: str(column.type),
)
def test_columns_of_other_types_are_refused(tmp_path, column):
    pq.write_table(finals(1, column), tmp_path / "t.parquet")
    refused(tmp_path / "t.parquet", match="not a finals table")


@pytest.mark.parametrize(
    "columns", [["run"], [*SCHEMAS["finals"].names, "more"], SCHEMAS["finals"].names[::-1]]
)
def test_other_columns_are_refused(tmp_path, columns):
    made = finals(1)
    pq.write_table(
        pa.table({n: made[n] if n in made.column_names else made["run"] for n in columns}),
        tmp_path / "t",
    )
    refused(tmp_path / "t", match="not a finals table: its columns are")


WRONG = [
    ("runs", "lr", float("nan")),
    ("runs", "lr", -1.0),
    ("runs", "lr", float("inf")),
    ("runs", "steps", 0),
    ("runs", "batch_size", -3),
    ("runs", "seed", -1),
    ("runs", "run", None),
    ("runs", "task", "a<b>"),
    ("finals", "accuracy", 1.5),
    ("finals", "accuracy", -0.1),
    ("finals", "calibration_error", 2.0),
    ("finals", "split", "tset"),
    ("finals", "split", "test/scale"),
    ("finals", "shift", "<script>alert(1)</script>"),
    ("finals", "severity", 6),
    ("finals", "severity", -1),
    ("finals", "statistics", "fresh"),
    ("finals", "batch", 1),
    ("finals", "readout", "a\x1b[2J"),
    ("finals", "readout", "x" * 1001),
    ("finals", "split", None),
    ("curves", "step", -1),
    ("measures", "step", -1),
    ("measures", "batch_size", 0),
    ("roster", "purpose", "tune"),
    ("roster", "arm", None),
    ("roster", "condition", "a<b>"),
    ("choices", "lr", float("nan")),
    ("choices", "lr", 0.0),
    ("suggestions", "rate", float("inf")),
    ("suggestions", "rate", -0.1),
    ("timings", "batch_size", 0),
    ("timings", "seconds_per_example", -1.0),
]


def one_of_each() -> dict[str, pd.DataFrame]:
    """A table of every kind with a row of each sort."""
    made = tables(
        [a_run(curve_points=2, shifts=("scale(severity=3)",))],
        probed=lambda run: [("last", "churn", 3, 0.5)],
        predicted=lambda *_: b"a",
    )
    rows = {
        "choices": {"condition": "c", "arm": "a", "tuned_by": "accuracy", "lr": 0.1},
        "suggestions": {"run": "r", "rule": "middle", "rate": 0.1},
        "timings": {"batch_size": 32, "round": 0, "seconds_per_example": 1e-6, "gain": 1.0},
        "sampling": {"task": "t", "optimizer": "o", "schedule": "s", "batch_size": 8, "steps": 9},
    }
    rows["sampling"] |= {"lr": 0.1, "readout": "last", "examples": 1_000, "predicted": 500}
    rows["sampling"]["covariance"] = np.float32(0.25).tobytes()
    rows["choices"]["readout"] = "last"
    more = {kind: pd.DataFrame([row]) for kind, row in rows.items()}
    return made._asdict() | result_of(made)._asdict() | more


@pytest.mark.parametrize(("kind", "column", "value"), WRONG)
def test_values_that_cannot_be_are_refused_when_written_and_when_read(
    tmp_path, kind, column, value
):
    table = one_of_each()[kind].astype({column: object})
    shifted = column in ("shift", "severity", "statistics", "batch")
    table.loc[table.index[-1] if shifted else 0, column] = value
    with pytest.raises(ValueError, match=column):
        write_table(table, tmp_path / "written", kind)
    made = pa.table(
        {
            f.name: pa.array(table[f.name], f.type, from_pandas=f.name not in ("lr", "rate"))
            for f in SCHEMAS[kind]
        }
    )
    pq.write_table(made, tmp_path / "t.parquet")
    refused(tmp_path / "t.parquet", kind, match=f"'{column}' is")


@pytest.mark.parametrize(
    ("rows", "amiss"),
    [
        ([[1.0]], "not of 2 numbers"),
        ([[1.0, 0.5], [0.4, 1.0]], "not finite and symmetric"),
        ([[1.0, np.nan], [np.nan, 1.0]], "not finite and symmetric"),
    ],
)
def test_covariances_that_are_no_square_matrix_are_refused(tmp_path, rows, amiss):
    one = one_of_each()["sampling"]
    packed = [np.array(row, "<f4").tobytes() for row in (rows * 2)[:2]]
    table = pd.concat([one, one.assign(lr=0.2)]).assign(covariance=packed)
    with pytest.raises(DamagedFile, match=amiss):
        write_table(table, tmp_path / "t.parquet", "sampling")


@pytest.mark.parametrize("kind", parquet.KEYS)
def test_row_that_stands_twice_is_refused(tmp_path, kind):
    table = one_of_each()[kind]
    with pytest.raises(DamagedFile, match=f"two rows have the same {parquet.KEYS[kind][0]}"):
        write_table(pd.concat([table, table.head(1)]), tmp_path / "t.parquet", kind)


# ---- tables that do not belong together ----------------------------------------------------------


def swapped(stack: Path, kind: str, table: pd.DataFrame) -> None:
    """Another table in a folder, its receipt forged to vouch for it."""
    write_table(table, stack / f"{kind}.parquet", kind)
    forge(stack)


@pytest.mark.parametrize("of", ["no runs", "one run", "other runs"])
def test_final_rows_are_of_all_runs_and_of_no_other(stack, of):
    made = tables([a_run(seed=0), a_run(seed=1)]).finals
    other = tables([a_run(seed=0), a_run(seed=1), a_run(seed=2)]).finals
    swapped(
        stack, "finals", {"no runs": made.head(0), "one run": made.head(3), "other runs": other}[of]
    )
    with pytest.raises(
        DamagedFile,
        match=r"stack is refused: (. of 2 runs have no final rows|finals are of 1 runs that)",
    ):
        read_folder(stack, Tables)


@pytest.mark.parametrize("kind", ["curves", "measures", "predictions"])
def test_rows_of_runs_that_are_not_there_are_refused(stack, kind):
    other = tables(
        [a_run(seed=5, curve_points=2)],
        probed=lambda run: [("", "churn", 1, 0.5)],
        predicted=lambda *_: b"",
    )
    swapped(stack, kind, getattr(other, kind))
    with pytest.raises(
        DamagedFile, match=f"stack is refused: {kind} are of 1 runs that are not there"
    ):
        read_folder(stack, Tables)


def test_result_without_runs_or_of_strangers_is_not_written(tmp_path):
    made = tables([a_run()])
    for wrong in (
        Tables(*(table.head(0) for table in made)),
        made._replace(finals=made.finals.head(0)),
    ):
        with pytest.raises(DamagedFile, match=r"is refused: .* runs"):
            write_folder(tmp_path / "stack", wrong, {})
    assert list(tmp_path.iterdir()) == []


# ---- rosters -------------------------------------------------------------------------------------


def whole() -> Result:
    """A result whose tables fit: two rates tuned, one of them chosen and reported."""
    runs = [
        a_run(seed=seed, lr=lr, test=False, curve_points=2)
        for seed in (10_000, 10_001)
        for lr in (0.1, 0.2)
    ]
    made = result_of(tables([*runs, *(a_run(seed=seed, curve_points=2) for seed in range(2))]))
    rows = [("constant", "last", "accuracy", 0.1, "last")]
    return made._replace(choices=pd.DataFrame(rows, columns=SCHEMAS["choices"].names))


def row_with(table: pd.DataFrame, **changes) -> pd.DataFrame:
    """The table with other values in its first row."""
    first = table.index == table.index[0]
    return table.assign(**{name: table[name].mask(first, to) for name, to in changes.items()})


ROSTERS = {
    "1 runs serve no condition and arm": lambda made: {"roster": made.roster[1:]},
    "roster are of 1 runs that are not there": lambda made: {
        "roster": row_with(made.roster, run="x")
    },
    "not the runs with test data": lambda made: {"roster": row_with(made.roster, purpose="report")},
    "have other settings": lambda made: {"runs": row_with(made.runs, steps=41)},
    "a rate was chosen that no tuning run had": lambda made: {
        "choices": made.choices.assign(lr=0.3)
    },
    "runs that are no range tests suggest rates": lambda made: {
        "suggestions": pd.DataFrame({"run": made.runs.run[:1], "rule": "middle", "rate": 0.1})
    },
}  # fmt: skip


@pytest.mark.parametrize("sentence", ROSTERS)
def test_roster_that_does_not_fit_its_runs_is_refused(tmp_path, sentence):
    made = whole()
    write_folder(tmp_path / "fits", made, {})
    with pytest.raises(DamagedFile, match=f"result is refused: .*{sentence}"):
        write_folder(tmp_path / "result", made._replace(**ROSTERS[sentence](made)), {})


@pytest.mark.parametrize(
    "change", [{"severity": pd.NA}, {"statistics": ""}, {"split": "train"}, {"shift": ""}]
)
def test_shifted_row_says_all_of_its_shift_and_others_nothing(tmp_path, change):
    table = one_of_each()["finals"]
    (column, value), shifted = next(iter(change.items())), table["shift"] != ""
    wrong = table.assign(**{column: table[column].mask(shifted, value)})
    with pytest.raises(DamagedFile, match="a row has a shift without severity"):
        write_table(wrong, tmp_path / "t.parquet", "finals")


# ---- receipts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [{}, [], None, {"../runs.parquet": "0" * 64}, {"/etc/passwd": "0" * 64}, {"runs.parquet": 1}],
)
def test_receipt_that_vouches_for_other_files_is_refused(stack, files):
    forge(stack, files=files)
    with pytest.raises(
        DamagedFile, match=r"receipt\.json is refused: it does not vouch for runs, finals"
    ):
        read_folder(stack, Tables)


def test_receipt_from_before_receipts_had_a_digest_is_told_from_damage(stack):
    receipt = verified.read_sealed(stack / "receipt.json")
    (stack / "receipt.json").write_bytes(verified.text(receipt))
    with pytest.raises(DamagedFile, match="from before files held a digest of their own content"):
        read_folder(stack, Tables)


@cache
def made() -> Result:
    return result(toy_plan(), score)


@pytest.fixture
def mine(toy, monkeypatch):
    """A result of one's own and the same one published; the folders of both."""
    for name in ("PUBLISHED", "REPRODUCED"):
        for module in (saved_results, verdict_rows):
            monkeypatch.setattr(module, name, toy / name.lower())
    homes = toy / "reproduced/laptop/toy" / TASK, toy / "published/toy" / TASK
    for home in homes:
        keep(home, made(), "laptop", f"toy/{TASK}@12345678")
    return homes


FORGED = [
    ({"profile": "full"}, "profile"),
    ({"profile": "huge"}, "profile"),
    ({"networks": True}, "networks"),
    ({"networks": 10**6}, "it says networks 1000000"),
    ({"networks": -1}, "networks"),
    ({"seeds": {"tuning": 3, "report": 500}}, "seeds"),
    ({"seeds": {"tuning": 3}}, "seeds"),
    ({"result": "other/task@12345678"}, "it says result other/task"),
    ({"result": "<script>"}, "result"),
    ({"seconds": -1.0}, "seconds"),
    ({"seconds": "1"}, "seconds"),
    ({"date": 5}, "date"),
    ({"date": "yesterday"}, "date"),
    ({"trained_on": "x"}, "trained_on"),
    ({"commit": None}, "commit"),
]


@pytest.mark.parametrize("public", [True, False])
@pytest.mark.parametrize(("changes", "named"), FORGED, ids=str)
def test_forged_receipt_is_held_to_its_tables_and_its_place(mine, changes, named, public):
    """All digests vouched for anew: what it says is still not so."""
    home = mine[public]
    if public and changes == {"profile": "full"}:
        pytest.skip(
            "published results of all profiles stand in one folder; git holds what was published"
        )
    forge(home, **changes)
    if public:
        published.record([f"toy/{TASK}"], home.parents[1])
    with pytest.raises(DamagedFile, match=rf"receipt\.json is refused: .*{named}"):
        list(saved_results.results(home.parents[1]))


def test_forged_cache_of_verdicts_is_computed_again(mine):
    rows = verdict_rows.cached_rows("reproduced", "laptop")
    (kept,) = mine[0].parents[2].glob("verdicts-*.json")
    for text in (kept.read_text().replace("supported", "refuted"), "{}", "", "[]", "{"):
        kept.write_text(text)
        assert verdict_rows.cached_rows("reproduced", "laptop") == rows
    kept.write_bytes(verified.sealed({"made from": "0" * 64, "rows": []}))  # of other sources
    assert verdict_rows.cached_rows("reproduced", "laptop") == rows


# ---- JSON ----------------------------------------------------------------------------------------

JSON = {
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "1e999": b'{"a": 1e999}',
    "twice": b'{"a": 1, "a": 2}',
    "no UTF-8": b'{"a": "\xff"}',
    "BOM": b"\xef\xbb\xbf{}",
    "digits": b"1" * 10_000,
    "cut": b'{"a": ',
    "empty": b"",
    "zeros": b"\0" * 10,
    "a tail": b"{} {}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
}


@pytest.mark.parametrize("name", JSON)
def test_json_that_was_not_written_here_is_refused(tmp_path, name):
    (tmp_path / "x.json").write_bytes(JSON[name])
    for reader in (verified.read_sealed, lambda path: verified.parsed(path.read_bytes(), path)):
        with pytest.raises(DamagedFile, match=r"x\.json is refused"):
            reader(tmp_path / "x.json")


@pytest.mark.parametrize(
    "content",
    [b"[]", b"5", b'"a"', b"null", b'{"sha256": 1}', b'{"sha256": "\\ud800", "a": "\\ud800"}'],
)
def test_json_without_its_seal_is_refused(tmp_path, content):
    with pytest.raises(DamagedFile, match="is refused"):
        verified.unsealed(content, tmp_path)


# ---- links, pipes, devices -----------------------------------------------------------------------


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_link(path: Path) -> None:
    outside = path.parents[1] / f"elsewhere-{path.name}"
    path.rename(outside)
    path.symlink_to(outside)


def as_endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def as_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HOSTILE = [as_pipe, as_link, as_endless, as_loop, as_folder]
hostile = pytest.mark.parametrize("spoil", HOSTILE, ids=lambda spoil: spoil.__name__)


def test_a_system_that_refuses_for_now_says_nothing_of_a_file(tmp_path, monkeypatch):
    """Too many open files, a lost network drive: a sound stack is not set aside for them."""
    store = Store(tmp_path)
    store.save(tables([a_run(curve_points=2)]), {})

    def refusing(path):
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refusing)
        with pytest.raises(OSError, match="Too many open files"):
            Store(tmp_path).keys()
    assert len(Store(tmp_path).keys()) == 1 and not (tmp_path / "damaged").exists()


@hostile
@pytest.mark.parametrize("name", ["receipt.json", "finals.parquet"])
def test_what_is_no_plain_file_in_a_result_is_refused(stack, spoil, name):
    spoil(stack / name)
    with pytest.raises(DamagedFile, match=rf"{name} is refused: it is a"):
        read_folder(stack, Tables)


@hostile
@pytest.mark.parametrize("name", ["a.csv", published.MANIFEST])
def test_what_is_no_plain_file_among_the_published_is_refused(tmp_path, spoil, name):
    root = tmp_path / "published"
    root.mkdir()
    published.write("a.csv", b"a\n1\n", root)
    spoil(root / name)
    for reader in (lambda: published.check(root), lambda: published.table("a.csv", root)):
        with pytest.raises(DamagedFile, match=rf"{name} is refused"):
            reader()


@hostile
def test_what_is_no_plain_file_among_notes_and_caches_counts_for_nothing(mine, spoil):
    root = mine[0].parents[2]
    up_to_date.remember(root / "x.made-from", "a" * 64)
    rows = verdict_rows.cached_rows("reproduced", "laptop")
    assert up_to_date.unchanged(root / "x.made-from", "a" * 64)
    spoil(root / "x.made-from")
    spoil(root / "verdicts-reproduced-laptop.json")
    if spoil is not as_link:
        assert not up_to_date.unchanged(root / "x.made-from", "a" * 64)
    assert verdict_rows.cached_rows("reproduced", "laptop") == rows


@pytest.mark.parametrize("note", ["a" * 63, "a" * 65, "a" * 64 + "\n", "", "A" * 64])
def test_only_the_whole_digest_counts_in_a_note(tmp_path, note):
    (tmp_path / "x").write_text(note)
    assert not up_to_date.unchanged(tmp_path / "x", "a" * 64)


@pytest.mark.parametrize("level", [0, 1])
def test_folder_that_is_a_link_to_elsewhere_is_refused(mine, tmp_path, level):
    for home in mine:
        place, outside = (home, home.parent)[level], tmp_path / f"outside-{home.parents[1].name}"
        shutil.move(place, outside)
        place.symlink_to(outside)
        with pytest.raises(
            DamagedFile, match=rf"{place.name}.* is refused: (it leads to|.* does not list it)"
        ):
            list(saved_results.results(home.parents[1]))


def test_stack_that_is_a_link_to_elsewhere_is_set_aside(tmp_path):
    store = Store(tmp_path / "store", warn=(said := []).append)
    store.save(tables([a_run()]), {})
    (folder,) = (path for path in store.root.glob("??/*") if path.is_dir())
    shutil.move(folder, tmp_path / "outside")
    folder.symlink_to(tmp_path / "outside")
    assert store.keys() == set() and len(said) == 1 and (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../b", "a//b", "./a", "a\\..\\b", "a b", ".hidden"]
)
def test_manifest_with_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    (tmp_path / published.MANIFEST).write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(DamagedFile, match="SHA256SUMS is refused"):
        published.read(name, tmp_path)


# ---- data ----------------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path, monkeypatch):
    """The folder of a data set of four small files."""
    contents = {name: name.encode() for name in fashion_mnist.DIGESTS}
    monkeypatch.setattr(
        fashion_mnist, "DIGESTS", {name: sha256(content) for name, content in contents.items()}
    )
    for name, content in contents.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    fashion_mnist.read_folder(tmp_path)
    return tmp_path


def test_zip_bomb_is_unpacked_no_further_than_the_largest_file(images, monkeypatch):
    """A gigabyte of zeros in one megabyte; no more of it is unpacked than the largest file of the
    data set has.
    """
    monkeypatch.setattr(fashion_mnist, "LARGEST", 2_000_000)
    packed = gzip.compress(bytes(100_000_000), 1) * 10  # members one after another are one stream
    name = next(iter(fashion_mnist.DIGESTS))
    assert len(packed) > 2_000_000
    monkeypatch.setattr(fashion_mnist, "LARGEST", len(packed))
    (images / f"{name}.gz").write_bytes(packed)
    tracemalloc.start()
    with pytest.raises(DamagedFile, match=rf"{name}\.gz is refused"):
        fashion_mnist.read_folder(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * len(packed)


@hostile
def test_what_is_no_plain_file_among_the_data_is_refused(images, spoil):
    name = next(iter(fashion_mnist.DIGESTS))
    spoil(images / f"{name}.gz")
    with pytest.raises((DamagedFile, FileNotFoundError), match=name):
        fashion_mnist.read_folder(images)
