"""Settings of the whole process, made before torch loads its libraries; who imports the package keeps their own."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

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
