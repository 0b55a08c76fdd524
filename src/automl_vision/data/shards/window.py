"""A bounded folder of shards that were fetched: what was used longest ago goes first.

Several processes may share it. A shard is there as a whole or not at all; who reads one that is removed reads on, and
fetches it again the next time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from pathlib import Path

from automl_vision.data.shards.folder import Folder, FolderError
from automl_vision.data.shards.layout import ShardRecord
from automl_vision.errors import DataError
from automl_vision.files import UNFINISHED

#: What a killed process left is removed after so long.
_ABANDONED_SECONDS = 3600.0
#: A shard that is used is marked so no more often than this.
_MARK_SECONDS = 5.0


class ShardWindow:
    """Fetched shards of one set.

    Args:
        folder: where they lie on this machine; made where it is missing.
        most_bytes: what all of them may take.

    Raises:
        DataError: the folder cannot be made.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        self._marked: dict[str, float] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
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
            FolderError: it cannot be fetched, or is not what was written.
            DataError: the disk has no room.
        """
        found = self.path(record)
        if found is not None:
            return found
        path = self._of(record)
        self._make_room(record.bytes)
        digest = hashlib.sha256()
        try:
            handle, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=UNFINISHED, dir=self.folder)
            with contextlib.ExitStack() as on_error:
                on_error.callback(Path(name).unlink, missing_ok=True)
                with os.fdopen(handle, "wb") as file:

                    def take(part: bytes) -> None:
                        digest.update(part)
                        file.write(part)

                    source.fetch(record.name, take)
                if digest.hexdigest() != record.sha256:
                    raise FolderError(f"{source}/{record.name}: its sha256 is not that of the shard that was written")
                Path(name).replace(path)
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
                if each.suffix == UNFINISHED and time.time() - status.st_mtime > _ABANDONED_SECONDS:
                    each.unlink()
                elif each.suffix == ".tar":
                    kept.append((status.st_mtime, status.st_size, each))
        total = needed + sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total <= self.most_bytes:
                return
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            total -= size


def _no_room(folder: Path, reason: str) -> DataError:
    return DataError(
        "shards cannot be fetched to this machine",
        value=f"{folder} ({reason})",
        fix="give a smaller --shard-window, or another --cache-dir",
    )
