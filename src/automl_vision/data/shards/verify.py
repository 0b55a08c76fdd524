"""Whether shards are still what was written: every byte is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from automl_vision.data.shards.folder import Folder, FolderError
from automl_vision.data.shards.layout import ShardRecord
from automl_vision.data.shards.read import Source, lost

#: Samples that a line names.
_NAMED = 5


@dataclass(frozen=True)
class Verified:
    """What was found.

    Attributes:
        shards: that were looked at.
        samples: that they should hold.
        bytes: that were read.
        problems: one line for each shard that is not what was written.
        lost: samples that are missing or altered.
    """

    shards: int
    samples: int
    bytes: int
    problems: tuple[str, ...]
    lost: int


@dataclass(frozen=True)
class _Fault:
    line: str
    lost: int


def verify(source: Source, progress: Callable[[int, int], None]) -> Verified:
    """Read every shard and compare sizes, digests and counts with `shards.json`.

    Args:
        source: that was opened; its tables were compared then.
        progress: called with (bytes read, bytes in all).

    Raises:
        DataError: the shards cannot be asked for.
    """
    shards, table = source.index.shards, source.samples()
    by_shard = dict(tuple(table[table["shard"].astype(str) != ""].groupby("shard", observed=True)))
    total = sum(each.bytes for each in shards)
    faults: list[_Fault] = []
    done = 0
    for record in shards:
        counted = _Counted(done, total, progress)
        faults += _look_at(source.folder, record, by_shard.get(record.name), counted)
        done += counted.bytes
    return Verified(
        shards=len(shards),
        samples=sum(each.samples for each in shards),
        bytes=done,
        problems=tuple(each.line for each in faults),
        lost=sum(each.lost for each in faults),
    )


class _Counted:
    """Takes the bytes of a shard."""

    def __init__(self, before: int, total: int, progress: Callable[[int, int], None]) -> None:
        self.bytes = 0
        self.digest = hashlib.sha256()
        self._before, self._total, self._progress = before, total, progress

    def take(self, part: bytes) -> None:
        self.bytes += len(part)
        self.digest.update(part)
        self._progress(min(self._before + self.bytes, self._total), self._total)


def _look_at(folder: Folder, record: ShardRecord, samples: pd.DataFrame | None, counted: _Counted) -> Iterator[_Fault]:
    try:
        size = folder.size(record.name)
        if size is None:
            yield _Fault(lost(record, record.samples, "", is_there=False), record.samples)
            return
        folder.fetch(record.name, counted.take, size)
        if counted.digest.hexdigest() != record.sha256 or size != record.bytes:
            yield _compare(folder, record, samples, size)
    except FolderError as error:
        yield _Fault(f"{record.name}: it cannot be read ({error})", record.samples)


def _compare(folder: Folder, record: ShardRecord, samples: pd.DataFrame | None, size: int) -> _Fault:
    """What exactly is wrong with a shard that is not what was written."""
    missing: list[str] = []
    altered: list[str] = []
    rows = samples[["member", "offset", "size", "digest"]].itertuples(index=False) if samples is not None else ()
    for member, offset, length, digest in rows:
        key = str(member).partition(".")[0]
        if offset + length > size:
            missing.append(key)
        elif hashlib.blake2b(folder.part(record.name, offset, length), digest_size=16).hexdigest() != digest:
            altered.append(key)
    parts = []
    if missing:
        parts.append(lost(record, len(missing), missing[0], is_there=True).partition(": ")[2])
    if altered:
        named = ", ".join(altered[:_NAMED]) + (f" and {len(altered) - _NAMED:,} more" if len(altered) > _NAMED else "")
        parts.append(f"{len(altered):,} of {record.samples:,} samples are altered: {named}")
    if not parts:
        more = size - record.bytes
        why = f"it has {abs(more):,} bytes {'more' if more > 0 else 'less'}" if more else "bytes between them differ"
        parts.append(f"all samples are there, but {why}")
    return _Fault(f"{record.name}: {'; '.join(parts)}", len(missing) + len(altered))
