"""What the cache folder holds, and giving it up: what was used last stays longest.

An entry is one set of decoded images (`planes`), used whenever a store is opened on it, or the encoded images of a data
set (`unpacked`), used whenever that is read. It is removed under its lock,
so never while another process builds it. Where the system can remove an open file, a search that reads it goes on.
A builder that is killed leaves its scratch folder, and the system frees its lock: the rows that are whole are for the
next builder (`donors`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock

from automl_vision.data.planes import INDEX

#: What comparing pictures told (`lineage.comparison_cache`).
COMPARISONS = "comparisons.sqlite3"
#: What says that an entry holds encoded images, and which.
UNPACKED = "unpacked.json"
#: What stands between the key of an entry and the rest of the name of its scratch folder.
SCRATCH = ".tmp-"
_LOCK = ".lock"
_KEY = re.compile("[0-9a-f]{32}")
_SCRATCH = re.compile(f"({_KEY.pattern}){re.escape(SCRATCH)}.*")
_OF_A_PROCESS = re.compile(rf"{re.escape(SCRATCH)}(\d{{1,10}})-")
_IN_AN_ENTRY = re.compile(r"plane-\d+\.u8|facts\.parquet|index\.json|rows\.journal")
#: The rule for the size of the cache: this share of its disk, and no more bytes than that.
SHARE_OF_DISK, MOST_BYTES = 0.2, 200 * 10**9
#: Seconds since its last use before an entry gives way to a new one unasked: a search may be reading it.
IN_USE_SECONDS = 24 * 3600.0
#: Who waits for a lock looks so often whether it is to go on waiting, and for a builder that writes nothing so long.
_PATIENCE_SECONDS, STALLED_SECONDS = 1.0, 300.0


@dataclass(frozen=True)
class CacheEntry:
    """Images in the cache folder.

    Attributes:
        key: names the content.
        folder: where it lies.
        images: distinct files that could be read.
        sizes: sides in pixels, ascending.
        bytes: on disk.
        used: when it was last opened, in seconds since 1970.
        kind: decoded squares, or a data set unpacked into files; the latter has no sides.
    """

    key: str
    folder: Path
    images: int
    sizes: tuple[int, ...]
    bytes: int
    used: float
    kind: Literal["decoded", "unpacked"] = "decoded"


def cache_entries(cache_dir: Path) -> tuple[CacheEntry, ...]:
    """All entries, the one that was used last first; none where there is no folder. Damaged ones have 0 images."""
    if not cache_dir.is_dir():
        return ()
    found = (_entry(folder) for folder in cache_dir.iterdir() if _is_entry(folder))
    return tuple(sorted((each for each in found if each), key=lambda entry: entry.used, reverse=True))


def lock_of(cache_dir: Path, key: str) -> Path:
    """The file whose lock is held by whoever builds or removes an entry."""
    return cache_dir / f"{key}{_LOCK}"


@contextlib.contextmanager
def held_at_once(cache_dir: Path, key: str) -> Iterator[bool]:
    """Hold the lock of an entry if nobody else does, without waiting; whether it is held."""
    lock = filelock.FileLock(lock_of(cache_dir, key))
    try:
        lock.acquire(timeout=0)
    except (filelock.Timeout, OSError, NotImplementedError):  # filelock raises the last where a disk knows no locks
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextlib.contextmanager
def held_in_turn(cache_dir: Path, key: str, waiting: Callable[[str], object]) -> Iterator[None]:
    """Hold the lock of an entry, once nobody else does.

    Args:
        cache_dir: the folder.
        key: of the entry.
        waiting: called every second, as long as another process holds it, with who that is; ends the waiting by an
            error of its own.

    Raises:
        TimeoutError: who holds it has written nothing for `STALLED_SECONDS`: it was stopped, or hangs.
        OSError, NotImplementedError: nothing can be locked here.
    """
    lock = filelock.FileLock(lock_of(cache_dir, key))
    last, since = -1.0, time.monotonic()
    while not _acquired(lock):
        building = [folder for folder in abandoned(cache_dir) if key_of(folder) == key]
        written = max(map(_last_written, building), default=0.0)
        if written != last:  # compared only: the clock of the disk may be another one
            last, since = written, time.monotonic()
        who = _builder(building)
        if time.monotonic() - since > STALLED_SECONDS:
            raise TimeoutError(f"{who} is at them, and has written nothing for {STALLED_SECONDS:,.0f} s")
        waiting(who)
    try:
        yield
    finally:
        lock.release()


def told_once(tell: Callable[[str], object], what: str) -> Callable[[str], None]:
    """For `held_in_turn`: one line on whom it waits for."""
    told: list[str] = []

    def waiting(who: str) -> None:
        if not told:
            told.append(who)
            tell(f"Waiting for {who}, which {what}.")

    return waiting


def _acquired(lock: filelock.BaseFileLock) -> bool:
    try:
        lock.acquire(timeout=_PATIENCE_SECONDS)
    except filelock.Timeout:
        return False
    return True


def _builder(scratches: Sequence[Path]) -> str:
    numbers = [found for scratch in scratches if (found := _OF_A_PROCESS.search(scratch.name))]
    return f"process {numbers[-1][1]}" if numbers else "another process"


def note_use(folder: Path, index: str = INDEX) -> None:
    """Remember that an entry was opened; where nothing may be written, it counts as used when it was built."""
    with contextlib.suppress(OSError):
        os.utime(folder / index)


def largest_cache(cache_dir: Path) -> int:
    """Bytes that the cache may have by rule: a share of its disk."""
    return min(int(SHARE_OF_DISK * shutil.disk_usage(cache_dir).total), MOST_BYTES)


def give_up(cache_dir: Path, most_bytes: int, *, spare: str = "", idle_seconds: float = 0.0) -> tuple[CacheEntry, ...]:
    """Remove entries, the one used longest ago first, until the others have no more than `most_bytes`.

    Args:
        cache_dir: the folder.
        most_bytes: that may stay; 0 removes everything.
        spare: key of an entry that stays.
        idle_seconds: what was used since then stays, and so does what killed builders wrote since.

    Returns:
        What was removed: less than asked for where an entry is being built or cannot be removed.
    """
    sweep(cache_dir, idle_seconds=idle_seconds)
    entries = cache_entries(cache_dir)
    total, removed = sum(entry.bytes for entry in entries), []
    for entry in reversed(entries):
        if 0 < most_bytes >= total:
            break
        stays = entry.key == spare or time.time() - entry.used < idle_seconds
        if not stays and _removed(cache_dir, entry.folder):
            total -= entry.bytes
            removed.append(entry)
    return tuple(removed)


def abandoned(cache_dir: Path) -> list[Path]:
    """Scratch folders, whoever made them; those whose lock is free are of killed builders."""
    try:
        return sorted(folder for folder in cache_dir.iterdir() if is_scratch(folder) and folder.is_dir())
    except OSError:
        return []  # there is no such folder


def unfinished_bytes(cache_dir: Path) -> int:
    """What sets take that are being built, or were not finished."""
    files = [file for folder in abandoned(cache_dir) for file in _listed(folder)]
    return sum(map(_size, files))


def _listed(folder: Path) -> list[Path]:
    try:
        return [file for file in folder.rglob("*") if file.is_file()]
    except OSError:
        return []  # it is being removed


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def is_scratch(folder: Path) -> bool:
    """Whether its name says that an entry was to be built in it."""
    return bool(_SCRATCH.fullmatch(folder.name))


def key_of(scratch: Path) -> str:
    """The entry that was to be built in a scratch folder."""
    return scratch.name.partition(SCRATCH)[0]


def sweep(cache_dir: Path, held: str = "", idle_seconds: float = 0.0) -> int:
    """Remove what killed builders left behind: scratch folders whose lock is free.

    Args:
        cache_dir: the folder.
        held: the key whose lock the caller has; its scratch folders go as well.
        idle_seconds: other folders that were written since then stay.

    Returns:
        How many were removed.
    """
    removed = 0
    for scratch in abandoned(cache_dir):
        if key_of(scratch) == held:
            removed += _gone(scratch)
        elif time.time() - _last_written(scratch) >= idle_seconds:
            removed += remove_abandoned(cache_dir, scratch)
    return removed


def remove_abandoned(cache_dir: Path, scratch: Path) -> bool:
    """Remove a scratch folder if its lock is free; whether it is gone."""
    with held_at_once(cache_dir, key_of(scratch)) as free:
        return free and _gone(scratch)


def _gone(scratch: Path) -> bool:
    shutil.rmtree(scratch, ignore_errors=True)
    return not scratch.exists()


def _last_written(folder: Path) -> float:
    try:
        return max((file.stat().st_mtime for file in folder.iterdir()), default=folder.stat().st_mtime)
    except OSError:
        return 0.0  # it is being removed


def _removed(cache_dir: Path, folder: Path) -> bool:
    with held_at_once(cache_dir, folder.name) as free:
        if not free:
            return False
        doomed = folder.with_name(f"{folder.name}{SCRATCH}{os.getpid()}-removed")
        try:
            folder.replace(doomed)  # at once: nobody opens half of it
        except OSError:
            return False
        shutil.rmtree(doomed, ignore_errors=True)
        with contextlib.suppress(OSError):  # where a held file cannot be removed, an empty one stays
            lock_of(cache_dir, folder.name).unlink(missing_ok=True)
    return True


def _is_entry(folder: Path) -> bool:
    """Whether it is ours to remove: whatever else a user keeps there is not even looked at."""
    named = bool(_KEY.fullmatch(folder.name)) and folder.is_dir() and not folder.is_symlink()
    return named and (_holds_planes(folder) or _is_unpacked(folder))


def _is_unpacked(folder: Path) -> bool:
    try:
        return (folder / UNPACKED).is_file() and all(
            file.is_dir() for file in folder.iterdir() if file.name != UNPACKED
        )
    except OSError:
        return False  # it has just been removed


def _holds_planes(folder: Path) -> bool:
    try:
        return all(_IN_AN_ENTRY.fullmatch(file.name) for file in folder.iterdir())
    except OSError:
        return False  # it has just been removed


def _entry(folder: Path) -> CacheEntry | None:
    if (folder / UNPACKED).exists():
        return _unpacked_entry(folder)
    try:
        files = [file.stat() for file in folder.iterdir()]
        used = max((file.st_mtime for file in files), default=folder.stat().st_mtime)
    except OSError:
        return None  # it is being removed
    images, sizes = _described(folder)
    return CacheEntry(folder.name, folder, images, sizes, sum(file.st_size for file in files), used)


def _unpacked_entry(folder: Path) -> CacheEntry | None:
    try:
        status = (folder / UNPACKED).stat()
        told = json.loads((folder / UNPACKED).read_text(encoding="utf-8"))
        images, size = int(told["count"]), int(told["bytes"])
    except OSError:
        return None  # it is being removed
    except (ValueError, KeyError, TypeError, RecursionError):
        images, size = 0, sum(map(_size, _listed(folder)))
    return CacheEntry(folder.name, folder, images, (), size + status.st_size, status.st_mtime, "unpacked")


def _described(folder: Path) -> tuple[int, tuple[int, ...]]:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="ascii"))
        return int(index["count"]), tuple(sorted(int(side) for side in index["crc32"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0, ()
