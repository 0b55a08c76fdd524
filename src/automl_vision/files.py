"""Writing files so that a reader sees the old content or the new, never half of one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

from automl_vision.place import Place, put

#: What an unfinished file ends with; such files are swept when a run is opened.
UNFINISHED = ".tmp"
#: What network and overlay file systems say that know no syncing of folders; the file itself is safe by then.
_CANNOT_SYNC_FOLDERS = {errno.EINVAL, errno.EBADF, errno.ENOTSUP}


def write_atomically(path: Place, write: Callable[[IO[bytes]], object]) -> None:
    """Write through `write(file)` into a temporary file, flush it to the disk, then rename it to `path`.

    A crash or a full disk at any moment leaves the former content of `path` untouched. At an address, what was written
    is put as one object: that is all or nothing, too.

    Nobody can know the name of the temporary file beforehand, and it has to be a new one: where others may write to the
    folder, too, no link that they left there is followed.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    if not isinstance(path, Path):
        whole = BytesIO()
        write(whole)
        put(path, whole.getvalue())
        return
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    created = unfinished.open("xb")
    try:
        with created as file:
            _write_through(file, write)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first is what matters
            unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


class _Remembering:
    """A file for writing that remembers why a write failed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.failed: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failed = error
            raise

    def flush(self) -> None:
        self._file.flush()

    @property
    def closed(self) -> bool:
        return self._file.closed


def _write_through(file: IO[bytes], write: Callable[[IO[bytes]], object]) -> None:
    remembering = _Remembering(file)
    try:
        write(cast(IO[bytes], remembering))
    except RuntimeError:
        if remembering.failed is not None:  # torch's writer speaks of positions, and hides that the disk is full
            raise remembering.failed from None
        raise


def write_text(path: Place, text: str) -> None:
    """Write UTF-8 text atomically; undecodable file names in it are written as `\\udcXX` escapes."""
    data = text.encode("utf-8", "backslashreplace")
    write_atomically(path, lambda file: file.write(data))


def write_json(path: Place, value: Any, *, indent: int | None = 2) -> None:
    """Write a value of plain types as JSON, atomically. NaN and infinity are refused (`ValueError`)."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system knows how."""
    if os.name != "posix":
        return  # a folder cannot be opened for syncing elsewhere
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC_FOLDERS:
            raise
    finally:
        os.close(handle)
