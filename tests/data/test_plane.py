"""Squares in a file: the right ones, by several threads at once, and an error where the file is not what it was."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from automl_vision.data import plane as plane_module
from automl_vision.data.plane import FilePlane, ShortPlane

SIDE, COUNT = 8, 40


@pytest.fixture(scope="module")
def squares() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture
def file(tmp_path: Path, squares: NDArray[np.uint8]) -> Path:
    path = tmp_path / "plane-8.u8"
    path.write_bytes(squares.tobytes())
    return path


@pytest.fixture(params=["at a place", "with one position"])
def plane(request: pytest.FixtureRequest, file: Path, monkeypatch: pytest.MonkeyPatch) -> FilePlane:
    """As on Linux, and as on systems that cannot read at a place."""
    if request.param == "with one position":
        monkeypatch.delattr(os, "preadv")
    return FilePlane(file, SIDE, COUNT)


@pytest.mark.parametrize("rows", [[], [0], [39, 0, 0, 17], list(range(COUNT))])
def test_rows_are_those_that_were_asked_for(plane: FilePlane, squares: NDArray[np.uint8], rows: list[int]) -> None:
    found = plane.read(np.array(rows, dtype=np.int64))
    assert (found.shape, found.dtype) == ((len(rows), SIDE, SIDE, 3), np.uint8)
    np.testing.assert_array_equal(found, squares[rows])
    found[:] = 0  # a copy
    np.testing.assert_array_equal(plane.block(3, 7), squares[3:7])
    assert (len(plane), plane.nbytes) == (COUNT, squares.nbytes)


def test_threads_that_read_at_once_get_their_own_rows(plane: FilePlane, squares: NDArray[np.uint8]) -> None:
    asked = [np.random.default_rng(seed).integers(0, COUNT, 16) for seed in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for rows, found in zip(asked, pool.map(plane.read, asked), strict=True):
            np.testing.assert_array_equal(found, squares[rows])


@pytest.mark.parametrize("length", [0, SIDE * SIDE * 3 * COUNT - 1, SIDE * SIDE * 3 * COUNT + 1, None])
def test_a_file_of_another_length_or_none_is_refused(file: Path, length: int | None) -> None:
    if length is None:
        file.unlink()
    else:
        os.truncate(file, length)
    with pytest.raises(ShortPlane, match="plane-8"):
        FilePlane(file, SIDE, COUNT)


def test_a_file_that_is_cut_short_while_it_is_open_is_an_error_and_no_crash(plane: FilePlane, file: Path) -> None:
    os.truncate(file, SIDE * SIDE * 3 * 20 + 5)
    assert plane.read(np.array([19])).shape[0] == 1
    with pytest.raises(ShortPlane, match="it ends at"):
        plane.read(np.array([20]))


def test_a_closed_plane_reads_no_other_file(plane: FilePlane, file: Path) -> None:
    plane.close()
    plane.close()
    with file.open("rb") as other:  # gets the number that was free
        assert other.fileno() >= 0
        with pytest.raises(OSError, match="descriptor"):
            plane.read(np.array([0]))


def test_reading_everything_leaves_nothing_resident(tmp_path: Path) -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("the resident set of files cannot be read here")
    side, count = 256, 256
    file = tmp_path / "plane-256.u8"
    file.write_bytes(bytes(side * side * 3 * count))
    before = resident(status)
    plane = FilePlane(file, side, count)
    for row in range(count):
        plane.read(np.array([row]))
    assert resident(status) - before < plane.nbytes / 4


def resident(status: Path) -> int:
    """Bytes of this process in memory."""
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return 1024 * int(line.split()[1])


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="rows cannot be announced here")
def test_rows_are_announced_before_the_first_is_read(
    file: Path, squares: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int]] = []
    read_at = plane_module._read_at
    announced: list[tuple[int, int]] = []

    def announce(_handle: int, place: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        told.append(("announced", place))
        announced.append((place, length))

    def read(handle: int, room: memoryview, place: int) -> int:
        told.append(("read", place))
        return read_at(handle, room, place)

    monkeypatch.setattr(os, "posix_fadvise", announce)
    monkeypatch.setattr(plane_module, "_read_at", read)
    plane, length = FilePlane(file, SIDE, COUNT), SIDE * SIDE * 3
    np.testing.assert_array_equal(plane.read(np.array([5, 2])), squares[[5, 2]])
    assert told == [("announced", 5 * length), ("announced", 2 * length), ("read", 5 * length), ("read", 2 * length)]
    plane.expect(np.array([39]))
    assert announced[2:] == [(39 * length, length)]


def test_where_nothing_can_be_announced_rows_are_read_all_the_same(
    file: Path, squares: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    np.testing.assert_array_equal(FilePlane(file, SIDE, COUNT).read(np.array([5, 2])), squares[[5, 2]])
