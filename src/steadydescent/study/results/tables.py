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
from steadydescent.study.results.roster import PURPOSES, check_roster

TEXTS, WHOLE, NUMBER = pa.string(), pa.int64(), pa.float64()
SCORES = {"accuracy": NUMBER, "loss": NUMBER, "calibration_error": NUMBER}
RUN_AND_READOUT = {"run": TEXTS, "readout": TEXTS}
TRAJECTORY = {"task": TEXTS, "optimizer": TEXTS, "schedule": TEXTS}
SCHEMAS = {
    "runs": pa.schema(
        {"run": TEXTS, **TRAJECTORY, "lr": NUMBER, "batch_size": WHOLE, "steps": WHOLE}
        | {"seed": WHOLE, "curve_points": WHOLE, "test": pa.bool_(), "diverged_at": WHOLE}
    ),
    "roster": pa.schema({"run": TEXTS, "condition": TEXTS, "arm": TEXTS, "purpose": TEXTS}),
    "choices": pa.schema(
        {"condition": TEXTS, "arm": TEXTS, "tuned_by": TEXTS, "lr": NUMBER, "readout": TEXTS}
    ),
    "finals": pa.schema(
        {**RUN_AND_READOUT, "split": TEXTS, "shift": TEXTS, "severity": WHOLE}
        | {"statistics": TEXTS, "batch": WHOLE, **SCORES}
    ),
    "curves": pa.schema({**RUN_AND_READOUT, "step": WHOLE, **SCORES}),
    "measures": pa.schema(
        {**RUN_AND_READOUT, "measure": TEXTS, "batch_size": WHOLE, "step": WHOLE, "value": NUMBER}
    ),
    "predictions": pa.schema({**RUN_AND_READOUT, "classes": pa.binary()}),
    "quantiles": pa.schema(
        {**TRAJECTORY, "batch_size": WHOLE, "steps": WHOLE, "lr": NUMBER, "readout": TEXTS}
        | {"step": WHOLE, "seeds": WHOLE, "low": NUMBER, "median": NUMBER, "high": NUMBER}
    ),
    "suggestions": pa.schema({"run": TEXTS, "rule": TEXTS, "rate": NUMBER}),
    "timings": pa.schema(
        {"batch_size": WHOLE, "round": WHOLE, "seconds_per_example": NUMBER, "gain": NUMBER}
    ),
    "sampling": pa.schema(
        {**TRAJECTORY, "batch_size": WHOLE, "steps": WHOLE, "lr": NUMBER, "readout": TEXTS}
        | {"examples": WHOLE, "predicted": WHOLE, "covariance": pa.binary()}
    ),
}
"""Table → its columns and their types.

finals: `shift` is "" and what belongs to a shift is missing or "" unless the split is shifted.
measures: `batch_size` is the minibatch size that a measure is of, `step` where along training.
timings: `gain` is missing unless the size is a power of two between its neighbours.
sampling: `covariance` is a row of a square matrix over test examples, float32, little-endian, in
the order of the table's rows; `examples` are those of the test set, `predicted` those that the
matrix was estimated from.
"""
OPTIONAL = ("sampling",)
"""Tables of a result that older ones lack."""
KEYS = {
    "runs": ["run"],
    "roster": ["run", "condition", "arm"],
    "choices": ["condition", "arm", "tuned_by"],
    "finals": ["run", "readout", "split", "shift", "severity", "statistics", "batch"],
    "curves": ["run", "readout", "step"],
    "measures": ["run", "readout", "measure", "batch_size", "step"],
    "predictions": ["run", "readout"],
    "suggestions": ["run", "rule"],
    "timings": ["batch_size", "round"],
    "sampling": ["task", "optimizer", "schedule", "batch_size", "steps", "lr", "readout"],
}
"""Columns that tell the rows of a table apart; a row that stood twice would count twice."""
MAY_BE_MISSING = {
    "runs": ["diverged_at"],
    "finals": ["severity", "batch"],
    "measures": ["batch_size", "step"],
}
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
    "severity": (0, 5),
    "batch": (2, math.inf),
    "examples": (2, math.inf),
    "predicted": (2, math.inf),
    "rate": (np.nextafter(0, 1), math.inf),
    "round": (0, math.inf),
    "seconds_per_example": (0, math.inf),
    "accuracy": (0, 1),
    "calibration_error": (0, 1),
}
"""Column → lowest and highest value; what has no value (NaN) is in no range."""
MOST_ROWS = 2_000_000
"""Rows of a table that are read; a result of profile full has some hundred thousand."""
MOST_UNPACKED = 2**30
"""Bytes that a table may have once unpacked, 1 GiB."""
TEXT = re.compile(r"[^\x00-\x1f\x7f<>&]*")
"""Names of things: nothing that a terminal obeys or a page could take for markup."""
WORDS = {
    ("finals", "split"): re.compile("validation|test|train"),
    ("finals", "statistics"): re.compile("|frozen|reestimated"),
    ("roster", "purpose"): re.compile("|".join(PURPOSES)),
}
"""Table and column → the words that it holds, where these are few."""
LONGEST = 1_000
"""Characters of a name."""


def empty(kind: str) -> pd.DataFrame:
    """A table of a kind without rows."""
    return frame(SCHEMAS[kind].empty_table(), kind)


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
    # equal rows make equal bytes, whatever types pandas holds them in
    made = made.replace_schema_metadata()
    _check_values(frame(made, kind), kind, path)
    pq.write_table(made, path, compression="zstd")


def read_table(path: Path, kind: str) -> pd.DataFrame:
    """Read a table of a kind; raises FileNotFoundError, or DamagedFile as `unpacked` does."""
    return table_from_bytes(verified.read(path), kind, path)


def table_from_bytes(content: bytes, kind: str, path: Path) -> pd.DataFrame:
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
                f"{path} is refused: unpacked it has {sum(sizes)} bytes, "
                f"expected {MOST_UNPACKED} at most"
            )
        rows = frame(table.cast(SCHEMAS[kind]), kind)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, DamagedFile):
            raise
        raise DamagedFile(f"{path} is refused: not a {kind} table ({error})") from error
    _check_values(rows, kind, path)
    return rows


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
    gapped = MAY_BE_MISSING.get(kind, [])
    rows = table.drop_columns(gapped).to_pandas(ignore_metadata=True)
    for name in gapped:
        column = table.column(name).to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        rows.insert(table.schema.names.index(name), name, column)
    return rows


def _check_values(table: pd.DataFrame, kind: str, path: Path) -> None:
    """Refuse a table whose values cannot be: missing, out of range, no name, or a row twice."""
    for field in SCHEMAS[kind]:
        column, name = table[field.name], field.name
        may_lack = field.type == NUMBER or name in MAY_BE_MISSING.get(kind, ())
        if not may_lack and column.isna().any():
            raise DamagedFile(f"{path} is refused: {name!r} is missing in a row")
        if field.type == pa.string():
            allowed = WORDS.get((kind, name), TEXT)
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
    for name in {"lr", "rate"} & set(table.columns):
        if not np.isfinite(table[name]).all():
            raise DamagedFile(f"{path} is refused: {name!r} is not finite in a row")
    if kind == "finals":
        _check_shifts(table, path)
    if kind == "sampling":
        _check_covariances(table, path)
    if kind in KEYS and table.duplicated(KEYS[kind]).any():
        raise DamagedFile(f"{path} is refused: two rows have the same {', '.join(KEYS[kind])}")


def _check_shifts(finals: pd.DataFrame, path: Path) -> None:
    """Refuse rows that describe a shift without one, or of one without severity or statistics."""
    shifted = finals["shift"] != ""
    whole = finals.severity.notna() & (finals.statistics != "") & (finals.split == "test")
    partly = finals.severity.notna() | (finals.statistics != "") | finals.batch.notna()
    if (shifted & ~whole).any() or (~shifted & partly).any():
        raise DamagedFile(
            f"{path} is refused: a row has a shift without severity, statistics or test data, "
            "or one of these without a shift"
        )


def _check_covariances(table: pd.DataFrame, path: Path) -> None:
    """Refuse what is no square, symmetric matrix of finite numbers."""
    if {len(row) for row in table.covariance} - {4 * len(table)}:
        raise DamagedFile(
            f"{path} is refused: a row of 'covariance' is not of {len(table)} numbers"
        )
    matrix = np.array([np.frombuffer(row, "<f4") for row in table.covariance])
    if not np.isfinite(matrix).all() or not np.allclose(matrix, matrix.T, atol=1e-6):
        raise DamagedFile(f"{path} is refused: 'covariance' is not finite and symmetric")


def check_together(tables: Mapping[str, pd.DataFrame], folder: Path) -> None:
    """Refuse tables that are not of the same runs, or a result whose roster does not fit them.

    All runs have final rows, and no row is of a run that is not there.

    Raises:
        DamagedFile: names the folder, the table and what is amiss.
    """
    known = set(tables["runs"].run)
    if not known:
        raise DamagedFile(f"{folder} is refused: it holds no runs")
    for kind, table in tables.items():
        if "run" not in table.columns:
            continue
        if strangers := set(table.run.unique()) - known:
            raise DamagedFile(
                f"{folder} is refused: {kind} are of {len(strangers)} runs that are not there"
            )
    if missing := known - set(tables["finals"].run.unique()):
        raise DamagedFile(
            f"{folder} is refused: {len(missing)} of {len(known)} runs have no final rows"
        )
    if "roster" in tables:
        check_roster(tables, folder)
