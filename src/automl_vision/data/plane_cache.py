"""Where decoded images lie: the cache folder under a lock, or a temporary folder that removes itself."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import filelock
import platformdirs

from automl_vision.data.cache_entries import (
    IN_USE_SECONDS,
    SCRATCH,
    give_up,
    largest_cache,
    lock_of,
    note_use,
    sweep,
)
from automl_vision.data.planes import DamagedPlanes, Planes, open_planes, sync_folder
from automl_vision.errors import DataError

#: Fills an empty folder with planes.
Fill = Callable[[Path], None]


def default_cache_dir() -> Path:
    """Folder for decoded images: $AUTOML_VISION_CACHE, else the user's cache folder."""
    given = os.environ.get("AUTOML_VISION_CACHE", "")
    return Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("automl-vision")) / "images"


def cache_dir_of(given: str) -> Path:
    """The folder that a user named; `default_cache_dir` where that is empty."""
    return Path(given).expanduser() if given else default_cache_dir()


class Disk:
    """The folder that planes lie in. A temporary one goes when released, collected, or at exit."""

    def __init__(self, folder: Path, *, temporary: bool = False) -> None:
        self.folder = folder
        self._remove = weakref.finalize(self, _remove, folder, os.getpid()) if temporary else None

    def release(self) -> None:
        """Remove a temporary folder; a cached one stays."""
        if self._remove is not None:
            self._remove()


def _remove(folder: Path, owner: int) -> None:
    # A forked worker inherits the finalizer, but the folder is still its parent's.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def obtain(
    key: str, sizes: Sequence[int], cache_dir: Path | None, fill: Fill, most_bytes: int | None = None
) -> tuple[Planes, Disk, tuple[str, ...]]:
    """The planes of `key` from the cache, or built into it, or built into a temporary folder.

    Args:
        key: names the content; equal keys are equal planes.
        sizes: sides that the planes must have.
        cache_dir: None for a temporary folder.
        fill: builds the planes.
        most_bytes: what the cache may grow to, once these are in it; None for `largest_cache`.

    Returns:
        The planes, their place, and notes for the user.

    Raises:
        DataError: no disk has room for them.
    """
    if cache_dir is None:
        return *_temporary(sizes, fill), ()
    try:
        planes = _cached(cache_dir, key, sizes, fill, most_bytes)
    # A cache folder that is full, read-only or on a file system without locks costs the next run its time,
    # but must not cost this one its result.
    except (OSError, NotImplementedError) as error:
        note = f"decoded images are not kept: the cache folder {cache_dir} cannot take them ({error})"
        return *_temporary(sizes, fill), (note,)
    return planes, Disk(planes.folder), ()


def _temporary(sizes: Sequence[int], fill: Fill) -> tuple[Planes, Disk]:
    planes = None
    try:
        disk = Disk(Path(tempfile.mkdtemp(prefix="automl-vision-")), temporary=True)
        try:
            fill(disk.folder)
            planes = open_planes(disk.folder, sizes, check=False)
        finally:
            if planes is None:
                disk.release()
    except OSError as error:
        place = f"{tempfile.gettempdir()} ({os.strerror(error.errno or errno.EIO)})"
        fix = "free some space, or point TMPDIR or --cache-dir to a disk that has it"
        raise DataError("no room for decoded images", value=place, fix=fix) from None
    return planes, disk


def _cached(cache_dir: Path, key: str, sizes: Sequence[int], fill: Fill, most: int | None) -> Planes:
    folder = cache_dir / key
    # First without the lock: a cache that is there can be read where nothing may be written.
    planes = _sound(folder, sizes)
    if planes is not None:
        return planes
    cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with filelock.FileLock(lock_of(cache_dir, key)):
        # Another process may have built it while this one waited.
        return _sound(folder, sizes) or _build(folder, sizes, fill, largest_cache(cache_dir) if most is None else most)


def _sound(folder: Path, sizes: Sequence[int]) -> Planes | None:
    try:
        planes = open_planes(folder, sizes)
    except DamagedPlanes:
        return None
    note_use(folder)
    return planes


def _build(folder: Path, sizes: Sequence[int], fill: Fill, most: int) -> Planes:
    """Build beside the entry and rename: it is there as a whole or not at all. The lock is held."""
    sweep(folder.parent, folder.name)
    if folder.exists():
        shutil.rmtree(folder)
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}{SCRATCH}{os.getpid()}-", dir=folder.parent))
    try:
        fill(scratch)
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    sync_folder(folder.parent)
    give_up(folder.parent, most, spare=folder.name, idle_seconds=IN_USE_SECONDS)
    return open_planes(folder, sizes, check=False)
