"""A command as somebody runs it who may not read everything, also where tests run as the first user."""

from __future__ import annotations

import ctypes
import os
import sys

#: prctl(2) and capabilities(7): what lets the first user read whatever is forbidden is taken from what is run next.
_CAPBSET_DROP, _READS_ALL = 24, (1, 2)
_PROGRAM = f"""
import ctypes, os, sys
libc = ctypes.CDLL(None)
if any(libc.prctl({_CAPBSET_DROP}, each, 0, 0, 0) for each in {_READS_ALL}):
    sys.exit("cannot become like other users")
os.execv(sys.argv[1], sys.argv[1:])
"""


def as_other_users() -> list[str] | None:
    """What to put before a command (whose program is an absolute path); None where that cannot be had.

    Files of the first user that nobody may read (mode 0) cannot be read by it either.
    """
    if os.geteuid() != 0:
        return []
    if not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "prctl"):
        return None
    return [sys.executable, "-c", _PROGRAM]
