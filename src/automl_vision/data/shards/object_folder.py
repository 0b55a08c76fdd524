"""Shards in an object store (S3, Google Cloud Storage): the only door to fsspec.

Credentials come from the environment and from the providers' own files, as their libraries find them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from automl_vision.data.shards.folder import FolderError, at_most
from automl_vision.extras import require

#: Scheme -> the package that fsspec needs for it.
PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
_FAILURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("botocore.exceptions", ("BotoCoreError", "ClientError")),
    ("google.auth.exceptions", ("GoogleAuthError",)),
)
_PART = 8 * 2**20


class ObjectFolder:
    """A folder of an object store.

    Args:
        scheme: a key of `PACKAGES`.
        root: BUCKET/FOLDER.

    Raises:
        UsageError: a package is not installed.
    """

    def __init__(self, scheme: str, root: str) -> None:
        require(["fsspec", PACKAGES[scheme]], "stream", f"{scheme}:// URLs")
        self._scheme = scheme
        self._root = root
        self._staging: tempfile.TemporaryDirectory[str] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process connects by itself."""
        return ObjectFolder, (self._scheme, self._root)

    def __str__(self) -> str:
        return f"{self._scheme}://{self._root}"

    @cached_property
    def _store(self) -> Any:
        import fsspec

        return fsspec.filesystem(self._scheme)

    def size(self, name: str) -> int | None:
        """Bytes of an object; None where there is none."""
        with self._failing(name):
            try:
                return int(self._store.info(self._of(name))["size"])
            except FileNotFoundError:
                return None

    def fetch(self, name: str, take: Callable[[bytes], object], most: int) -> None:
        """Hand over an object in parts."""
        bounded = at_most(most, take, f"{self}/{name}")
        with self._failing(name), self._store.open(self._of(name), "rb", block_size=_PART) as file:
            while part := file.read(_PART):
                bounded(part)

    def part(self, name: str, offset: int, size: int) -> bytes:
        """So many bytes of an object; fewer where it ends."""
        with self._failing(name):
            return bytes(self._store.cat_file(self._of(name), start=offset, end=offset + size))

    def prepare(self) -> None:
        """Object stores have no folders."""

    def alone(self) -> AbstractContextManager[None]:
        """Object stores have no locks: who writes finds out by its mark."""
        return nullcontext()

    def staging(self) -> Path:
        """A temporary folder: an object is sent once it is whole, as one that is sent in parts may stay torn."""
        if self._staging is None:
            self._staging = tempfile.TemporaryDirectory(prefix="automl-vision-")
        return Path(self._staging.name)

    def publish(self, made: Path, name: str) -> None:
        """Send a file, and remove it here."""
        with self._failing(name):
            self._store.put_file(str(made), self._of(name))
        made.unlink()

    def names(self) -> list[str]:
        """Objects directly under the folder."""
        with self._failing(""):
            self._store.invalidate_cache()
            try:
                found = self._store.ls(self._root, detail=False)
            except FileNotFoundError:
                return []
        return sorted(name for name in (str(each).rpartition("/")[2] for each in found) if name)

    def remove(self, name: str) -> None:
        """Remove an object."""
        with self._failing(name):
            if self._store.exists(self._of(name)):
                self._store.rm_file(self._of(name))

    def free_bytes(self) -> int | None:
        """Nobody knows."""
        return None

    def _of(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        try:
            yield
        except _failures() as error:
            said = ascii(str(error) or type(error).__name__)[:300].strip("'")
            raise FolderError(f"{self}/{name}: {said}") from None


def _failures() -> tuple[type[BaseException], ...]:
    """What the libraries of the providers raise beside errors of files; those that are not here raise nothing."""
    return (OSError, ValueError, *(each for module, names in _FAILURES for each in _named(module, names)))


def _named(module: str, names: tuple[str, ...]) -> list[type[BaseException]]:
    try:
        loaded = import_module(module)
    except ImportError:
        return []
    return [getattr(loaded, name) for name in names]
