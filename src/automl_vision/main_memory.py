"""What main memory is left, for this process and the container that it runs in, and how it is held."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
#: Where a control group tells (limit, use, statistics, the lines of what the kernel gives back when asked), by the
#: controllers in its line of /proc/self/cgroup: none are named in version 2. Files that were read again and again are
#: "active", and are given back as well.
_CGROUP_FILES = {
    "": ("", "memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable")),
    "memory": (
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
}


#: Options of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_NEVER = 2**31 - 1
_AT_ONCE = 256 << 20


def keep_freed_memory() -> None:
    """Every step allocates what the step before it freed; where glibc gives it back each time, pages fault anew."""
    _mallopt((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _AT_ONCE))


def share_one_heap() -> None:
    """Threads that begin later allocate from the heap of all, where glibc would give each a heap of its own.

    What is kept in one of those is of no use to the others: a server whose batches differ from pass to pass takes half
    as much again for it.
    """
    _mallopt((_M_ARENA_MAX, 1))


def _mallopt(*options: tuple[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    for option, value in options:
        mallopt(option, value)


def available_memory() -> int | None:
    """Bytes of main memory that programs may still take; None where the system does not tell (it is Linux that does).

    It is what the kernel calls available, or less where a control group (a container, a batch job) has a limit.
    """
    return min((_available_in_all(_PROC), *_left_in_groups(_PROC, _CGROUPS)), key=_unknown_last)


def resident_memory() -> int | None:
    """Bytes of main memory that this process has now; None where the system does not tell (it is Linux that does)."""
    kilobytes = _field(_PROC / "self" / "status", "VmRSS:")
    return None if kilobytes is None else 1024 * kilobytes


def own_memory() -> int | None:
    """Bytes of main memory that nobody but this process has; files that it reads, others read too. None as above."""
    kilobytes = _field(_PROC / "self" / "status", "RssAnon:")
    return None if kilobytes is None else 1024 * kilobytes


def total_memory() -> int | None:
    """Bytes of main memory that there are for all processes together, used or not; None as above.

    It is that of the machine, or less where a control group has a limit.
    """
    kilobytes = _field(_PROC / "meminfo", "MemTotal:")
    machine = None if kilobytes is None else 1024 * kilobytes
    limits = (limit for limit, _ in _groups(_PROC, _CGROUPS))
    return min((machine, *limits), key=_unknown_last)


def _unknown_last(value: int | None) -> float:
    return float("inf") if value is None else value


def _available_in_all(proc: Path) -> int | None:
    """What the kernel takes to be available on the whole machine."""
    kilobytes = _field(proc / "meminfo", "MemAvailable:")
    return None if kilobytes is None else 1024 * kilobytes


def _left_in_groups(proc: Path, mount: Path) -> Iterator[int]:
    """What each control group that has a limit leaves."""
    return (left for _, left in _groups(proc, mount))


def _groups(proc: Path, mount: Path) -> Iterator[tuple[int, int]]:
    """The limit of each control group that has one, and what it leaves: the own one, and those that it lies in.

    A container often sees its own group as the root of the tree, under a path that is not there.
    """
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        layout = next((each for name, each in _CGROUP_FILES.items() if name in controllers.split(",")), None)
        if layout is None:
            continue
        folder, limit_file, use_file, reclaimable = layout
        own = PurePosixPath(path.lstrip("/"))
        for group in (own, *own.parents):
            place = mount / folder / group
            limit, use = _number(place / limit_file), _number(place / use_file)
            if limit is not None and use is not None:
                given_back = sum(_field(place / "memory.stat", name) or 0 for name in reclaimable)
                yield limit, max(limit - use + given_back, 0)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:  # another system, or a group that cannot be seen from here
        return []


def _number(file: Path) -> int | None:
    """The number that a file consists of; None for "max", or where there is no file."""
    text = "".join(_lines(file)).strip()
    return int(text) if text.isdigit() else None


def _field(file: Path, name: str) -> int | None:
    words = (line.split() for line in _lines(file))
    return next((int(each[1]) for each in words if len(each) > 1 and each[0] == name), None)


def give_back() -> None:
    """Give memory that was freed back to the system, where the C library knows how.

    The command line has it keep what it frees, for what every step of training allocates anew; after tables of all
    images were made once, there is far more of it than that.
    """
    arrow = sys.modules.get("pyarrow")  # tables lie in a heap of its own
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
