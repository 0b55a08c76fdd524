"""A program as a user would start it, in a process group of its own, timed from start to end."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

#: Seconds between two looks at a process.
_LOOK = 0.02


@dataclass(frozen=True)
class Ended:
    """A process that came to its end.

    Attributes:
        code: exit code; the negative number of the signal where one ended it.
        wall_seconds: from start to end.
        cpu_seconds: user and system time of it and of what it started and waited for.
        out, err: what it printed.
        killed: whether it was killed from here.
        peak_mb: the most resident memory that it had, in megabytes, as far as looks at it tell (Linux); not that of
            what it started.
    """

    code: int
    wall_seconds: float
    cpu_seconds: float
    out: str
    err: str
    killed: bool
    peak_mb: float = 0.0


def run_timed(command: Sequence[str], kill_after: float) -> Ended:
    """Run a command to its end, or kill its process group (SIGKILL: nothing can be tidied up).

    Args:
        command: program and arguments.
        kill_after: seconds after which it is killed; may be infinite.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True, env=_environment()
        )
        killed, peak = False, 0.0
        while True:
            peak = peak_mb(process.pid) or peak
            number, status, usage = os.wait4(process.pid, os.WNOHANG)
            if number:
                break
            if not killed and time.monotonic() - start >= kill_after:
                os.killpg(process.pid, signal.SIGKILL)
                killed = True
            time.sleep(_LOOK)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime
        return Ended(process.returncode, wall, cpu, _text(out), _text(err), killed, peak)


def peak_mb(pid: int) -> float:
    """The most resident memory that a process had so far, in megabytes; 0 where it cannot be told (Linux tells).

    What the system says of its resource use is also that of who started it.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), 0.0)


def _environment() -> dict[str, str]:
    # Threads of OpenMP that spin take the cores from whatever shares them.
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
