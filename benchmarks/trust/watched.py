"""What a process does that reading a file must not: Python's audit events tell it, and there is no network to reach."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Begin the names of events of connections, processes and foreign code; dots and all.
FORBIDDEN = (
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostby", "socket.sendto", "socket.sendmsg"),
    *("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "os.startfile", "pty.spawn"),
    *("ctypes.dlopen", "urllib.", "http.client", "ftplib.", "smtplib.", "webbrowser.", "os.kill"),
)
#: Beside those, of a reader that writes nothing and starts nothing at all.
OF_A_READER = ("socket.__new__", "exec", "compile", "pickle.find_class", "os.remove", "os.rename", "os.mkdir")
_ADDRESS = re.compile(r"[0-9.]+|[0-9a-fA-F:]+")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000


class Watch:
    """Collects what happens in this process, from now on; an audit hook cannot be taken away again.

    Args:
        names: beginnings of the names of the events that count.
        writes: whether files that are opened for writing count as well.
        spare: code of files below these folders may be run: imports that come late.
    """

    def __init__(self, names: tuple[str, ...], *, writes: bool = False, spare: tuple[str, ...] = ()) -> None:
        self.seen: list[str] = []
        self._on = False
        self._names, self._writes, self._spare = names, writes, spare
        sys.addaudithook(self._take)

    @contextmanager
    def on(self) -> Iterator[list[str]]:
        """Within it, what happens is collected."""
        self.seen = []
        self._on = True
        try:
            yield self.seen
        finally:
            self._on = False

    def _take(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        written = self._writes and event == "open" and bool((arguments[2] or 0) & _WRITES)
        if not written and not event.startswith(self._names):
            return
        if _is_harmless(event, arguments):
            return
        source = getattr(arguments[0], "co_filename", "") if event == "exec" else ""
        if event == "compile":
            source = str(arguments[1])
        if not source.startswith(self._spare or ("\0",)):
            self.seen.append(f"{event} {source or str(arguments)[:150]}")


def _is_harmless(event: str, arguments: tuple[Any, ...]) -> bool:
    """This very process, and libraries that are loaded already, to set them; an address that is asked for no name."""
    first = arguments[0] if arguments else None
    if event == "ctypes.dlopen":
        return first is None or str(first).startswith((sys.prefix, sys.base_prefix))
    return event == "socket.getaddrinfo" and _ADDRESS.fullmatch(str(first)) is not None


def leave_network() -> bool:
    """Whether this process has no network any more, not even its own addresses; where the system lets it."""
    libc = ctypes.CDLL(None, use_errno=True)
    return any(libc.unshare(flags) == 0 for flags in (_NEW_NETWORK, _NEW_USER | _NEW_NETWORK))


def bound(*, data: int, file: int) -> None:
    """Bound this process: bytes of its data, of a file that it writes; and it leaves no core."""
    resource.setrlimit(resource.RLIMIT_DATA, (data, data))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file, file))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def forget_peak() -> None:
    """From now on, `peak_bytes` tells the most since now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes() -> int:
    """The most main memory that this process had since `forget_peak` (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
