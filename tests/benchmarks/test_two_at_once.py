"""The checks notice what they are there for: who goes on beside another, who is not told, who begins anew."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from trust import read_only, two_at_once
from trust.tiny_search import TinySearch

# Stands in for the command line: one trial of three epochs under a lock that is a file with the number of its process.
STAND_IN = """
import json, os, pathlib, sys, time
fault, command, *rest = sys.argv[1:]
if command != "search":
    sys.exit(0)
given = dict(zip(rest, rest[1:]))
run = pathlib.Path(given.get("--resume") or given["--out"])
run.mkdir(exist_ok=True)
lock = run / "lock"
if "--out" in given and (run / "report.json").exists():
    sys.exit("Error: this folder holds a run\\nFix: choose another")
def alive(number):
    try:
        os.kill(int(number or 0), 0)
    except ProcessLookupError:
        return False
    return pathlib.Path(f"/proc/{number}/stat").read_text().split()[2] != "Z"
try:
    owner = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.write(owner, str(os.getpid()).encode())
except FileExistsError:
    time.sleep(0.05)
    if fault != "both" and alive(lock.read_text()):
        print(f"Error: another process works here: {run} (process {lock.read_text()})" * (fault != "mute"))
        print("Fix: wait")
        sys.exit(2 if fault == "refuses" else 75)
    lock.write_text(str(os.getpid()))
(run / "run.json").write_text(json.dumps({"data": "DATA"}))
(run / "trials").mkdir(exist_ok=True)
record = run / "trials/000000.json"
known = json.loads(record.read_text()) if record.exists() and fault != "afresh" else {"epochs": []}
for epoch in range(len(known["epochs"]) + 1, 4):
    known = {"number": 0, "state": "paused", "epochs": [*known["epochs"], {"epoch": epoch, "seconds": time.time()}]}
    half = record.with_suffix(f".{os.getpid()}")
    half.write_text(json.dumps(known))
    half.rename(record)
    time.sleep(2 if epoch == 1 and "--resume" not in given else 0)
(run / "report.json").write_text(json.dumps({"stop_reason": "trials"}))
(run / "looks.json").write_text("[{}]")
lock.unlink(missing_ok=True)
"""


def told(tmp_path: Path, fault: str, scene: str) -> two_at_once.Told:
    program, images = tmp_path / "stand_in.py", tmp_path / "images"
    images.mkdir()
    (images / "one.png").write_bytes(b"")
    program.write_text(STAND_IN.replace("DATA", str(images)))
    search = TinySearch(["--data", str(images)], [sys.executable, "-S", "-E", str(program), fault])
    found = two_at_once.Told(scene)
    two_at_once.SCENES[scene][0](search, tmp_path / "run", found)
    return found


@pytest.mark.parametrize("scene", ["folder", "at-once"])
def test_a_program_that_keeps_to_itself_is_sound(tmp_path: Path, scene: str) -> None:
    found = told(tmp_path, "none", scene)
    assert found.faults == []
    assert two_at_once.figure_of([found]).line.startswith(f"two at once held: {scene}: ")


@pytest.mark.parametrize(
    ("fault", "scene", "noticed"),
    [
        ("both", "folder", "exit code 0, not 75"),
        ("refuses", "folder", "exit code 2, not 75"),
        ("mute", "folder", "0 errors instead of one"),
        ("afresh", "folder", "epochs trained again"),
        ("both", "at-once", "2 of 2 came to their end"),
    ],
)
def test_every_fault_is_noticed(tmp_path: Path, fault: str, scene: str, noticed: str) -> None:
    found = told(tmp_path, fault, scene)
    assert any(noticed in each for each in found.faults), found.faults
    assert not two_at_once.figure_of([found]).held


@pytest.mark.skipif(sys.platform != "linux", reason="rights of root are given up as Linux has it")
def test_modes_bind_a_session_that_gave_up_its_rights(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o555)
    child = os.fork()
    if not child:
        try:
            read_only.give_up_rights(str(tmp_path))
            (tmp_path / "shut" / "file").touch()
        except PermissionError:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert list((tmp_path / "shut").iterdir()) == []
