"""Reading the bytes of files of unknown origin, without waiting for pipes and without end."""

from __future__ import annotations

import errno
import io
import os
import stat
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO

from automl_vision.errors import ImageReadError

MAX_BYTES = 256 * 2**20


class StoredImage(ABC):
    """An image that is no file of its own, but lies in one with others."""

    __slots__ = ()

    @property
    @abstractmethod
    def digest(self) -> str:
        """blake2b-128 of its bytes, hex, as whoever stored it noted it; empty where nobody did."""

    @property
    @abstractmethod
    def trusted(self) -> bool:
        """Whether the digest need not be taken again before the image is used."""

    @abstractmethod
    def read_bytes(self) -> bytes:
        """All bytes as they were stored.

        Raises:
            ImageReadError: they are not there, or are not what was noted of them.
        """

    @abstractmethod
    def expect(self) -> None:
        """It will be read soon."""


#: What names the bytes of one image.
Place = Path | StoredImage


def read_bytes(path: Path | str | StoredImage) -> bytes:
    """All bytes of an image: stored with others, or a regular file; pipes, devices and folders are refused at once.

    Raises:
        ImageReadError: missing, unreadable, not_a_file, empty or too_large.
    """
    if isinstance(path, StoredImage):
        data = path.read_bytes()
        check_bytes(data)
        return data
    try:
        # Opening a FIFO for reading waits for a writer; O_NONBLOCK does not, and changes nothing for a file.
        handle = os.open(path, os.O_RDONLY | _OPEN_FLAGS)
    except ValueError:
        raise ImageReadError("missing", "no file can have this name") from None
    except OSError as error:
        raise _refused(error) from None
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
        raise ImageReadError("not_a_file", what)
    if status.st_size > MAX_BYTES:
        os.close(handle)
        raise ImageReadError("too_large", f"{status.st_size} bytes, over {MAX_BYTES // 2**20} MiB")
    with os.fdopen(handle, "rb", buffering=0) as file:
        # Asking for the cap would set that much memory aside for every file.
        return read_capped(file, min(status.st_size, MAX_BYTES) + 1)


_OPEN_FLAGS = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"))
_REFUSALS: dict[int | None, tuple[str, str]] = {
    errno.ENOENT: ("missing", "there is no such file"),
    errno.ENOTDIR: ("missing", "there is no such file"),
    errno.ENAMETOOLONG: ("missing", "the name is too long for a file"),
    errno.ENXIO: ("not_a_file", "a socket or a device"),
    errno.EISDIR: ("not_a_file", "a folder"),
}


def _refused(error: OSError) -> ImageReadError:
    return ImageReadError(*_REFUSALS.get(error.errno, ("unreadable", one_line(error.strerror or str(error)))))


def read_capped(file: IO[bytes] | io.FileIO, limit: int = MAX_BYTES + 1) -> bytes:
    """At most `limit` bytes; raw files may give fewer at a time."""
    parts: list[bytes] = []
    left = limit
    try:
        while left > 0 and (part := file.read(left)):
            parts.append(part)
            left -= len(part)
    except OSError as error:
        raise _refused(error) from None
    data = b"".join(parts)
    check_bytes(data)
    return data


def check_bytes(data: bytes) -> None:
    """Refuse a file without bytes, or with more than `MAX_BYTES`.

    Raises:
        ImageReadError: empty or too_large.
    """
    if not data:
        raise ImageReadError("empty", "0 bytes")
    if len(data) > MAX_BYTES:
        raise ImageReadError("too_large", f"over {MAX_BYTES // 2**20} MiB")


def one_line(text: str) -> str:
    """At most 200 printable characters: details go into tables, JSON and terminals."""
    escaped = text.encode("ascii", "backslashreplace").decode("ascii")
    printable = "".join(c if c.isprintable() else " " for c in escaped)
    return " ".join(printable.split())[:200]
