"""What is asked of a place that holds shards, and the table of such places by scheme."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from automl_vision.data.shards.address import Address

#: Servers are asked for the sizes of so many files at once.
_ASKED_AT_ONCE = 16


class FolderError(Exception):
    """A place cannot be reached, or refuses: one line for people."""


class Folder(Protocol):
    """A folder of files. Several threads may use it at once; it can be pickled."""

    def __str__(self) -> str:
        """For messages."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none.

        Raises:
            FolderError: nobody can tell.
        """
        ...

    def fetch(self, name: str, take: Callable[[bytes], object], most: int) -> None:
        """Hand over a file from its beginning to its end, in parts, and never more than `most` bytes.

        Raises:
            FolderError: it is not there, has more bytes, or cannot be read to its end.
        """
        ...

    def part(self, name: str, offset: int, size: int) -> bytes:
        """So many bytes of a file from `offset` on; fewer where it ends there.

        Raises:
            FolderError: it is not there, or cannot be read.
        """
        ...


def at_most(most: int, take: Callable[[bytes], object], place: str) -> Callable[[bytes], None]:
    """`take` for the parts of a file, up to so many bytes: what a server says of a length binds it to nothing.

    Raises:
        FolderError: from what is given, once there is more.
    """
    taken = 0

    def take_bounded(part: bytes) -> None:
        nonlocal taken
        taken += len(part)
        if taken > most:
            raise FolderError(f"{place}: it does not end after its {most:,} bytes")
        take(part)

    return take_bounded


def sizes_of(folder: Folder, names: Sequence[str]) -> Mapping[str, int | None]:
    """Bytes of files; None for those that are not there.

    Raises:
        FolderError: nobody can tell.
    """
    with ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="sizes") as pool:
        return dict(zip(names, pool.map(folder.size, names), strict=True))


class WritableFolder(Folder, Protocol):
    """A folder that files can be put into, each as a whole or not at all."""

    def prepare(self) -> None:
        """Make the folder where it is missing.

        Raises:
            OSError: it cannot be made.
        """
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Keep other processes from writing here meanwhile, where the place knows how.

        Raises:
            UsageError: one does already.
        """
        ...

    def staging(self) -> Path:
        """A folder on this machine in which a file is made that `publish` then moves to its place."""
        ...

    def publish(self, made: Path, name: str) -> None:
        """Move a file that was made in `staging` to its place.

        Raises:
            OSError, FolderError: it cannot be written.
        """
        ...

    def names(self) -> list[str]:
        """What is in it, sorted.

        Raises:
            FolderError: nobody can tell.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file, where it is there."""
        ...

    def free_bytes(self) -> int | None:
        """What may still be written; None where nobody knows."""
        ...


def open_folder(address: Address, *, allow_private: bool = False) -> Folder:
    """The place that an address names.

    Args:
        address: with an allowed scheme.
        allow_private: whether hosts in private networks may be asked by https.

    Raises:
        UsageError: a package that is needed for it is not installed.
    """
    if address.is_local:
        from automl_vision.data.shards.local_folder import LocalFolder

        return LocalFolder(address.folder)
    if address.scheme == "https":
        from automl_vision.data.shards.web_folder import WebFolder

        return WebFolder(str(address), allow_private)
    return open_for_writing(address)


def open_for_writing(address: Address) -> WritableFolder:
    """The same for a place that can be written to."""
    if address.is_local:
        from automl_vision.data.shards.local_folder import LocalFolder

        return LocalFolder(address.folder)
    from automl_vision.data.shards.object_folder import ObjectFolder

    return ObjectFolder(address.scheme, address.rest)
