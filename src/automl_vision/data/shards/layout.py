"""What a folder of shards holds: names, tables, and `shards.json`, which is written last and says that all is there.

shards.json        format, classes, counts, and of each shard: name, set, samples, bytes, sha256
samples.parquet    a row per image, those that are in no shard as well, see `SAMPLE_COLUMNS`
facts.parquet      a row per image that is in a shard, in the order of `samples.parquet`: what decoding told
split.csv audit.csv
train-000000.tar   KEY.jpg, KEY.json, KEY.jpg, ...
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from automl_vision.errors import DataError

#: To be raised where what is written here would be misunderstood by what read the last one.
FORMAT = 1
INDEX, SAMPLES, FACTS = "shards.json", "samples.parquet", "facts.parquet"
#: There from the beginning until `shards.json` is.
UNFINISHED_MARK = "shards.unfinished"
#: Held by who writes, where files can be locked.
WRITER_LOCK = "shards.lock"
#: Ending of the notes beside shards that are whole, while others are being written.
WHOLE = ".whole"

#: Sets that have shards of their own. Copies of validation originals are only ever reported.
VAL_COPIES = "val-copies"
SHARDED_SETS = ("train", "val", "test", VAL_COPIES)
#: Sets that are listed in the table, and in no shard.
LISTED_SETS = ("aside", "quarantine")

#: Columns of `samples.parquet`; other programs rely on them.
SAMPLE_COLUMNS: dict[str, str] = {
    "path": "as in split.csv; undecodable bytes as \\udcXX",
    "label": "name of the class",
    "split": "train, val, test, val-copies (copies of validation originals, only reported), aside or quarantine",
    "group": "number of what stays together",
    "role": "original, copy or unsure",
    "eligible": "1 where the image could have been a test image",
    "shard": "file name; empty where it is in none",
    "member": "name of the image in its shard; empty where it is in none",
    "offset": "of the first byte of the image in its shard; -1 where it is in none",
    "size": "bytes of the image",
    "digest": "blake2b-128 of these bytes, hex; empty where they could not be read",
}

#: Bytes and rows that can be; larger numbers are damage, or meant to harm.
_LARGEST = 2**53
_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}\.tar")


@dataclass(frozen=True)
class ShardRecord:
    """One shard.

    Attributes:
        name: of its file.
        set: one of `SHARDED_SETS`.
        samples: images in it.
        bytes: of the file.
        sha256: of the file, hex.
    """

    name: str
    set: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class TableRecord:
    """A table beside the shards: its rows, and what tells whether it is the one that was written."""

    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardIndex:
    """What `shards.json` says.

    Attributes:
        version: of the program that wrote it.
        classes: names, sorted.
        fingerprint: of the manifest that was sharded.
        counts: set -> images, those in no shard as well.
        lineage: the setting `data.lineage` by which copies were sought.
        facts_made: how the facts were made, see `planes.how_made`.
        tables: file -> what was written.
        shards: in the order of `samples.parquet`.
    """

    version: str
    classes: tuple[str, ...]
    fingerprint: str
    counts: Mapping[str, int]
    lineage: str
    facts_made: Mapping[str, Any]
    tables: Mapping[str, TableRecord]
    shards: tuple[ShardRecord, ...] = field(default=())

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, place: object) -> ShardIndex:
        """The inverse of `to_json`.

        Raises:
            DataError: it is no such text, or of a newer program.
        """
        try:
            told = json.loads(text)
            if not isinstance(told, dict) or type(told["format"]) is not int:
                raise ValueError("not an index of shards")
            if told["format"] > FORMAT:
                raise _newer(place, told["format"])
            return cls(
                version=str(told["version"]),
                classes=tuple(map(str, told["classes"])),
                fingerprint=str(told["fingerprint"]),
                counts={str(name): int(count) for name, count in told["counts"].items()},
                lineage=str(told["lineage"]),
                facts_made=dict(told["facts_made"]),
                tables={name: _table(told["tables"][name]) for name in (SAMPLES, FACTS)},
                shards=_distinct(_record(each) for each in told["shards"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise DataError(
                "the index of the shards cannot be read",
                value=f"{place} ({type(error).__name__}: {ascii(str(error))[:200]})",
                fix=f"bring {INDEX} again from where it was written, or shard the data again",
            ) from None


def _record(told: Mapping[str, Any]) -> ShardRecord:
    record = ShardRecord(**told)
    if not _SHARD_NAME.fullmatch(record.name) or record.set not in SHARDED_SETS:
        raise ValueError(f"no shard can be called {record.name!a} of {record.set!a}")
    _require_figures(record.name, (record.samples, record.bytes), record.sha256)
    return record


def _table(told: Mapping[str, Any]) -> TableRecord:
    record = TableRecord(**told)
    _require_figures("a table", (record.rows, record.bytes), record.sha256)
    return record


def _require_figures(what: str, figures: tuple[int, int], sha256: str) -> None:
    if any(type(each) is not int or not 0 <= each <= _LARGEST for each in figures):
        raise ValueError(f"impossible figures of {what}")
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(f"impossible sha256 of {what}")


def _distinct(records: Iterable[ShardRecord]) -> tuple[ShardRecord, ...]:
    found = tuple(records)
    if len({each.name for each in found}) < len(found):
        raise ValueError("two shards of one name")
    return found


def _newer(place: object, number: int) -> DataError:
    return DataError(
        "these shards were written by a newer version", value=f"{place} (format {number})", fix="upgrade automl-vision"
    )


def shard_name(set_name: str, number: int) -> str:
    """`train-000012.tar`."""
    return f"{set_name}-{number:06d}.tar"
