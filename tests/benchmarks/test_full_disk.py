"""The check notices what it is there for: a search that says the wrong thing, loses, leaves or does not go on."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from trust import full_disk
from trust.full_disk import Disk, Tally, figure_of, measure, sizes
from trust.run_state import clear_faults, lost_and_repeated

# Stands in for the command line: five trials of one epoch, each with a large file; the room is written beside the disk.
STAND_IN = """
import json, pathlib, sys, time
fault, command, *rest = sys.argv[1:]
if command != "search":
    sys.exit(0)
given = dict(zip(rest, rest[1:]))
resumed = "--resume" in given
run = pathlib.Path(given["--resume"] if resumed else given["--out"])
run.mkdir(exist_ok=True)
def write(name, content):
    used = sum(each.stat().st_size for each in run.rglob("*") if each.is_file())
    room = int((run.parent.parent / "room").read_text() or 10**9)
    if used + len(content) > room:
        if fault == "leaves":
            (run / "half.tmp").write_bytes(b"1")
        print({"silent": "", "traceback": "Traceback (most recent call last):"}.get(fault, "Error: the disk is full"))
        print("" if fault == "helpless" else "Fix: free some space")
        sys.exit(2 if fault == "refuses" else 5)
    (run / name).write_bytes(content)
if resumed and fault == "stuck":
    sys.exit("there is no run in this folder")
if resumed and fault == "loses":
    for each in run.glob("trials/*.json"):
        each.write_text(each.read_text().replace("0.5", "0.6"))
write("run.json", json.dumps({"data": given.get("--data") or "DATA"}).encode())
(run / "trials").mkdir(exist_ok=True)
for number in range(5):
    if not (run / f"trials/{number:06d}.json").exists():
        write(f"weights-{number}.pt", bytes(100_000))
        time.sleep(0.04)
        record = {"number": number, "state": "complete", "epochs": [{"epoch": 1, "score": 0.5}]}
        write(f"trials/{number:06d}.json", json.dumps(record).encode())
write("report.json", json.dumps({"stop_reason": "trials"}).encode())
write("looks.json", b"[{}]")
"""


class Told(Disk):
    """A disk that tells the stand-in how much room there is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.hold(10**9)

    @property
    def used(self) -> int:
        return sum(each.stat().st_size for each in self.folder.rglob("*") if each.is_file() and each.suffix != ".log")

    def hold(self, size: int) -> None:
        (self.folder.parent / "room").write_text(str(max(size, self.used)))

    def close(self) -> None:
        pass


def measured(tmp_path: Path, fault: str, count: int = 3) -> tuple[Tally, Disk]:
    program, images = tmp_path / "stand_in.py", tmp_path / "images"
    images.mkdir()
    (images / "one.png").write_bytes(b"")
    program.write_text(STAND_IN.replace("DATA", str(images)))
    search = full_disk.LoggedElsewhere(
        ["--data", str(images)], [sys.executable, "-S", "-E", str(program), fault], tmp_path
    )
    disk = Told(tmp_path / "disk")
    return measure(search, disk, count, seed=1), disk


def test_a_search_that_ends_clearly_and_goes_on_is_sound(tmp_path: Path) -> None:
    tally, disk = measured(tmp_path, "none")
    figure = figure_of(tally, 3, disk)
    assert (figure.held, tally.full, tally.lost, tally.repeated, tally.faults) == (True, 3, 0, 0, []), tally.faults
    assert sum(tally.said.values()) == 3
    assert figure.line.startswith("R6 held: 3 searches met")
    assert not figure_of(tally, 4, disk).held, "fewer than asked for"


@pytest.mark.parametrize(
    ("fault", "noticed"),
    [
        ("silent", "errors instead of one"),
        ("traceback", "Traceback"),
        ("helpless", "does not say what to do"),
        ("refuses", "exit code 2, not 5"),
        ("leaves", "left behind half.tmp"),
        ("stuck", "with room it ended with 1"),
    ],
)
def test_every_fault_is_noticed(tmp_path: Path, fault: str, noticed: str) -> None:
    tally, disk = measured(tmp_path, fault, count=2)
    assert not figure_of(tally, 2, disk).held
    assert any(noticed in each for each in tally.faults), tally.faults


def test_a_trial_that_is_another_one_afterwards_is_lost(tmp_path: Path) -> None:
    tally, disk = measured(tmp_path, "loses")
    assert tally.lost > 0
    assert not figure_of(tally, 3, disk).held


def test_a_size_is_drawn_from_all_parts_of_what_a_search_takes() -> None:
    import random

    drawn = list(sizes(30, 10**8, random.Random(0)))
    for small in (True, False):
        of_kind = sorted(size for size, begins_small in drawn if begins_small is small)
        gaps = [after - before for before, after in pairwise(of_kind)]
        assert max(gaps) < 2 * 10**8 / 12
    assert min(drawn)[0] < 10_000, "and no room at all"


def test_an_error_is_one_line_and_one_with_what_to_do() -> None:
    good = "warning: x\nError: the disk is full: /x\nFix: free some space\n"
    assert clear_faults(5, good, 5) == []
    assert clear_faults(0, "done", 0, 2) == []
    wrong: list[tuple[Any, str]] = [
        (1, good), (None, good), (5, good + good), (5, "Error: no"), (5, good + "\x1b[2J"), (5, ""),
        (5, good + "Traceback"), (5, "Internal error: x\nFix: y"),
    ]  # fmt: skip
    for code, said in wrong:
        assert len(clear_faults(code, said, 5)) >= 1, (code, said)


def test_what_is_lost_and_what_is_done_again() -> None:
    def record(state: str, *scores: float) -> dict[str, Any]:
        return {"state": state, "epochs": [{"score": score} for score in scores]}

    before = {0: record("complete", 0.5), 1: record("paused", 0.5, 0.6)}
    assert lost_and_repeated(before, before) == (0, 0)
    assert lost_and_repeated(before, {0: before[0], 1: record("complete", 0.5, 0.6, 0.7)}) == (0, 0)
    assert lost_and_repeated(before, {0: record("complete", 0.4), 1: before[1]}) == (1, 0)
    assert lost_and_repeated(before, {0: before[0]}) == (1, 0)
    assert lost_and_repeated(before, {0: before[0], 1: record("paused", 0.5)}) == (0, 1)
    assert lost_and_repeated(before, {0: before[0], 1: record("paused", 0.5, 0.9)}) == (0, 1)


def test_where_nobody_may_mount_large_files_are_limited(tmp_path: Path) -> None:
    disk = full_disk.Limit(tmp_path / "disk")
    assert disk.limits(7) == (full_disk.limit_files, (7,))
    assert "nobody may mount" in figure_of(Tally(full=1), 1, disk).text
