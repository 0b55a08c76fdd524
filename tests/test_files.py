from __future__ import annotations

import errno
import json
import math
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from automl_vision.files import UNFINISHED, write_atomically, write_json, write_text


def test_the_new_content_replaces_the_old(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    write_json(file, [None, True, "ä"])
    assert json.loads(file.read_text(encoding="utf-8")) == [None, True, "ä"]
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_no_link_is_followed_that_others_left_for_the_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder that everybody may write to, if they guessed its name."""
    (tmp_path / "precious").write_text("mine")
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * 2 * size)
    names: list[str] = []
    write_atomically(tmp_path / "seen", lambda _: names.extend(each.name for each in tmp_path.glob(f"*{UNFINISHED}")))
    (tmp_path / names[0].replace("seen", "a", 1)).symlink_to(tmp_path / "precious")
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "a", "theirs")
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "a").exists()


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    """Two processes that write one file at a time, as two that render the same report: the last one wins, whole."""

    def meanwhile(handle: IO[bytes]) -> None:
        handle.write(b"first")
        write_text(tmp_path / "a", "second")

    write_atomically(tmp_path / "a", meanwhile)
    assert (tmp_path / "a").read_text() == "first"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_writer_that_fails_halfway_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_text(file, "old")

    def half(handle: IO[bytes]) -> None:
        handle.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, half)
    assert file.read_text() == "old"
    assert not list(tmp_path.glob(f"*{UNFINISHED}"))


@pytest.mark.parametrize("value", [math.nan, {"a": math.inf}, {"a": object()}])
def test_what_is_no_json_is_refused_before_anything_is_touched(tmp_path: Path, value: object) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "a", value)
    assert (tmp_path / "a").read_text() == "old"


def test_undecodable_names_are_escaped(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"path": "\udcff.png"})
    assert json.loads((tmp_path / "a").read_text(encoding="utf-8")) == {"path": "\udcff.png"}
    write_text(tmp_path / "b", "\udcff.png")
    assert (tmp_path / "b").read_bytes() == rb"\udcff.png"


def failing(number: int, at: int) -> Callable[[int], None]:
    """An fsync whose call number `at` fails: the first is of the file, the second of its folder."""
    calls = 0

    def fsync(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(number, os.strerror(number))

    return fsync


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_folders_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", failing(number, at=2))
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize(("number", "at"), [(errno.EINVAL, 1), (errno.EIO, 1), (errno.EIO, 2)])
def test_other_faults_of_the_disk_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, at: int
) -> None:
    monkeypatch.setattr(os, "fsync", failing(number, at))
    with pytest.raises(OSError):
        write_text(tmp_path / "a", "new")
