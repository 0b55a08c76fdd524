"""Squares of one side in a file, read by row.

They are read and not mapped: what a map has shown stays in the resident set of the process, all of a large data set in
the end, and a mapped file that is cut short kills whoever looks at it. A read costs 2 microseconds more per image.
"""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

#: Held while a file's one position is moved and read from, on systems that cannot read elsewhere.
_position = threading.Lock()


#: No file has it: the number of one that is closed is given to the next file that is opened.
_CLOSED = -1


class ShortPlane(Exception):
    """The file has not the length that it was written with, or is gone."""


class Plane:
    """An open file of `count` squares, side x side x 3 bytes each, without a header.

    Several threads may read at once. A forked process may go on reading; others open the file again.

    Raises:
        ShortPlane: the file is missing or has another length.
    """

    def __init__(self, file: Path, side: int, count: int) -> None:
        self.file = file
        self._shape = (side, side, 3)
        self._bytes = side * side * 3
        self._count = count
        try:
            self._handle = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise ShortPlane(f"{file.name}: {error}") from None
        self._close = weakref.finalize(self, os.close, self._handle)
        if os.fstat(self._handle).st_size != count * self._bytes:
            self._close()
            raise ShortPlane(f"{file.name}: wrong size")

    def __len__(self) -> int:
        """Squares in the file."""
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self._count * self._bytes

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, side, side, 3) squares of some rows, each in 0..count-1.

        Raises:
            ShortPlane: the file was cut short since it was opened.
            OSError: the disk cannot be read.
        """
        squares = np.empty((len(rows), *self._shape), dtype=np.uint8)
        for square, row in zip(squares.reshape(len(rows), self._bytes), rows.tolist(), strict=True):
            self._read_into(square.data, row * self._bytes)
        return squares

    def block(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, side, side, 3) squares that lie one after the other; errors as for `read`."""
        squares = np.empty((stop - start, *self._shape), dtype=np.uint8)
        self._read_into(squares.reshape(-1).data, start * self._bytes)
        return squares

    def close(self) -> None:
        """Let go of the file; reading fails from then on."""
        self._close()
        self._handle = _CLOSED

    def _read_into(self, room: memoryview, place: int) -> None:
        done = 0
        while done < len(room):
            count = _read_at(self._handle, room[done:], place + done)
            if not count:
                raise ShortPlane(f"{self.file.name}: it ends at {place + done} bytes")
            done += count


def _read_at(handle: int, room: memoryview, place: int) -> int:
    """Bytes that were read into `room` from this place of the file."""
    if hasattr(os, "preadv"):
        return os.preadv(handle, [room], place)
    return _seek_and_read(handle, room, place)


def _seek_and_read(handle: int, room: memoryview, place: int) -> int:
    """The same on systems that have one position per file, which threads then share one after the other."""
    with _position:
        os.lseek(handle, place, os.SEEK_SET)
        data = os.read(handle, len(room))
    room[: len(data)] = data
    return len(data)
