"""No run ends because disks are full: squares go to memory, and where that is full they are made when asked for."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from pictures import picture

from automl_vision.config import DataSettings
from automl_vision.data import plane_cache, planes, undisked
from automl_vision.data.decode import open_rgb
from automl_vision.data.manifest import Manifest
from automl_vision.data.preprocess import square
from automl_vision.data.readers import read
from automl_vision.data.store import ImageStore, build_store
from automl_vision.errors import DataError

SIZES = (8, 16)
GIGABYTE = 10**9


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Six pictures, two of them one file, and one that is damaged."""
    root = tmp_path / "data"
    for number in range(5):
        picture(root / "cat" / f"{number}.png", seed=number)
    picture(root / "dog" / "again.png", seed=3)
    (root / "dog" / "cut.png").write_bytes((root / "cat" / "0.png").read_bytes()[:150])
    return read(root, DataSettings())


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def no_reserve(_handle: int, _offset: int, _length: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(params=["when it is reserved", "when it is written", "no folder at all"])
def full_disks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every disk is full, and that shows at one time or another."""
    if request.param == "when it is reserved":
        monkeypatch.setattr(os, "posix_fallocate", no_reserve)
        return
    if request.param == "when it is written":
        if not Path("/dev/full").exists():
            pytest.skip("no device that is always full")
        monkeypatch.setattr(planes, "_plane_file", lambda _folder, _size: Path("/dev/full"))
        return

    def nowhere(**_options: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.mkdtemp", nowhere)


def free_memory(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(plane_cache, "available_memory", lambda: count)


def assert_holds(store: ImageStore, manifest: Manifest) -> None:
    rows = np.flatnonzero(store.has_image(np.arange(len(store))))
    assert len(rows) == 6
    for size in store.sizes:
        expected = [square(open_rgb(manifest.file(row)).pixels, size) for row in rows]
        found = store.fetch(rows, size)
        np.testing.assert_array_equal(found.permute(0, 2, 3, 1).numpy(), expected)
        found.zero_()  # a copy
        np.testing.assert_array_equal(store.fetch(rows, size).permute(0, 2, 3, 1).numpy(), expected)
        assert store.fetch([], size).shape == (0, 3, size, size)


@pytest.mark.usefixtures("full_disks")
@pytest.mark.parametrize("cached", [True, False])
def test_where_disks_are_full_squares_are_held_in_memory(
    manifest: Manifest, tmp_path: Path, temporary: Path, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_memory(monkeypatch, GIGABYTE)
    store, facts = build_store(manifest, SIZES, tmp_path / "cache" if cached else None, 2)
    (note,) = store.notes
    assert note.startswith("decoded images are held in memory")
    assert (str(tmp_path / "cache") in note) == cached
    assert_holds(store, manifest)
    assert list(facts.table["fault"][~facts.usable]) == ["truncated"]
    assert list(temporary.iterdir()) == []
    copy = pickle.loads(pickle.dumps(store))
    assert_holds(copy, manifest)
    assert "memory" not in {plane.place for plane in copy._squares.values()}
    store.close()
    with pytest.raises(ValueError, match="stored"):
        store.fetch([0], 8)


@pytest.mark.usefixtures("full_disks")
@pytest.mark.parametrize("why", ["little is free", "an allocation fails"])
def test_where_memory_is_full_as_well_images_are_decoded_when_asked_for(
    manifest: Manifest, tmp_path: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_arguments: object) -> object:
        raise MemoryError

    if why == "an allocation fails":
        free_memory(monkeypatch, GIGABYTE)
        monkeypatch.setattr(plane_cache, "MemoryWriter", none)
    else:
        wanted = 6 * 3 * (8 * 8 + 16 * 16)  # distinct files
        free_memory(monkeypatch, int(wanted / plane_cache.MEMORY_SHARE) - 1)
    store, _ = build_store(manifest, SIZES, tmp_path / "cache", 2)
    (note,) = store.notes
    assert note.startswith("images are decoded whenever they are asked for, about 0 s for each pass")
    assert "--cache-dir" in note
    assert_holds(store, manifest)
    assert_holds(pickle.loads(pickle.dumps(store)), manifest)
    store.close()


def undecoded(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    monkeypatch.setattr(os, "posix_fallocate", no_reserve)
    free_memory(monkeypatch, 0)
    return build_store(manifest, SIZES, None, 2)[0]


@pytest.mark.parametrize("change", ["another picture", "no file"])
def test_a_file_that_changed_meanwhile_is_an_error(
    manifest: Manifest, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = undecoded(manifest, monkeypatch)
    if change == "no file":
        manifest.file(1).unlink()
    else:
        picture(manifest.file(1), seed=99)
    store.fetch([0, 2], 8)
    with pytest.raises(DataError, match=r"changed.*1\.png"):
        store.fetch([0, 1], 8)


def test_memory_that_runs_out_later_is_an_error_that_says_so(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from automl_vision.data import decode

    store = undecoded(manifest, monkeypatch)

    def exhausted(*_arguments: object) -> object:
        raise MemoryError

    monkeypatch.setattr(decode, "_open", exhausted)
    with pytest.raises(DataError, match="memory"):
        store.fetch([0], 8)


def test_a_closed_plane_in_memory_reads_nothing() -> None:
    plane = undisked.MemoryPlane(np.zeros((1, 8, 8, 3), np.uint8), undisked.UndecodedPlane([("", Path())], 8, 1))
    assert len(plane) == 1
    plane.close()
    with pytest.raises(OSError, match="closed"):
        plane.read(np.array([0]))
