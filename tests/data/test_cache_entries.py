"""The cache folder: what is in it, what goes first, and what stays whoever asks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
import numpy as np
import pytest
from pictures import picture

from automl_vision.config import DataSettings
from automl_vision.data import plane_cache
from automl_vision.data.cache_entries import SCRATCH, CacheEntry, cache_entries, give_up, largest_cache, lock_of
from automl_vision.data.planes import INDEX, DamagedPlanes, read_index
from automl_vision.data.readers import read
from automl_vision.data.store import ImageStore, build_store

DAY = 24 * 3600.0


def build(folder: Path, cache: Path, seed: int, most_bytes: int | None = None) -> ImageStore:
    """A store of three pictures, which differ with the seed."""
    for number in range(3):
        picture(folder / f"{seed}" / "cat" / f"{number}.png", seed=10 * seed + number, size=(20, 20))
    manifest = read(folder / f"{seed}", DataSettings())
    return build_store(manifest, (8, 16), cache, 1, most_bytes=most_bytes)[0]


def used(entry: CacheEntry, seconds_ago: float) -> None:
    for file in entry.folder.iterdir():
        os.utime(file, (time.time() - seconds_ago,) * 2)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Three entries, used three, two and one day ago."""
    folder = tmp_path / "cache"
    for age in (3, 2, 1):
        known = {entry.key for entry in cache_entries(folder)}
        build(tmp_path / "data", folder, age)
        (new,) = (entry for entry in cache_entries(folder) if entry.key not in known)
        used(new, age * DAY)
    return folder


def ages(cache: Path) -> list[int]:
    return [round((time.time() - entry.used) / DAY) for entry in cache_entries(cache)]


def test_an_entry_tells_what_it_is(cache: Path) -> None:
    first, *_ = cache_entries(cache)
    assert ages(cache) == [1, 2, 3]
    assert (first.images, first.sizes) == (3, (8, 16))
    assert first.bytes == sum(file.stat().st_size for file in first.folder.iterdir()) > 3 * 3 * (8 * 8 + 16 * 16)
    assert cache_entries(cache / "nowhere") == ()


def test_opening_a_store_is_a_use(cache: Path, tmp_path: Path) -> None:
    build(tmp_path / "data", cache, 3)
    assert ages(cache) == [0, 1, 2]


def test_what_was_used_longest_ago_goes_until_the_rest_fits(cache: Path) -> None:
    sizes = [entry.bytes for entry in cache_entries(cache)]
    assert give_up(cache, sum(sizes)) == ()
    (gone,) = give_up(cache, sum(sizes) - 1)
    assert ages(cache) == [1, 2]
    assert not gone.folder.exists()
    assert not lock_of(cache, gone.key).exists()
    assert len(give_up(cache, 0)) == 2
    assert list(cache.iterdir()) == []


def test_what_is_spared_was_used_lately_or_is_being_built_stays(cache: Path) -> None:
    newest, middle, oldest = cache_entries(cache)
    with filelock.FileLock(lock_of(cache, middle.key)):
        removed = give_up(cache, 1, spare=oldest.key, idle_seconds=1.5 * DAY)
    assert removed == ()
    assert ages(cache) == [1, 2, 3]
    assert [entry.key for entry in give_up(cache, 1, idle_seconds=1.5 * DAY)] == [oldest.key, middle.key]
    assert [entry.key for entry in cache_entries(cache)] == [newest.key]


def test_what_killed_programs_left_goes_too(cache: Path) -> None:
    first, second, _ = cache_entries(cache)
    for entry in (first, second):
        (cache / f"{entry.key}{SCRATCH}17-x").mkdir()
    with filelock.FileLock(lock_of(cache, second.key)):
        give_up(cache, 10**12)
    assert [folder.name[:32] for folder in cache.glob(f"*{SCRATCH}*")] == [second.key]


def test_an_entry_that_goes_while_it_is_looked_at_is_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = cache_entries(cache)
    listed = Path.iterdir

    def gone(folder: Path) -> Iterator[Path]:
        if folder == first.folder:
            raise FileNotFoundError(folder)
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", gone)
    assert [entry.key for entry in cache_entries(cache)] == [entry.key for entry in others]


def test_a_damaged_entry_can_be_seen_and_removed(cache: Path) -> None:
    first, *_ = cache_entries(cache)
    (first.folder / INDEX).write_text("{}")
    damaged = next(entry for entry in cache_entries(cache) if entry.key == first.key)
    assert (damaged.images, damaged.sizes) == (0, ())
    assert len(give_up(cache, 0)) == 3


def test_a_new_entry_makes_room_for_itself(cache: Path, tmp_path: Path) -> None:
    """By what was not used for a day; however small the cache may be, the new one and those in use stay."""
    for entry in cache_entries(cache)[:1]:
        used(entry, 60.0)
    build(tmp_path / "data", cache, 9, most_bytes=1)
    assert ages(cache) == [0, 0]


def test_by_rule_the_cache_is_a_fifth_of_its_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def remember(folder: Path, most: int, **_options: object) -> tuple[CacheEntry, ...]:
        asked.append(most)
        return ()

    monkeypatch.setattr(plane_cache, "give_up", remember)
    build(tmp_path / "data", tmp_path / "cache", 1)
    assert asked == [largest_cache(tmp_path)]
    assert 0 < asked[0] <= 200 * 10**9


def test_a_store_that_is_open_outlives_its_entry(cache: Path, tmp_path: Path) -> None:
    store = build(tmp_path / "data", cache, 1)
    before = store.fetch([0, 1, 2], 16)
    give_up(cache, 0)
    assert np.array_equal(before.numpy(), store.fetch([0, 1, 2], 16).numpy())


def test_builders_and_a_cleaner_at_once_leave_whole_stores(tmp_path: Path) -> None:
    """Nobody sees half an entry, whoever removes it while it is wanted."""
    cache, wrong = tmp_path / "cache", []
    expected = build(tmp_path / "data", tmp_path / "other", 1).fetch([0, 1, 2], 16).numpy()
    stop = threading.Event()

    def clean() -> None:
        while not stop.is_set():
            if cache.is_dir():
                give_up(cache, 0)

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        for _ in range(30):
            found = build(tmp_path / "data", cache, 1).fetch([0, 1, 2], 16).numpy()
            if not np.array_equal(found, expected):
                wrong.append(found)
    finally:
        stop.set()
        cleaner.join()
    assert not wrong


def test_nothing_that_is_not_ours_is_touched(cache: Path) -> None:
    """Whatever folder somebody names by mistake."""
    first, *_ = cache_entries(cache)
    theirs = [
        cache / "our-holiday-photos-of-italy-2019" / "a.jpg",  # 32 characters
        cache / "report.tmp-2024" / "text.txt",
        cache / ("0" * 32) / "a.jpg",
        cache / "abc.lock",
    ]
    for file in theirs:
        file.parent.mkdir(exist_ok=True)
        file.write_text("precious")
    (first.folder / "notes.txt").write_text("precious")
    assert len(give_up(cache, 0)) == 2
    assert all(file.read_text() == "precious" for file in (*theirs, first.folder / "notes.txt"))


@pytest.mark.parametrize("name", ["index.json", "unpacked.json"])
def test_an_entry_of_a_hundred_thousand_levels_is_a_damaged_one(tmp_path: Path, name: str) -> None:
    folder = tmp_path / ("c" * 32)
    folder.mkdir()
    (folder / name).write_text("[" * 100_000)
    assert [entry.images for entry in cache_entries(tmp_path)] == [0]
    if name == "index.json":
        with pytest.raises(DamagedPlanes):
            read_index(folder, (32,))
