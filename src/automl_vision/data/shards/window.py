"""A bounded folder of shards that were fetched: what was used longest ago goes first. Their tables lie beside them.

Several processes may share it. A shard is there as a whole or not at all; who reads one that is removed reads on, and
fetches it again the next time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from pathlib import Path

from automl_vision.data.shards.folder import Folder, FolderError
from automl_vision.data.shards.layout import ShardRecord, TableRecord
from automl_vision.errors import DataError
from automl_vision.files import UNFINISHED

#: Says that a folder is such a window. Nothing is removed anywhere else, and there only what has a name of ours.
MARK = "fetched-shards.mark"
_MARK_TEXT = (
    b"automl-vision keeps shards here that it fetched, and removes those used longest ago. All of it can be deleted.\n"
)
_SHARD = re.compile(r"[0-9a-f]{32}\.tar")
_HALF_FETCHED = re.compile(rf"[0-9a-f]{{32}}(?:\.tar|-[a-z]+\.parquet)\.\w+{re.escape(UNFINISHED)}")
#: What a killed process left is removed after so long.
_ABANDONED_SECONDS = 3600.0
#: A shard that is used is marked so no more often than this.
_MARK_SECONDS = 5.0


class Altered(FolderError):
    """What came is not what was written."""


class ShardWindow:
    """Fetched shards of one set.

    Args:
        folder: where they lie on this machine; made, and marked, where it is missing.
        most_bytes: what all of them may take.

    Raises:
        DataError: the folder cannot be made, or holds something else.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        self._marked: dict[str, float] = {}
        try:
            folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.mkdir(exist_ok=True, mode=0o700)
            _claim(folder)
        except OSError as error:
            raise _no_room(folder, str(error.strerror)) from None

    def path(self, record: ShardRecord) -> Path | None:
        """A shard that is here; None where it is not."""
        path = self._of(record)
        now = time.monotonic()
        if now - self._marked.get(path.name, -_MARK_SECONDS) < _MARK_SECONDS and path.exists():
            return path
        try:
            os.utime(path)
        except OSError:
            return None
        self._marked[path.name] = now
        return path

    def fetch(self, record: ShardRecord, source: Folder) -> Path:
        """Bring a shard here, unless it is; others make room for it.

        Raises:
            FolderError: it cannot be fetched, or is not what was written (`Altered`).
            DataError: the disk has no room.
        """
        found = self.path(record)
        if found is not None:
            return found
        self._make_room(record.bytes)
        return self._brought(record.name, record, self._of(record), source)

    def table(self, name: str, record: TableRecord, source: Folder) -> Path:
        """A table that lies beside the shards; it is no part of what is bounded.

        Raises:
            FolderError, DataError: as `fetch`.
        """
        path = self.folder / f"{record.sha256[:32]}-{name}"
        if path.is_file() and path.stat().st_size == record.bytes:
            return path
        return self._brought(name, record, path, source)

    def _brought(self, name: str, record: ShardRecord | TableRecord, path: Path, source: Folder) -> Path:
        digest = hashlib.sha256()
        try:
            handle, half = tempfile.mkstemp(prefix=f"{path.name}.", suffix=UNFINISHED, dir=self.folder)
            with contextlib.ExitStack() as on_error:
                on_error.callback(Path(half).unlink, missing_ok=True)
                with os.fdopen(handle, "wb") as file:

                    def take(part: bytes) -> None:
                        digest.update(part)
                        file.write(part)

                    source.fetch(name, take, record.bytes)
                if digest.hexdigest() != record.sha256:
                    raise Altered(f"{source}/{name}: its sha256 is not that of what was written")
                Path(half).replace(path)
                on_error.pop_all()
        except OSError as error:
            raise _no_room(self.folder, str(error.strerror)) from None
        return path

    def _of(self, record: ShardRecord) -> Path:
        """Named by content: a set that was written again under its old name has other shards."""
        return self.folder / f"{record.sha256[:32]}.tar"

    def _make_room(self, needed: int) -> None:
        kept: list[tuple[float, int, Path]] = []
        for each in self.folder.iterdir():
            with contextlib.suppress(OSError):  # another process may have removed it
                status = each.stat()
                if _HALF_FETCHED.fullmatch(each.name) and time.time() - status.st_mtime > _ABANDONED_SECONDS:
                    each.unlink()
                elif _SHARD.fullmatch(each.name):
                    kept.append((status.st_mtime, status.st_size, each))
        total = needed + sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total <= self.most_bytes:
                return
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            total -= size


def _claim(folder: Path) -> None:
    """Mark a folder that is empty as a window.

    Raises:
        DataError: it holds something, and no mark: it may be somebody's own.
        OSError: it cannot be read or written.
    """
    mark = folder / MARK
    others = any(each.name != MARK for each in folder.iterdir())
    if mark.is_file():  # after the look around: another process writes it before anything else
        return
    if others:
        raise DataError(
            "the folder for fetched shards holds something else",
            value=str(folder),
            fix="move it away, or give another --cache-dir",
        )
    mark.write_bytes(_MARK_TEXT)


def _no_room(folder: Path, reason: str) -> DataError:
    return DataError(
        "shards cannot be fetched to this machine",
        value=f"{folder} ({reason})",
        fix="give a smaller --shard-window, or another --cache-dir",
    )
