"""On this clock work takes time and waiting takes none; the program is otherwise run as Python would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CLOCK = Path(__file__).parents[2] / "benchmarks" / "cpu_clock.py"

PROGRAM = """
import queue, sys, threading, time
before = time.monotonic()
time.sleep(1.0)
waited = time.monotonic() - before
try:
    queue.Queue().get(timeout=0.2)
except queue.Empty:
    pass
before = time.monotonic()
start = time.process_time()
while time.process_time() - start < 0.3:
    pass
print(waited < 0.5, 0.25 < time.monotonic() - before < 0.6, sys.argv[1:], __name__)
sys.exit(3)
"""


def test_waiting_is_free_and_work_is_not(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run([sys.executable, str(CLOCK), str(program), "--word"], capture_output=True, text=True)
    assert done.stdout.strip() == "True True ['--word'] __main__", done.stderr
    assert done.returncode == 3
    assert 0.3 < float(done.stderr.split()[-1]) < 5


def test_a_module_is_run_as_one() -> None:
    done = subprocess.run([sys.executable, str(CLOCK), "-m", "json.tool", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "usage:" in done.stdout
