"""Shards are the same bytes for the same data, whole or not there, and what was cut off goes on."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tarfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from shard_sets import contents, looked_at, pictures, sets_of, settings, sharded

from automl_vision.data.shards import write
from automl_vision.data.shards.address import parse_address
from automl_vision.data.shards.layout import INDEX, SAMPLE_COLUMNS, SHARDED_SETS
from automl_vision.data.shards.local_folder import LocalFolder
from automl_vision.data.shards.plan import ShardSize, plan_shards
from automl_vision.errors import BudgetExhausted, DataError, UsageError
from automl_vision.pipeline import shard


def index_of(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / INDEX).read_text())
    return told


def test_the_same_data_are_the_same_bytes(images: Path, original: Path, tmp_path: Path) -> None:
    assert contents(sharded(images, tmp_path / "again", machine__threads=2)) == contents(original)
    assert contents(sharded(images, tmp_path / "other", machine__seed=4)) != contents(original)


def test_members_are_the_files_as_they_were(images: Path, original: Path) -> None:
    table = pd.read_parquet(original / "samples.parquet").astype({"shard": str, "label": str, "split": str})
    assert list(table.columns) == list(SAMPLE_COLUMNS)
    inside = table[table["shard"] != ""]
    for each in inside.to_dict("records"):
        data = (images / each["path"]).read_bytes()
        assert hashlib.blake2b(data, digest_size=16).hexdigest() == each["digest"]
        with tarfile.open(original / each["shard"]) as opened:
            key = each["member"].partition(".")[0]
            image, about = opened.getmember(each["member"]), opened.extractfile(f"{key}.json")
            assert (image.offset_data, image.size) == (each["offset"], each["size"])
            assert opened.extractfile(image).read() == data  # type: ignore[union-attr]
            told = json.load(about)  # type: ignore[arg-type]
        assert told["path"] == each["path"] and told["group"] == each["group"] and told["role"] == each["role"]
        assert told["label"] == each["label"] == each["path"].partition("/")[0] and told["split"] == each["split"]
        assert index_of(original)["classes"][told["class"]] == told["label"]


def test_sets_are_those_that_inspect_shows_and_all_rows_are_listed(images: Path, original: Path) -> None:
    seen, told = sets_of(looked_at(images)), index_of(original)
    table = pd.read_parquet(original / "samples.parquet").astype({"shard": str, "split": str})
    copies = seen["aside"]  # all of those that are aside here are copies of val or test originals
    for name in ("train", "val", "test", "quarantine"):
        assert set(table["path"][table["split"] == name]) == seen[name]
    assert set(table["path"][table["split"].isin(["aside", "val-copies"])]) == copies
    assert told["counts"] == table["split"].value_counts().to_dict()
    assert set(table["split"][table["shard"] == ""]) == {"aside", "quarantine"}
    assert sum(each["samples"] for each in told["shards"]) == (table["shard"] != "").sum()
    split = pd.read_csv(original / "split.csv")
    assert set(split["path"]) == set(table["path"]) and set(split["split"]) == {*seen}
    assert "broken.jpg" in (original / "audit.csv").read_text()


def test_digests_and_sizes_of_shards_are_told(original: Path) -> None:
    told = index_of(original)
    for each in told["shards"]:
        data = (original / each["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (each["bytes"], each["sha256"])
        assert len(data) <= 12_000
    for name, each in told["tables"].items():
        assert hashlib.sha256((original / name).read_bytes()).hexdigest() == each["sha256"]
    assert {each["set"] for each in told["shards"]} == set(SHARDED_SETS)


def test_a_shard_is_a_fair_mix_of_the_classes(tmp_path: Path) -> None:
    data = looked_at(pictures(tmp_path / "images", per_class=60))
    shards = [each for each in plan_shards(data, ShardSize(most_images=20), 0) if each.set == "train"]
    assert [len(each.samples) for each in shards[:-1]] == [20] * (len(shards) - 1)
    for each in shards[:-1]:
        cats = sum(data.manifest.labels[sample.row] == 0 for sample in each.samples)
        assert 6 <= cats <= 19  # of 36 cats (copies with them) and 36 others: about 13
    other = next(plan_shards(data, ShardSize(most_images=20), 1))
    assert [each.row for each in other.samples] != [each.row for each in shards[0].samples]


class Cut(Exception):
    """As if the process were killed."""


@pytest.mark.parametrize("published", range(1, 12, 3))
def test_what_was_cut_off_goes_on(
    images: Path, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: int
) -> None:
    out, left = tmp_path / "shards", [published]
    publish = LocalFolder.publish

    def cut(folder: LocalFolder, made: Path, name: str) -> None:
        if not left[0]:
            raise Cut
        left[0] -= 1
        publish(folder, made, name)

    monkeypatch.setattr(LocalFolder, "publish", cut)
    with pytest.raises(Cut):
        sharded(images, out)
    assert not (out / INDEX).exists()
    with pytest.raises(DataError, match=r"no shards\.json"):
        looked_at(out)  # half of the shards are not a data set
    left[0] = 10**6
    whole = {each.name: each.stat().st_mtime_ns for each in out.glob("*.tar") if (out / f"{each.name}.whole").exists()}
    done = shard(images, settings(), parse_address(out), ShardSize(12_000))
    assert done.written.kept == len(whole) == (published - 1) // 2
    assert {name: (out / name).stat().st_mtime_ns for name in whole} == whole
    assert contents(out) == contents(original)


def test_whole_shards_of_other_settings_do_not_stay(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "shards"
    monkeypatch.setattr(write._Writing, "_index", lambda *_: (_ for _ in ()).throw(Cut()))
    with pytest.raises(Cut):
        sharded(images, out)
    monkeypatch.undo()
    sharded(images, out, most_bytes=40_000)
    assert contents(out) == contents(sharded(images, tmp_path / "anew", most_bytes=40_000))


def test_a_torn_note_costs_its_shard_alone(images: Path, original: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    out.mkdir()
    first = next(iter(index_of(original)["shards"]))["name"]
    (out / "shards.unfinished").touch()
    (out / first).write_bytes(b"half")
    (out / f"{first}.whole").write_text('{"key":')
    assert contents(sharded(images, out)) == contents(original)


def test_nothing_of_others_is_overwritten(images: Path, original: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="shards in this folder already"):
        sharded(images, original)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty") as refused:
        sharded(images, tmp_path)
    assert "notes.txt" in str(refused.value)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_a_disk_without_room_is_told_before_anything_is_written(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalFolder, "free_bytes", lambda _: 10_000)
    with pytest.raises(BudgetExhausted, match="no room for the shards") as refused:
        sharded(images, tmp_path / "shards")
    assert refused.value.exit_code == 5 and list((tmp_path / "shards").iterdir()) == []


def test_a_disk_that_fills_up_keeps_whole_shards(
    images: Path, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, left = os.fsync, [15]

    def full(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    out = tmp_path / "shards"
    with monkeypatch.context() as patch:
        patch.setattr("automl_vision.data.shards.write.os.fsync", full)
        with pytest.raises(BudgetExhausted, match="the disk is full") as refused:
            sharded(images, out)
    assert refused.value.exit_code == 5 and "call the same command again" in str(refused.value)
    assert 1 <= len(list(out.glob("*.tar"))) < len(list(original.glob("*.tar")))
    assert contents(sharded(images, out)) == contents(original)


def test_an_image_that_changes_meanwhile_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures(tmp_path / "images")
    inspected = looked_at(data)
    (data / "cat" / "1.jpg").write_bytes((data / "cat" / "2.jpg").read_bytes())
    monkeypatch.setattr("automl_vision.pipeline.inspect", lambda *_, **__: inspected)
    with pytest.raises(DataError, match="changed while it was being sharded") as refused:
        sharded(data, tmp_path / "shards")
    assert "cat/1.jpg" in str(refused.value)


def test_shards_of_shards_hold_the_same(images: Path, original: Path, tmp_path: Path) -> None:
    again = sharded(original, tmp_path / "again", most_bytes=30_000)
    before, after = sets_of(looked_at(original)), sets_of(looked_at(again))
    assert {name: before[name] for name in ("train", "val", "test")} == {
        name: after[name] for name in ("train", "val", "test")
    }


def test_data_that_cannot_be_trained_on_are_not_sharded(tmp_path: Path) -> None:
    data = pictures(tmp_path / "images", per_class=1)
    with pytest.raises(DataError, match="too few originals"):
        sharded(data, tmp_path / "shards", data__max_unreadable=0.5)
    assert not (tmp_path / "shards").exists()


def test_a_second_call_into_the_same_folder_is_refused_at_once(
    images: Path, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, refused = tmp_path / "shards", []
    publish = LocalFolder.publish

    def meanwhile(folder: LocalFolder, made: Path, name: str) -> None:
        if not refused:
            refused.append(None)
            with pytest.raises(UsageError, match="another process writes shards into this folder"):
                sharded(images, out, machine__seed=4)
        publish(folder, made, name)

    monkeypatch.setattr(LocalFolder, "publish", meanwhile)
    assert contents(sharded(images, out)) == contents(original) and refused


@pytest.mark.parametrize("shards_before", [0, 3])
def test_where_nothing_can_be_locked_one_of_two_calls_says_so(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards_before: int
) -> None:
    """As in an object store: the mark of a call says whose the folder is."""
    out, left = tmp_path / "shards", [shards_before + 1]
    publish = LocalFolder.publish

    def meanwhile(folder: LocalFolder, made: Path, name: str) -> None:
        publish(folder, made, name)
        left[0] -= 1
        if left[0] == 0:
            (out / "shards.unfinished").write_bytes(b"of another call")

    monkeypatch.setattr(LocalFolder, "alone", lambda _: nullcontext())
    monkeypatch.setattr(LocalFolder, "publish", meanwhile)
    with pytest.raises(UsageError, match="something else wrote into the folder"):
        sharded(images, out)
    assert not (out / INDEX).exists()


def test_no_index_says_that_all_is_there_where_it_is_not(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, index = tmp_path / "shards", write._Writing._index

    def cut(*given: Any) -> Any:
        shard = next(out.glob("train-*.tar"))
        shard.write_bytes(shard.read_bytes()[:-1])
        return index(*given)

    monkeypatch.setattr(write._Writing, "_index", cut)
    with pytest.raises(UsageError, match="something else wrote into the folder"):
        sharded(images, out)
    assert not (out / INDEX).exists()
