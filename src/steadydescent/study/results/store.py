"""The store: finished stacks by content, with checked tables and receipts; safe to kill at any
moment.

    store/ab/ab12…/  runs.parquet  finals.parquet  curves.parquet  receipt.json

A stack is written into a folder of its own beside its target, flushed to disk, and renamed, so it
is either there whole or not at all. Every file's SHA-256 stands in the receipt; a folder that does
not match its receipt, and a receipt that does not match its own digest, is set aside when it is
read, and its runs are trained again.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from filelock import FileLock

from steadydescent import verified
from steadydescent.files import DamagedFile, completed, replacing_folder, sha256, writing
from steadydescent.study.results.tables import (
    OPTIONAL,
    SCHEMAS,
    check_together,
    empty,
    read_table,
    table_from_bytes,
    write_table,
)

__all__ = [
    "SCHEMAS",
    "Result",
    "Store",
    "Tables",
    "file_digest",
    "read_folder",
    "read_receipt",
    "read_table",
    "write_folder",
    "write_table",
]


class Tables(NamedTuple):
    """What a stack leaves in the store: one row a run; a (run, readout, split); a (run, readout,
    step); what probes measured; predicted classes.
    """

    runs: pd.DataFrame
    finals: pd.DataFrame
    curves: pd.DataFrame
    measures: pd.DataFrame
    predictions: pd.DataFrame


class Result(NamedTuple):
    """What an experiment leaves on one task: its runs, whom each serves, what was chosen by tuning;
    a row a (run, readout, split, shift); quantiles along training; what else was measured of runs;
    what range tests suggest; how long examples took; how accuracies vary with the test set.
    """

    runs: pd.DataFrame
    roster: pd.DataFrame
    choices: pd.DataFrame
    finals: pd.DataFrame
    quantiles: pd.DataFrame
    measures: pd.DataFrame
    suggestions: pd.DataFrame
    timings: pd.DataFrame
    sampling: pd.DataFrame = empty("sampling")


MADE_WITH = ("code", "packages", "device_kind", "device", "threads", "optimized")
"""What a receipt says of how a stack's numbers came about: stacks of the same runs that differ in
it are kept apart.
"""
T = TypeVar("T", Tables, Result)
R = TypeVar("R")
RECEIPT = "receipt.json"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_folder(
    target: Path,
    tables: Tables | Result,
    receipt: dict[str, Any],
    replace: bool = False,
    announce: Callable[[dict[str, str]], None] = lambda digests: None,
) -> None:
    """Write tables and receipt as one folder that appears whole; an existing target is kept unless
    `replace`.

    `announce` is told the SHA-256 of each file, by name, before the folder takes its place.

    Raises: CannotWrite: when the disk is full or the place is not to be written; what stood there
        stays.
    """
    check_together(tables._asdict(), target)
    with replacing_folder(target, RECEIPT, replace) as folder:
        for kind, table in tables._asdict().items():
            write_table(table, folder / f"{kind}.parquet", kind)
        digests = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
        note = verified.sealed({**receipt, "files": digests})
        (folder / RECEIPT).write_bytes(note)
        announce({**digests, RECEIPT: sha256(note)})


def read_receipt(folder: Path) -> dict[str, Any]:
    """A result's receipt, every byte of it as it was written; raises FileNotFoundError or
    DamagedFile.
    """
    return verified.read_sealed(folder / RECEIPT)


def read_folder(folder: Path, kind: type[T]) -> tuple[T, dict[str, Any]]:
    """Tables and receipt of a folder: the receipt checked by its own digest, each table by the
    receipt's. A table that older results lack is empty.

    A folder that another process replaces meanwhile is read again: its files are of one writing,
    never of two.

    Raises:
        DamagedFile: names the file that is missing, altered, or holds what no result holds.
    """
    return _of_one_writing(folder, lambda: _read_folder(folder, kind))


def _of_one_writing(folder: Path, read: Callable[[], R]) -> R:
    """What is read from a folder, read again where another process replaced it meanwhile."""
    while True:
        before = _identity(completed(folder))
        try:
            found = read()
        except ValueError:
            if _identity(completed(folder)) == before:
                raise
        else:
            if _identity(completed(folder)) == before:
                return found


def _identity(folder: Path) -> tuple[int, int] | None:
    """What tells a folder from another that took its name."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _read_folder(folder: Path, kind: type[T]) -> tuple[T, dict[str, Any]]:
    tables, receipt = _read_tables(folder, kind, kind._fields)
    check_together(tables, folder)
    return kind(**tables), receipt


def _read_keys(folder: Path) -> tuple[frozenset[str], dict[str, Any]]:
    """Keys and receipt of a stack's folder, whose other tables are not looked at yet."""
    tables, receipt = _read_tables(folder, Tables, ["runs"])
    return frozenset(tables["runs"].run), receipt


def _read_tables(
    folder: Path, kind: type[Tables] | type[Result], wanted: Collection[str]
) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Some tables of a folder, and its receipt, which must vouch for all that the kind has."""
    verified.check_inside(folder, folder.parent)
    try:
        receipt = read_receipt(folder)
        digests, names = receipt.get("files"), {f"{name}.parquet" for name in kind._fields}
        may_lack = {f"{name}.parquet" for name in OPTIONAL} & names
        if not isinstance(digests, dict) or set(digests) | may_lack != names:
            raise DamagedFile(
                f"{folder / RECEIPT} is refused: it does not vouch for {', '.join(kind._fields)}"
            )
        tables = {
            name: _vouched(folder / f"{name}.parquet", name, digests)
            for name in kind._fields
            if name in wanted and f"{name}.parquet" in digests
        }
    except FileNotFoundError as error:
        raise DamagedFile(f"{folder} is not a whole result: {error.filename} is missing") from error
    return tables, receipt


def _vouched(path: Path, kind: str, digests: dict[str, Any]) -> pd.DataFrame:
    """The table in a file that a receipt vouches for."""
    content = verified.read(path)
    if (found := sha256(content)) != (digest := str(digests[path.name])):
        raise DamagedFile(f"{path} has SHA-256 {found[:12]}…, its receipt says {digest[:12]}…")
    return table_from_bytes(content, kind, path)


Fits = Callable[[str, dict[str, Any]], bool]
"""Whether a stored run will do, from its key and its stack's receipt."""


def whatever(key: str, receipt: dict[str, Any]) -> bool:
    """Any version of a run fits."""
    return True


class Store:
    """Finished runs by key. Several processes may share one.

    A folder is read and checked once, as a whole where its runs are asked for; of others only keys
    and receipt are read, and stay in memory.
    """

    def __init__(self, root: Path, warn: Callable[[str], None] = print) -> None:
        self.root, self.warn = root, warn
        self._receipts: dict[Path, tuple[frozenset[str], dict[str, Any]]] = {}
        self._sound: set[Path] = set()
        self._tables: dict[Path, Tables] = {}

    def _folders(self) -> Iterable[Path]:
        return sorted(self.root.glob("[0-9a-f][0-9a-f]/[0-9a-f]*"))

    def _with(
        self, among: Collection[str] | None
    ) -> Iterator[tuple[Path, frozenset[str], dict[str, Any]]]:
        """Every sound folder that has some of these runs, their keys and its receipt."""
        for folder in self._folders():
            if folder not in self._receipts and (found := self._read(folder, _read_keys)):
                self._receipts[folder] = found
            if folder not in self._receipts:
                continue
            keys = self._receipts[folder][0]
            mine = keys if among is None else keys.intersection(among)
            if mine and (folder in self._sound or self._whole(folder)):
                yield folder, mine, self._receipts[folder][1]

    def _whole(self, folder: Path) -> Tables | None:
        """A folder's tables, all checked, or None after setting a damaged one aside."""
        found = self._read(folder, lambda folder: _read_folder(folder, Tables))
        if found is None:  # what takes its place has another receipt
            self._receipts.pop(folder, None)
            self._sound.discard(folder)
            return None
        tables, receipt = found
        self._receipts[folder] = frozenset(tables.runs.run), receipt
        self._sound.add(folder)
        return tables

    def _read(self, folder: Path, read: Callable[[Path], R]) -> R | None:
        """What is read from a folder, or None after setting a damaged one aside."""
        try:
            return _of_one_writing(folder, lambda: read(folder))
        except ValueError as error:
            self._set_aside(folder)
            self.warn(f"set aside and to be computed again: {error}")
            return None

    def _set_aside(self, folder: Path) -> None:
        aside = self.root / "damaged" / f"{folder.name}-{uuid.uuid4().hex[:8]}" / folder.name
        with (
            writing(folder),
            suppress(FileNotFoundError),
        ):  # another runner may have set it aside already
            aside.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(aside)

    def keys(self) -> set[str]:
        """Keys of all finished runs, files verified."""
        return set().union(*(keys for _, keys, _ in self._with(None)))

    def versions(
        self, among: Collection[str] | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every version of every finished run, or of those with these keys, with the receipt of its
        stack.
        """
        for _, keys, receipt in self._with(among):
            for key in keys:
                yield key, receipt

    def lock(self, keys: Sequence[str]) -> FileLock:
        """A lock on a stack of runs; it goes with the process that holds it."""
        folder = self.root / "locks"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{self._name(keys)}.lock")

    @staticmethod
    def _name(keys: Sequence[str]) -> str:
        return hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()[:24]

    def save(self, tables: Tables, receipt: dict[str, Any]) -> None:
        """Keep a finished stack, beside those of the same runs that other code or another machine
        has trained.
        """
        write_folder(self.folder_of(tables, receipt), tables, receipt)

    def folder_of(self, tables: Tables, receipt: dict[str, Any]) -> Path:
        """Where a stack is kept: its runs and what made them name the place."""
        version = json.dumps(
            {name: receipt[name] for name in MADE_WITH if name in receipt}, sort_keys=True
        )
        name = self._name([*tables.runs.run, *([version] if version != "{}" else [])])
        return self.root / name[:2] / name

    def put(self, folder: Path, tables: Tables, receipt: dict[str, Any]) -> bool:
        """Take in a folder of another store as it is; `read_folder` has read these in it.

        False, and nothing is done, where its stack is here already.
        """
        if (target := completed(self.folder_of(tables, receipt))).exists():
            return False
        with replacing_folder(target, RECEIPT) as new:
            for file in folder.iterdir():
                (new / file.name).write_bytes(file.read_bytes())
        return True

    def load(
        self, keys: Iterable[str], fits: Fits = whatever
    ) -> tuple[Tables, list[dict[str, Any]]]:
        """Tables of these runs, in the order of the keys, and the receipts of the stacks they came
        from.

        Of a run that is there in several versions the first that `fits` its key is taken.
        """
        order = {key: place for place, key in enumerate(keys)}
        parts, receipts, left = [], [], set(order)
        for folder, stored, receipt in self._with(order):
            mine = {key for key in left & stored if fits(key, receipt)}
            if mine and (tables := self._kept(folder)):
                parts.append(Tables(*(table[table.run.isin(mine)] for table in tables)))
                receipts.append(receipt)
                left -= mine
        if left:
            raise KeyError(
                f"{len(left)} of {len(order)} runs are not in the store {self.root}; "
                "train them first"
            )
        joined = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
        return Tables(*(_in_order(table, order) for table in joined)), receipts

    def _kept(self, folder: Path) -> Tables | None:
        """A folder's tables, kept from now on, or None where it has been damaged meanwhile."""
        if folder not in self._tables and (tables := self._whole(folder)):
            self._tables[folder] = tables
        return self._tables.get(folder)


def _in_order(table: pd.DataFrame, order: Mapping[str, int]) -> pd.DataFrame:
    """The table's rows by the place of their run; the rows of a run stay as they are."""
    codes, runs = pd.factorize(table.run)  # a table has many rows a run
    places = np.array([order[run] for run in runs], dtype=np.intp)
    return table.take(np.argsort(places[codes], kind="stable")).reset_index(drop=True)
