"""Have this process die by SIGKILL at one point of writing or removing a file, and say first what was there.

The doors are those of the operating system through which files.py writes: fsync of an unfinished file, the rename to
its name. They are replaced here, in a process that is to die; the program itself knows nothing of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

#: Where a writer may die. "half": the unfinished file has half of its bytes. "written": it is whole, and synced.
#: "renamed": it has its name, and the folder is not synced. "removed": a file is gone.
MOMENTS = ("half", "written", "renamed", "removed")
_UNFINISHED = re.compile(r"\.[0-9a-f]+\.tmp$")


def arm(folder: str, pattern: str, moment: str, nth: int, last_words: str) -> None:
    """From now on, die at the `nth` time that a file is at this moment.

    Args:
        folder: files in it count, and below it.
        pattern: regular expression that their whole path in the folder matches, with slashes.
        moment: one of `MOMENTS`.
        nth: from 1 on.
        last_words: file that tells what was found: the path, and the digests of what it held, and was to hold.
    """
    if moment not in MOMENTS:
        raise ValueError(f"unknown moment, got {moment=}; use one of {MOMENTS}")
    sync, replace, unlink = os.fsync, os.replace, os.unlink
    left = nth

    def is_it(path: str, now: str) -> bool:
        nonlocal left
        inside = os.path.relpath(path, folder)
        left -= now == moment and re.fullmatch(pattern, inside) is not None
        return left == 0

    def die(path: str, new: str | None) -> None:
        Path(last_words).write_text(json.dumps({"path": path, "former": digest(path), "new": new}))
        os.kill(os.getpid(), signal.SIGKILL)

    def dying_sync(handle: Any) -> None:
        unfinished = _path_of(handle)
        path = _UNFINISHED.sub("", unfinished)
        if path != unfinished and is_it(path, "half"):
            new = digest(unfinished)
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
            die(path, new)
        sync(handle)

    def dying_replace(source: Any, target: Any, **more: Any) -> None:
        path, new = os.fspath(target), digest(source)
        if is_it(path, "written"):
            die(path, new)
        if moment == "renamed" and is_it(path, "renamed"):
            former = digest(path)
            replace(source, target, **more)
            Path(last_words).write_text(json.dumps({"path": path, "former": former, "new": new}))
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target, **more)

    def dying_unlink(path: Any, **more: Any) -> None:
        there = os.path.lexists(path)
        unlink(path, **more)
        if there and is_it(os.fspath(path), "removed"):
            die(os.fspath(path), None)

    for name, door in {"fsync": dying_sync, "replace": dying_replace, "unlink": dying_unlink}.items():
        setattr(os, name, door)


def digest(path: Any) -> str | None:
    """Of what a file holds; None where there is none."""
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    except FileNotFoundError:
        return None


def _path_of(handle: Any) -> str:
    number = handle if isinstance(handle, int) else handle.fileno()
    try:
        return str(Path(f"/proc/self/fd/{number}").readlink())
    except OSError:
        return ""
