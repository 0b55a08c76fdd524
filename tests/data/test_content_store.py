"""A cache must never cost a result: whatever is done to its file, what is read is what was put, or nothing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_vision.data import content_store
from automl_vision.data.content_store import ContentStore

KEYS = [bytes([number]) * 16 for number in range(40)]


def value_of(key: bytes) -> bytes:
    return key * 9


def filled(file: Path, version: str = "a1") -> ContentStore:
    store = ContentStore(file, version)
    for key in KEYS:
        store.put(key, value_of(key))
    store.close()
    return store


def test_values_outlive_the_process_and_unknown_keys_have_none(tmp_path: Path) -> None:
    filled(tmp_path / "made" / "kept.sqlite3")
    again = ContentStore(tmp_path / "made" / "kept.sqlite3", "a1")
    assert [again.get(key) for key in KEYS] == [value_of(key) for key in KEYS]
    assert again.get(b"x" * 16) is None
    again.close()
    assert again.notes == []


def test_what_is_held_back_is_seen_at_once_and_written_in_time(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "kept.sqlite3", "a1")
    other = ContentStore(tmp_path / "kept.sqlite3", "a1")
    store.put(KEYS[0], b"here")
    assert (store.get(KEYS[0]), other.get(KEYS[0])) == (b"here", None)
    for number in range(1000, 1000 + content_store._HELD_BACK):
        store.put(number.to_bytes(16, "big"), b"")
    assert other.get(KEYS[0]) == b"here"
    store.close()
    other.close()


def test_what_another_version_left_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "kept.sqlite3"
    filled(file, "a1")
    newer = filled(file, "b2")
    older = ContentStore(file, "a1")
    assert older.get(KEYS[0]) is None
    older.close()
    assert newer.notes == older.notes == []
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("made_by_a1",)]
    connection.close()


def test_a_version_that_loses_its_table_to_another_goes_on_without(tmp_path: Path) -> None:
    older = ContentStore(tmp_path / "kept.sqlite3", "a1")
    filled(tmp_path / "kept.sqlite3", "b2")
    assert older.get(KEYS[0]) is None
    older.put(KEYS[0], b"late")
    older.close()
    assert len(older.notes) == 1
    newer = ContentStore(tmp_path / "kept.sqlite3", "b2")
    assert newer.get(KEYS[0]) == value_of(KEYS[0])
    newer.close()


@pytest.mark.parametrize("content", [b"not a database", b"SQLite format 3\0" + b"\xff" * 5000, b"\0" * 9000])
def test_a_file_that_is_none_of_ours_is_removed_and_said(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "kept.sqlite3"
    file.write_bytes(content)
    store = filled(file)
    assert len(store.notes) == 1
    assert "removed" in store.notes[0]
    again = ContentStore(file, "a1")
    assert again.get(KEYS[3]) == value_of(KEYS[3])
    again.close()
    assert again.notes == []


def test_the_database_of_another_program_is_removed_and_said(tmp_path: Path) -> None:
    file = tmp_path / "kept.sqlite3"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    assert "not a file of ours" in filled(file).notes[0]
    assert filled(file).notes == []


@given(st.integers(0, 10**9), st.binary(min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_no_damage_is_ever_believed(tmp_path_factory: pytest.TempPathFactory, at: int, scribble: bytes) -> None:
    file = tmp_path_factory.mktemp("damaged") / "kept.sqlite3"
    filled(file)
    content = bytearray(file.read_bytes())
    start = at % len(content)
    content[start : start + len(scribble)] = scribble
    file.write_bytes(content)
    store = ContentStore(file, "a1")
    assert all(store.get(key) in (None, value_of(key)) for key in KEYS)
    store.put(b"new" * 4, b"value")
    assert store.get(b"new" * 4) in (None, b"value")
    store.close()


def test_a_value_is_not_believed_under_another_key(tmp_path: Path) -> None:
    file = tmp_path / "kept.sqlite3"
    filled(file)
    connection = sqlite3.connect(file)
    other = connection.execute("SELECT value FROM made_by_a1 WHERE key = ?", (KEYS[1],)).fetchone()
    connection.execute("UPDATE made_by_a1 SET value = ? WHERE key = ?", (*other, KEYS[0]))
    connection.commit()
    connection.close()
    store = ContentStore(file, "a1")
    assert store.get(KEYS[0]) is None
    assert "removed" in store.notes[0]
    store.close()


@pytest.mark.parametrize("limit", ["PRAGMA query_only = 1", "PRAGMA max_page_count = 3"])
def test_a_disk_that_takes_nothing_is_said_and_what_is_there_is_read(tmp_path: Path, limit: str) -> None:
    filled(tmp_path / "kept.sqlite3")
    store = ContentStore(tmp_path / "kept.sqlite3", "a1")
    assert store._connection is not None
    store._connection.execute(limit)
    for number in range(2000):
        store.put(number.to_bytes(16, "big"), b"x" * 500)
    assert store.get(KEYS[5]) == value_of(KEYS[5])
    store.close()
    assert len(store.notes) == 1
    assert "not kept" in store.notes[0]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder" / "kept.sqlite3").mkdir(parents=True)
    for place in (tmp_path / "file" / "kept.sqlite3", tmp_path / "folder" / "kept.sqlite3"):
        store = filled(place)
        assert store.get(KEYS[0]) is None
        assert len(store.notes) == 1
        assert "not kept" in store.notes[0]


def test_a_process_that_holds_the_file_is_waited_for_and_then_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_store, "_PATIENCE", 0.05)
    store = ContentStore(tmp_path / "kept.sqlite3", "a1")
    holder = sqlite3.connect(tmp_path / "kept.sqlite3", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    store.put(KEYS[0], b"value")
    store.close()
    assert "locked" in store.notes[0]
    holder.close()


def test_threads_share_it(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "kept.sqlite3", "a1")
    wrong: list[bytes] = []

    def work(seed: int) -> None:
        for number in range(300):
            key = ((number * 7 + seed) % 500).to_bytes(16, "big")
            if store.get(key) not in (None, value_of(key)):
                wrong.append(key)
            store.put(key, value_of(key))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert wrong == store.notes == []


WRITER = """
import os, sys
from pathlib import Path
from automl_vision.data import content_store
content_store._HELD_BACK = 16
store = content_store.ContentStore(Path(sys.argv[1]), "a1")
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 400):
    key = number.to_bytes(16, "big")
    store.put(key, key * 9)
if sys.argv[3] == "killed":
    os.kill(os.getpid(), 9)
store.close()
print(store.notes)
"""


def test_processes_write_at_once_and_one_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "kept.sqlite3"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(file), str(start), how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for start, how in ((0, "whole"), (200, "whole"), (1000, "killed"))
    ]
    said = [run.communicate(timeout=60) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, -9]
    assert [out.strip() for out, _ in said] == ["[]", "[]", ""]
    store = ContentStore(file, "a1")
    found = [store.get(number.to_bytes(16, "big")) for number in range(1400)]
    store.close()
    assert store.notes == []
    assert all(each in (None, number.to_bytes(16, "big") * 9) for number, each in enumerate(found))
    assert None not in found[:600]
    assert None not in found[1000:1400], "what was written before it was killed is whole"
