"""Work for slots of a cluster that does as its job says: waits, fails, dies, or asks the orders."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from automl_vision.errors import DataError
from automl_vision.executors.workplace import Orders, PlainWork

Values = dict[str, Any]


def open_work(folder: str, orders: Orders) -> PlainWork:
    """Work that leaves a line in `folder`/log for what it does."""
    log = Path(folder) / "log"

    def note(text: str) -> None:
        with log.open("a") as file:
            file.write(f"{text}\n")

    def work(job: Values) -> Iterator[Values]:
        note(f"begin {job['word']} {os.getpid()}")
        try:
            for end, letter in enumerate(job["word"], 1):
                _ACTS[letter](job, orders) if letter in _ACTS else None
                time.sleep(job.get("seconds", 0.0))
                if orders.replaced or orders.stopped:
                    note(f"leave {job['word']}")
                    return
                yield {"word": job["word"][:end], "pid": os.getpid(), "left": min(orders.seconds_left(), 1e9)}
        finally:
            note(f"end {job['word']}")

    return work


def open_late(folder: str, orders: Orders) -> PlainWork:
    """The same, a second later."""
    time.sleep(1.0)
    return open_work(folder, orders)


def open_never(_folder: str, _orders: Orders) -> PlainWork:
    """Work that cannot be opened."""
    raise DataError("there is nothing to open", value="nothing", fix="open something")


def _raise(_job: Values, _orders: Orders) -> None:
    raise DataError("the letter is wrong", value="!", fix="leave it out")


def _die(_job: Values, _orders: Orders) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _is_taken(_job: Values, _orders: Orders) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)


def _wait(_job: Values, orders: Orders) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and not (orders.replaced or orders.stopped):
        time.sleep(0.05)


_ACTS = {"!": _raise, "x": _die, "t": _is_taken, "~": _wait}
