"""The process of a worker on this machine: `python -m automl_vision.executors.worker`, started by `workers`.

Orders come in through standard input and answers leave through standard output, both of which are taken away from
whatever else runs here: what libraries print goes to the log. The process ends with its connection.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from typing import IO

from automl_vision.executors.workplace import Message, NoMessage, Worker, from_line, to_line
from automl_vision.main_memory import keep_freed_memory

#: Seconds to leave the job in work once the driver is gone.
GRACE_SECONDS = 2.0
#: What a process that was taken away ends with, by a custom of batch systems.
TAKEN_AWAY = 75
_PR_SET_PDEATHSIG = 1


class PipeConnection:
    """Lines of JSON, in and out.

    Args:
        incoming: orders.
        outgoing: answers.
    """

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._sending = threading.Lock()

    @classmethod
    def of_process(cls) -> PipeConnection:
        """Standard input and output, which nobody else has from then on."""
        incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        return cls(incoming, outgoing)

    def send(self, message: Message) -> None:
        """Write a line; `OSError` where nobody reads."""
        line = to_line(message)
        with self._sending:
            self._outgoing.write(line)
            self._outgoing.flush()

    def receive(self) -> Message | None:
        """The next line; None at the end, or where it is no message."""
        line = self._incoming.readline()
        with contextlib.suppress(NoMessage):  # half a line: the driver died while it wrote
            return from_line(line) if line else None
        return None


def main() -> None:
    """Do what the driver asks until it is gone."""
    _die_with_parent()
    keep_freed_memory()
    worker = Worker(PipeConnection.of_process(), _end_soon)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the driver, which tells
    signal.signal(signal.SIGTERM, lambda *_: worker.leave())
    worker.run()
    _end(TAKEN_AWAY if worker.orders.leaving else 0)


def _end_soon() -> None:
    """The driver is gone: whoever works may tidy up, for a moment."""
    timer = threading.Timer(GRACE_SECONDS, _end, [1])
    timer.daemon = True
    timer.start()


def _end(code: int) -> None:
    """Without taking apart what the system takes back anyway."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _die_with_parent() -> None:
    """Linux kills this process when the thread that started it ends, also where it is stuck in a library."""
    if sys.platform != "linux":
        return
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
