"""Deaths come where they are asked for, and what is then between before and after is noticed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from automl_vision.tensor_file import save_tensors
from trust import crash_hook, crash_points
from trust.crash_points import POINTS, Point, Tally, between, unreadable

WRITER = """
import sys
from pathlib import Path
from trust.crash_hook import arm
from automl_vision.files import write_text
folder, moment, nth, words = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
arm(str(folder), r"kept/state\\.json", moment, nth, words)
for number in range(4):
    write_text(folder / "other.json", "{}")
    write_text(folder / "kept" / "state.json", f'{{"number": {number}, "filler": "{"x" * 100}"}}')
(folder / "other.json").unlink()
(folder / "kept" / "state.json").unlink()
"""


def died(folder: Path, moment: str, nth: int) -> tuple[int, dict[str, Any]]:
    """Exit code and last words of a process that writes numbers."""
    (folder / "kept").mkdir()
    words = folder.with_suffix(".words")
    line = [sys.executable, "-c", WRITER, str(folder), moment, str(nth), str(words)]
    code = subprocess.run(line, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}).returncode
    return code, json.loads(words.read_text()) if words.is_file() else {}


@pytest.mark.parametrize(
    ("moment", "nth", "left", "unfinished"),
    [("half", 1, None, 1), ("written", 2, 0, 1), ("renamed", 3, 2, 0), ("removed", 1, None, 0)],
)
def test_a_process_dies_at_the_moment_that_was_asked_for(
    moment: str, nth: int, left: int | None, unfinished: int, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    code, words = died(folder, moment, nth)
    state = folder / "kept" / "state.json"
    assert code == -signal.SIGKILL
    assert (json.loads(state.read_text())["number"] if state.exists() else None) == left
    halves = list((folder / "kept").glob("*.tmp"))
    assert len(halves) == unfinished
    if moment == "half":
        assert 0 < halves[0].stat().st_size < 120
    assert between(folder, Point("a point", "", moment), words) == []


def test_a_file_that_is_neither_as_before_nor_as_after_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    _, words = died(folder, "written", 2)
    state = folder / "kept" / "state.json"
    state.write_text("{}")
    assert between(folder, Point("a point", "", "written"), words) == [f"a point: {state} is neither of both"]
    state.unlink()
    assert len(between(folder, Point("a point", "", "written"), words)) == 1


def test_a_process_that_never_comes_there_lives(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert died(folder, "renamed", 5) == (0, {})


def test_moments_that_there_are_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown moment"):
        crash_hook.arm(str(tmp_path), "", "before", 1, "")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    save_tensors(tmp_path / "whole.pt", {"a": torch.zeros(3)})
    (tmp_path / "whole.json").write_text("{}")
    assert unreadable(tmp_path) == []
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:200])
    (tmp_path / "half.json").write_text('{"a": ')
    (tmp_path / "half.json.12.tmp").write_text('{"a": ')
    assert [each.split()[0] for each in unreadable(tmp_path)] == ["half.json", "half.pt"]


def test_points_are_named_once_and_are_more_than_twelve() -> None:
    points = [point for group in (*POINTS, crash_points.CLAIMS) for point in group]
    assert len({point.name for point in points}) == len(points) >= 12
    assert {point.moment for point in points} == set(crash_hook.MOMENTS)
    assert all(re.compile(point.file) for point in points)


def test_a_figure_is_held_only_where_every_point_was_hit_and_all_was_well() -> None:
    points = POINTS[0]
    deaths = {point.name: 2 for point in points}
    assert Tally(deaths=deaths).figure(points, 2).held
    assert not Tally(deaths=deaths).figure(points, 3).held
    assert not Tally(deaths=deaths, between=["x"]).figure(points, 2).held
    assert not Tally(deaths=deaths, differing=1).figure(points, 2).held
    assert not Tally(deaths=deaths, faults=["x"]).figure(points, 2).held
