"""The file format of decoded images: one file of uint8 squares per side, and an index that is written last.

A folder holds `plane-<side>.u8` (P rows of side x side x 3 bytes, no header), `facts.parquet` (one row per
distinct file, with the row its squares have) and `index.json` (format, sides, checksums). While it is written,
`rows.journal` tells which rows are whole.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl_vision.data.fact_table import COLUMNS, PLANE_ROW, FactTable
from automl_vision.data.journal import GROUP, JOURNAL, JournaledRow, first_line, group_line
from automl_vision.data.plane import FilePlane, Plane, ShortPlane
from automl_vision.data.preprocess import SQUASH
from automl_vision.data.survey import Fact

#: 2: the facts tell when a picture was taken, and hold the hash of what it shows; 3: at which fraction it was decoded.
FORMAT = 3

#: The file that is written last.
INDEX = "index.json"
_FACTS = "facts.parquet"
_BLOCK_BYTES = 4 * 2**20
# Checksums run at one to two gigabytes a second: up to here every block is checked when a folder is opened,
# beyond it an even sample of that many bytes.
_CHECKED_BYTES = 2**30


class DamagedPlanes(Exception):
    """A folder of planes is incomplete, altered, or of another format."""


@dataclass(frozen=True)
class Planes:
    """Decoded images.

    Attributes:
        facts: one row per distinct file: `FACT_COLUMNS` and `PLANE_ROW`.
        squares: side -> P squares, read by row.
    """

    facts: pd.DataFrame
    squares: Mapping[int, Plane]


#: Facts of all files of a set -> the same with what only all of them together tell.
Complete = Callable[[pd.DataFrame], pd.DataFrame]


def _as_it_is(facts: pd.DataFrame) -> pd.DataFrame:
    return facts


class RowWriter(Protocol):
    """What takes images as they are decoded."""

    def add(self, fact: Fact, squares: Sequence[NDArray[np.uint8]] | None) -> None:
        """Take the facts of a file and one square per side, ascending; no squares where it is quarantined."""
        ...


#: What tells how the rows of an index or a journal were made.
_HOW_MADE = ("format", "pillow", "sides", "decode_side", "resize")


def how_made(sizes: Sequence[int], decode_side: int, resize: str = SQUASH) -> dict[str, Any]:
    """What squares and facts depend on beside the files: rows that were made otherwise are other rows.

    Squares of whole images say nothing of it, as when there were no others: they keep their keys.
    """
    made = {
        "format": FORMAT,
        "pillow": version("pillow").split(".")[0],
        "sides": list(sizes),
        "decode_side": decode_side,
    }
    return made if resize == SQUASH else {**made, "resize": resize}


def how_it_was_made(index: Mapping[str, Any]) -> dict[str, Any]:
    """What the index of a folder says of it, as `how_made` does."""
    return {name: index[name] for name in _HOW_MADE if name in index}


class PlaneWriter:
    """Appends images to all planes of a folder, in order; use as a context manager.

    Rows that are whole are in the journal, at the latest when the context is left: by an error as well.

    Raises:
        OSError: the disk is full or the folder cannot be written. The room is asked for at the start where
            the system can do so: a disk that is too small is known before the first image is decoded.
    """

    def __init__(
        self, folder: Path, sizes: Sequence[int], capacity: int, decode_side: int = 0, resize: str = SQUASH
    ) -> None:
        self._folder = folder
        self._made = how_made(sizes, decode_side, resize)
        self._count = 0
        self._facts = FactTable()
        self._group: list[JournaledRow] = []
        self._files: dict[int, BinaryIO] = {}
        self._crcs: dict[int, list[int]] = {size: [] for size in sizes}
        with ExitStack() as opened:
            for size in sizes:
                self._files[size] = opened.enter_context(_plane_file(folder, size).open("wb"))
                _reserve(self._files[size].fileno(), capacity * 3 * size * size)
            self._journal = opened.enter_context((folder / JOURNAL).open("wb"))
            self._journal.write(first_line(self._made))
            self._open = opened.pop_all()

    def __enter__(self) -> PlaneWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._open.close()
            return
        with contextlib.suppress(OSError), self._open:  # there is an error to tell already
            self._commit()
            self._give_back()

    def add(self, fact: Fact, squares: Sequence[NDArray[np.uint8]] | None) -> None:
        """Write the facts of a file and one square per size, ascending as the sizes are; none where quarantined."""
        row, crcs = (-1, ()) if squares is None else (self._count, self._append(squares))
        kept = fact | {PLANE_ROW: row}
        self._facts.add(kept)
        self._group.append(JournaledRow(kept, crcs))
        if len(self._group) >= GROUP:
            self._commit()

    def finish(self, complete: Complete = _as_it_is) -> None:
        """Give back what was reserved and not used, and write the facts, as `complete` leaves them, and the index."""
        self._commit()
        self._give_back()
        for file in self._files.values():
            os.fsync(file.fileno())
        complete(self._facts.table()).to_parquet(self._folder / _FACTS, index=False)
        index = {
            **self._made,
            "count": self._count,
            "crc32": {str(size): crcs for size, crcs in self._crcs.items()},
            "facts_crc32": zlib.crc32((self._folder / _FACTS).read_bytes()),
        }
        with (self._folder / INDEX).open("wb") as written:
            written.write(json.dumps(index).encode("ascii"))
            written.flush()
            os.fsync(written.fileno())
        sync_folder(self._folder)

    def _append(self, squares: Sequence[NDArray[np.uint8]]) -> tuple[int, ...]:
        for (size, file), pixels in zip(self._files.items(), squares, strict=True):
            blocks = self._crcs[size]
            if self._count % block_rows(size) == 0:
                blocks.append(0)
            blocks[-1] = zlib.crc32(pixels.data, blocks[-1])
            file.write(pixels.data)
        self._count += 1
        return tuple(zlib.crc32(pixels.data) for pixels in squares)

    def _commit(self) -> None:
        """Name the rows of the group in the journal, once their squares are with the system."""
        # Taken away first: what is interrupted below is not written once more when the context is left.
        group, self._group = self._group, []
        if not group:
            return
        for file in self._files.values():
            file.flush()
        self._journal.write(group_line(group))
        self._journal.flush()

    def _give_back(self) -> None:
        for size, file in self._files.items():
            file.flush()
            file.truncate(self._count * 3 * size * size)


def open_planes(folder: Path, sizes: Sequence[int], *, check: bool = True) -> Planes:
    """Open the planes of a folder.

    Args:
        folder: as `PlaneWriter` left it.
        sizes: the sides that it must hold.
        check: compare checksums; not needed for what this process has just written.

    Raises:
        DamagedPlanes: the folder is not exactly what was written.
    """
    index = read_index(folder, sizes)
    squares = open_squares(folder, index["count"], sizes)
    if check:
        _compare(index, squares)
    return Planes(read_facts(folder, index), squares)


def open_squares(folder: Path, count: int, sizes: Sequence[int], *, reserved: bool = False) -> dict[int, FilePlane]:
    """The squares of a folder, whose checksums are not compared: side -> `count` of them.

    Args:
        folder: that holds them.
        count: how many.
        sizes: the sides.
        reserved: whether more may follow in the files that was only reserved.

    Raises:
        DamagedPlanes: a file is missing or has another size.
    """
    try:
        return {size: FilePlane(_plane_file(folder, size), size, count, reserved) for size in sizes}
    except ShortPlane as error:
        raise DamagedPlanes(str(error)) from None


def room_for_rows(folder: Path, sizes: Sequence[int]) -> int:
    """How many rows all planes of a folder have, written or reserved.

    Raises:
        OSError: a plane is missing.
    """
    return min(_plane_file(folder, size).stat().st_size // (3 * size * size) for size in sizes)


def cut_planes(folder: Path, sizes: Sequence[int], count: int) -> None:
    """Cut the planes of an abandoned build to no more than `count` rows.

    Raises:
        OSError: a plane is missing, or cannot be written.
    """
    for size in sizes:
        file = _plane_file(folder, size)
        if file.stat().st_size > count * 3 * size * size:
            os.truncate(file, count * 3 * size * size)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system knows how."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plane_file(folder: Path, size: int) -> Path:
    return folder / f"plane-{size}.u8"


def block_checksum(squares: NDArray[np.uint8]) -> int:
    """CRC-32 of squares that lie one after the other."""
    return zlib.crc32(squares.data)


def block_rows(size: int) -> int:
    """Rows of a plane that share a checksum."""
    return max(1, _BLOCK_BYTES // (3 * size * size))


def _reserve(handle: int, count: int) -> None:
    reserve = getattr(os, "posix_fallocate", None)
    if reserve is None or count == 0:
        return
    try:
        reserve(handle, 0, count)
    except OSError as error:
        if error.errno not in _CANNOT_RESERVE:
            raise


def _errno(*names: str) -> frozenset[int]:
    import errno

    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


# Some network file systems cannot reserve; there a full disk shows when writing.
_CANNOT_RESERVE = _errno("EOPNOTSUPP", "ENOTSUP", "EINVAL", "ENOSYS", "ENODEV")


def read_index(folder: Path, sizes: Sequence[int]) -> dict[str, Any]:
    """What the index of a folder says.

    Raises:
        DamagedPlanes: it is missing, incomplete, or of another format.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="ascii"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedPlanes(f"index: {error}") from None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise DamagedPlanes("index: another format")
    count, crcs = index.get("count"), index.get("crc32")
    if type(count) is not int or count < 0 or not isinstance(crcs, dict):
        raise DamagedPlanes("index: incomplete")
    for size in sizes:
        listed = crcs.get(str(size))
        if not isinstance(listed, list) or len(listed) != -(-count // block_rows(size)):
            raise DamagedPlanes(f"index: no checksums for side {size}")
    return index


def read_facts(folder: Path, index: Mapping[str, Any], columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """Some columns of the facts of a folder, which has this index.

    Raises:
        DamagedPlanes: they are missing or altered.
    """
    try:
        data = (folder / _FACTS).read_bytes()
    except OSError as error:
        raise DamagedPlanes(f"facts: {error}") from None
    if zlib.crc32(data) != index.get("facts_crc32"):
        raise DamagedPlanes("facts: checksum")
    try:
        return pd.read_parquet(io.BytesIO(data), columns=list(columns))
    except ValueError as error:
        raise DamagedPlanes(f"facts: {error}") from None


def _compare(index: Mapping[str, Any], squares: Mapping[int, FilePlane]) -> None:
    total = sum(plane.nbytes for plane in squares.values())
    step = max(1, -(-total // _CHECKED_BYTES))
    # Another offset every time: damage that one sample misses, a later one finds.
    offset = int.from_bytes(os.urandom(4)) % step
    for size, plane in squares.items():
        rows = block_rows(size)
        for block, crc in list(enumerate(index["crc32"][str(size)]))[offset::step]:
            if _checksum(plane, block * rows, min((block + 1) * rows, len(plane))) != crc:
                raise DamagedPlanes(f"plane {size}: checksum of block {block}")


def _checksum(plane: FilePlane, start: int, stop: int) -> int:
    try:
        return block_checksum(plane.block(start, stop))
    except (ShortPlane, OSError) as error:
        raise DamagedPlanes(str(error)) from None
