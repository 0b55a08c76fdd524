"""Adding images decodes those alone, and what a killed build had is not decoded again; damage is never taken over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import filelock
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import picture
from PIL import Image

from automl_vision.config import DataSettings
from automl_vision.data import plane_cache, planes, survey
from automl_vision.data.cache_entries import SCRATCH, cache_entries, give_up, lock_of, sweep
from automl_vision.data.decode import open_rgb
from automl_vision.data.journal import GROUP, JOURNAL
from automl_vision.data.manifest import Manifest
from automl_vision.data.preprocess import square
from automl_vision.data.readers import read
from automl_vision.data.store import ImageStore, build_store, undecoded_files
from automl_vision.errors import BudgetExhausted, ImageReadError, Interrupted

SIZES = (8, 16)
#: More than two groups of the journal, so that a kill leaves some.
MANY = 3 * GROUP


class Counter:
    """Decodes, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, source: object, decode_side: int = 0) -> object:
        self.calls += 1
        return open_rgb(source, decode_side)

    def during(self, work: Callable[[], object]) -> int:
        before = self.calls
        work()
        return self.calls - before


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter()
    monkeypatch.setattr(survey, "open_rgb", counter)
    return counter


def add(root: Path, numbers: range, label: str = "cat") -> None:
    for number in numbers:
        picture(root / label / f"{number}.png", seed=number)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty pictures, a text and a damaged one."""
    folder = tmp_path / "data"
    add(folder, range(20))
    (folder / "cat" / "text.png").write_text("text")
    (folder / "cat" / "cut.png").write_bytes((folder / "cat" / "0.png").read_bytes()[:200])
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def build(root: Path, cache: Path, sizes: tuple[int, ...] = SIZES, **options: object) -> ImageStore:
    return build_store(read(root, DataSettings()), sizes, cache, 1, **options)[0]  # type: ignore[arg-type]


def assert_holds(store: ImageStore, manifest: Manifest) -> None:
    """Every square equals what deployment preprocessing makes of the file."""
    rows = np.flatnonzero(store.has_image(np.arange(len(store))))
    for size in store.sizes:
        expected = [square(open_rgb(manifest.file(row)).pixels, size) for row in rows]
        np.testing.assert_array_equal(store.fetch(rows, size).permute(0, 2, 3, 1).numpy(), expected)


def scratches(cache: Path) -> list[Path]:
    return [folder for folder in cache.iterdir() if SCRATCH in folder.name]


# ------------------------------------------------------------------------------------------------ other entries


@pytest.mark.parametrize("count", [1, 7])
def test_adding_files_decodes_those_alone(root: Path, cache: Path, decodes: Counter, count: int) -> None:
    before = build_store(read(root, DataSettings()), SIZES, cache, 1)[1].table
    add(root, range(100, 100 + count), "dog")
    manifest = read(root, DataSettings())
    assert undecoded_files(manifest, SIZES, cache, 1) == count
    ticks: list[int] = []
    assert decodes.during(lambda: build(root, cache, progress=lambda done, _: ticks.append(done))) == count
    assert ticks == [*range(1, 23 + count), 22 + count]
    assert undecoded_files(manifest, SIZES, cache, 1) == 0
    store, facts = build_store(manifest, SIZES, cache, 1)
    assert_holds(store, manifest)
    assert facts.table.iloc[:22].equals(before)  # also of the two that are quarantined, and the types


def test_a_part_of_the_files_decodes_nothing(root: Path, cache: Path, decodes: Counter) -> None:
    build(root, cache)
    part = read(root, DataSettings()).subset(np.arange(3, 12))
    assert decodes.during(lambda: build_store(part, SIZES, cache, 1)) == 0
    assert_holds(build_store(part, SIZES, cache, 1)[0], part)


def test_files_of_several_entries_are_put_together(tmp_path: Path, cache: Path, decodes: Counter) -> None:
    for start in (0, 5, 10):
        add(tmp_path / f"part {start}", range(start, start + 5))
        build(tmp_path / f"part {start}", cache)
    add(tmp_path / "all", range(15), "renamed")
    assert decodes.during(lambda: build(tmp_path / "all", cache)) == 0
    assert_holds(build(tmp_path / "all", cache), read(tmp_path / "all", DataSettings()))


def test_the_new_entry_stands_alone(root: Path, cache: Path) -> None:
    build(root, cache)
    (old,) = cache_entries(cache)
    add(root, range(100, 101))
    build(root, cache)
    shutil.rmtree(old.folder)
    assert_holds(build(root, cache), read(root, DataSettings()))


@pytest.mark.parametrize("sizes", [(8,), (8, 12), (8, 16, 20)])
def test_other_sides_take_nothing_over(root: Path, cache: Path, decodes: Counter, sizes: tuple[int, ...]) -> None:
    build(root, cache)
    assert decodes.during(lambda: build(root, cache, sizes)) == 22


def test_images_that_were_decoded_at_a_fraction_are_not_taken_for_whole_ones(
    root: Path, cache: Path, decodes: Counter
) -> None:
    build(root, cache, decode_side=256)
    add(root, range(20, 21))
    assert decodes.during(lambda: build(root, cache)) > 20
    assert decodes.during(lambda: build(root, cache, decode_side=512)) > 20


def photograph(seed: int) -> Image.Image:
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return small.resize((800, 600), Image.Resampling.BICUBIC)


def test_digests_of_whole_pixels_follow_from_the_set_and_not_from_where_rows_come_from(
    tmp_path: Path, cache: Path
) -> None:
    root = tmp_path / "data"
    (root / "cat").mkdir(parents=True)
    for number in range(3):
        photograph(number).save(root / "cat" / f"{number}.jpg", quality=95)

    def digests(folder: Path | None) -> tuple[list[str], list[str]]:
        facts = build_store(read(root, DataSettings()), SIZES, folder, 1, decode_side=256)[1]
        return facts.table["whole_digest"].tolist(), facts.pixel_digests.tolist()

    assert digests(cache) == digests(None)
    Image.open(root / "cat" / "0.jpg").save(root / "cat" / "0.png")  # its pixels, without loss
    with_copy = digests(cache)
    assert with_copy == digests(None)
    assert with_copy[1][0] == with_copy[1][1]  # the photograph and its copy are told to be equal
    (root / "cat" / "0.png").unlink()
    (root / "cat" / "2.jpg").unlink()
    assert digests(cache) == digests(None) != with_copy


def test_another_pillow_takes_nothing_over(
    root: Path, cache: Path, decodes: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(root, cache)
    monkeypatch.setattr(planes, "version", lambda _name: "99.1")
    assert decodes.during(lambda: build(root, cache)) == 22


def test_an_entry_that_does_not_say_how_it_was_made_gives_nothing(root: Path, cache: Path, decodes: Counter) -> None:
    build(root, cache)
    index = next(cache.glob("*/index.json"))
    kept = json.loads(index.read_text())
    del kept["pillow"]
    index.write_text(json.dumps(kept))
    assert decodes.during(lambda: build(root, cache)) == 0  # it is the very set
    add(root, range(100, 101))
    assert decodes.during(lambda: build(root, cache)) == 23


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(places=st.lists(st.tuples(st.sampled_from(SIZES), st.floats(0, 0.999)), min_size=1, max_size=4))
def test_damaged_rows_are_decoded_and_not_believed(
    root: Path, cache: Path, decodes: Counter, monkeypatch: pytest.MonkeyPatch, places: list[tuple[int, float]]
) -> None:
    """With one checksum per row only the damaged ones are decoded again."""
    monkeypatch.setattr(planes, "_BLOCK_BYTES", 1)
    shutil.rmtree(cache, ignore_errors=True)
    build(root, cache)
    (entry,) = cache_entries(cache)
    damaged = set()
    for size, place in places:
        file = entry.folder / f"plane-{size}.u8"
        data = bytearray(file.read_bytes())
        at = int(place * len(data))
        if at // (3 * size * size) in damaged:
            continue  # a second flip could undo the first
        data[at] ^= 1
        file.write_bytes(data)
        damaged.add(at // (3 * size * size))
    add(root, range(100, 101))  # so that the damaged entry is a donor and not the set itself
    manifest = read(root, DataSettings())
    assert decodes.during(lambda: build(root, cache)) == 1 + len(damaged)
    assert_holds(build(root, cache), manifest)
    (root / "cat" / "100.png").unlink()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no index": lambda entry: (entry / "index.json").unlink(),
    "no facts": lambda entry: (entry / "facts.parquet").unlink(),
    "other facts": lambda entry: (entry / "facts.parquet").write_bytes(b"PAR1"),
    "a plane is gone": lambda entry: (entry / "plane-8.u8").unlink(),
    "a plane is short": lambda entry: os.truncate(entry / "plane-16.u8", 100),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_gives_nothing(root: Path, cache: Path, decodes: Counter, damage: str) -> None:
    build(root, cache)
    (entry,) = cache_entries(cache)
    DAMAGE[damage](entry.folder)
    add(root, range(100, 101))
    assert decodes.during(lambda: build(root, cache)) == 23
    assert_holds(build(root, cache), read(root, DataSettings()))


@pytest.mark.parametrize(
    ("fault", "detail", "decoded"),
    [
        ("too_large", "not enough memory to decode it", 2),
        ("truncated", "out of memory error when reading image file", 2),
        ("truncated", "image file is truncated", 1),
    ],
)
def test_a_fault_of_the_machine_is_looked_into_again(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, fault: str, detail: str, decoded: int
) -> None:
    victim = (root / "cat" / "7.png").read_bytes()

    def fails(data: object, decode_side: int = 0) -> object:
        if data == victim:
            raise ImageReadError(fault, detail)
        return open_rgb(data, decode_side)

    monkeypatch.setattr(survey, "open_rgb", fails)
    build(root, cache)
    counter = Counter()
    monkeypatch.setattr(survey, "open_rgb", counter)
    add(root, range(100, 101))
    assert undecoded_files(read(root, DataSettings()), SIZES, cache, 1) == decoded
    assert counter.during(lambda: build(root, cache)) == decoded


# ------------------------------------------------------------------------------------------------ unfinished builds


def killed_after(root: Path, cache: Path, count: int) -> Path:
    """The scratch folder of a build, as its files were after so many images: what a kill at that moment leaves."""
    aside = cache.with_name("as killed")

    def stop(done: int, _total: int) -> None:
        if done == count:
            (scratch,) = scratches(cache)
            shutil.copytree(scratch, aside / scratch.name)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        build(root, cache, progress=stop)
    (left,) = aside.iterdir()
    shutil.move(left, cache)
    return cache / left.name


@pytest.fixture
def many(tmp_path: Path) -> Path:
    add(tmp_path / "many", range(MANY))
    return tmp_path / "many"


SLOW_BUILD = """
import sys, time
from pathlib import Path
from automl_vision.config import DataSettings
from automl_vision.data.readers import read
from automl_vision.data.store import build_store

def tell(done, total):
    print(done, flush=True)
    time.sleep(0.002)

build_store(read(Path(sys.argv[1]), DataSettings()), (8, 16), Path(sys.argv[2]), 1, tell)
"""


def wait_until_it_has(process: subprocess.Popen[str], count: int) -> None:
    assert process.stdout is not None
    assert any(int(line) == count for line in process.stdout)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_a_build_that_was_killed_goes_on_where_it_was(many: Path, cache: Path, decodes: Counter) -> None:
    line = [sys.executable, "-c", SLOW_BUILD, str(many), str(cache)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    wait_until_it_has(process, GROUP + 10)
    kill(process)
    (scratch,) = scratches(cache)
    kept = sum(line.count(b'"PNG"') for line in (scratch / JOURNAL).read_bytes().splitlines())
    assert kept >= GROUP
    assert decodes.during(lambda: build(many, cache)) == MANY - kept
    assert scratches(cache) == []
    assert_holds(build(many, cache), read(many, DataSettings()))
    (entry,) = cache_entries(cache)
    assert not (entry.folder / JOURNAL).exists()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_the_scratch_folder_of_a_living_process_is_left_alone(many: Path, cache: Path, decodes: Counter) -> None:
    line = [sys.executable, "-c", SLOW_BUILD, str(many), str(cache)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    wait_until_it_has(process, GROUP + 5)
    os.kill(process.pid, signal.SIGSTOP)  # or it is ready before we are
    (scratch,) = scratches(cache)
    part = read(many, DataSettings()).subset(np.arange(MANY - 1))
    assert decodes.during(lambda: build_store(part, SIZES, cache, 1)) == MANY - 1
    assert give_up(cache, 10**12) == ()
    assert scratches(cache) == [scratch]
    kill(process)


def test_a_set_that_overlaps_takes_the_rows_of_a_killed_build(many: Path, cache: Path, decodes: Counter) -> None:
    scratch = killed_after(many, cache, GROUP + 3)
    part = read(many, DataSettings()).subset(np.arange(MANY - 1))
    left = undecoded_files(part, SIZES, cache, 1)
    assert left in (MANY - 1 - GROUP, MANY - GROUP)  # whether the one that is left out is in the journal
    assert decodes.during(lambda: build_store(part, SIZES, cache, 1)) == left
    assert_holds(build_store(part, SIZES, cache, 1)[0], part)
    assert scratch.exists() == (left == MANY - GROUP)  # gone where all its rows were taken over


def test_old_scratch_folders_go_with_the_next_build(many: Path, root: Path, cache: Path) -> None:
    scratch = killed_after(many, cache, GROUP + 3)
    build(root, cache)
    assert scratch.exists()
    for file in scratch.iterdir():
        os.utime(file, (time.time() - 2 * 24 * 3600,) * 2)
    add(root, range(100, 101))
    build(root, cache)
    assert not scratch.exists()


def test_an_abandoned_scratch_folder_gives_back_what_it_reserved(many: Path, root: Path, cache: Path) -> None:
    scratch = killed_after(many, cache, GROUP + 3)
    assert (scratch / "plane-16.u8").stat().st_size == MANY * 3 * 16 * 16
    build(root, cache)  # looks for donors
    assert (scratch / "plane-16.u8").stat().st_size == GROUP * 3 * 16 * 16


@pytest.fixture
def unfinished(many: Path, cache: Path) -> Path:
    """What a build of pictures that are decoded at a fraction left when it was killed."""

    def stop(done: int, _total: int) -> None:
        if done == GROUP + 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(many, cache, decode_side=256, progress=stop)
    (scratch,) = scratches(cache)
    return scratch


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


OTHERWISE = [((16,), 256), ((8, 16), 0), ((4, 8), 256)]


@pytest.mark.parametrize(("sizes", "decode_side"), OTHERWISE)
def test_an_unfinished_build_outlives_an_estimate_and_a_build_with_other_settings(
    many: Path, cache: Path, unfinished: Path, decodes: Counter, sizes: tuple[int, ...], decode_side: int
) -> None:
    before = content(unfinished)
    manifest = read(many, DataSettings())
    assert undecoded_files(manifest, sizes, cache, 1, decode_side) == MANY
    assert content(unfinished) == before
    build(many, cache, sizes, decode_side=decode_side)
    assert content(unfinished) == before
    assert undecoded_files(manifest, SIZES, cache, 1, 256) == MANY - GROUP - 3
    assert decodes.during(lambda: build(many, cache, decode_side=256)) == MANY - GROUP - 3


def test_an_estimate_changes_nothing_and_counts_what_is_there(many: Path, cache: Path, decodes: Counter) -> None:
    scratch = killed_after(many, cache, GROUP + 3)
    os.truncate(scratch / "plane-16.u8", 10 * 3 * 16 * 16 + 1)  # the journal names rows that did not arrive
    before = content(scratch)
    assert undecoded_files(read(many, DataSettings()), SIZES, cache, 1) == MANY - 10
    assert content(scratch) == before
    assert decodes.during(lambda: build(many, cache)) == MANY - 10
    assert_holds(build(many, cache), read(many, DataSettings()))


def test_a_build_that_goes_on_reserves_no_more_than_the_disk_has_without_what_it_reserved_before(
    many: Path, cache: Path, decodes: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_after(many, cache, GROUP + 3)
    reserve = os.posix_fallocate
    room = (MANY + GROUP) * 3 * (8 * 8 + 16 * 16)

    def nearly_full(handle: int, offset: int, length: int) -> None:
        taken = sum(file.stat().st_size for folder in scratches(cache) for file in folder.glob("plane-*"))
        if taken + length > room:
            raise OSError(28, "No space left on device")
        reserve(handle, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", nearly_full)
    assert decodes.during(lambda: build(many, cache)) == MANY - GROUP
    assert_holds(build(many, cache), read(many, DataSettings()))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["plane-8.u8", "plane-16.u8", JOURNAL]), st.floats(0, 1), st.booleans())
def test_what_a_power_cut_leaves_is_never_believed(
    many: Path, cache: Path, decodes: Counter, name: str, place: float, cut: bool
) -> None:
    """Blocks of zeros, and files that end early."""
    kept = cache.with_name("kept")
    if not kept.exists():
        shutil.move(killed_after(many, cache, GROUP + 3).parent, kept)
    shutil.rmtree(cache, ignore_errors=True)
    shutil.copytree(kept, cache)
    (scratch,) = scratches(cache)
    data = (scratch / name).read_bytes()
    arrived = int(place * len(data))
    (scratch / name).write_bytes(data[:arrived] + (b"" if cut else bytes(len(data) - arrived)))
    assert MANY - GROUP <= decodes.during(lambda: build(many, cache)) <= MANY
    assert_holds(build(many, cache), read(many, DataSettings()))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Interrupted, BudgetExhausted])
def test_a_build_that_is_stopped_keeps_every_row_that_it_has(
    root: Path, cache: Path, decodes: Counter, stop: type[BaseException]
) -> None:
    def stopping(done: int, _total: int) -> None:
        if done == 5:
            raise stop("now")

    with pytest.raises(stop):
        build(root, cache, progress=stopping)
    (scratch,) = scratches(cache)
    assert cache_entries(cache) == ()
    assert (scratch / "plane-16.u8").stat().st_size <= 5 * 3 * 16 * 16
    assert decodes.during(lambda: build(root, cache)) == 22 - 5
    assert_holds(build(root, cache), read(root, DataSettings()))


class InterruptedFlush:
    """A journal; the user stops the program when its first group was handed to the system."""

    def __init__(self, journal: BinaryIO) -> None:
        self._journal = journal
        self._stops = True

    def write(self, line: bytes) -> int:
        return self._journal.write(line)

    def flush(self) -> None:
        self._journal.flush()
        if self._stops:
            self._stops = False
            raise KeyboardInterrupt


def test_a_group_that_is_interrupted_is_not_written_twice(
    many: Path, cache: Path, decodes: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interruptible(planes.PlaneWriter):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._journal: Any = InterruptedFlush(self._journal)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(plane_cache, "PlaneWriter", Interruptible)
        build(many, cache)
    (scratch,) = scratches(cache)
    assert (scratch / JOURNAL).read_bytes().count(b'"PNG"') == GROUP
    assert decodes.during(lambda: build(many, cache)) == MANY - GROUP
    assert_holds(build(many, cache), read(many, DataSettings()))


def test_a_row_that_is_in_a_journal_twice_is_taken_once(many: Path, cache: Path, decodes: Counter) -> None:
    scratch = killed_after(many, cache, GROUP + 3)
    lines = (scratch / JOURNAL).read_bytes().splitlines(keepends=True)
    (scratch / JOURNAL).write_bytes(b"".join([*lines, lines[-1]]))
    assert decodes.during(lambda: build(many, cache)) == MANY - GROUP
    assert_holds(build(many, cache), read(many, DataSettings()))


def test_two_processes_with_overlapping_sets(many: Path, tmp_path: Path, cache: Path) -> None:
    add(tmp_path / "more", range(10, MANY + 10), "dog")
    lines = [[sys.executable, "-c", SLOW_BUILD, str(root), str(cache)] for root in (many, tmp_path / "more")]
    processes = [subprocess.Popen(line, stdout=subprocess.DEVNULL) for line in lines]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert len(cache_entries(cache)) == 2
    assert scratches(cache) == []
    for root in (many, tmp_path / "more"):
        assert_holds(build(root, cache), read(root, DataSettings()))


# ------------------------------------------------------------------------------------------------ full disks


def test_a_full_disk_gets_what_killed_builds_and_idle_sets_take(
    root: Path, many: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, until the set fits; what was used today stays."""
    for number in range(3):
        add(root, range(100 + number, 101 + number))
        build(root, cache)
    entries = cache_entries(cache)
    for entry in entries[1:]:
        for file in entry.folder.iterdir():
            os.utime(file, (time.time() - 2 * 24 * 3600,) * 2)
    killed_after(many, cache, GROUP + 3)
    tries = []
    reserve = os.posix_fallocate

    def full(handle: int, offset: int, length: int) -> None:
        tries.append((len(scratches(cache)), len(cache_entries(cache))))
        if len(tries) < 4:
            raise OSError(28, "No space left on device")
        reserve(handle, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", full)
    add(root, range(110, 111))
    store = build(root, cache)
    assert tries[:4] == [(2, 3), (1, 3), (1, 2), (1, 1)]
    assert store.notes == ()
    assert [entry.key for entry in cache_entries(cache)[1:]] == [entries[0].key]


@pytest.mark.parametrize("place", ["temporary", "memory"])
def test_what_a_full_cache_holds_is_not_decoded_elsewhere_either(
    root: Path, cache: Path, tmp_path: Path, decodes: Counter, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(root, cache)
    add(root, range(100, 101))
    reserve = os.posix_fallocate

    def full(handle: int, offset: int, length: int) -> None:
        if place == "memory" or cache in Path(f"/proc/self/fd/{handle}").resolve().parents:
            raise OSError(28, "No space left on device")
        reserve(handle, offset, length)

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert decodes.during(lambda: build(root, cache).close()) == 1
    store = build(root, cache)
    assert (place == "memory") == ("held in memory" in store.notes[0])
    assert_holds(store, read(root, DataSettings()))
    store.close()


def test_a_cache_that_cannot_be_looked_into_gives_nothing(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(root, cache)
    manifest = read(root, DataSettings())

    def forbidden(_folder: Path) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", forbidden)
    assert undecoded_files(manifest, SIZES, cache, 1) == 22


def test_what_is_locked_is_not_swept(root: Path, cache: Path) -> None:
    build(root, cache)
    scratch = cache / f"{'0' * 32}{SCRATCH}1-x"
    scratch.mkdir()
    with filelock.FileLock(lock_of(cache, "0" * 32)):
        assert sweep(cache) == 0
    assert sweep(cache) == 1
    assert not scratch.exists()
