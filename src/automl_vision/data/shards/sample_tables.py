"""The two tables beside shards, written shard by shard as row groups: memory does not grow with the data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from automl_vision.data.facts import FACT_COLUMNS
from automl_vision.data.shards.layout import SAMPLE_COLUMNS, TableRecord
from automl_vision.errors import DataError

_NUMBERS = {"group": pa.int64(), "eligible": pa.int8(), "offset": pa.int64(), "size": pa.int64()}
#: Few different values: kept once each.
_REPEATED = frozenset(("label", "split", "role", "shard"))
SAMPLE_SCHEMA = pa.schema(
    [
        (name, pa.dictionary(pa.int32(), pa.string()) if name in _REPEATED else _NUMBERS.get(name, pa.string()))
        for name in SAMPLE_COLUMNS
    ]
)
_FACT_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("bytes", "width", "height", "scale", "frames"), pa.int64()),
    "exif_rotated": pa.bool_(),
    "taken": pa.float64(),
}
FACT_SCHEMA = pa.schema([(name, _FACT_TYPES.get(name, pa.string())) for name in FACT_COLUMNS])


class TableWriter:
    """A Parquet file that grows by row groups; use as a context manager.

    Raises:
        OSError: the disk is full.
    """

    def __init__(self, file: Path, schema: pa.Schema) -> None:
        self.file = file
        self._schema = schema
        self._rows = 0
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, columns: dict[str, Sequence[Any]]) -> None:
        """Append a row group."""
        table = pa.table(
            {each.name: pa.array(columns[each.name], type=each.type, from_pandas=True) for each in self._schema},
            schema=self._schema,
        )
        self._rows += len(table)
        self._writer.write_table(table)

    def record(self) -> TableRecord:
        """What was written; after it was closed."""
        return record_of(self.file, self._rows)


def record_of(file: Path, rows: int) -> TableRecord:
    """Rows, bytes and sha256 of a file."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return TableRecord(rows, file.stat().st_size, digest)


def read_table(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a table.

    Raises:
        DataError: it is no such table.
    """
    try:
        table = pq.read_table(file, columns=list(columns), use_threads=False)
        if missing := [name for name in columns if name not in table.column_names]:
            raise ValueError(f"no column {missing[0]}")
        frame: pd.DataFrame = table.to_pandas()
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(
            "a table of the shards cannot be read",
            value=f"{file.name} ({ascii(str(error))[:200]})",
            fix="bring it again from where it was written, or shard the data again",
        ) from None
    return frame
