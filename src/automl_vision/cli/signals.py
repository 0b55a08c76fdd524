"""What a search makes of signals: Ctrl-C ends it tidily, SIGTERM takes its machine away."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from automl_vision.stop_request import StopRequest

STOPPING = "Stopping tidily with the best so far; press Ctrl-C again to stop at once."
LEAVING = "Told to end: leaving as of the last checkpoint."
#: Seconds after SIGTERM at which the process ends whatever it is doing. Nothing on disk minds: every file is written
#: whole or not at all.
GRACE = 7.0


@contextmanager
def stop_on_signal(*, announce: bool) -> Iterator[StopRequest]:
    """The first Ctrl-C asks the run to end tidily, the second one ends the process at once.

    SIGTERM asks it to leave as of the last checkpoint. It may come more than once: batch systems send it to a whole
    group of processes, of which one passes it on. After `GRACE` seconds the process ends in any case, and at once where
    no run was begun.

    Args:
        announce: write to stderr that it is stopping; a live view shows it by itself.
    """
    stop = StopRequest()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.requested = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _say(STOPPING, announce)

    def take(_number: int, _frame: FrameType | None) -> None:
        if not stop.taken:
            _say(LEAVING, announce)
        stop.take_away()

    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with _ended_after_grace(stop):
        signal.signal(signal.SIGINT, ask)
        signal.signal(signal.SIGTERM, take)
        try:
            yield stop
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
            if stop.taken:  # told once more on its way out, it still ends with its exit code
                signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def _ended_after_grace(stop: StopRequest) -> Iterator[None]:
    """A thread hears of SIGTERM at once, also while this one is in a long call that Python cannot interrupt."""
    heard, told = socket.socketpair()
    told.setblocking(False)
    former = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(heard, stop), name="grace", daemon=True)
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        told.close()  # which ends the thread
        watch.join()
        heard.close()


def _watch(heard: socket.socket, stop: StopRequest) -> None:
    """Each signal is a byte; none more come once the other end is closed."""
    while received := heard.recv(1):
        if received[0] == signal.SIGTERM:
            break
    else:
        return
    ends = time.monotonic() + (GRACE if stop.has_something_to_save else 0.0)
    try:
        while True:
            heard.settimeout(max(ends - time.monotonic(), 0.001))
            if not heard.recv(1):  # else it is SIGTERM once more, or Ctrl-C
                return
    except TimeoutError:
        error = stop.taken_away()
        _say(f"Stopped: {error.what}", announce=True)
        os._exit(error.exit_code)


def _say(text: str, announce: bool) -> None:
    if announce:
        os.write(2, f"{text}\n".encode())  # plain: rich or an import may be at work
