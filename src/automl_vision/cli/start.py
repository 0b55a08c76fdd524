"""What a shell starts. It imports nothing heavy, so that Ctrl-C ends it without a trace from the first moment."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


def program() -> NoReturn:
    """Import the command line, and run it."""
    with _ended_by_ctrl_c():
        from automl_vision.cli import app
    app.program()


@contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """Meanwhile Ctrl-C ends the process as the system does: an import that is interrupted would say where it was.

    Where the signal is ignored, as in the background of a shell, or somebody listens to it, that stays.
    """
    former = signal.getsignal(signal.SIGINT)
    if former is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
