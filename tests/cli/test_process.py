"""What the command line sets before torch is loaded."""

from __future__ import annotations

import gc
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from automl_vision.cli import process

PROGRAM = """
import sys
from automl_vision.cli.process import settle_process
if sys.argv[1] == "settled":
    settle_process()
import numpy as np, resource
def work():
    for _ in range(20):
        np.ones(8 << 20, dtype=np.uint8).sum()
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def said(mode: str) -> int:
    """Page faults of twenty arrays of 8 MiB that were freed once before."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize(
    ("running", "wanted"),
    [(1, process.QUIET), (2, process.QUIET), (3, process.BUSY), (9, process.BUSY), ("?", process.BUSY)],
)
def test_threads_wait_as_suits_the_machine(
    running: int | str, wanted: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process.Path, "read_text", lambda *_: f"0.5 0.7 0.9 {running}/80 4711")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "environ", {})
    process.settle_process()
    assert os.environ == dict([wanted])


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_set_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {name: "7"})
    process.settle_process()
    assert os.environ == {name: "7"}


def test_what_torch_compiles_does_not_lie_under_a_fixed_name_in_tmp(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path)})
    process.keep_compiled_code_private()
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).is_relative_to(tmp_path)


def test_where_the_user_wants_compiled_code_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"TORCHINDUCTOR_CACHE_DIR": "/fast/disk"})
    process.keep_compiled_code_private()
    assert os.environ == {"TORCHINDUCTOR_CACHE_DIR": "/fast/disk"}


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_used_again() -> None:
    """Pages of 4 KiB, 2,048 of them in 8 MiB: twenty arrays fault on all of them, or on next to none."""
    pages = 20 * (8 << 20) // resource.getpagesize()
    assert said("settled") < 0.1 * pages


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_not_looked_for_while_loading_and_afterwards_as_before(enabled: bool) -> None:
    def load_in_vain() -> None:
        with process.loading():
            assert not gc.isenabled()
            raise KeyError

    gc.enable() if enabled else gc.disable()
    try:
        with pytest.raises(KeyError):
            load_in_vain()
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


# --- the end ---------------------------------------------------------------------------------------------------------

ENDING = """
import atexit, sys, threading, time
from automl_vision.cli.process import leave
class Left:
    def __del__(self, write=sys.stdout.write):
        write("taken apart ")
sys.stdout.write("written ")
atexit.register(lambda: sys.stdout.write("registered "))
{before}
kept = [Left()]
leave(3)
"""
THREAD = "threading.Thread(target=lambda: (time.sleep(0.1), sys.stdout.write('waited ')), daemon=False).start()"


@pytest.mark.parametrize(
    ("before", "printed"),
    [
        ("", {"written", "registered"}),
        (THREAD, {"written", "registered", "waited", "taken"}),
        ("sys.setprofile(lambda *_: None)", {"written", "registered", "taken"}),
    ],
    ids=["quick", "thread", "profiler"],
)
def test_a_process_leaves_nothing_undone_and_takes_nothing_apart(before: str, printed: set[str]) -> None:
    program = ENDING.format(before=before)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "")
    assert printed <= set(done.stdout.split())
    assert ("taken" in done.stdout) == ("taken" in printed)


def test_output_that_cannot_be_written_is_told_as_python_tells_it() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = ENDING.format(before="")
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    line = [sys.executable, "-c", program]
    done = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE, env=buffered, check=False)
    os.close(writing)
    assert done.returncode == 120
    assert b"BrokenPipeError" in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")  # noqa: PTH110 - it is no file
def test_output_that_finds_no_room_is_an_error_of_two_lines_and_not_a_fault_of_ours() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - it is no file
        done = subprocess.run(
            [sys.executable, "-m", "automl_vision", "models"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["Error: a disk is full: No space left on device", "Fix: free some space on it"]


INTERRUPTED = """
import os, signal, sys, types
class Slow(types.ModuleType):
    def __getattr__(self, name):
        os.kill(os.getpid(), signal.SIGINT)
        raise AttributeError(name)
sys.modules["typer"] = Slow("typer")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background would have inherited to ignore it
{before}
from automl_vision.cli.start import program
program()
"""


@pytest.mark.parametrize(
    ("before", "code"), [("", -signal.SIGINT), ("signal.signal(signal.SIGINT, lambda *_: os._exit(7))", 7)]
)
def test_ctrl_c_while_the_command_line_is_imported_ends_it_without_a_trace(before: str, code: int) -> None:
    program = INTERRUPTED.format(before=before)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
