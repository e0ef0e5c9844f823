"""Tables of results: schemas, what columns may hold, and Parquet that is looked at before it is
unpacked.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from steadydescent import verified
from steadydescent.files import DamagedFile

MEASURES = [("accuracy", pa.float64()), ("loss", pa.float64()), ("calibration_error", pa.float64())]
SCHEMAS = {
    "runs": pa.schema(
        [
            ("run", pa.string()),
            ("task", pa.string()),
            ("optimizer", pa.string()),
            ("schedule", pa.string()),
        ]
        + [
            ("lr", pa.float64()),
            ("batch_size", pa.int64()),
            ("steps", pa.int64()),
            ("seed", pa.int64()),
        ]
        + [("curve_points", pa.int64()), ("test", pa.bool_()), ("diverged_at", pa.int64())]
    ),
    "finals": pa.schema(
        [("run", pa.string()), ("readout", pa.string()), ("split", pa.string()), *MEASURES]
    ),
    "curves": pa.schema(
        [("run", pa.string()), ("readout", pa.string()), ("step", pa.int64()), *MEASURES]
    ),
    "measures": pa.schema(
        [("run", pa.string()), ("readout", pa.string()), ("measure", pa.string())]
        + [("step", pa.int64()), ("value", pa.float64())]
    ),
    "predictions": pa.schema(
        [("run", pa.string()), ("readout", pa.string()), ("classes", pa.binary())]
    ),
    "quantiles": pa.schema(
        [
            ("task", pa.string()),
            ("optimizer", pa.string()),
            ("schedule", pa.string()),
            ("batch_size", pa.int64()),
        ]
        + [
            ("steps", pa.int64()),
            ("lr", pa.float64()),
            ("readout", pa.string()),
            ("step", pa.int64()),
        ]
        + [
            ("seeds", pa.int64()),
            ("low", pa.float64()),
            ("median", pa.float64()),
            ("high", pa.float64()),
        ]
    ),
}
KEYS = {
    "runs": ["run"],
    "finals": ["run", "readout", "split"],
    "curves": ["run", "readout", "step"],
    "measures": ["run", "readout", "measure", "step"],
    "predictions": ["run", "readout"],
}
"""Columns that tell the rows of a table apart; a row that stood twice would count twice."""
MAY_BE_MISSING = {"runs": "diverged_at", "measures": "step"}
"""The whole numbers that a row may lack."""
RANGES = {
    "lr": (np.nextafter(0, 1), math.inf),
    "batch_size": (1, math.inf),
    "steps": (1, math.inf),
    "seed": (0, math.inf),
    "curve_points": (1, math.inf),
    "diverged_at": (0, math.inf),
    "step": (0, math.inf),
    "seeds": (1, math.inf),
    "accuracy": (0, 1),
    "calibration_error": (0, 1),
}
"""Column → lowest and highest value; what has no value (NaN) is in no range."""
MOST_ROWS = 2_000_000
"""Rows of a table that are read; a result of profile full has some hundred thousand."""
MOST_UNPACKED = 2**30
"""Bytes that a table may have once unpacked, 1 GiB."""
SPLIT = re.compile(r"validation|test|train|test/[^\x00-\x1f\x7f<>&]+")
TEXT = re.compile(r"[^\x00-\x1f\x7f<>&]*")
"""Names of things: nothing that a terminal obeys or a page could take for markup."""
LONGEST = 1_000
"""Characters of a name."""


def write_table(table: pd.DataFrame, path: Path, kind: str) -> None:
    """Write a table as Parquet with the schema of its kind.

    Raises: ValueError: for a column too many, missing or mistyped, and for values that would be
        refused when read.
    """
    schema = SCHEMAS[kind]
    if set(table.columns) != set(schema.names):
        raise ValueError(
            f"{kind} table must have the columns {schema.names}, got {sorted(table.columns)}"
        )
    made = pa.Table.from_pandas(table[schema.names], schema, preserve_index=False)
    _check_values(frame(made, kind), kind, path)
    pq.write_table(made, path, compression="zstd")


def read_table(path: Path, kind: str) -> pd.DataFrame:
    """Read a table of a kind; raises FileNotFoundError, or DamagedFile as `unpacked` does."""
    return unpacked(verified.read(path), kind, path)


def unpacked(content: bytes, kind: str, path: Path) -> pd.DataFrame:
    """The table in a Parquet file's bytes; `path` is where they were read, for messages.

    Schema, rows and sizes are looked at first; text is read as a dictionary, which costs what
    stands in the file, and its full size known before it is written out. What the file says to
    pandas is not listened to.

    Raises: DamagedFile: for what is no Parquet, another schema, too many rows or bytes, or values
        out of range.
    """
    try:
        about = pq.read_metadata(pa.BufferReader(content))
        _check_size(about, kind, path)
        file = pq.ParquetFile(
            pa.BufferReader(content), metadata=about, read_dictionary=_text_columns(kind)
        )
        _check_types(file, kind, path)
        table = file.read()
        sizes = [_size(column) for column in table.columns]
        if sum(sizes) > MOST_UNPACKED:
            raise DamagedFile(
                f"{path} is refused: unpacked it has {sum(sizes)} bytes, expected {MOST_UNPACKED} at most"
            )
        found = frame(table.cast(SCHEMAS[kind]), kind)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, DamagedFile):
            raise
        raise DamagedFile(f"{path} is refused: not a {kind} table ({error})") from error
    _check_values(found, kind, path)
    return found


def _text_columns(kind: str) -> list[str]:
    return [field.name for field in SCHEMAS[kind] if field.type in (pa.string(), pa.binary())]


def _check_size(about: pq.FileMetaData, kind: str, path: Path) -> None:
    """Refuse other columns, and what would take too much memory by its own account."""
    if about.schema.names != SCHEMAS[kind].names:
        raise DamagedFile(
            f"{path} is not a {kind} table: its columns are {about.schema.names[:40]}"
        )
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    if about.num_rows > MOST_ROWS or sum(group.num_rows for group in groups) != about.num_rows:
        raise DamagedFile(
            f"{path} is refused: it has {about.num_rows} rows, expected at most {MOST_ROWS}"
        )
    if (size := sum(group.total_byte_size for group in groups)) > MOST_UNPACKED:
        raise DamagedFile(
            f"{path} is refused: unpacked it has {size} bytes, expected at most {MOST_UNPACKED}"
        )


def _check_types(file: pq.ParquetFile, kind: str, path: Path) -> None:
    """Refuse a table whose columns are of other types, which the dictionaries that we ask for are
    not.
    """
    read_as = {
        pa.string(): pa.dictionary(pa.int32(), pa.string()),
        pa.binary(): pa.dictionary(pa.int32(), pa.binary()),
    }
    expected = pa.schema(
        [(field.name, read_as.get(field.type, field.type)) for field in SCHEMAS[kind]]
    )
    if not file.schema_arrow.remove_metadata().equals(expected):
        raise DamagedFile(
            f"{path} is not a {kind} table: its columns are {file.schema_arrow.types}"
        )


def _size(column: pa.ChunkedArray) -> int:
    """Bytes of a column once it is written out in full."""
    if not pa.types.is_dictionary(column.type):
        return column.nbytes
    return sum(
        pc.sum(pc.take(pc.binary_length(c.dictionary), c.indices)).as_py() or 0
        for c in column.chunks
    )


def frame(table: pa.Table, kind: str) -> pd.DataFrame:
    """The table for pandas, with `Int64` where a whole number may be missing."""
    whole = MAY_BE_MISSING.get(kind)
    found = table.drop_columns([whole] if whole else []).to_pandas(ignore_metadata=True)
    if whole:
        column = table.column(whole).to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        found.insert(table.schema.names.index(whole), whole, column)
    return found


def _check_values(table: pd.DataFrame, kind: str, path: Path) -> None:
    """Refuse a table whose values cannot be: missing, out of range, no name, or a row twice."""
    for field in SCHEMAS[kind]:
        column, name = table[field.name], field.name
        if field.type != pa.float64() and name != MAY_BE_MISSING.get(kind) and column.isna().any():
            raise DamagedFile(f"{path} is refused: {name!r} is missing in a row")
        if field.type == pa.string():
            allowed = SPLIT if name == "split" else TEXT
            for value in column.unique():
                if len(value) > LONGEST or not allowed.fullmatch(value):
                    raise DamagedFile(
                        f"{path} is refused: {name!r} is {value[:80]!r}, expected {allowed.pattern}"
                    )
        elif name in RANGES:
            low, high = RANGES[name]
            if ((column < low) | (column > high)).any():
                raise DamagedFile(
                    f"{path} is refused: {name!r} is {column.min()} to {column.max()}, "
                    f"expected {low:g} to {high:g}"
                )
    if kind == "runs" and not np.isfinite(table.lr).all():
        raise DamagedFile(f"{path} is refused: 'lr' is not finite in a row")
    if kind in KEYS and table.duplicated(KEYS[kind]).any():
        raise DamagedFile(f"{path} is refused: two rows have the same {', '.join(KEYS[kind])}")


def check_together(tables: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Refuse tables that are not of the same runs: all have final rows, and no row is of a run that
    is not there.

    Raises:
        DamagedFile: names the folder, the table and what is amiss.
    """
    known = set(tables["runs"].run)
    if not known:
        raise DamagedFile(f"{folder} is refused: it holds no runs")
    for kind, table in tables.items():
        if "run" not in table.columns:
            continue
        strangers = (
            set(table.run.unique()) - known - ({""} if kind == "measures" else set())
        )  # "": measured of no single run
        if strangers:
            raise DamagedFile(
                f"{folder} is refused: {kind} are of {len(strangers)} runs that are not there"
            )
    if missing := known - set(tables["finals"].run.unique()):
        raise DamagedFile(
            f"{folder} is refused: {len(missing)} of {len(known)} runs have no final rows"
        )
