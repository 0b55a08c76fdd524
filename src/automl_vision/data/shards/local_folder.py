"""Shards in a folder of this machine: byte ranges of open files."""

from __future__ import annotations

import os
import shutil
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from automl_vision.data.shards.folder import FolderError, at_most
from automl_vision.data.shards.layout import WRITER_LOCK
from automl_vision.errors import UsageError
from automl_vision.files import UNFINISHED, sync_folder

#: Shards that are held open at once.
_MOST_OPEN = 64
_PART = 2**20


class _OpenFile:
    """A file that is closed once nobody reads from it any more."""

    def __init__(self, path: Path) -> None:
        self.handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        weakref.finalize(self, os.close, self.handle)


class OpenFiles:
    """Byte ranges of files, of which those used last are held open."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, _OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens them again."""
        return OpenFiles, ()

    def read(self, path: Path, offset: int, size: int) -> bytes:
        """So many bytes from `offset` on; fewer where the file ends there.

        Raises:
            OSError: it cannot be read.
        """
        opened = self._opened(path)
        if not hasattr(os, "pread"):
            return self._seek_and_read(opened, offset, size)
        parts: list[bytes] = []
        while size > 0 and (part := os.pread(opened.handle, size, offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def expect(self, path: Path, offset: int, size: int) -> None:
        """Have the system begin to read, where it knows how."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._opened(path).handle, offset, size, os.POSIX_FADV_WILLNEED)

    def forget(self, path: Path) -> None:
        """Let go of a file that was removed."""
        with self._lock:
            self._open.pop(path, None)

    def forget_removed(self) -> None:
        """Let go of files that were removed: as long as they are open, they take their room on the disk."""
        with self._lock:
            for path in [each for each in self._open if not each.exists()]:
                del self._open[path]

    def _opened(self, path: Path) -> _OpenFile:
        with self._lock:
            found = self._open.get(path)
            if found is None:
                found = self._open[path] = _OpenFile(path)
            self._open.move_to_end(path)
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)  # whoever reads from it still holds it
            return found

    def _seek_and_read(self, opened: _OpenFile, offset: int, size: int) -> bytes:
        with self._lock:
            os.lseek(opened.handle, offset, os.SEEK_SET)
            return os.read(opened.handle, size)


class LocalFolder:
    """A folder on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = OpenFiles()

    def __str__(self) -> str:
        return str(self.folder)

    def size(self, name: str) -> int | None:
        """Bytes of a regular file; None where there is none."""
        path = self.folder / name
        try:
            return path.stat().st_size if path.is_file() else None
        except OSError as error:
            raise FolderError(f"{path}: {error.strerror}") from None

    def fetch(self, name: str, take: Callable[[bytes], object], most: int) -> None:
        """Hand over a file in parts."""
        bounded = at_most(most, take, str(self.folder / name))
        if self.size(name) is None:  # opening a pipe would wait for whoever writes to it
            raise FolderError(f"{self.folder / name}: there is no such file")
        try:
            with (self.folder / name).open("rb", buffering=0) as file:
                while part := file.read(_PART):
                    bounded(part)
        except OSError as error:
            raise FolderError(f"{self.folder / name}: {error.strerror}") from None

    def part(self, name: str, offset: int, size: int) -> bytes:
        """So many bytes of a file; fewer where it ends."""
        try:
            return self._files.read(self.folder / name, offset, size)
        except OSError as error:
            raise FolderError(f"{self.folder / name}: {error.strerror}") from None

    def expect(self, name: str, offset: int, size: int) -> None:
        """These bytes will be read soon."""
        try:
            self._files.expect(self.folder / name, offset, size)
        except OSError:
            return  # reading them will say why

    def prepare(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold a lock in the folder; the system frees that of a process that was killed."""
        lock = FileLock(self.folder / WRITER_LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                "another process writes shards into this folder",
                value=str(self.folder),
                fix="wait until it ends, or give another --out",
            ) from None
        try:
            yield
        finally:
            with suppress(OSError):  # where a held file cannot be removed, an empty one stays
                (self.folder / WRITER_LOCK).unlink(missing_ok=True)
            lock.release()

    def staging(self) -> Path:
        """The folder itself: to rename is to publish."""
        return self.folder

    def publish(self, made: Path, name: str) -> None:
        """Rename a file whose bytes are with the disk."""
        made.replace(self.folder / name)
        sync_folder(self.folder)

    def names(self) -> list[str]:
        """What is in it, without what was not finished."""
        try:
            found = [each.name for each in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise FolderError(f"{self.folder}: {error.strerror}") from None
        return sorted(name for name in found if name != WRITER_LOCK and not name.endswith(UNFINISHED))

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.folder / name).unlink(missing_ok=True)

    def free_bytes(self) -> int | None:
        """Of its disk."""
        return shutil.disk_usage(self.folder).free
