"""Decoded once, shared by content, never trusted when damaged, and closed to sealed rows."""

from __future__ import annotations

import errno
import gc
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pictures import picture
from PIL import Image

from automl_vision.config import DataSettings
from automl_vision.data import planes, survey
from automl_vision.data.decode import open_rgb
from automl_vision.data.facts import FACT_COLUMNS
from automl_vision.data.fingerprint import pixel_digest
from automl_vision.data.manifest import Manifest
from automl_vision.data.plane import FilePlane
from automl_vision.data.preprocess import square
from automl_vision.data.readers import read
from automl_vision.data.store import (
    ImageStore,
    SealedRowError,
    build_store,
    default_cache_dir,
    thumbnails,
    undecoded_files,
)
from automl_vision.errors import BudgetExhausted, DataError, ImageReadError

SIZES = (16, 8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six good pictures, two of them one file twice, and four that cannot be used."""
    root = tmp_path / "data"
    for number in range(5):
        picture(root / "cat" / f"{number}.png", seed=number, size=(20 + number, 10))
    picture(root / "dog" / "again.png", seed=3, size=(23, 10))
    (root / "dog" / "empty.png").touch()
    (root / "dog" / "text.png").write_text("text")
    (root / "dog" / "cut.png").write_bytes((root / "cat" / "0.png").read_bytes()[:200])
    os.mkfifo(root / "dog" / "pipe.png")
    return root


@pytest.fixture
def manifest(images: Path) -> Manifest:
    return read(images, DataSettings())


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, source: object, decode_side: int = 0) -> object:
        self.calls += 1
        return open_rgb(source, decode_side)


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter()
    monkeypatch.setattr(survey, "open_rgb", counter)
    return counter


def good_rows(store: ImageStore) -> np.ndarray:
    return np.flatnonzero(store.has_image(np.arange(len(store))))


def assert_holds(store: ImageStore, manifest: Manifest) -> None:
    """Every square equals what deployment preprocessing makes of the file."""
    for row in good_rows(store):
        pixels = open_rgb(manifest.file(row)).pixels
        for size in store.sizes:
            fetched = store.fetch([int(row)], size)[0].permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(fetched, square(pixels, size))


def entries(cache: Path) -> list[str]:
    return sorted(each.name for each in cache.iterdir() if each.is_dir())


@pytest.mark.parametrize("threads", [0, 1, 4])
@pytest.mark.parametrize("cached", [True, False])
def test_squares_are_what_deployment_makes(threads: int, cached: bool, manifest: Manifest, tmp_path: Path) -> None:
    store, facts = build_store(manifest, SIZES, tmp_path / "cache" if cached else None, threads)
    assert store.sizes == (8, 16)
    assert len(store) == len(facts) == len(manifest) == 10
    assert len(good_rows(store)) == 6
    assert_holds(store, manifest)
    store.close()


def test_facts_tell_what_was_seen(manifest: Manifest, tmp_path: Path) -> None:
    _, facts = build_store(manifest, SIZES, tmp_path / "cache", 2)
    table = facts.table.set_index(np.array(manifest.paths))
    assert list(table.columns) == list(FACT_COLUMNS)
    assert dict(table["fault"][table["fault"] != ""]) == {
        "dog/cut.png": "truncated",
        "dog/empty.png": "empty",
        "dog/pipe.png": "not_a_file",
        "dog/text.png": "not_an_image",
    }
    good = table.loc["cat/2.png"]
    assert (good["width"], good["height"], good["format"], good["mode"]) == (22, 10, "PNG", "RGB")
    assert good["bytes"] == manifest.file(2).stat().st_size
    assert table.loc["cat/3.png", "pixel_digest"] == table.loc["dog/again.png", "pixel_digest"]
    assert table.loc[facts.usable, "pixel_digest"].nunique() == 5
    assert (table.loc[~facts.usable, "pixel_digest"] == "").all()
    assert (table.loc[["dog/empty.png", "dog/pipe.png"], "file_digest"] == "").all()


def test_the_time_of_a_picture_comes_back_from_the_cache(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0x9003: "2023:04:01 12:34:56", 0x9291: "5"})
    Image.open(picture(tmp_path / "data" / "a" / "1.png")).save(tmp_path / "data" / "a" / "2.jpg", exif=exif)
    manifest = read(tmp_path / "data", DataSettings())
    for _ in range(2):
        _, facts = build_store(manifest, [8], tmp_path / "cache", 1)
        np.testing.assert_array_equal(facts.taken, [np.nan, 1680352496.5])
        assert facts.table["taken"].dtype == np.float64


def test_thumbnails_are_mean_greys_of_fields(manifest: Manifest, tmp_path: Path) -> None:
    store, _ = build_store(manifest, [40, 56], None, 1)
    rows = good_rows(store)[[2, 0, 0]]
    found = thumbnails(store, rows)
    assert found.shape == (3, 256)
    grey = store.fetch(rows, 40).float().mean(dim=1).numpy()
    np.testing.assert_allclose(found.reshape(3, 16, 16)[:, 2, 0], grey[:, 5:7, 0:2].mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found[1], found[2])
    assert thumbnails(store, rows[:0]).shape == (0, 256)
    store.close()


def test_thumbnails_of_very_small_squares_are_the_squares(manifest: Manifest) -> None:
    store, _ = build_store(manifest, [8], None, 1)
    rows = good_rows(store)
    expected = store.fetch(rows, 8).float().mean(dim=1).reshape(len(rows), -1).numpy()
    np.testing.assert_allclose(thumbnails(store, rows), expected, rtol=1e-5)
    store.close()


def test_equal_pixels_in_different_files_have_equal_pixel_digests(tmp_path: Path) -> None:
    file = picture(tmp_path / "data" / "a" / "1.png", seed=1)
    survey.open_rgb(file)
    from PIL import Image

    Image.open(file).save(tmp_path / "data" / "a" / "2.bmp")
    _, facts = build_store(read(tmp_path / "data", DataSettings()), [8], None, 1)
    assert facts.table["file_digest"].nunique() == 2
    assert facts.table["pixel_digest"].nunique() == 1


def test_identical_files_are_decoded_once_and_the_second_build_decodes_nothing(
    manifest: Manifest, tmp_path: Path, decodes: Counter
) -> None:
    first, facts = build_store(manifest, SIZES, tmp_path / "cache", 2)
    assert decodes.calls == 7  # five pictures, the text and the cut one
    ticks: list[tuple[int, int]] = []
    second, again = build_store(manifest, SIZES, tmp_path / "cache", 2, lambda *tick: ticks.append(tick))
    assert decodes.calls == 7
    assert facts.table.equals(again.table)
    assert ticks == [(7, 7)]
    rows = good_rows(first)
    assert torch.equal(first.fetch(rows, 16), second.fetch(rows, 16))
    assert len(entries(tmp_path / "cache")) == 1


def test_a_renamed_and_relabelled_copy_decodes_nothing(manifest: Manifest, tmp_path: Path, decodes: Counter) -> None:
    build_store(manifest, SIZES, tmp_path / "cache", 2)
    before = decodes.calls
    for row, path in enumerate(manifest.paths):
        target = tmp_path / "copy" / f"class {row % 3}" / f"{len(manifest) - row}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        if not path.endswith("pipe.png"):
            shutil.copy(manifest.file(row), target)
    copy = read(tmp_path / "copy", DataSettings())
    store, facts = build_store(copy, SIZES, tmp_path / "cache", 2)
    assert decodes.calls == before
    assert_holds(store, copy)
    assert sorted(facts.table["fault"][~facts.usable]) == ["empty", "not_an_image", "truncated"]


def test_other_sizes_or_files_are_another_entry(manifest: Manifest, tmp_path: Path) -> None:
    build_store(manifest, (8,), tmp_path / "cache", 1)
    build_store(manifest, (8, 12), tmp_path / "cache", 1)
    build_store(manifest.subset(np.arange(3)), (8,), tmp_path / "cache", 1)
    assert len(entries(tmp_path / "cache")) == 3


def test_progress_counts_distinct_files(manifest: Manifest) -> None:
    ticks: list[tuple[int, int]] = []
    store, _ = build_store(manifest, [8], None, 2, lambda done, total: ticks.append((done, total)))
    store.close()
    assert [done for done, _ in ticks] == [1, 2, 3, 4, 5, 6, 7, 7]
    assert {total for _, total in ticks} == {7}


@pytest.mark.parametrize("failure", [OSError, RuntimeError])
@pytest.mark.parametrize("cached", [True, False])
def test_a_build_that_fails_leaves_nothing(
    failure: type[BaseException],
    cached: bool,
    manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    (tmp_path / "cache").mkdir()

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise failure

    with pytest.raises(failure):
        build_store(manifest, SIZES, tmp_path / "cache" if cached else None, 2, stop)
    assert entries(tmp_path / "cache") == []
    assert entries(tmp_path / "scratch") == []
    store, _ = build_store(manifest, SIZES, tmp_path / "cache", 2)
    assert_holds(store, manifest)


@pytest.mark.parametrize("failure", [BrokenPipeError, NotImplementedError, MemoryError])
@pytest.mark.parametrize("place", ["cache", "temporary", "memory"])
def test_progress_that_cannot_be_told_ends_the_build_at_once(
    failure: type[Exception],
    place: str,
    manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A terminal that is gone is no full disk: nothing is decoded anew elsewhere."""
    if place == "memory":
        monkeypatch.setattr(os, "posix_fallocate", full_disk)
    told: list[int] = []

    def gone(done: int, _total: int) -> None:
        told.append(done)
        if done == 3:
            raise failure("the terminal is gone")

    with pytest.raises(failure, match="the terminal is gone"):
        build_store(manifest, SIZES, tmp_path / "cache" if place == "cache" else None, 1, gone)
    assert told == [1, 2, 3]


def flip(file: Path, place: float) -> None:
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 1
    file.write_bytes(data)


def as_format_1(entry: Path) -> None:
    index = json.loads((entry / "index.json").read_text())
    (entry / "index.json").write_text(json.dumps(index | {"format": 1}))


def without_time(entry: Path) -> None:
    pd.read_parquet(entry / "facts.parquet").drop(columns="taken").to_parquet(entry / "facts.parquet", index=False)
    index = json.loads((entry / "index.json").read_text())
    crc = zlib.crc32((entry / "facts.parquet").read_bytes())
    (entry / "index.json").write_text(json.dumps(index | {"facts_crc32": crc}))


DAMAGE = {
    "no index": lambda entry: (entry / "index.json").unlink(),
    "no text": lambda entry: (entry / "index.json").write_bytes(b"\xff"),
    "another document": lambda entry: (entry / "index.json").write_text("[]"),
    "another format": lambda entry: (entry / "index.json").write_text('{"format": 0}'),
    "the format before": lambda entry: as_format_1(entry),
    "facts without the time": lambda entry: without_time(entry),
    "half an index": lambda entry: (entry / "index.json").write_text('{"format": 1, "count": 5}'),
    "a plane is gone": lambda entry: (entry / "plane-8.u8").unlink(),
    "a plane is short": lambda entry: os.truncate(entry / "plane-16.u8", 100),
    "a flipped bit": lambda entry: flip(entry / "plane-16.u8", 0.9),
    "a flipped bit in the facts": lambda entry: flip(entry / "facts.parquet", 0.5),
    "no facts": lambda entry: (entry / "facts.parquet").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_built_again(damage: str, manifest: Manifest, tmp_path: Path, decodes: Counter) -> None:
    build_store(manifest, SIZES, tmp_path / "cache", 1)
    (key,) = entries(tmp_path / "cache")
    DAMAGE[damage](tmp_path / "cache" / key)
    store, _ = build_store(manifest, SIZES, tmp_path / "cache", 1)
    assert decodes.calls == 14
    assert_holds(store, manifest)
    assert entries(tmp_path / "cache") == [key]
    assert store.notes == ()


def test_checksums_are_sampled_when_there_is_too_much(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planes, "_BLOCK_BYTES", 1)
    build_store(manifest, [8], tmp_path / "cache", 1)
    (key,) = entries(tmp_path / "cache")
    folder = tmp_path / "cache" / key
    monkeypatch.setattr(planes, "_CHECKED_BYTES", 2 * 3 * 8 * 8)
    flip(folder / "plane-8.u8", 0.5)
    found = 0
    for _ in range(60):
        try:
            planes.open_planes(folder, [8])
        except planes.DamagedPlanes:
            found += 1
    assert 0 < found < 60


def test_threads_that_want_the_same_entry_build_it_once(manifest: Manifest, tmp_path: Path, decodes: Counter) -> None:
    stores: list[ImageStore] = []

    def work() -> None:
        stores.append(build_store(manifest, SIZES, tmp_path / "cache", 1)[0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert decodes.calls == 7
    for store in stores:
        assert_holds(store, manifest)


def _build_in_process(root: Path, cache: Path, outcomes: multiprocessing.Queue) -> None:
    store, facts = build_store(read(root, DataSettings()), SIZES, cache, 1)
    outcomes.put((store.notes, int(facts.usable.sum())))


@pytest.mark.skipif(sys.platform != "linux", reason="fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_that_want_the_same_entry(images: Path, manifest: Manifest, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    outcomes = context.Queue()
    arguments = (images, tmp_path / "cache", outcomes)
    processes = [context.Process(target=_build_in_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    assert [outcomes.get(timeout=60) for _ in processes] == [((), 6)] * 3
    for process in processes:
        process.join()
    assert len(entries(tmp_path / "cache")) == 1


def full_disk(_handle: int, _offset: int, _length: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_cache_disk_falls_back_to_a_temporary_folder(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = os.posix_fallocate

    def only_cache_is_full(handle: int, offset: int, length: int) -> None:
        place = Path(f"/proc/self/fd/{handle}").resolve()
        (full_disk if "cache" in place.parts else reserve)(handle, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", only_cache_is_full)
    store, _ = build_store(manifest, SIZES, tmp_path / "cache", 1)
    assert "No space left" in store.notes[0]
    assert_holds(store, manifest)
    assert entries(tmp_path / "cache") == []
    store.close()


def test_file_systems_that_cannot_reserve_work(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    store, _ = build_store(manifest, SIZES, tmp_path / "cache", 1)
    assert store.notes == ()
    assert_holds(store, manifest)


def test_a_cache_folder_that_is_no_folder_falls_back(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    store, _ = build_store(manifest, SIZES, tmp_path / "cache", 1)
    assert str(tmp_path / "cache") in store.notes[0]
    assert_holds(store, manifest)
    store.close()


def test_a_temporary_store_goes_when_closed_or_collected(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store, _ = build_store(manifest, SIZES, None, 1)
    other, _ = build_store(manifest, SIZES, None, 1)
    view = other.sealed([0])
    scratch = [name for name in entries(tmp_path) if name.startswith("automl-vision")]
    assert len(scratch) == 2
    store.close()
    store.close()
    with pytest.raises(ValueError, match="stored"):
        store.fetch([0], 8)
    del other
    gc.collect()
    assert len(entries(tmp_path)) == len(scratch)
    view.fetch([1], 8)
    del view
    gc.collect()
    assert not [name for name in entries(tmp_path) if name.startswith("automl-vision")]


def test_a_temporary_folder_goes_when_the_process_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from automl_vision.data.build import Wanted\n"
        "from automl_vision.data.plane_cache import obtain\n"
        "kept = obtain('key', Wanted({}, (8,), 1, print), None)\n"
        "assert list(Path(sys.argv[1]).iterdir())\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changes_under_the_reader_is_never_cached(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = survey.find_files

    def find_then_change(*arguments: object) -> object:
        found = find(*arguments)
        picture(manifest.file(0), seed=99)
        return found

    monkeypatch.setattr("automl_vision.data.store.find_files", find_then_change)
    with pytest.raises(DataError, match="changed"):
        build_store(manifest, SIZES, tmp_path / "cache", 1)
    assert entries(tmp_path / "cache") == []


# -------------------------------------------------------------------------------------------------- views


@pytest.fixture
def store(manifest: Manifest, tmp_path: Path) -> Iterator[ImageStore]:
    store, _ = build_store(manifest, SIZES, tmp_path / "cache", 1)
    yield store
    store.close()


def test_fetch_takes_any_list_of_rows(store: ImageStore) -> None:
    batch = store.fetch(torch.tensor([4, 0, 4]), 16)
    assert batch.dtype == torch.uint8
    assert batch.shape == (3, 3, 16, 16)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch[0], batch[2])
    assert torch.equal(batch, store.fetch(np.array([4, 0, 4]), 16))
    batch.zero_()  # a copy: the store is not touched
    assert store.fetch([4], 16).any()
    assert store.fetch(torch.empty(0, dtype=torch.int64), 16).shape == (0, 3, 16, 16)
    assert store.fetch([], 16).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("rows", [[-1], [10], [0.5], [True], [[0]]])
def test_rows_that_are_none(store: ImageStore, rows: list[object]) -> None:
    with pytest.raises(ValueError, match="rows"):
        store.fetch(rows, 16)


def test_what_is_expected_is_announced_but_for_rows_that_are_refused(
    store: ImageStore, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[list[int]] = []
    monkeypatch.setattr(FilePlane, "expect", lambda _plane, rows: announced.append(rows.tolist()))
    bad = manifest.paths.index("dog/empty.png")
    store.sealed([1]).expect(torch.tensor([0, 1, bad, 2]), 16)
    assert announced == [store._plane_rows[[0, 2]].tolist()]
    store.expect([0], 12)  # not stored: `fetch` will say so
    assert len(announced) == 1
    with pytest.raises(ValueError, match="rows"):
        store.expect([10], 16)


def test_sizes_that_are_not_stored(store: ImageStore) -> None:
    with pytest.raises(ValueError, match="size=12"):
        store.fetch([0], 12)
    assert [store.plane_for(size) for size in (1, 8, 9, 16, 17)] == [8, 8, 16, 16, 16]


def test_rows_without_an_image(store: ImageStore, manifest: Manifest) -> None:
    bad = manifest.paths.index("dog/empty.png")
    assert not store.has_image([bad])[0]
    with pytest.raises(ValueError, match="quarantined"):
        store.fetch([0, bad], 8)


def test_sealed_rows_refuse_and_stay_sealed(store: ImageStore) -> None:
    view = store.sealed(np.array([1, 2]))
    narrower = view.sealed(torch.tensor([3]))
    assert len(view) == len(store)
    assert torch.equal(view.fetch([0, 3], 8), store.fetch([0, 3], 8))
    for each, row in ((view, 1), (narrower, 2), (narrower, 3), (pickle.loads(pickle.dumps(narrower)), 3)):
        with pytest.raises(SealedRowError, match=f"row {row}"):
            each.fetch([0, row], 8)
    assert store.fetch([1, 2, 3], 8).shape[0] == 3


def test_a_seal_opens_for_the_named_rows_alone(store: ImageStore) -> None:
    view = store.sealed([1, 2, 3])
    opened = view.opened([2])
    assert torch.equal(opened.fetch([0, 2], 8), store.fetch([0, 2], 8))
    for each, row in ((opened, 1), (opened, 3), (view, 2)):
        with pytest.raises(SealedRowError, match=f"row {row}"):
            each.fetch([row], 8)


def test_a_cache_that_is_cut_short_under_a_run_is_an_error_that_says_so(manifest: Manifest, tmp_path: Path) -> None:
    store, _ = build_store(manifest, SIZES, tmp_path / "cache", 1)
    (key,) = entries(tmp_path / "cache")
    os.truncate(tmp_path / "cache" / key / "plane-16.u8", 10)
    with pytest.raises(DataError, match="cannot be read any more"):
        store.fetch([4], 16)


def test_another_process_opens_the_same_files(store: ImageStore) -> None:
    copy = pickle.loads(pickle.dumps(store))
    assert torch.equal(copy.fetch([0, 4], 16), store.fetch([0, 4], 16))
    assert (copy.sizes, len(copy)) == (store.sizes, len(store))


def test_a_store_without_one_usable_image(tmp_path: Path) -> None:
    (tmp_path / "data" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "cat" / "a.png").write_text("text")
    manifest = read(tmp_path / "data", DataSettings())
    for _ in range(2):
        store, facts = build_store(manifest, [8], tmp_path / "cache", 1)
        assert not facts.usable.any()
        assert store.fetch([], 8).shape == (0, 3, 8, 8)
    nothing, _ = build_store(manifest.subset(np.empty(0, np.int64)), [8], None, 1)
    assert len(nothing) == 0
    nothing.close()


@pytest.mark.parametrize("sizes", [[], [0], [8.0], [-8]])
def test_sizes_must_be_positive_whole_numbers(sizes: list[int], manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="sizes"):
        build_store(manifest, sizes, None, 1)


def test_the_cache_folder_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOML_VISION_CACHE", "/somewhere")
    assert default_cache_dir() == Path("/somewhere")
    monkeypatch.delenv("AUTOML_VISION_CACHE")
    assert "automl-vision" in str(default_cache_dir())


def test_results_come_in_order_and_few_are_under_way() -> None:
    under_way: list[int] = []
    taken = 0
    lock = threading.Lock()

    def work(item: int) -> int:
        with lock:
            under_way.append(item)
        return item

    for result in survey.in_order(work, range(100), threads=3):
        assert result == taken
        taken += 1
        assert len(under_way) <= taken + 6
    assert taken == 100


def test_an_error_of_one_item_comes_out() -> None:
    def work(item: int) -> int:
        if item == 5:
            raise ImageReadError("empty", "none")
        return item

    with pytest.raises(ImageReadError):
        list(survey.in_order(work, range(50), threads=2))


# --- large JPEGs, decoded at a fraction ------------------------------------------------------------------------------


def large(seed: int, size: tuple[int, int] = (1100, 700)) -> Image.Image:
    """Something at every scale that a hash is made of."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize(size)) for n in (4, 8, 16)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def with_comment(file: Path, copy: Path) -> None:
    """The same picture data with other metadata."""
    data = file.read_bytes()
    copy.write_bytes(data[:2] + b"\xff\xfe\x00\x09another" + data[2:])


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Large JPEGs of all orientations, a small one, and copies of the first: renamed, commented, lossless, lossy."""
    root = tmp_path / "photographs"
    (root / "a").mkdir(parents=True)
    (root / "b").mkdir()
    for orientation in range(1, 9):
        large(orientation).save(root / "a" / f"{orientation}.jpg", quality=90, exif=turned(orientation))
    large(20, (300, 200)).save(root / "b" / "small.jpg")
    shutil.copy(root / "a" / "1.jpg", root / "b" / "renamed.jpg")
    with_comment(root / "a" / "1.jpg", root / "b" / "commented.jpg")
    whole = Image.fromarray(open_rgb(root / "a" / "1.jpg").pixels)
    whole.save(root / "b" / "lossless.png")
    whole.save(root / "b" / "again.jpg", quality=80)
    large(21).save(root / "b" / "stranger.png")
    return root


def test_large_jpegs_are_decoded_at_a_fraction_and_their_facts_are_those_of_the_file(photographs: Path) -> None:
    manifest = read(photographs, DataSettings())
    whole, facts = build_store(manifest, [32], None, 2)
    draft, drafted = build_store(manifest, [32], None, 2, decode_side=256)
    same = ["file_digest", "bytes", "width", "height", "format", "mode", "frames", "exif_rotated", "fault"]
    pd.testing.assert_frame_equal(facts.table[same], drafted.table[same])
    assert (facts.table["scale"] == 1).all()
    scale = dict(zip(manifest.paths, drafted.table["scale"], strict=True))
    assert {path: each for path, each in scale.items() if each == 1} == dict.fromkeys(
        ["b/small.jpg", "b/lossless.png", "b/stranger.png"], 1
    )
    assert set(scale.values()) == {1, 2}
    assert (facts.content_keys == drafted.content_keys).all()
    rows = np.arange(len(manifest))
    ours, theirs = (store.fetch(rows, 32).float() for store in (draft, whole))
    assert 0 < (ours - theirs).abs().max() <= 12
    assert (draft.decode_side, whole.decode_side) == (256, 0)
    assert pickle.loads(pickle.dumps(draft)).decode_side == draft.sealed([0]).take([1, 2]).decode_side == 256
    for store in (draft, whole):
        store.close()


@pytest.mark.parametrize("cached", [True, False])
def test_equal_pixels_are_found_across_files_of_which_some_are_decoded_at_a_fraction(
    photographs: Path, tmp_path: Path, cached: bool
) -> None:
    manifest = read(photographs, DataSettings())
    whole, facts = build_store(manifest, [32], None, 2)
    for _ in range(2):
        store, drafted = build_store(manifest, [32], tmp_path / "cache" if cached else None, 2, decode_side=256)
        store.close()
        of = dict(zip(manifest.paths, drafted.pixel_digests, strict=True))
        assert of["a/1.jpg"] == of["b/renamed.jpg"] == of["b/commented.jpg"] == of["b/lossless.png"]
        assert list(of.values()).count(of["a/1.jpg"]) == 4
        equal = facts.pixel_digests[:, None] == facts.pixel_digests
        assert ((drafted.pixel_digests[:, None] == drafted.pixel_digests) == equal).all()
    whole.close()


def test_nothing_is_decoded_twice_where_no_file_can_be_a_copy(
    photographs: Path, tmp_path: Path, decodes: Counter
) -> None:
    for file in (photographs / "b").glob("*.png"):
        file.unlink()
    manifest = read(photographs, DataSettings())
    store, facts = build_store(manifest, [32], None, 1, decode_side=256)
    assert decodes.calls == facts.table["file_digest"].nunique()
    assert (facts.table["whole_digest"] == "").all()
    store.close()


def test_a_large_plain_jpeg_is_known_by_its_whole_pixels(tmp_path: Path) -> None:
    """Nothing that it looks like would tell a lossless copy of it, in this folder or in another."""
    (tmp_path / "data" / "a").mkdir(parents=True)
    flat = np.full((700, 1100, 3), 40, np.uint8)
    flat[300:400, 500:700] += np.random.default_rng(0).integers(0, 3, (100, 200, 3), dtype=np.uint8)
    Image.fromarray(flat).save(tmp_path / "data" / "a" / "plain.jpg", quality=98)
    manifest = read(tmp_path / "data", DataSettings())
    store, facts = build_store(manifest, [32], None, 1, decode_side=256)
    store.close()
    fact = facts.table.iloc[0]
    assert (fact["scale"], fact["picture_hash"]) == (2, "")
    assert fact["whole_digest"] == pixel_digest(open_rgb(manifest.file(0)).pixels) != fact["pixel_digest"]
    assert set(facts.known_digests) == {fact["pixel_digest"], fact["whole_digest"]}


def too_little_memory_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is enough for a fraction of this JPEG, and not for the whole."""
    victim = file.read_bytes()

    def short_of_memory(data: bytes, decode_side: int = 0) -> object:
        if decode_side == 0 and data == victim:
            raise ImageReadError("too_large", "not enough memory to decode it")
        return open_rgb(data, decode_side)

    monkeypatch.setattr(survey, "open_rgb", short_of_memory)


def test_a_plain_jpeg_that_memory_is_too_small_for_is_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    plain = tmp_path / "data" / "a" / "plain.jpg"
    Image.new("RGB", (1100, 700), (40, 50, 60)).save(plain)
    picture(tmp_path / "data" / "a" / "small.png")
    with monkeypatch.context() as patched:
        too_little_memory_for(plain, patched)
        store, facts = build_store(
            read(tmp_path / "data", DataSettings()), [32], tmp_path / "cache", 1, decode_side=256
        )
    assert facts.table[["fault", "detail"]].to_numpy().tolist() == [
        ["too_large", "not enough memory to decode it"],
        ["", ""],
    ]
    assert (facts.table.loc[0, "pixel_digest"], facts.table.loc[0, "whole_digest"]) == ("", "")
    assert good_rows(store).tolist() == [1]
    store.close()


def test_a_photograph_whose_copies_memory_is_too_small_to_tell_is_an_error_that_names_it(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    too_little_memory_for(photographs / "a" / "1.jpg", monkeypatch)
    with pytest.raises(
        DataError, match=r"(?s)decoded wholly.*(1|renamed)\.jpg.*not enough memory.*Fix: give the machine more"
    ):
        build_store(read(photographs, DataSettings()), [32], None, 2, decode_side=256)


def test_another_least_side_is_another_entry(photographs: Path, tmp_path: Path) -> None:
    manifest = read(photographs, DataSettings()).subset(np.arange(2))
    for side in (0, 256, 300, 256):
        build_store(manifest, [8], tmp_path / "cache", 1, decode_side=side)[0].close()
    assert len(entries(tmp_path / "cache")) == 3
    assert undecoded_files(manifest, [8], tmp_path / "cache", 1, 300) == 0
    assert undecoded_files(manifest, [8], tmp_path / "cache", 1, 301) == 2


# ------------------------------------------------------------------------------------------------ memory was short


class Short:
    """Memory is too short for one file, so many times."""

    def __init__(self, file: Path, times: int) -> None:
        self.victim, self.times = file.read_bytes(), times

    def __call__(self, data: object, decode_side: int = 0) -> object:
        if data == self.victim and self.times > 0:
            self.times -= 1
            raise ImageReadError("too_large", "not enough memory to decode it")
        return open_rgb(data, decode_side)  # type: ignore[arg-type]


def shown(manifest: Manifest, cache: Path) -> tuple[list[int], list[str]]:
    store, facts = build_store(manifest, SIZES, cache, 1)
    rows = good_rows(store)
    assert (facts.usable[rows]).all()
    for row in rows.tolist():
        expected = square(open_rgb(manifest.file(row)).pixels, 8)
        assert (store.fetch([row], 8)[0].permute(1, 2, 0).numpy() == expected).all()
    store.close()
    return rows.tolist(), facts.table["fault"].tolist()


def test_an_image_that_once_met_too_little_memory_is_not_lost(
    manifest: Manifest, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shown(manifest, tmp_path / "plenty")
    short = Short(images / "cat" / "1.png", times=1)
    monkeypatch.setattr(survey, "open_rgb", short)
    assert shown(manifest, tmp_path / "cache") == whole and short.times == 0  # tried again by itself
    short.times = 10**6
    poor = shown(manifest, tmp_path / "other")
    assert poor == shown(manifest, tmp_path / "other") != whole
    kept = list((tmp_path / "other").glob("*/index.json"))
    assert len(kept) == 1  # where it still fails, nothing is built again
    short.times = 0
    assert shown(manifest, tmp_path / "other") == whole
    counter = Counter()
    monkeypatch.setattr(survey, "open_rgb", counter)
    assert shown(manifest, tmp_path / "other") == whole and counter.calls == 0
    assert kept[0].exists()  # a search that began with it goes on with it


# ------------------------------------------------------------------------------------------------ waiting


@pytest.fixture
def held(manifest: Manifest, tmp_path: Path) -> Iterator[Path]:
    """A cache folder in which another process builds the entry, and is stopped."""
    cache = tmp_path / "cache"
    build_store(manifest, SIZES, cache, 1)[0].close()
    (entry,) = (each for each in cache.iterdir() if each.is_dir())
    shutil.rmtree(entry)
    (cache / f"{entry.name}.tmp-4711-x").mkdir()
    holds = f"import filelock, time; lock = filelock.FileLock({str(cache / entry.name) + '.lock'!r}); lock.acquire()"
    line = [sys.executable, "-c", f"{holds}; print(flush=True); time.sleep(600)"]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield cache
        finally:
            process.kill()


def test_waiting_for_another_process_can_be_stopped_and_says_for_whom(
    manifest: Manifest, held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automl_vision.data.cache_entries._PATIENCE_SECONDS", 0.05)
    asked: list[int] = []
    said: list[str] = []

    def stop(done: int, _total: int) -> None:
        asked.append(done)
        if len(asked) == 3:
            raise BudgetExhausted("the budget ended while decoding", value="", fix="")

    with pytest.raises(BudgetExhausted):
        build_store(manifest, SIZES, held, 1, stop, told=said.append)
    assert asked == [0, 0, 0] and said == ["Waiting for process 4711, which decodes the same images."]


def test_a_builder_that_does_nothing_is_not_waited_for_without_end(
    manifest: Manifest, held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automl_vision.data.cache_entries._PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr("automl_vision.data.cache_entries.STALLED_SECONDS", 0.2)
    store, facts = build_store(manifest, SIZES, held, 1)
    assert store.notes and "process 4711 is at them, and has written nothing" in store.notes[0]
    assert facts.usable.sum() == len(good_rows(store))
    store.close()
