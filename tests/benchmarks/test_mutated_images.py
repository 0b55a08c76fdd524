"""The storm notices what it is there for: crashes, hangs, foreign errors, memory, doors and commands that disagree."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from automl_vision.data.decode import open_rgb
from trust import image_doors
from trust.bounded_child import Bounds, told_by_children
from trust.image_seeds import seeds
from trust.mutated_images import Scene, Tally, make_scene
from trust.mutations import MUTATIONS, mutated, with_fitting_sums

# Stands in for the doors: pieces of work of which some go wrong.
CHILD = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from trust.bounded_child import Bounds, work_through

def spend(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass

def work(number, begins):
    if number == 1:
        for _ in range(4):
            spend(0.2)
            begins()
    if number == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 4:
        spend(60)
    if number == 5:
        raise KeyError("five")
    if number == 6:
        bytes(3 * 10**8)
    return {"said": "ok", "wrong": []}

work_through(range(int(sys.argv[2]), int(sys.argv[3])), Path(sys.argv[4]), Bounds(bytes=2 * 10**8), work)
"""


def test_what_ends_or_holds_up_a_child_is_named_and_the_rest_is_done(tmp_path: Path) -> None:
    program, folder = tmp_path / "child.py", tmp_path / "work"
    program.write_text(CHILD)
    folder.mkdir()
    benchmarks = str(Path(image_doors.__file__).resolve().parents[1])
    line = [sys.executable, str(program), benchmarks]
    bounds = Bounds(cpu_seconds=0.5)
    told, lost = told_by_children(line, range(9), folder, bounds)
    assert [(each.number, each.kind) for each in lost] == [(2, "crash"), (4, "hang")]
    assert "-11" in lost[0].detail
    assert [each["number"] for each in told] == [0, 1, 3, 5, 6, 7, 8]
    assert 0.2 <= next(each["cpu"] for each in told if each["number"] == 1) < 0.5, "each step has the bound of its own"
    foreign = {each["number"]: each["foreign"] for each in told if "foreign" in each}
    assert foreign.keys() == {5, 6}
    assert "KeyError: 'five'" in foreign[5]
    assert "MemoryError" in foreign[6]

    tally = Tally()
    tally.add(told, bounds)
    tally.add_lost(lost, bounds)
    figure = tally.figure(9, 1, 0)
    assert not figure.held
    assert (tally.crashes, tally.hangs, tally.foreign, tally.said["ok"]) == (1, 1, 2, 5)
    assert figure.line.startswith("R7 MISSED: 9 files of 1 seeds, 0 of them through the commands: 1 crashes, 1 over")


def test_a_child_that_does_not_begin_measures_nothing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="did not begin"):
        told_by_children([sys.executable, "-c", "raise SystemExit(3)"], range(2), tmp_path, Bounds())


def test_what_is_not_done_in_time_is_missing(tmp_path: Path) -> None:
    until = time.monotonic() + 0.5
    told, lost = told_by_children(
        [sys.executable, "-c", "import time; time.sleep(60)"], range(3), tmp_path, Bounds(), until
    )
    assert (told, lost) == ([], [])
    assert time.monotonic() < until + 10
    figure = Tally().figure(3, 1, 0)
    assert not figure.held
    assert figure.text.startswith("0 files of 1 seeds")
    assert figure.faults == ("3 files of which nothing was told",)


def line(**more: Any) -> dict[str, Any]:
    return {"number": 0, "cpu": 0.1, "peak_mb": 300, "said": "ok", "wrong": [], **more}


@pytest.mark.parametrize(
    ("told", "files", "held"),
    [
        ([line()], 1, True),
        ([line(said="truncated")], 1, True),
        ([line()], 2, False),  # one of which nothing is known
        ([line(cpu=5.5)], 1, False),
        ([line(peak_mb=1001)], 1, False),
        ([line(wrong=["serve says ok, not truncated"])], 1, False),
    ],
)
def test_only_a_storm_without_a_fault_is_held(told: list[dict[str, Any]], files: int, held: bool) -> None:
    tally = Tally()
    tally.add(told, Bounds())
    assert tally.figure(files, 1, 0).held is held


@pytest.mark.parametrize(("sound", "held"), [(900.0, True), (500.0, False)])
def test_a_command_may_take_a_gigabyte_more_than_for_sound_images(sound: float, held: bool) -> None:
    tally = Tally(peak_mb={"inspect": 1600.0}, sound_mb={"inspect": sound})
    assert tally.figure(0, 1, 0).held is held


def test_a_command_that_says_something_else_is_noticed(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, seeds(), 0, {0: "truncated"})
    assert all(open_rgb(path).pixels.size for number, path in scene.files.items() if number < 0)
    said = {path: scene.said[number] for number, path in scene.files.items()}
    assert scene.differences("predict", said) == []
    wrong = scene.differences("predict", said | {scene.files[0]: "ok"})
    assert wrong == ["predict says ok of file 0, not truncated"]
    missing = Scene(tmp_path, {3: tmp_path / "3"}, {3: "ok"}).differences("serve", {})
    assert missing == ["serve says nothing of file 3, not ok"]


def test_doors_that_disagree_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(seeds()[9].data)
    assert image_doors.looked_at(path, 0) == {"said": "ok", "wrong": []}
    other = np.zeros((24, 24, 3), dtype=np.uint8)
    monkeypatch.setitem(image_doors.DOORS, "predict", lambda _path, _side: ("ok", other))
    monkeypatch.setitem(image_doors.DOORS, "serve", lambda _path, _side: ("empty", None))
    wrong = image_doors.looked_at(path, 0)["wrong"]
    assert wrong == ["predict sees other pixels", "serve says empty, not ok"]
    monkeypatch.setitem(image_doors.DOORS, "scan", lambda _path, _side: ("no memory", None))
    assert image_doors.looked_at(path, 0)["wrong"][0] == "no memory"


def test_the_seeds_are_sound_and_of_every_format() -> None:
    all_seeds = seeds()
    assert len(all_seeds) >= 25
    assert len({each.data for each in all_seeds}) == len(all_seeds)
    opened = [open_rgb(each.data) for each in all_seeds]
    assert {each.format for each in opened} == {"JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"}
    assert {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F"} <= {each.mode for each in opened}
    assert {each.frames > 1 for each in opened} == {each.exif_rotated for each in opened} == {True, False}


def test_a_file_is_made_again_from_its_number() -> None:
    kinds = seeds()
    files = [mutated(kinds, 1, number).data for number in range(200)]
    assert files == [mutated(kinds, 1, number).data for number in range(200)]
    assert files != [mutated(kinds, 2, number).data for number in range(200)]
    changed = sum(data != kinds[number % len(kinds)].data for number, data in enumerate(files))
    assert changed > 180
    rng = np.random.default_rng(0)
    for mutation in MUTATIONS:
        for data in (b"", b"a", kinds[0].data):
            assert isinstance(mutation(rng, data, kinds[1].data), bytes)


def test_sums_of_a_png_are_mended_so_that_what_is_behind_them_is_looked_at() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9), (1, 2, 3)).save(stream, "PNG")
    data = stream.getvalue()
    assert with_fitting_sums(data) == data
    wide = data.replace(b"\0\0\0\x09\0\0\0\x09", b"\0\0\0\x09\0\0\0\x05", 1)
    assert with_fitting_sums(wide) != wide
    assert open_rgb(with_fitting_sums(wide)).pixels.shape == (5, 9, 3)
