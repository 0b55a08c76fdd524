"""Writing shards: each as a whole or not at all, `shards.json` last, so that what is cut off goes on where it was."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from automl_vision.config import Settings
from automl_vision.data.facts import FACT_COLUMNS
from automl_vision.data.files import read_bytes
from automl_vision.data.planes import how_made
from automl_vision.data.preparation import Prepared
from automl_vision.data.shards.folder import FolderError, WritableFolder, sizes_of
from automl_vision.data.shards.layout import (
    FACTS,
    INDEX,
    LISTED_SETS,
    SAMPLES,
    UNFINISHED_MARK,
    WHOLE,
    ShardIndex,
    ShardRecord,
)
from automl_vision.data.shards.plan import (
    PlannedSample,
    PlannedShard,
    ShardSize,
    listed_rows,
    plan_shards,
    set_names,
)
from automl_vision.data.shards.sample_tables import FACT_SCHEMA, SAMPLE_SCHEMA, TableWriter
from automl_vision.data.shards.tar_members import BLOCK, END, header, padding
from automl_vision.data.survey import in_order
from automl_vision.errors import BudgetExhausted, DataError, ImageReadError, UsageError
from automl_vision.files import UNFINISHED

Progress = Callable[[int, int], None]

_NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}
#: Bytes of a note beside a shard.
_MOST_NOTED = 2**20
#: Rows of a row group of images that are in no shard.
_LISTED_AT_ONCE = 50_000


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        index: the content of `shards.json`.
        kept: shards that an earlier call had left whole.
    """

    index: ShardIndex
    kept: int


def write_shards(
    prepared: Prepared,
    settings: Settings,
    folder: WritableFolder,
    size: ShardSize,
    *,
    threads: int,
    beside: Mapping[str, str],
    progress: Progress | None = None,
) -> Written:
    """Write the images of all sets as shards, with their tables and their index.

    Whole shards that an interrupted call left in the folder stay, if they hold what they would hold now.

    Args:
        prepared: images, sets and lineage.
        settings: those that `prepared` was made with.
        folder: where to.
        size: of a shard.
        threads: that read images.
        beside: name -> text of files that are written beside the shards.
        progress: called with (images in shards, images in all).

    Raises:
        UsageError: the folder holds something else, or another call writes into it.
        BudgetExhausted: it has no room.
        DataError: an image changed since it was checked.
    """
    try:
        folder.prepare()
        with folder.alone():
            whole = _require_ours(folder)
            _require_room(prepared, folder, whole)
            return _Writing(prepared, settings, folder, size, threads, progress or _silent).run(whole, beside)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    except FolderError as error:
        raise UsageError("the shards cannot be written", value=str(error), fix="check --out, and call again") from None


def _silent(_done: int, _total: int) -> None:
    return


def _cannot_write(folder: WritableFolder, error: OSError) -> Exception:
    value = f"{folder} ({error.strerror or error})"
    if error.errno in _NO_ROOM:
        return BudgetExhausted(
            "the disk is full: not all shards are written",
            value=value,
            fix="make room and call the same command again; whole shards are kept",
        )
    return UsageError("the shards cannot be written", value=value, fix="choose another --out")


def _not_alone(folder: WritableFolder) -> UsageError:
    return UsageError(
        "something else wrote into the folder of the shards meanwhile",
        value=str(folder),
        fix="see that one command at a time writes there, and call it again",
    )


# --- what is there already ------------------------------------------------------------------------------------------


def _require_ours(folder: WritableFolder) -> dict[str, dict[str, Any]]:
    """Shards that are whole: name -> what was noted of each. Nothing of others is overwritten."""
    names = folder.names()
    if INDEX in names:
        raise UsageError(
            "there are shards in this folder already",
            value=str(folder),
            fix=f"give a new folder to --out, or check them with automl-vision shard --verify {folder}",
        )
    noted = [name for name in names if name.endswith(WHOLE)]
    if names and UNFINISHED_MARK not in names:
        raise UsageError(
            "the folder for the shards is not empty",
            value=f"{folder} ({names[0]!a}{f' and {len(names) - 1} more' if len(names) > 1 else ''})",
            fix="give a new folder to --out",
        )
    found = ((name.removesuffix(WHOLE), _noted(folder, name)) for name in noted)
    return {name: entry for name, entry in found if entry and folder.size(name) == entry["record"]["bytes"]}


def _noted(folder: WritableFolder, name: str) -> dict[str, Any]:
    try:
        entry = json.loads(_whole(folder, name, _MOST_NOTED))
        ShardRecord(**entry["record"])
        return {"key": str(entry["key"]), "record": dict(entry["record"])}
    except (ValueError, KeyError, TypeError):
        return {}  # its shard is written again


def _whole(folder: WritableFolder, name: str, most: int) -> bytes:
    parts: list[bytes] = []
    folder.fetch(name, parts.append, most)
    return b"".join(parts)


def _require_room(prepared: Prepared, folder: WritableFolder, whole: dict[str, dict[str, Any]]) -> None:
    free = folder.free_bytes()
    if free is None:
        return
    lengths = prepared.facts.table["bytes"].to_numpy()[~np.isin(set_names(prepared), LISTED_SETS)]
    # What is said of an image takes two blocks, if its path is not very long.
    needed = int((lengths + -lengths % BLOCK).sum()) + 3 * BLOCK * len(lengths)
    there = sum(int(each["record"]["bytes"]) for each in whole.values())
    if needed - there > free:
        raise BudgetExhausted(
            "the disk has no room for the shards",
            value=f"{folder}: {(needed - there) / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free",
            fix="make room, or give another --out",
        )


# --- writing --------------------------------------------------------------------------------------------------------


class _Writing:
    """One call of `write_shards`."""

    def __init__(
        self,
        prepared: Prepared,
        settings: Settings,
        folder: WritableFolder,
        size: ShardSize,
        threads: int,
        progress: Progress,
    ) -> None:
        self._prepared = prepared
        self._settings = settings
        self._folder = folder
        self._size = size
        self._threads = threads
        self._progress = progress
        self._table = _Columns(prepared)
        self._done = 0
        self._mark = secrets.token_hex(16).encode("ascii")

    def run(self, whole: dict[str, dict[str, Any]], beside: Mapping[str, str]) -> Written:
        """Shards, tables, index."""
        total = int(np.isin(self._prepared.split.name, ("train", "val", "test")).sum())
        total += len(self._prepared.split.augmented_val)
        self._publish(UNFINISHED_MARK, self._mark)
        shards: list[ShardRecord] = []
        kept = 0
        with ExitStack() as opened:
            tables = {
                name: opened.enter_context(TableWriter(self._unfinished(name), schema))
                for name, schema in ((SAMPLES, SAMPLE_SCHEMA), (FACTS, FACT_SCHEMA))
            }
            for planned in plan_shards(self._prepared, self._size, self._settings.machine.seed):
                entry = whole.get(planned.name)
                same = entry is not None and entry["key"] == planned.key
                record = ShardRecord(**entry["record"]) if entry and same else self._shard(planned, total)
                kept += same
                shards.append(record)
                if not same:
                    self._note(planned, record)
                tables[SAMPLES].add(self._table.samples(planned))
                tables[FACTS].add(self._table.facts(planned))
                self._done += len(planned.samples) if same else 0
                self._progress(self._done, total)
            for rows in _parts(listed_rows(self._prepared).tolist(), _LISTED_AT_ONCE):
                tables[SAMPLES].add(self._table.listed(rows))
        records = {name: each.record() for name, each in tables.items()}
        for name, each in tables.items():
            self._folder.publish(each.file, name)
        for name, text in beside.items():
            self._publish(name, text.encode("utf-8", "backslashreplace"))
        index = self._index(shards, records)
        for name in set(whole) - {each.name for each in shards}:  # of an interrupted call with other settings
            self._folder.remove(name)
        self._require_as_written(index)
        self._publish(INDEX, index.to_json().encode("utf-8"))
        for name in self._folder.names():
            if name.endswith(WHOLE) or name == UNFINISHED_MARK:
                self._folder.remove(name)
        return Written(index, kept)

    def _index(self, shards: Sequence[ShardRecord], records: dict[str, Any]) -> ShardIndex:
        prepared = self._prepared
        counts = Counter(set_names(prepared).tolist())
        made = how_made((), prepared.store.decode_side)
        return ShardIndex(
            version=version("automl-vision"),
            classes=prepared.manifest.class_names,
            fingerprint=prepared.manifest.fingerprint,
            counts=dict(sorted(counts.items())),
            lineage=self._settings.data.lineage,
            facts_made={name: made[name] for name in ("format", "pillow", "decode_side")},
            tables=records,
            shards=tuple(shards),
        )

    def _shard(self, planned: PlannedShard, total: int) -> ShardRecord:
        """Write one shard; its digest is taken on the way."""
        unfinished, digest, count = self._unfinished(planned.name), hashlib.sha256(), 0
        try:
            with unfinished.open("wb") as file:
                for part in self._parts(planned, total):
                    digest.update(part)
                    count += file.write(part)
                file.flush()
                os.fsync(file.fileno())
            self._require_alone()
            self._folder.publish(unfinished, planned.name)
        finally:
            unfinished.unlink(missing_ok=True)
        return ShardRecord(planned.name, planned.set, len(planned.samples), count, digest.hexdigest())

    def _parts(self, planned: PlannedShard, total: int) -> Iterator[bytes]:
        items = zip(planned.samples, planned.digests, strict=True)
        for sample, data in in_order(self._read, items, self._threads):
            yield header(sample.member, len(data))
            yield data
            yield padding(len(data))
            yield header(f"{sample.key}.json", len(sample.about))
            yield sample.about
            yield padding(len(sample.about))
            self._done += 1
            if self._done % 64 == 0:
                self._progress(self._done, total)
        yield END

    def _read(self, item: tuple[PlannedSample, str]) -> tuple[PlannedSample, bytes]:
        sample, digest = item
        try:
            data = read_bytes(self._prepared.manifest.file(sample.row))
        except ImageReadError:
            data = b""
        if hashlib.blake2b(data, digest_size=16).hexdigest() != digest:
            raise DataError(
                "an image changed while it was being sharded",
                value=ascii(self._prepared.manifest.paths[sample.row]),
                fix="run again when nothing writes to the data; whole shards are kept where they still fit",
            )
        return sample, data

    def _require_alone(self) -> None:
        """Another call would take our mark for that of one that was cut off, and leave its own."""
        if _whole(self._folder, UNFINISHED_MARK, _MOST_NOTED) != self._mark:
            raise _not_alone(self._folder)

    def _require_as_written(self, index: ShardIndex) -> None:
        """The index says that all is there: it is written where that is so."""
        self._require_alone()
        written = {each.name: each.bytes for each in index.shards}
        written |= {name: each.bytes for name, each in index.tables.items()}
        if sizes_of(self._folder, list(written)) != written:
            raise _not_alone(self._folder)

    def _note(self, planned: PlannedShard, record: ShardRecord) -> None:
        """Say beside a shard that it is whole; it is, by then."""
        told = json.dumps({"key": planned.key, "record": asdict(record)})
        self._publish(record.name + WHOLE, told.encode("ascii"))

    def _publish(self, name: str, data: bytes) -> None:
        file = self._unfinished(name)
        with file.open("wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        self._folder.publish(file, name)

    def _unfinished(self, name: str) -> Path:
        return self._folder.staging() / f"{name}{UNFINISHED}"


class _Columns:
    """Rows of the tables."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._facts = prepared.facts.table
        self._names = set_names(prepared)

    def samples(self, planned: PlannedShard) -> dict[str, Sequence[Any]]:
        """Of the images of a shard."""
        return {
            **self._of_rows([each.row for each in planned.samples]),
            "shard": [planned.name] * len(planned.samples),
            "member": [each.member for each in planned.samples],
            "offset": [each.offset for each in planned.samples],
        }

    def listed(self, rows: list[int]) -> dict[str, Sequence[Any]]:
        """Of images that are in no shard."""
        return {
            **self._of_rows(rows),
            "shard": [""] * len(rows),
            "member": [""] * len(rows),
            "offset": [-1] * len(rows),
        }

    def facts(self, planned: PlannedShard) -> dict[str, Sequence[Any]]:
        """What decoding told of the images of a shard."""
        rows = self._facts.iloc[[each.row for each in planned.samples]]
        return {name: rows[name].tolist() for name in FACT_COLUMNS}

    def _of_rows(self, rows: list[int]) -> dict[str, Sequence[Any]]:
        prepared = self._prepared
        manifest, lineage = prepared.manifest, prepared.audit.lineage
        return {
            "path": [storable(manifest.paths[row]) for row in rows],
            "label": [manifest.class_names[manifest.labels[row]] for row in rows],
            "split": self._names[rows].tolist(),
            "group": lineage.group[rows].tolist(),
            "role": lineage.role[rows].tolist(),
            "eligible": prepared.split.eligible[rows].astype(np.int64).tolist(),
            "size": self._facts["bytes"].iloc[rows].tolist(),
            "digest": self._facts["file_digest"].iloc[rows].tolist(),
        }


def storable(path: str) -> str:
    """Text that any table takes: bytes that are none are `\\udcXX` escapes."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def _parts(rows: list[int], size: int) -> Iterable[list[int]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
