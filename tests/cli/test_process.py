"""What the command line sets before torch is loaded."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

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


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_used_again() -> None:
    """Pages of 4 KiB, 2,048 of them in 8 MiB: twenty arrays fault on all of them, or on next to none."""
    pages = 20 * (8 << 20) // resource.getpagesize()
    assert said("settled") < 0.1 * pages
