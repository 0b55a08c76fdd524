"""The file format of decoded images: one file of uint8 squares per side, and an index that is written last.

A folder holds `plane-<side>.u8` (P rows of side x side x 3 bytes, no header), `facts.parquet` (one row per
distinct file, with the row its squares have) and `index.json` (format, sides, checksums).
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl_vision.data.facts import FACT_COLUMNS
from automl_vision.data.plane import Plane, ShortPlane

#: 2: the facts tell when a picture was taken, and hold the hash of what it shows; 3: at which fraction it was decoded.
FORMAT = 3

#: Column of `facts.parquet` beside `FACT_COLUMNS`: row of the image in every plane, -1 where quarantined.
PLANE_ROW = "plane_row"

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
    """An open folder of planes.

    Attributes:
        folder: where it lies.
        facts: one row per distinct file: `FACT_COLUMNS` and `PLANE_ROW`.
        squares: side -> P squares, read by row.
    """

    folder: Path
    facts: pd.DataFrame
    squares: dict[int, Plane]


class PlaneWriter:
    """Appends images to all planes of a folder, in order; use as a context manager.

    Raises:
        OSError: the disk is full or the folder cannot be written. The room is asked for at the start where
            the system can do so: a disk that is too small is known before the first image is decoded.
    """

    def __init__(self, folder: Path, sizes: Sequence[int], capacity: int) -> None:
        self._folder = folder
        self._count = 0
        self._files: dict[int, BinaryIO] = {}
        self._crcs: dict[int, list[int]] = {size: [] for size in sizes}
        with ExitStack() as opened:
            for size in sizes:
                self._files[size] = opened.enter_context(_plane_file(folder, size).open("wb"))
                _reserve(self._files[size].fileno(), capacity * 3 * size * size)
            self._open = opened.pop_all()

    def __enter__(self) -> PlaneWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def append(self, squares: Sequence[NDArray[np.uint8]]) -> int:
        """Write one square per size, ascending as the sizes are; returns their row."""
        for (size, file), pixels in zip(self._files.items(), squares, strict=True):
            crcs = self._crcs[size]
            if self._count % _block_rows(size) == 0:
                crcs.append(0)
            crcs[-1] = zlib.crc32(pixels.data, crcs[-1])
            file.write(pixels.data)
        self._count += 1
        return self._count - 1

    def finish(self, facts: pd.DataFrame) -> None:
        """Give back what was reserved and not used, and write the facts and the index."""
        for size, file in self._files.items():
            file.truncate(self._count * 3 * size * size)
            file.flush()
            os.fsync(file.fileno())
        facts.to_parquet(self._folder / _FACTS, index=False)
        index = {
            "format": FORMAT,
            "count": self._count,
            "crc32": {str(size): crcs for size, crcs in self._crcs.items()},
            "facts_crc32": zlib.crc32((self._folder / _FACTS).read_bytes()),
        }
        with (self._folder / INDEX).open("wb") as written:
            written.write(json.dumps(index).encode("ascii"))
            written.flush()
            os.fsync(written.fileno())
        sync_folder(self._folder)


def open_planes(folder: Path, sizes: Sequence[int], *, check: bool = True) -> Planes:
    """Open the planes of a folder.

    Args:
        folder: as `PlaneWriter` left it.
        sizes: the sides that it must hold.
        check: compare checksums; not needed for what this process has just written.

    Raises:
        DamagedPlanes: the folder is not exactly what was written.
    """
    index = _read_index(folder, sizes)
    squares = open_squares(folder, index["count"], sizes)
    if check:
        _compare(index, squares)
    return Planes(folder, _read_facts(folder, index), squares)


def open_squares(folder: Path, count: int, sizes: Sequence[int]) -> dict[int, Plane]:
    """The squares of a folder whose checksums were compared before: side -> `count` of them.

    Raises:
        DamagedPlanes: a file is missing or has another size.
    """
    try:
        return {size: Plane(_plane_file(folder, size), size, count) for size in sizes}
    except ShortPlane as error:
        raise DamagedPlanes(str(error)) from None


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


def _block_rows(size: int) -> int:
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


def _read_index(folder: Path, sizes: Sequence[int]) -> dict[str, Any]:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise DamagedPlanes(f"index: {error}") from None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise DamagedPlanes("index: another format")
    count, crcs = index.get("count"), index.get("crc32")
    if type(count) is not int or count < 0 or not isinstance(crcs, dict):
        raise DamagedPlanes("index: incomplete")
    for size in sizes:
        listed = crcs.get(str(size))
        if not isinstance(listed, list) or len(listed) != -(-count // _block_rows(size)):
            raise DamagedPlanes(f"index: no checksums for side {size}")
    return index


def _read_facts(folder: Path, index: Mapping[str, Any]) -> pd.DataFrame:
    try:
        data = (folder / _FACTS).read_bytes()
    except OSError as error:
        raise DamagedPlanes(f"facts: {error}") from None
    if zlib.crc32(data) != index.get("facts_crc32"):
        raise DamagedPlanes("facts: checksum")
    facts = pd.read_parquet(folder / _FACTS)
    if list(facts.columns) != [*FACT_COLUMNS, PLANE_ROW]:
        raise DamagedPlanes("facts: other columns")
    return facts


def _compare(index: Mapping[str, Any], squares: Mapping[int, Plane]) -> None:
    total = sum(plane.nbytes for plane in squares.values())
    step = max(1, -(-total // _CHECKED_BYTES))
    # Another offset every time: damage that one sample misses, a later one finds.
    offset = int.from_bytes(os.urandom(4)) % step
    for size, plane in squares.items():
        rows = _block_rows(size)
        for block, crc in list(enumerate(index["crc32"][str(size)]))[offset::step]:
            if _checksum(plane, block * rows, min((block + 1) * rows, len(plane))) != crc:
                raise DamagedPlanes(f"plane {size}: checksum of block {block}")


def _checksum(plane: Plane, start: int, stop: int) -> int:
    try:
        return zlib.crc32(plane.block(start, stop).data)
    except (ShortPlane, OSError) as error:
        raise DamagedPlanes(str(error)) from None
