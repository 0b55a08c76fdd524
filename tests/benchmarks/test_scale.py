"""The benchmark of many images: what it makes is what it says, and both parts run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import scale


def test_files_lie_in_class_folders_and_every_so_many_is_named_as_a_copy(tmp_path: Path) -> None:
    scale.make_empty_files(tmp_path, 200)
    files = list(tmp_path.rglob("*.jpg"))
    assert len(files) == 200
    copies = [file for file in files if "flipped" in file.name]
    assert len(copies) == 200 // 20
    assert all(file.with_name(f"{file.name.partition('_')[0]}.jpg").exists() for file in copies)


def test_rows_are_read_audited_and_dealt(capsys: pytest.CaptureFixture[str]) -> None:
    scale.main(["rows", "--count", "4000"])
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 4000
    assert sum(told["sets"].values()) == 4000
    assert told["sets"]["aside"] > 0
    assert told["all"] == pytest.approx(told["read"] + told["audit"] + told["split"], abs=0.02)
    assert 0 < told["peak_mb"] < 2000


def test_memory_is_that_of_a_process_that_trains(capsys: pytest.CaptureFixture[str]) -> None:
    scale.main(["memory", "--counts", "40"])
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 40
    assert 100 < told["peak_mb"] < 5000
