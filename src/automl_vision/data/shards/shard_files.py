"""Byte ranges of shards, wherever they are: this is all that reading samples needs, in any order, without a state."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from automl_vision.data.shards.address import parse_address
from automl_vision.data.shards.folder import Folder, FolderError, open_folder
from automl_vision.data.shards.layout import ShardRecord
from automl_vision.data.shards.local_folder import LocalFolder, OpenFiles
from automl_vision.data.shards.window import ShardWindow
from automl_vision.errors import DataError

#: Samples of a shard that are asked for one by one before all of it is fetched.
_ONE_BY_ONE = 8
#: Shards that are fetched at once.
_FETCHED_AT_ONCE = 2


class Ranges(Protocol):
    """Byte ranges of numbered shards; several threads may read at once."""

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """So many bytes of a shard; fewer where it ends there.

        Raises:
            FolderError: it cannot be read.
        """
        ...

    def expect(self, shard: int, offset: int, size: int, /) -> None:
        """These bytes will be read soon."""
        ...

    def whereabouts(self, shards: Sequence[int]) -> Whereabouts:
        """Where these shards are, for another process; their numbers there are their places in `shards`."""
        ...


@dataclass(frozen=True)
class Whereabouts:
    """Where shards are, in plain values that another process opens them by.

    Attributes:
        address: the whole path of their folder, or its URL.
        names: of the shards.
        fetched: how those are fetched that are no files of this machine; None for files.
    """

    address: str
    names: tuple[str, ...]
    fetched: Fetched | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Whereabouts:
        """The inverse of `to_dict`."""
        fetched = values["fetched"]
        return cls(
            values["address"], tuple(values["names"]), None if fetched is None else Fetched.from_dict(dict(fetched))
        )

    def open(self) -> Ranges:
        """The shards; nobody is asked for anything yet.

        Raises:
            UsageError: a package that is needed for it is not installed.
            DataError: the folder that they are fetched to cannot be made.
        """
        if self.fetched is None:
            return LocalRanges(LocalFolder(Path(self.address)), self.names)
        how = self.fetched
        folder = open_folder(parse_address(self.address), allow_private=how.allow_private)
        window = ShardWindow(Path(how.window), how.most_bytes)
        return FetchedRanges(folder, how.records, window, allow_private=how.allow_private)


@dataclass(frozen=True)
class Fetched:
    """How shards are fetched.

    Attributes:
        records: of each of them.
        window: the folder that they are fetched to; all processes of a machine share it, and its bound.
        most_bytes: what that folder may take.
        allow_private: whether hosts in private networks may be asked by https.
    """

    records: tuple[ShardRecord, ...]
    window: str
    most_bytes: int
    allow_private: bool

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Fetched:
        """The inverse of `asdict`."""
        return cls(**{**values, "records": tuple(ShardRecord(**each) for each in values["records"])})


class LocalRanges:
    """Of shards that are files of this machine."""

    def __init__(self, folder: LocalFolder, names: tuple[str, ...]) -> None:
        self._folder = folder
        self._names = names

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """So many bytes of a shard; fewer where it ends there."""
        return self._folder.part(self._names[shard], offset, size)

    def expect(self, shard: int, offset: int, size: int) -> None:
        """The system begins to read."""
        self._folder.expect(self._names[shard], offset, size)

    def whereabouts(self, shards: Sequence[int]) -> Whereabouts:
        """Where these shards are: another process may stand in another folder."""
        return Whereabouts(os.fspath(self._folder.folder.absolute()), tuple(self._names[shard] for shard in shards))


class FetchedRanges:
    """Of shards that are elsewhere: a few samples of one are asked for singly; then all of it is fetched meanwhile.

    Args:
        folder: where they are.
        records: all of them.
        window: where they are fetched to.
        allow_private: how the folder was opened, see `open_folder`; another process opens it so again.
    """

    def __init__(
        self, folder: Folder, records: tuple[ShardRecord, ...], window: ShardWindow, *, allow_private: bool = False
    ) -> None:
        self._folder = folder
        self._records = records
        self._window = window
        self._allow_private = allow_private
        self._files = OpenFiles()
        self._asked: dict[int, int] = {}
        self._coming: set[int] = set()
        self._failed: dict[int, Exception] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(_FETCHED_AT_ONCE, thread_name_prefix="shards")

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process fetches into the same window."""
        made = partial(FetchedRanges, allow_private=self._allow_private)
        return made, (self._folder, self._records, self._window)

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """So many bytes of a shard; fewer where it ends there."""
        if shard in self._failed:
            raise self._failed[shard]
        path = self._window.path(self._records[shard])
        if path is not None:
            try:
                return self._files.read(path, offset, size)
            except OSError:
                self._files.forget(path)  # it went meanwhile: as if it had not been here
        self._count(shard)
        return self._folder.part(self._records[shard].name, offset, size)

    def expect(self, shard: int, _offset: int, _size: int) -> None:
        """All of the shard is fetched, by a thread of its own."""
        if self._window.path(self._records[shard]) is None:
            self._begin(shard)

    def whereabouts(self, shards: Sequence[int]) -> Whereabouts:
        """Where these shards are, and how they are fetched."""
        records = tuple(self._records[shard] for shard in shards)
        window = os.fspath(self._window.folder.absolute())
        fetched = Fetched(records, window, self._window.most_bytes, self._allow_private)
        return Whereabouts(str(self._folder), tuple(each.name for each in records), fetched)

    def _count(self, shard: int) -> None:
        with self._lock:
            self._asked[shard] = self._asked.get(shard, 0) + 1
            enough = self._asked[shard] >= _ONE_BY_ONE
        if enough:
            self._begin(shard)

    def _begin(self, shard: int) -> None:
        with self._lock:
            if shard in self._coming or shard in self._failed:
                return
            self._coming.add(shard)
        self._threads.submit(self._fetch, shard)

    def _fetch(self, shard: int) -> None:
        try:
            self._fetched_twice(shard)
        except (FolderError, DataError) as error:
            self._failed[shard] = error
        finally:
            self._files.forget_removed()
            with self._lock:
                self._asked[shard] = 0
                self._coming.discard(shard)

    def _fetched_twice(self, shard: int) -> None:
        """What arrives damaged is fetched once more before it counts as damaged where it comes from."""
        try:
            self._window.fetch(self._records[shard], self._folder)
        except FolderError:
            self._window.fetch(self._records[shard], self._folder)
