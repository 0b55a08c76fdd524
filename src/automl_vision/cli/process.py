"""Settings of the whole process, made before torch loads its libraries; who imports the package keeps their own."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import platformdirs

from automl_vision.events import TRACKER_THREAD

#: Options of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER = 2**31 - 1
_AT_ONCE = 256 << 20

_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
#: Idle OpenMP threads that spin steal the cores they wait for: on a busy machine a training step takes two to three
#: times as long. Where they go to sleep at once, it takes a quarter longer on a quiet one (both in docs/LOG.md).
BUSY = ("OMP_WAIT_POLICY", "PASSIVE")
QUIET = ("GOMP_SPINCOUNT", "10000")


def settle_process() -> None:
    """Threads wait as suits a machine that is as busy as this one, and memory that is freed is used again."""
    if not any(name in os.environ for name in _WAITING):
        name, value = BUSY if _is_busy() else QUIET
        os.environ[name] = value
    _keep_freed_memory()


def keep_compiled_code_private() -> None:
    """Have torch keep what it compiled, and will run again, among the user's own files.

    By itself it takes a folder of a fixed name in /tmp, which somebody else may have made and filled before.
    """
    own = platformdirs.user_cache_path("automl-vision") / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(own))


def _is_busy() -> bool:
    """Whether other programs want half of the cores or more, at this moment."""
    try:
        running = int(Path("/proc/loadavg").read_text("ascii").split()[3].split("/")[0])
    except (OSError, ValueError, IndexError):
        return True  # nobody knows: what costs less where it is wrong
    return 2 * (running - 1) >= (os.cpu_count() or 1)


def _keep_freed_memory() -> None:
    """Every step allocates what the step before it freed; where glibc gives it back each time, pages fault anew."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _AT_ONCE)):
        mallopt(option, value)


@contextmanager
def loading() -> Iterator[None]:
    """Around imports and what else makes objects that stay: the garbage collector does not look at them meanwhile.

    Importing torch and timm makes a million objects, none of which becomes garbage.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def leave(code: int) -> NoReturn:
    """End the process with this exit code, without taking apart what the system is about to take back anyway.

    What is registered for the exit is run and all output is written, as otherwise; but nobody frees the million objects
    of torch and timm one by one. Where threads still run, output cannot be written, or a profiler or debugger wants
    to see the end, the process ends as Python ends it.
    """
    if _is_held_up():
        # Only folders of our own are removed: what a tracker's library runs at the exit waits for its server as well.
        weakref.finalize._exitfunc()  # type: ignore[attr-defined]
        if _flushed():
            os._exit(code)
    if threading.active_count() == 1 and not _is_watched():
        atexit._run_exitfuncs()
        if _flushed():
            os._exit(code)
    sys.exit(code)


def _is_held_up() -> bool:
    """Whether a tracker is still busy, whose run has told its user so."""
    return any(each.name.startswith(TRACKER_THREAD) for each in threading.enumerate())


def _is_watched() -> bool:
    monitoring = getattr(sys, "monitoring", None)  # from Python 3.12 on
    tools = () if monitoring is None else map(monitoring.get_tool, range(6))
    return sys.gettrace() is not None or sys.getprofile() is not None or any(tools)


def _flushed() -> bool:
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (OSError, ValueError):  # nobody reads any more, the disk is full, or it is closed
        return False
    return True
