"""The two tables beside shards, written shard by shard as row groups: memory does not grow with the data.

What is read is checked: a digest says that a table is the one that its index names, and nothing of who wrote both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from automl_vision.data.facts import FACT_COLUMNS
from automl_vision.data.shards.layout import LISTED_SETS, SAMPLE_COLUMNS, SHARDED_SETS, TableRecord
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


def read_table(file: Path, columns: Sequence[str], schema: pa.Schema) -> pd.DataFrame:
    """Some columns of a table, of the types that `schema` has for them.

    Raises:
        DataError: it is no such table, or a value is missing.
    """
    try:
        table = pq.read_table(file, columns=list(columns), use_threads=False)
        if missing := [name for name in columns if name not in table.column_names]:
            raise ValueError(f"no column {missing[0]}")
        table.validate(full=True)  # text is UTF-8, and every number of a value names one
        for name in columns:
            _require_kind(name, table[name], schema.field(name).type)
        frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
        del table
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(
            "a table of the shards cannot be read",
            value=f"{file.name} ({ascii(str(error))[:200]})",
            fix="bring it again from where it was written, or shard the data again",
        ) from None
    return frame


def _require_kind(name: str, column: pa.ChunkedArray, wanted: pa.DataType) -> None:
    is_kind = next(check for check in _KINDS if check(wanted))
    parts = [part.dictionary for part in column.chunks] if pa.types.is_dictionary(column.type) else []
    gaps = column.null_count + sum(part.null_count for part in parts)
    if not is_kind(column.type):
        raise ValueError(f"column {name} holds {column.type}")
    if gaps and not pa.types.is_floating(wanted):
        raise ValueError(f"column {name} has rows without a value")


def _is_text(kind: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))


#: What tells the type of a column; other writers may choose other widths.
_KINDS: tuple[Callable[[pa.DataType], bool], ...] = (
    _is_text,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
)

_Rule = Callable[[pd.Series], Any]


def _like(pattern: str) -> _Rule:
    return lambda column: column.astype("str").str.fullmatch(pattern)


def _within(least: int, most: int) -> _Rule:
    return lambda column: column.between(least, most)


def _is_time(seconds: pd.Series) -> Any:
    return seconds.isna() | np.isfinite(seconds)


_DIGEST, _HASH = "[0-9a-f]{32}", "[0-9a-f]{16}"
_LARGEST = 2**53
#: Column of `samples.parquet` -> what holds for all rows.
_ALL: Mapping[str, _Rule] = {
    "path": lambda column: (column.astype("str").str.len() > 0) & ~column.duplicated(),
    "label": lambda column: column.astype("str").str.len() > 0,
    "role": _like("original|copy|unsure"),
}
#: The same for images that lie in a shard, and for those that are only listed. Members are named by us.
_STORED: Mapping[str, _Rule] = {
    "split": _like("|".join(SHARDED_SETS)),
    "member": _like("[!-~]{1,100}"),
    "digest": _like(_DIGEST),
}
_LISTED: Mapping[str, _Rule] = {"split": _like("|".join(LISTED_SETS))}
_FACTS: Mapping[str, _Rule] = {
    "file_digest": _like(_DIGEST),
    "pixel_digest": _like(_DIGEST),
    "whole_digest": _like(f"({_DIGEST})?"),
    "picture_hash": _like(f"({_HASH})?"),
    **dict.fromkeys(("bytes", "width", "height", "frames"), _within(1, _LARGEST)),
    "scale": lambda column: column.isin((1, 2, 4, 8)),
    "taken": _is_time,
    "fault": _like(""),
}


def impossible_sample(samples: pd.DataFrame) -> str:
    """The first column of `samples.parquet` that says what cannot be; empty where there is none."""
    lies = samples["shard"].astype("str") != ""
    return _broken(samples, _ALL) or _broken(samples, _STORED, lies) or _broken(samples, _LISTED, ~lies)


def impossible_fact(facts: pd.DataFrame) -> str:
    """The same of `facts.parquet`."""
    return _broken(facts, _FACTS)


def _broken(table: pd.DataFrame, rules: Mapping[str, _Rule], of: pd.Series | None = None) -> str:
    """One column after the other: a copy of all of them is as large as the table."""
    columns = ((name, table[name] if of is None else table.loc[of, name]) for name in rules)
    return next((name for name, column in columns if not bool(rules[name](column).all())), "")
