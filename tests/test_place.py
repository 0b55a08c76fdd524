"""A folder and an address: the same verbs, and a write that is seen whole or not at all."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from automl_vision.errors import ModelFileError, RunError, UsageError
from automl_vision.files import write_atomically, write_json, write_text
from automl_vision.place import Place, check_place, is_folder, make_folder, place_of, remove_folder
from automl_vision.rules import CLUSTER_ADDRESS, TRIALS_URL
from automl_vision.tensor_file import load_tensors, save_tensors


@pytest.fixture(params=["folder", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "folder":
        yield tmp_path / "trials"
        return
    upath = pytest.importorskip("upath")
    here = upath.UPath(f"memory://{secrets.token_hex(4)}/trials")
    yield here
    remove_folder(here)


def test_what_is_written_is_read(place: Place) -> None:
    make_folder(place)
    write_json(place / "a.json", {"a": [1, None]})
    write_text(place / "a.json", "new")
    assert (place / "a.json").read_text(encoding="utf-8") == "new"
    assert [each.name for each in place.glob("*.json")] == ["a.json"]


def test_a_writer_that_fails_halfway_changes_nothing(place: Place) -> None:
    make_folder(place)
    write_text(place / "a", "old")

    def half(file: object) -> None:
        assert isinstance(file, io.BytesIO) or hasattr(file, "write")
        file.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(place / "a", half)
    assert (place / "a").read_text() == "old"
    assert len(list(place.iterdir())) == 1


def test_tensors_come_back_and_damage_is_found(place: Place) -> None:
    make_folder(place)
    file = place / "best.pt"
    save_tensors(file, {"weights": torch.arange(6.0), "epoch": 3})
    loaded = load_tensors(file)
    assert loaded["epoch"] == 3
    assert torch.equal(loaded["weights"], torch.arange(6.0))
    whole = file.read_bytes()
    for content, said in ((whole[:-20], "cut off"), (whole.replace(b"weights", b"heights"), "changed"), (b"", "cut")):
        file.write_bytes(content)
        with pytest.raises(ModelFileError, match=said):
            load_tensors(file)
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_tensors(place / "missing.pt")


def test_a_place_can_be_removed_and_removed_again(place: Place) -> None:
    make_folder(place)
    make_folder(place)
    write_text(place / "a", "old")
    remove_folder(place)
    assert not (place / "a").exists()
    remove_folder(place)


def test_a_place_that_works_is_left_as_it_was(place: Place) -> None:
    make_folder(place)
    check_place(place)
    assert not list(place.glob("*"))


def test_a_place_that_does_not_work_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    upath = pytest.importorskip("upath")
    here = upath.UPath("memory://nowhere/trials")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("403\nForbidden")

    monkeypatch.setattr(type(here.fs), "pipe_file", refuse)
    with pytest.raises(RunError, match=r"memory://nowhere/trials \(PermissionError: 403 Forbidden\)"):
        check_place(here)


def test_text_becomes_a_folder_or_an_address() -> None:
    assert place_of("runs/a") == Path("runs/a")
    assert place_of("file:///tmp/a") == Path("/tmp/a")
    assert place_of("~/a") == Path.home() / "a"
    assert is_folder(place_of("file:///tmp/a"))


def test_an_address_whose_package_is_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("upath")
    import fsspec

    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    monkeypatch.setattr("upath.core.filesystem", missing, raising=False)
    with pytest.raises(UsageError, match="pip install s3fs"):
        place_of("s3://bucket/run")


@pytest.mark.parametrize("text", ["", "runs/a", "/tmp/a b", "file:///tmp/a", "s3://bucket/run", "gs://bucket"])
def test_places_that_may_be_given(text: str) -> None:
    assert TRIALS_URL.check(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "http://host/a",
        "memory://a",
        "pipe://rm",
        "zip::s3://bucket/a.zip",
        "simplecache::s3://bucket/a",
        "s3://key:secret@bucket/a",
        "s3://bucket/a?endpoint=x",
        "file://host/a",
        "S3://bucket",
    ],
)
def test_places_that_may_not(text: str) -> None:
    assert TRIALS_URL.check(text).startswith("must be")


@pytest.mark.parametrize("text", ["", "auto", "10.0.0.1:6379", "head-node.local:6379", "[::1]:6379"])
def test_addresses_of_clusters(text: str) -> None:
    assert CLUSTER_ADDRESS.check(text) == ""


@pytest.mark.parametrize("text", ["local", "10.0.0.1", "ray://head:10001", "head:0", "head:99999", "http://head:6379"])
def test_what_is_no_address_of_a_cluster(text: str) -> None:
    assert CLUSTER_ADDRESS.check(text).startswith("must be")


def test_records_at_an_address_are_json(place: Place) -> None:
    make_folder(place)
    write_json(place / "000001.json", {"number": 1})
    assert json.loads((place / "000001.json").read_text(encoding="utf-8")) == {"number": 1}
