"""Where decoded images lie: the cache folder under a lock, a temporary folder, memory, or nowhere at all.

A disk that is full costs time and never a result: each place is tried where the one before it has no room.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ParamSpec

import numpy as np
import platformdirs

from automl_vision.data.build import Offering, Wanted, fill, no_donors, settles, with_whole_digests
from automl_vision.data.cache_entries import (
    IN_USE_SECONDS,
    SCRATCH,
    cache_entries,
    give_up,
    held_in_turn,
    largest_cache,
    note_use,
    remove_abandoned,
    sweep,
    told_once,
)
from automl_vision.data.donors import Donors
from automl_vision.data.journal import JOURNAL
from automl_vision.data.planes import DamagedPlanes, Planes, PlaneWriter, open_planes, sync_folder
from automl_vision.data.survey import is_settled
from automl_vision.data.undisked import MemoryWriter, UndecodedWriter
from automl_vision.errors import BudgetExhausted, Interrupted
from automl_vision.main_memory import available_memory

_Told = ParamSpec("_Told")

#: What squares in memory may take of what is free: networks and batches need some, too.
MEMORY_SHARE = 0.5
#: A build that ends so may be wanted again, and the rows that it has are whole.
_STOPPED = (KeyboardInterrupt, Interrupted, BudgetExhausted)
#: How a place says that it takes no images: full, read-only, without locks, or out of memory.
_CANNOT_KEEP = (OSError, NotImplementedError)
_OF_A_PLACE = (*_CANNOT_KEEP, MemoryError)
_NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def default_cache_dir() -> Path:
    """Folder for decoded images: $AUTOML_VISION_CACHE, else the user's cache folder."""
    given = os.environ.get("AUTOML_VISION_CACHE", "")
    return Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("automl-vision")) / "images"


def cache_dir_of(given: str) -> Path:
    """The folder that a user named; `default_cache_dir` where that is empty."""
    return Path(given).expanduser() if given else default_cache_dir()


class TemporaryFolder:
    """A folder that goes when released, collected, or at exit."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="automl-vision-"))
        self.release = weakref.finalize(self, _remove, self.path, os.getpid())


def _remove(folder: Path, owner: int) -> None:
    # A forked worker inherits the finalizer, but the folder is still its parent's.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


class _ProgressFailed(Exception):
    """Telling the progress failed, as where the terminal is gone: no place for images is full for it."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


def _told_apart(listener: Callable[_Told, None]) -> Callable[_Told, None]:
    def tell(*told: _Told.args, **named: _Told.kwargs) -> None:
        try:
            listener(*told, **named)
        except _OF_A_PLACE as error:
            raise _ProgressFailed(error) from error

    return tell


def obtain(
    key: str, wanted: Wanted, cache_dir: Path | None, most_bytes: int | None = None
) -> tuple[Planes, TemporaryFolder | None, tuple[str, ...]]:
    """The planes of `key` from the cache, or built into it, or built wherever there is room.

    Args:
        key: names the content; equal keys are equal planes.
        wanted: what they are to hold.
        cache_dir: None for a temporary folder.
        most_bytes: what the cache may grow to, once these are in it; None for `largest_cache`.

    Returns:
        The planes, the temporary folder that they lie in if they do, and notes for the user.

    Raises:
        DataError: a file changes while it is read.
        Exception: whatever `wanted.progress` raises.
    """
    try:
        told = replace(wanted, progress=_told_apart(wanted.progress), tell=_told_apart(wanted.tell))
        return _obtained(key, told, cache_dir, most_bytes)
    except _ProgressFailed as failure:
        raise failure.error from None


def _obtained(
    key: str, wanted: Wanted, cache_dir: Path | None, most_bytes: int | None
) -> tuple[Planes, TemporaryFolder | None, tuple[str, ...]]:
    if not wanted.ahead:
        return _undecoded(wanted), None, ()
    reasons: list[str] = []
    if cache_dir is not None:
        try:
            return _cached(cache_dir, key, wanted, most_bytes), None, ()
        # A cache folder that is full, read-only or on a file system without locks costs the next run its time,
        # but must not cost this one its result.
        except _CANNOT_KEEP as error:
            reasons.append(f"the cache folder {cache_dir} cannot take them ({error})")
    offering = _donors(cache_dir, wanted).offering if cache_dir else no_donors
    try:
        planes, folder = _temporary(wanted, offering)
    except OSError as error:
        reasons.append(f"no temporary folder can ({error})")
        planes, note = _without_disk(wanted, offering, reasons)
        return planes, None, (note,)
    return planes, folder, tuple(f"decoded images are not kept: {reason}" for reason in reasons)


def _donors(cache_dir: Path, wanted: Wanted, key: str = "") -> Donors:
    return Donors(cache_dir, wanted.sizes, key, wanted.decode_side, wanted.resize)


def _temporary(wanted: Wanted, offering: Offering) -> tuple[Planes, TemporaryFolder]:
    folder = TemporaryFolder()
    with contextlib.ExitStack() as on_error:
        on_error.callback(folder.release)
        _write(folder.path, wanted, offering)
        planes = open_planes(folder.path, wanted.sizes, check=False)
        on_error.pop_all()
    return planes, folder


def _without_disk(wanted: Wanted, offering: Offering, reasons: Sequence[str]) -> tuple[Planes, str]:
    """Squares in memory where they fit, else none."""
    why, megabytes = "; ".join(reasons), wanted.nbytes / 1e6
    if wanted.nbytes <= MEMORY_SHARE * (available_memory() or 0):
        with contextlib.suppress(MemoryError):
            planes = _in_memory(wanted, offering)
            return planes, f"decoded images are held in memory, {megabytes:,.0f} MB, and not kept: {why}"
    started = time.monotonic()
    planes = _undecoded(wanted)
    seconds = time.monotonic() - started
    cost = (
        "in every pass over them"
        if wanted.known is not None
        else f"about {seconds:,.0f} s for each pass over all of them"
    )
    fix = f"to be faster, free {megabytes:,.0f} MB, or point --cache-dir to a disk that has them"
    return (
        planes,
        f"images are decoded whenever they are asked for, {cost}: {why}, and there is too little memory; {fix}",
    )


def _in_memory(wanted: Wanted, offering: Offering) -> Planes:
    writer = MemoryWriter(wanted)
    fill(wanted, writer, offering)
    return _complete(writer.planes(), wanted)


def _undecoded(wanted: Wanted) -> Planes:
    """All files are decoded, also those that other sets hold: how long that takes is what a pass over them costs.

    Where their facts came with them, nothing is decoded before it is asked for.
    """
    writer = UndecodedWriter(wanted)
    fill(replace(wanted, files=writer.missing), writer)
    return _complete(writer.planes(), wanted)


def _complete(planes: Planes, wanted: Wanted) -> Planes:
    return replace(planes, facts=with_whole_digests(wanted, planes.facts))


def _cached(cache_dir: Path, key: str, wanted: Wanted, most: int | None) -> Planes:
    # First without the lock: a cache that is there can be read where nothing may be written.
    planes = _sound(cache_dir / key, wanted.sizes)
    while planes is not None and (unsettled := _unsettled(planes)):
        following = _key_after(key)
        found = _sound(cache_dir / following, wanted.sizes)
        if found is None and not settles(wanted, unsettled):
            return planes
        key, planes = following, found
    if planes is not None:
        return planes
    folder = cache_dir / key
    cache_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    told = told_once(wanted.tell, "decodes the same images")

    def waiting(who: str) -> None:
        told(who)
        wanted.progress(0, len(wanted.files))  # it may stop the work

    with held_in_turn(cache_dir, key, waiting):
        # Another process may have built it while this one waited.
        planes = _sound(folder, wanted.sizes)
        return planes or _build(folder, wanted, largest_cache(cache_dir) if most is None else most)


def _unsettled(planes: Planes) -> list[str]:
    """Files whose faults were of this machine at that time, as where memory was short."""
    fault, detail, digest = (planes.facts[name] for name in ("fault", "detail", "file_digest"))
    of_machine = [not is_settled(*known) for known in zip(fault, detail, strict=True)]
    return digest[np.array(of_machine, dtype=np.bool_)].tolist()


def _key_after(key: str) -> str:
    """Of an entry with the same files, that is built because more of them can be read by now.

    It has a name of its own: a search that reads the one before goes on with what it began with.
    """
    return hashlib.blake2b(f"{key} again".encode(), digest_size=16).hexdigest()


def _sound(folder: Path, sizes: Sequence[int]) -> Planes | None:
    try:
        planes = open_planes(folder, sizes)
    except DamagedPlanes:
        return None
    note_use(folder)
    return planes


def _build(folder: Path, wanted: Wanted, most: int) -> Planes:
    """Build the entry, with what can be given up for it where the disk is full. The lock is held."""
    if folder.exists():
        shutil.rmtree(folder)  # it is damaged
    while True:
        donors = _donors(folder.parent, wanted, folder.name)
        donors.give_back()  # before as much is reserved once more
        try:
            _build_beside(folder, wanted, donors)
        except OSError as error:
            if error.errno not in _NO_ROOM or not _make_room(folder):
                raise
            continue
        break
    for emptied in donors.emptied():
        remove_abandoned(folder.parent, emptied)
    sweep(folder.parent, folder.name, IN_USE_SECONDS)
    sync_folder(folder.parent)
    give_up(folder.parent, most, spare=folder.name, idle_seconds=IN_USE_SECONDS)
    return open_planes(folder, wanted.sizes, check=False)


def _build_beside(folder: Path, wanted: Wanted, donors: Donors) -> None:
    """Build in a scratch folder and rename it: the entry is there as a whole or not at all.

    Where the user or the budget stops it, the scratch folder stays, as it would if the process were killed: the next
    build takes its rows.
    """
    scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}{SCRATCH}{os.getpid()}-", dir=folder.parent))
    try:
        _write(scratch, wanted, donors.offering)
        scratch.replace(folder)
    except _STOPPED:
        raise
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    (folder / JOURNAL).unlink()


def _write(folder: Path, wanted: Wanted, offering: Offering) -> None:
    with PlaneWriter(folder, wanted.sizes, len(wanted.files), wanted.decode_side, wanted.resize) as writer:
        fill(wanted, writer, offering)
        writer.finish(partial(with_whole_digests, wanted))


def _make_room(folder: Path) -> bool:
    """Give up what killed builders left, or else the entry that was used longest ago, and not today."""
    if sweep(folder.parent, folder.name):
        return True
    total = sum(entry.bytes for entry in cache_entries(folder.parent))
    return bool(give_up(folder.parent, max(total - 1, 0), spare=folder.name, idle_seconds=IN_USE_SECONDS))
