"""Sessions of a program that can be signalled and killed: cold ones, and ones that have imported everything before.

A cold session is a process as a user starts it. Importing costs it several seconds of CPU, which nothing else of a
search of seconds comes near; so most sessions are forked from a process that has imported what a search needs, and done
nothing. They run the same `main` of the command line, in a process group of their own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: What a search imports, also what it imports only when it needs it.
IMPORTED = [
    *("trust.sessions", "trust.crash_hook"),
    *("automl_vision.cli.app", "automl_vision.cli.search", "automl_vision.cli.report", "automl_vision.cli.predict"),
    *("automl_vision.cli.progress", "automl_vision.cli.result", "automl_vision.pipeline", "timm"),
    *("automl_vision.data.lineage.comparison", "optuna.storages._rdb.storage", "alembic.migration"),
    *("sqlalchemy.dialects.sqlite", "matplotlib.backends.backend_svg", "pyarrow.parquet"),
]
#: Seconds between two looks at a session.
LOOK = 0.01
#: Seconds that a session may take; then it hangs.
PATIENCE = 900.0
#: Ticks of the processor time in /proc.
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass
class Session:
    """One that runs, or has ended.

    Attributes:
        process: as whoever started it knows it; it leads a process group.
        log: the file that it prints to, both streams.
        cold: whether it imports everything by itself.
    """

    process: Any
    log: Path
    cold: bool
    _began: float

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        return int(self.process.pid)

    @property
    def code(self) -> int | None:
        """The exit code, the negative number of the signal where one ended it; None while it runs."""
        code: int | None = self.process.poll() if self.cold else self.process.exitcode
        return code

    @property
    def seconds(self) -> float:
        """Since its start, on the wall clock."""
        return time.monotonic() - self._began

    @property
    def cpu_seconds(self) -> float:
        """That it has used; 0 where nobody knows, or it has ended."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICKS

    @property
    def said(self) -> str:
        """What it printed so far."""
        return self.log.read_text("utf-8", "replace")

    def send(self, number: int) -> None:
        """A signal to the process; nothing where it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """`kill -9` of the process group, and wait for the end."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # it is about to make its group, or has ended
            self.send(signal.SIGKILL)
        self.wait()

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """Its exit code, None where it does not end in time."""
        if self.cold:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        else:
            self.process.join(seconds)
        return self.code

    def runs_until(self, happened: Callable[[Session], bool]) -> bool:
        """Wait until it happens; False where the session ends, or hangs, before."""
        while self.code is None and self.seconds < PATIENCE:
            if happened(self):
                return True
            time.sleep(LOOK)
        return False


def start_cold(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Session:
    """A process of its own, as a user starts it."""
    with log.open("wb") as out:
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **(environment or {})},
        )
    return Session(process, log, True, began)


def start_forked(
    arguments: Sequence[str], log: Path, first: Callable[..., object] | None = None, *of_first: Any
) -> Session:
    """A session that has imported everything.

    Args:
        arguments: of the command line.
        log: what it prints to.
        first: called in its process before anything else, with `of_first`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=_session, args=(list(arguments), str(log), first, of_first), daemon=True)
    log.touch()
    process.start()
    return Session(process, log, False, time.monotonic())


def _session(arguments: list[str], log: str, first: Callable[..., object] | None, of_first: tuple[Any, ...]) -> None:
    os.setsid()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(out, stream)
    from automl_vision.cli import app, search

    vars(search)["PROCESS_START"] = time.monotonic()  # budgets count from the first import
    sys.argv = ["automl-vision", *arguments]
    if first is not None:
        first(*of_first)
    app.program()
