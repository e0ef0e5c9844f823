"""The store: what is saved loads back equal; what is damaged is set aside by name and counts as
missing.
"""

import errno
import math
import signal
import subprocess
import sys

import pandas as pd
import pytest
from filelock import Timeout

from damage import cut, empty, flip, forge, remove
from fabricated import a_run, result_of, tables
from steadydescent.study.results import store as results
from steadydescent.study.results.store import (
    SCHEMAS,
    Result,
    Store,
    Tables,
    file_digest,
    read_folder,
    read_table,
    write_folder,
    write_table,
)

FILES = [
    "curves.parquet",
    "finals.parquet",
    "measures.parquet",
    "predictions.parquet",
    "receipt.json",
    "runs.parquet",
]


def runs(*seeds: int, **changes) -> list:
    return [a_run(seed=seed, curve_points=2, **changes) for seed in seeds]


def by_seed(run, readout: str, split: str) -> float:
    return (run.seed + len(readout) / 10 + len(split) / 1000) / 20


def probed(run):
    """A measure along the way, one of the whole run, and one that has no value."""
    yield "last", "training-loss", 20, run.seed + 0.25
    yield "", "tail-loss-mean", None, 1 / 3
    yield "at-50", "distance to the tail mean", None, math.nan


@pytest.fixture
def store(tmp_path):
    said = []
    made = Store(tmp_path / "store", warn=said.append)
    made.said = said
    return made


def folder_of(store: Store):
    (folder,) = (path for path in store.root.glob("[0-9a-f][0-9a-f]/*") if path.is_dir())
    return folder


def afresh(store: Store) -> Store:
    """The same store as another process sees it, with nothing remembered."""
    return Store(store.root, warn=store.said.append)


def assert_same(found: Tables, expected: Tables) -> None:
    for one, other in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(one, other[one.columns.tolist()], check_dtype=False)


# ---- whole stacks --------------------------------------------------------------------------------


def test_saved_stack_loads_back_equal(store):
    stack = runs(2, 0, 1)
    saved = tables(
        stack, by_seed, [stack[1].key], probed, lambda run, readout: bytes([run.seed, 255, 0])
    )
    store.save(saved, {"device": "a machine", "seconds": 1.25})
    assert store.keys() == {run.key for run in stack}
    loaded, receipts = afresh(store).load([run.key for run in stack])
    assert_same(loaded, saved)
    assert loaded.runs.diverged_at.isna().tolist() == [True, False, True]
    assert (len(loaded.measures), len(loaded.predictions)) == (9, 6)
    assert (
        str(loaded.measures.step.dtype) == "Int64"
        and loaded.measures.step.isna().tolist() == [False, True, True] * 3
    )
    assert loaded.predictions.classes[0] == bytes([2, 255, 0])
    assert [{k: r[k] for k in ("device", "seconds")} for r in receipts] == [
        {"device": "a machine", "seconds": 1.25}
    ]


def test_runs_of_several_stacks_come_in_the_order_asked_for_and_no_others(store):
    first, second = runs(0, 1, 2), runs(3, 4)
    store.save(tables(first, by_seed), {"name": "first"})
    store.save(tables(second, by_seed), {"name": "second"})
    wanted = [second[1], first[2], first[0]]
    loaded, receipts = store.load([run.key for run in wanted])
    assert_same(loaded, tables(wanted, by_seed))
    assert {receipt["name"] for receipt in receipts} == {"first", "second"}
    assert len(store.load([second[0].key])[1]) == 1


def test_run_that_two_stacks_hold_is_loaded_once(store):
    """Stacks overlap when seeds were added between two sessions."""
    store.save(tables(runs(0, 1), by_seed), {})
    store.save(tables(runs(1, 2), by_seed), {})
    keys = [run.key for run in runs(0, 1, 2)]
    assert_same(store.load(keys)[0], tables(runs(0, 1, 2), by_seed))


def test_missing_runs_are_counted_in_the_error(store):
    store.save(tables(runs(0), by_seed), {})
    with pytest.raises(KeyError, match="2 of 3 runs are not in the store"):
        store.load([run.key for run in runs(0, 1, 2)])


def test_empty_store_has_no_keys(store):
    assert store.keys() == set()


def test_second_runner_that_saves_the_same_stack_is_harmless(store):
    stack = runs(0, 1)
    store.save(tables(stack, by_seed), {"runner": 1})
    before = {path.name: file_digest(path) for path in folder_of(store).iterdir()}
    afresh(store).save(tables(stack[::-1], by_seed), {"runner": 2})
    assert {path.name: file_digest(path) for path in folder_of(store).iterdir()} == before
    # nothing of the second is left about
    assert list(folder_of(store).parent.iterdir()) == [folder_of(store)]
    assert_same(afresh(store).load([run.key for run in stack])[0], tables(stack, by_seed))


def test_full_disk_is_not_taken_for_another_runner(tmp_path, monkeypatch):
    """Neither for a new stack nor when an older result is to be replaced, which stays as it was."""
    made = tables(runs(0), by_seed)
    write_folder(tmp_path / "there", made, {"version": 1})

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(results, "write_table", full)
    for name in ("new", "there"):
        with pytest.raises(OSError, match="No space left"):
            write_folder(tmp_path / name, made, {"version": 2}, replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert read_folder(tmp_path / "there", Tables)[1]["version"] == 1


def test_folder_in_the_way_that_is_no_result_is_told(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="target"):
        write_folder(tmp_path / "target", tables(runs(0), by_seed), {})
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_replaced_result_holds_the_new_rows_alone(tmp_path):
    old, new = (
        result_of(made)
        for made in (
            tables(runs(0, 1), by_seed, probed=probed),
            tables(runs(2), by_seed, probed=probed),
        )
    )
    write_folder(tmp_path / "result", old, {"version": 1})
    write_folder(tmp_path / "result", new, {"version": 2}, replace=True)
    found, receipt = read_folder(tmp_path / "result", Result)
    assert found.runs.seed.tolist() == [2] and receipt["version"] == 2
    for one, other in zip(found, new, strict=True):
        pd.testing.assert_frame_equal(one, other[one.columns.tolist()], check_dtype=False)
    assert found.quantiles.columns.tolist() == SCHEMAS["quantiles"].names and set(
        found.quantiles.seeds
    ) == {1}
    assert sorted(path.name for path in (tmp_path / "result").iterdir()) == sorted(
        ["receipt.json", *(f"{kind}.parquet" for kind in Result._fields)]
    )


# ---- damage --------------------------------------------------------------------------------------


DAMAGES = [(name, how) for name in FILES for how in (cut, flip, empty, remove)]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_damaged_stack_is_set_aside_by_name_and_its_runs_count_as_missing(store, name, damage):
    good, bad = runs(0, 1), runs(2, 3)
    store.save(tables(bad, by_seed), {"device": "a machine"})
    folder = folder_of(store)
    store.save(tables(good, by_seed), {})
    damage(folder / name)

    again = afresh(store)
    assert again.keys() == {run.key for run in good}
    assert (
        len(store.said) == 1 and folder.name in store.said[0] and "computed again" in store.said[0]
    )
    assert (
        not folder.exists()
        and len(list(store.root.glob(f"damaged/{folder.name}-*/{folder.name}"))) == 1
    )
    with pytest.raises(KeyError, match="1 of 1"):
        again.load([bad[0].key])

    again.save(tables(bad, by_seed), {})  # trained again, as if nothing had happened
    assert_same(afresh(store).load([run.key for run in bad])[0], tables(bad, by_seed))
    assert len(store.said) == 1


def test_of_stacks_that_nobody_asks_for_only_whose_they_are_is_read(store):
    mine, others = runs(0, 1), runs(2, 3)
    store.save(tables(others, by_seed), {})
    damaged = folder_of(store)
    store.save(tables(mine, by_seed), {})
    flip(damaged / "curves.parquet")
    again = afresh(store)
    keys = lambda stack: [run.key for run in stack]
    assert {key for key, _ in again.versions(keys(mine))} == {*keys(mine)}
    assert_same(again.load(keys(mine))[0], tables(mine, by_seed))
    assert damaged.exists() and not store.said
    assert [*again.versions(keys(others))] == [] and not damaged.exists()
    assert len(store.said) == 1


def test_a_stack_trained_anew_after_damage_has_its_own_receipt(store):
    stack = runs(0, 1)
    keys = [run.key for run in stack]
    store.save(tables(stack, by_seed), {"seconds": 1.0})
    again = afresh(store)
    assert [*again.versions(["of another"])] == []  # whose it is, is known now
    flip(folder_of(store) / "finals.parquet")
    assert [*again.versions(keys)] == []
    again.save(tables(stack, by_seed), {"seconds": 2.0})
    assert [receipt["seconds"] for receipt in again.load(keys)[1]] == [2.0]
    assert {receipt["seconds"] for _, receipt in again.versions(keys)} == {2.0}


@pytest.mark.parametrize(
    "text", ["[]", "null", "{}", '{"files": {}}', '{"files": []}', '{"files": null}']
)
def test_receipt_that_vouches_for_nothing_is_damage(store, text):
    store.save(tables(runs(0), by_seed), {})
    (folder_of(store) / "receipt.json").write_text(text)
    assert afresh(store).keys() == set()
    assert len(store.said) == 1


def test_table_of_another_kind_is_refused_although_its_checksum_holds(store):
    store.save(tables(runs(0), by_seed), {})
    folder = folder_of(store)
    (folder / "finals.parquet").write_bytes((folder / "curves.parquet").read_bytes())
    forge(folder)
    assert afresh(store).keys() == set()
    assert "finals.parquet is not a finals table" in store.said[0]


def test_killed_writer_leaves_nothing_that_is_read(store):
    """A folder half-written by a runner that was killed stands beside its target under a name that
    no one reads.
    """
    stack = runs(0, 1)
    store.save(tables(stack, by_seed), {})
    folder = folder_of(store)
    folder.rename(folder.parent / f".{folder.name}-k1ll3d")
    assert afresh(store).keys() == set() and store.said == []
    store.save(tables(stack, by_seed), {})
    assert afresh(store).keys() == {run.key for run in stack}


def test_two_runners_may_find_the_same_damage(store, monkeypatch):
    """The other one set it aside between our reading it and our moving it."""
    store.save(tables(runs(0), by_seed), {})
    folder, read = folder_of(store), results.read_folder
    cut(folder / "runs.parquet")

    def overtaken(*arguments):
        monkeypatch.setattr(results, "read_folder", read)
        assert afresh(store).keys() == set()
        return read(*arguments)

    monkeypatch.setattr(results, "read_folder", overtaken)
    assert afresh(store).keys() == set()


def test_damage_to_a_result_is_told_with_both_checksums(tmp_path):
    write_folder(tmp_path / "stack", tables(runs(0), by_seed), {})
    flip(tmp_path / "stack" / "runs.parquet")
    with pytest.raises(
        ValueError, match=r"runs\.parquet has SHA-256 [0-9a-f]{12}…, its receipt says [0-9a-f]{12}…"
    ):
        read_folder(tmp_path / "stack", Tables)


# ---- schemas -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Tables._fields)
def test_column_too_many_or_missing_is_refused_by_name(tmp_path, kind):
    table = tables(runs(0), by_seed)._asdict()[kind]
    for wrong in (table.assign(surplus=1), table.drop(columns="run")):
        with pytest.raises(ValueError, match=f"{kind} table must have the columns .*'run'"):
            write_table(wrong, tmp_path / "t.parquet", kind)


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [
        ("runs", "lr", "fast"),
        ("runs", "seed", 1.5),
        ("runs", "test", "yes"),
        ("finals", "accuracy", "high"),
        ("curves", "step", "x"),
        ("measures", "value", "much"),
        ("measures", "step", 0.5),
    ],
)
def test_mistyped_column_is_refused_by_name(tmp_path, kind, column, value):
    table = tables(runs(0), by_seed, probed=probed)._asdict()[kind].astype({column: object})
    table[column] = value
    with pytest.raises((ValueError, TypeError), match=column):
        write_table(table, tmp_path / "t.parquet", kind)


def test_table_of_another_schema_is_refused_when_read(tmp_path):
    write_table(tables(runs(0), by_seed).finals, tmp_path / "t.parquet", "finals")
    with pytest.raises(ValueError, match=r"not a curves table.*readout"):
        read_table(tmp_path / "t.parquet", "curves")


def test_no_table_can_hold_a_python_object():
    """Every column is a number, a truth value, a string or plain bytes: nothing needs pickle."""
    kinds = {str(kind) for schema in SCHEMAS.values() for kind in schema.types}
    assert kinds == {"string", "double", "int64", "bool", "binary"}


# ---- locks ---------------------------------------------------------------------------------------


def test_stack_is_locked_by_one_runner_at_a_time_whatever_the_order_of_its_runs(store):
    keys = [run.key for run in runs(0, 1)]
    with store.lock(keys):
        with pytest.raises(Timeout):
            afresh(store).lock(keys[::-1]).acquire(timeout=0.01)
        afresh(store).lock(keys[:1]).acquire(timeout=0.01)  # another stack is free
    afresh(store).lock(keys).acquire(timeout=0.01)


def test_lock_goes_with_the_process_that_held_it(store):
    keys = [run.key for run in runs(0, 1)]
    path = store.lock(keys).lock_file
    held = (
        "import sys, time, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); "
        "print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", held, path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Timeout):
            store.lock(keys).acquire(timeout=0.01)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    store.lock(keys).acquire(timeout=5)
