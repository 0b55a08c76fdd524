"""Squares of one side, read by row: in a file here, elsewhere in memory or made when they are asked for.

Files are read and not mapped: what a map has shown stays in the resident set of the process, all of a large data set in
the end, and a mapped file that is cut short kills whoever looks at it. A read costs 2 microseconds more per image.
"""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

#: Held while a file's one position is moved and read from, on systems that cannot read elsewhere.
_position = threading.Lock()


#: No file has it: the number of one that is closed is given to the next file that is opened.
_CLOSED = -1


class ShortPlane(Exception):
    """The file has not the length that it was written with, or is gone."""


class Plane(Protocol):
    """Squares of one side, side x side x 3 bytes each. Several threads may read at once; it can be pickled."""

    @property
    def place(self) -> str:
        """Where they lie, for messages."""
        ...

    def __len__(self) -> int:
        """Number of squares."""
        ...

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, side, side, 3) squares of some rows, each in 0..len-1, a copy."""
        ...

    def expect(self, rows: NDArray[np.int64]) -> None:
        """These rows will be read soon."""
        ...

    def close(self) -> None:
        """Let go of what they lie in; reading fails from then on."""
        ...


class FilePlane:
    """An open file of `count` squares, side x side x 3 bytes each, without a header.

    Several threads may read at once. A forked process may go on reading; others open the file again.

    Args:
        file: that holds them.
        side: of the squares, in pixels.
        count: of the squares.
        reserved: whether more may follow that was only reserved.

    Raises:
        ShortPlane: the file is missing or has another length.
    """

    def __init__(self, file: Path, side: int, count: int, reserved: bool = False) -> None:
        self.file = file
        self._side = side
        self._shape = (side, side, 3)
        self._bytes = side * side * 3
        self._count = count
        self._reserved = reserved
        try:
            self._handle = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise ShortPlane(f"{file.name}: {error}") from None
        self._close = weakref.finalize(self, os.close, self._handle)
        excess = os.fstat(self._handle).st_size - count * self._bytes
        if excess < 0 or (excess > 0 and not reserved):
            self._close()
            raise ShortPlane(f"{file.name}: wrong size")

    def __len__(self) -> int:
        """Squares in the file."""
        return self._count

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker process opens the same file."""
        return FilePlane, (self.file, self._side, self._count, self._reserved)

    @property
    def place(self) -> str:
        """The file."""
        return str(self.file)

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return self._count * self._bytes

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, side, side, 3) squares of some rows, each in 0..count-1.

        All of them are asked of the disk before the first is waited for: one after the other, a disk that can serve
        dozens of requests at once would serve one.

        Raises:
            ShortPlane: the file was cut short since it was opened.
            OSError: the disk cannot be read.
        """
        squares = np.empty((len(rows), *self._shape), dtype=np.uint8)
        if len(rows) > 1:
            self.expect(rows)
        places = (rows * self._bytes).tolist()
        for square, place in zip(squares.reshape(len(rows), self._bytes), places, strict=True):
            self._read_into(square.data, place)
        return squares

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Have the system begin to read these rows into its memory, where it knows how; what is there costs nothing."""
        if not hasattr(os, "posix_fadvise"):
            return
        for place in (rows * self._bytes).tolist():
            os.posix_fadvise(self._handle, place, self._bytes, os.POSIX_FADV_WILLNEED)

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
