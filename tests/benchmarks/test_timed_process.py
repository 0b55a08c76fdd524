"""A process is timed to its end, and a kill reaches all that it started."""

from __future__ import annotations

import math
import signal
import sys
import time
from pathlib import Path

from timed_process import run_timed


def test_code_output_and_time_are_those_of_the_process() -> None:
    program = "import sys, time; time.sleep(0.3); sum(range(10**6)); print('out'); sys.exit('err')"
    ended = run_timed([sys.executable, "-c", program], math.inf)
    assert (ended.code, ended.out, ended.err, ended.killed) == (1, "out\n", "err\n", False)
    assert ended.wall_seconds >= 0.3
    assert 0 < ended.cpu_seconds < 30


def test_a_kill_ends_the_whole_group(tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    child = (
        f"import pathlib, time\nwhile True: pathlib.Path({str(beat)!r}).write_text(str(time.time())); time.sleep(.01)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    ended = run_timed([sys.executable, "-c", parent], kill_after=1.5)
    assert ended.killed
    assert ended.code == -signal.SIGKILL
    time.sleep(0.2)
    last = beat.read_text()
    time.sleep(0.3)
    assert beat.read_text() == last
