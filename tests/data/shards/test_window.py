"""The folder of fetched shards: nothing goes from it that we did not put there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from shard_sets import settings

from automl_vision.data.shards.layout import ShardIndex, ShardRecord, TableRecord
from automl_vision.data.shards.read import _window
from automl_vision.data.shards.window import ShardWindow
from automl_vision.errors import DataError

LONG_AGO = (1, 1)


class Far:
    """Holds every shard."""

    def __init__(self, bodies: dict[str, bytes]) -> None:
        self._bodies = bodies

    def size(self, name: str) -> int | None:
        return len(self._bodies[name])

    def fetch(self, name: str, take: Callable[[bytes], object], _most: int) -> None:
        take(self._bodies[name])

    def part(self, name: str, offset: int, size: int) -> bytes:
        return self._bodies[name][offset : offset + size]


def record_of(name: str, body: bytes) -> ShardRecord:
    return ShardRecord(name, "train", 1, len(body), hashlib.sha256(body).hexdigest())


def index_of(*records: ShardRecord) -> ShardIndex:
    table = TableRecord(1, 1, "0" * 64)
    return ShardIndex("x", ("a", "b"), "f", {}, "full", {}, {"samples.parquet": table}, records)


def test_what_users_keep_beside_and_inside_of_the_cache_stays(tmp_path: Path) -> None:
    body, other = bytes(600_000), bytes([1]) * 600_000
    records = record_of("train-000000.tar", body), record_of("train-000001.tar", other)
    far = Far({"train-000000.tar": body, "train-000001.tar": other})
    own = [tmp_path / "shards", tmp_path / "cache"]
    chosen = settings(machine__cache_dir=str(tmp_path / "cache"), data__shard_window="1300k")
    window = _window(chosen, index_of(*records))
    own.append(window.folder)
    for folder in own:
        folder.mkdir(exist_ok=True)
        for name in ("train-000000.tar", "mine.tar", "notes.tmp", "notes.tar.x.tmp", "sub.tar.tmp"):
            (folder / name).write_bytes(bytes(900_000))
            os.utime(folder / name, LONG_AGO)
    before = {each for folder in own for each in folder.iterdir()}
    left = window.folder / f"{records[0].sha256[:32]}.tar.ab_c1234.tmp"
    left.touch()
    os.utime(left, LONG_AGO)
    first = window.fetch(records[0], far)
    assert not left.exists()  # of a killed process
    os.utime(first, LONG_AGO)
    small = ShardWindow(window.folder, 700_000)
    second = small.fetch(records[1], far)
    assert second.exists() and not first.exists()  # there was room for one
    assert before <= {each for folder in own for each in folder.iterdir()}


@pytest.mark.parametrize("name", ["0" * 32 + ".tar", "notes.txt"])
def test_a_folder_that_is_somebody_elses_is_no_window(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "cache" / "fetched-shards"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(bytes(1000))
    with pytest.raises(DataError, match="holds something else") as refused:
        _window(settings(machine__cache_dir=str(tmp_path / "cache")), index_of())
    assert "--cache-dir" in str(refused.value)
    assert [each.name for each in folder.iterdir()] == [name]


def test_a_window_is_one_again(tmp_path: Path) -> None:
    body = b"some bytes"
    record, far = record_of("train-000000.tar", body), Far({"train-000000.tar": body})
    found = ShardWindow(tmp_path / "cache" / "window", 100).fetch(record, far)
    assert ShardWindow(tmp_path / "cache" / "window", 100).path(record) == found
    assert oct((tmp_path / "cache" / "window").stat().st_mode)[-3:] == "700"
