"""Shards are a data set like any other: same images, same sets; what is missing is named and quarantined."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from shard_sets import looked_at, pictures, sets_of, settings, sharded

from automl_vision.data import build, undisked
from automl_vision.data.manifest import Manifest
from automl_vision.data.preparation import decode, read_manifest
from automl_vision.data.shards.address import parse_address
from automl_vision.data.shards.layout import FORMAT, INDEX
from automl_vision.data.store import SealedRowError
from automl_vision.errors import DataError
from automl_vision.pipeline import verify_shards


def manifest_of(data: Path, said: list[str] | None = None, **overrides: object) -> Manifest:
    return read_manifest(data, settings(**overrides), (said if said is not None else []).append)


def first_train_shard(shards: Path) -> tuple[Path, dict[str, int]]:
    told = json.loads((shards / INDEX).read_text())
    record = next(each for each in told["shards"] if each["set"] == "train")
    return shards / record["name"], record


def test_sets_groups_and_labels_are_those_that_were_decided(images: Path, original: Path) -> None:
    before, after = looked_at(images), looked_at(original)
    assert after.split.leaks == () and after.split.dealt == () and after.refused is None
    for name in ("train", "val", "test"):
        assert sets_of(after)[name] == sets_of(before)[name]
    copies = {before.manifest.paths[row] for row in before.split.augmented_val}
    assert {after.manifest.paths[row] for row in after.split.augmented_val} == copies and copies
    labels = dict(zip(before.manifest.paths, before.manifest.labels.tolist(), strict=True))
    assert [labels[path] for path in after.manifest.paths] == after.manifest.labels.tolist()
    assert after.manifest.class_names == before.manifest.class_names
    assert list(after.manifest.paths) == sorted(after.manifest.paths)
    assert after.manifest.ignored["unreadable when the shards were written"] == 1
    with pytest.raises(SealedRowError):
        after.sealed().store.fetch(after.split.rows("test")[:1], after.store.sizes[0])


def test_squares_are_those_of_the_files(images: Path, original: Path) -> None:
    files, stored = looked_at(images), looked_at(original)
    on_demand = looked_at(original, machine__decode_ahead=False)
    assert on_demand.store.is_on_demand and not stored.store.is_on_demand
    rows = {path: row for row, path in enumerate(files.manifest.paths)}
    chosen = [rows[path] for path in stored.manifest.paths]
    size = files.store.sizes[-1]
    expected = files.store.fetch(chosen, size)
    everything = range(len(stored.manifest))
    assert torch.equal(stored.store.fetch(everything, size), expected)
    assert torch.equal(on_demand.store.fetch(everything, size), expected)
    same = ["pixel_digest", "picture_hash", "format", "width"]
    assert on_demand.facts.table[same].equals(files.facts.table[same].iloc[chosen].reset_index(drop=True))


def test_facts_that_came_with_shards_are_not_made_again(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(build, "look_into", never)
    chosen = settings(machine__decode_ahead=False)
    manifest = read_manifest(original, chosen)
    store, facts = decode(manifest, chosen, (32,), 1)
    assert facts.usable.all() and len(store) == len(manifest)
    monkeypatch.setattr(undisked, "squares_of", never)
    with pytest.raises(AssertionError):
        store.fetch([0], 32)


def test_facts_that_were_made_otherwise_are_made_again(original: Path) -> None:
    manifest = manifest_of(original)
    assert manifest.sharded is not None
    made, rows = dict(manifest.sharded.facts_made), np.ones(len(manifest), dtype=np.bool_)
    facts = manifest.sharded.facts(made, rows)
    assert facts is not None and sorted(facts["file_digest"]) == sorted({*manifest.sharded.digest.astype(str).tolist()})
    assert manifest.sharded.facts({**made, "pillow": "1"}, rows) is None
    assert manifest.sharded.facts({**made, "format": 0}, rows) is None
    drafted = manifest.sharded.facts({**made, "decode_side": 8}, rows)  # all JPEGs would be decoded at a fraction
    assert drafted is not None and set(drafted["format"]) == {"PNG"}


def test_a_manifest_of_shards_can_be_cut_and_sent(original: Path) -> None:
    manifest = manifest_of(original)
    rows = np.array([5, 1, 9])
    part = pickle.loads(pickle.dumps(manifest)).subset(rows)
    for place, row in enumerate(sorted(rows.tolist())):
        assert part.paths[place] == manifest.paths[row]
        assert part.file(place).read_bytes() == manifest.file(row).read_bytes()


def test_fewer_images_are_whole_groups(original: Path) -> None:
    part = looked_at(original, data__max_samples=20)
    whole = looked_at(original)
    sets = sets_of(whole)
    assert len(part.manifest) <= 20
    for name in ("train", "val", "test"):
        assert sets_of(part)[name] <= sets[name]


@hypothesis_settings(max_examples=12, deadline=None)
@given(share=st.floats(0, 0.999))
def test_a_torn_shard_is_told_to_the_sample(
    images: Path, original: Path, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    import shutil

    shards = Path(shutil.copytree(original, tmp_path_factory.mktemp("torn") / "shards"))
    victim, record = first_train_shard(shards)
    data = victim.read_bytes()
    victim.write_bytes(data[: int(share * len(data))])
    whole = manifest_of(original)
    said: list[str] = []
    manifest = manifest_of(shards, said)
    assert whole.sharded is not None and manifest.paths == whole.paths
    lies = [row for row in range(len(whole)) if whole.sharded.names[whole.sharded.shard[row]] == victim.name]
    ends = {row: int(whole.sharded.offset[row] + whole.sharded.size[row]) for row in lies}
    lost = sorted((row for row in lies if ends[row] > int(share * len(data))), key=ends.__getitem__)
    found = verify_shards(parse_address(shards), settings())
    if lost:
        key = whole.sharded.member[lost[0]].decode().partition(".")[0]
        be = "is" if len(lost) == 1 else "are"
        assert said == [f"{victim.name}: {len(lost)} of {record['samples']} samples {be} missing, from {key} on"]
        assert found.problems == tuple(said) and found.lost == len(lost)
    else:
        assert said == [] and len(found.problems) == 1 and "bytes less" in found.problems[0]
    for check in ("auto", "sizes"):
        for ahead in (True, False):
            chosen = settings(data__check_shards=check, machine__decode_ahead=ahead)
            facts = decode(read_manifest(shards, chosen), chosen, (16,), 1)[1]
            assert np.flatnonzero(~facts.usable).tolist() == sorted(lost)
            assert set(facts.table["fault"].iloc[lost]) <= {"truncated"}


def test_a_missing_shard_is_told(shards: Path) -> None:
    victim, record = first_train_shard(shards)
    victim.unlink()
    said: list[str] = []
    prepared_rows = manifest_of(shards, said)
    assert said == [f"{victim.name}: the shard is missing, and with it {record['samples']} samples"]
    assert len(prepared_rows) == len(manifest_of(shards))
    assert verify_shards(parse_address(shards), settings()).problems == tuple(said)
    quarantined = looked_at(shards).split.rows("quarantine")
    assert len(quarantined) == record["samples"]


def test_an_altered_sample_is_quarantined_and_named(shards: Path) -> None:
    victim, record = first_train_shard(shards)
    manifest = manifest_of(shards)
    assert manifest.sharded is not None
    row = next(
        row for row in range(len(manifest)) if manifest.sharded.names[manifest.sharded.shard[row]] == victim.name
    )
    data = bytearray(victim.read_bytes())
    data[int(manifest.sharded.offset[row]) + 200] ^= 1
    victim.write_bytes(bytes(data))
    member = manifest.sharded.member[row].decode()
    found = verify_shards(parse_address(shards), settings())
    assert found.problems == (
        f"{victim.name}: 1 of {record['samples']} samples are altered: {member.partition('.')[0]}",
    )
    prepared = looked_at(shards)
    assert prepared.split.rows("quarantine").tolist() == [row]
    assert (
        "not those that were stored" in prepared.facts.table["detail"][row]
        and member in prepared.facts.table["detail"][row]
    )
    # Where the start trusts the digests, what is read later is compared all the same.
    chosen = settings(data__check_shards="sizes", machine__decode_ahead=False)
    store, facts = decode(read_manifest(shards, chosen), chosen, (16,), 1)
    assert facts.usable.all()
    with pytest.raises(DataError, match="not what was stored") as refused:
        store.fetch([row], 16)
    assert member in str(refused.value) and "--verify" in str(refused.value)


@pytest.mark.parametrize("where", ["between", "behind"])
def test_what_is_altered_beside_the_samples_is_found_too(shards: Path, where: str) -> None:
    victim, _ = first_train_shard(shards)
    data = bytearray(victim.read_bytes())
    if where == "between":
        data[108] ^= 1  # in the first header
    victim.write_bytes(bytes(data) + b"x" * 512 * (where == "behind"))
    (problem,) = verify_shards(parse_address(shards), settings()).problems
    assert "all samples are there, but" in problem
    assert ("512 bytes more" in problem) == (where == "behind")


def test_leaks_that_were_put_into_a_table_are_found(images: Path, tmp_path: Path) -> None:
    """A split in shards is judged like any other that comes with the data."""
    import pandas as pd

    shards = sharded(images, tmp_path / "shards")
    file = shards / "samples.parquet"
    table = pd.read_parquet(file).astype({"split": str, "shard": str, "label": str, "role": str})
    train = table[(table["split"] == "train") & (table["role"] == "original")]
    test = table.index[table["split"] == "test"][0]
    table.loc[test, "group"] = int(train["group"].iloc[0])
    table.to_parquet(file)
    told = json.loads((shards / INDEX).read_text())
    record = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size}
    told["tables"]["samples.parquet"].update(record)
    (shards / INDEX).write_text(json.dumps(told))
    leaks = looked_at(shards).split.leaks
    assert leaks and all("its group is in test" in reason for _, reason in leaks)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda told: told.update(format=FORMAT + 1), "newer version"),
        (lambda told: told.update(format="1"), "cannot be read"),
        (lambda told: told.pop("classes"), "cannot be read"),
        (lambda told: told["shards"][0].update(name="../evil.tar"), "cannot be read"),
        (lambda told: told["shards"][0].update(name="pipe:cat.tar"), "cannot be read"),
        (lambda told: told["shards"][0].update(samples=10**6), "does not fit the shards"),
        (lambda told: told["shards"][0].update(bytes=600), "does not fit the shards"),
        (lambda told: told["tables"]["samples.parquet"].update(sha256="0" * 64), "not the table that was written"),
        (lambda told: told["tables"]["samples.parquet"].update(bytes=7), "not the table that was written"),
        (lambda told: told["tables"]["samples.parquet"].update(sha256="../../secret"), "cannot be read"),
        (lambda told: told["tables"]["samples.parquet"].update(sha256=5), "cannot be read"),
        (lambda told: told["tables"].pop("facts.parquet"), "cannot be read"),
        (lambda told: told["shards"].append(told["shards"][0]), "cannot be read"),
        (lambda told: told["shards"][0].update(samples=1.5), "cannot be read"),
        (lambda told: told["shards"][0].update(bytes=10**300), "cannot be read"),
        (lambda told: told["counts"].update(train=float("inf")), "cannot be read"),
        (lambda told: told["shards"].reverse(), "does not fit the shards"),
    ],
)
def test_an_index_that_is_not_what_was_written_is_refused(shards: Path, damage: object, told: str) -> None:
    index = json.loads((shards / INDEX).read_text())
    damage(index)  # type: ignore[operator]
    (shards / INDEX).write_text(json.dumps(index))
    with pytest.raises(DataError, match=told):
        looked_at(shards)


def exchanged(shards: Path, name: str, change: Callable[[dict[str, list[Any]]], object]) -> Path:
    """One table with other values, and an index that has the digest of it."""
    file = shards / name
    columns = pq.read_table(file).to_pydict()
    change(columns)
    kinds = {"taken": pa.float64()}  # all of them may be null
    pq.write_table(pa.table({each: pa.array(held, kinds.get(each)) for each, held in columns.items()}), file)
    told = json.loads((shards / INDEX).read_text())
    told["tables"][name].update(sha256=hashlib.sha256(file.read_bytes()).hexdigest(), bytes=file.stat().st_size)
    (shards / INDEX).write_text(json.dumps(told))
    return shards


def first(column: str, value: object) -> Callable[[dict[str, list[Any]]], object]:
    return lambda columns: columns[column].__setitem__(0, value)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("samples.parquet", first("label", None), "column label"),
        ("samples.parquet", first("label", ""), "column label"),
        ("samples.parquet", lambda columns: columns.update(label=[1] * len(columns["label"])), "column label"),
        ("samples.parquet", first("path", None), "column path"),
        ("samples.parquet", lambda columns: columns["path"].__setitem__(0, columns["path"][1]), "column path"),
        ("samples.parquet", first("member", "é.jpg"), "column member"),
        ("samples.parquet", first("member", "x" * 10**6), "column member"),
        ("samples.parquet", first("digest", "zz"), "column digest"),
        ("samples.parquet", first("digest", None), "column digest"),
        ("samples.parquet", first("split", "training set"), "column split"),
        ("samples.parquet", first("split", "aside"), "column split"),
        ("samples.parquet", first("role", "clone"), "column role"),
        ("samples.parquet", first("group", None), "column group"),
        ("samples.parquet", first("offset", 2**63 - 1), "does not fit the shards"),
        ("facts.parquet", first("picture_hash", "q" * 16), "column picture_hash"),
        ("facts.parquet", first("file_digest", "0" * 32), "does not fit samples.parquet"),
        ("facts.parquet", first("width", None), "column width"),
        ("facts.parquet", first("width", -5), "column width"),
        ("facts.parquet", first("taken", float("inf")), "column taken"),
        ("facts.parquet", first("fault", "odd"), "column fault"),
    ],
)
def test_tables_of_others_are_checked_whatever_their_digests(
    shards: Path, name: str, change: Callable[[dict[str, list[Any]]], object], told: str
) -> None:
    """They came as `train.parquet` with the index of whoever made them: no traceback, and no row that silently goes."""
    data = exchanged(shards, name, change)
    for how in ({"data__check_shards": "sizes"}, {}):
        with pytest.raises(DataError, match=told):
            looked_at(data, machine__decode_ahead=False, **how)


def test_a_pipe_in_place_of_a_table_is_not_waited_for(shards: Path) -> None:
    (shards / "samples.parquet").unlink()
    os.mkfifo(shards / "samples.parquet")
    with pytest.raises(DataError, match=r"samples\.parquet"):
        looked_at(shards)


@pytest.mark.parametrize("name", [INDEX, "samples.parquet"])
def test_files_of_garbage_are_refused(shards: Path, name: str) -> None:
    (shards / name).write_bytes(b"\x80garbage")
    with pytest.raises(DataError):
        looked_at(shards)


def test_more_files_than_are_held_open(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl_vision.data.shards.local_folder._MOST_OPEN", 2)
    shards = sharded(images, tmp_path / "shards", most_images=1)
    manifest = manifest_of(shards)
    order = np.random.default_rng(0).permutation(len(manifest))
    for row in order.tolist():
        assert manifest.file(row).read_bytes() == (images / manifest.paths[row]).read_bytes()


def test_names_that_are_no_text_survive(tmp_path: Path) -> None:
    data = pictures(tmp_path / "images")
    odd = data / "cat" / b"na\xefve.jpg".decode("utf-8", "surrogateescape")
    try:
        (data / "cat" / "3.jpg").rename(odd)
    except OSError:
        pytest.skip("this file system takes no such names")
    shards = sharded(data, tmp_path / "shards")
    assert any("\\udcef" in path for path in manifest_of(shards).paths)
