"""Tar files in WebDataset layout that others wrote."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_sets import looked_at, settings

from automl_vision.data.preparation import read_manifest
from automl_vision.errors import DataError


def encoded(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write(file: Path, members: Mapping[str, bytes]) -> None:
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, "w") as opened:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three tar files, labels as numbers and as JSON."""
    folder = tmp_path / "foreign"
    for number in range(3):
        members: dict[str, bytes] = {}
        for place in range(10):
            seed = number * 10 + place
            members[f"{seed:04d}.png"] = encoded(seed)
            members |= (
                {f"{seed:04d}.cls": f"{seed % 2}\n".encode()}
                if number
                else {f"{seed:04d}.json": json.dumps({"label": f"{seed % 2}", "group": seed // 2}).encode()}
            )
            members[f"{seed:04d}.txt"] = b"a caption"
        write(folder / f"part-{number}.tar", members)
    return folder


def test_samples_are_images_with_labels(shards: Path) -> None:
    prepared = looked_at(shards)
    manifest = prepared.manifest
    assert len(manifest) == 30 and manifest.class_names == ("0", "1") and manifest.split is None
    assert manifest.paths[0] == "part-0.tar/0000.png" and manifest.group is not None
    assert manifest.group[:3] == ("0", "0", "1") and manifest.group[10] is None
    assert manifest.ignored == {"member of a shard: .txt": 30}
    assert [manifest.file(row).read_bytes() for row in range(30)] == [encoded(seed) for seed in range(30)]
    assert manifest.labels.tolist() == [0, 1] * 15
    assert prepared.facts.usable.all() and len(prepared.split.rows("test"))


def test_sets_are_those_of_the_names(shards: Path) -> None:
    for number, name in enumerate(("train-0", "val_0", "test-0")):
        (shards / f"part-{number}.tar").rename(shards / f"{name}.tar")
    manifest = looked_at(shards).manifest
    assert manifest.split is not None and set(manifest.split) == {"train", "val", "test"}
    (shards / "val_0.tar").rename(shards / "more.tar")
    assert looked_at(shards).manifest.split is None


@pytest.mark.parametrize("name", ["a.pickle", "a.pyd", "a.PKL", "a.npy", "b/a.pth", "a.jpg.pickle", "a.pt", "a.so"])
def test_members_that_others_would_run_are_refused(shards: Path, name: str) -> None:
    write(shards / "evil.tar", {"x.png": encoded(99), "x.cls": b"0", name: b"cos\nsystem\n(S'touch ran'\ntR."})
    with pytest.raises(DataError, match="a member that is refused") as refused:
        looked_at(shards)
    assert f"evil.tar: {name!a}" in str(refused.value)


def test_a_torn_archive_is_told_and_its_whole_samples_are_used(shards: Path) -> None:
    file = shards / "part-1.tar"
    file.write_bytes(file.read_bytes()[:9000])
    said: list[str] = []
    manifest = read_manifest(shards, settings(), said.append)
    kept = sum(path.startswith("part-1") for path in manifest.paths)
    assert len(said) == 1 and said[0].startswith("part-1.tar: it ends") and "not known" in said[0]
    assert 0 < kept < 10 and len(manifest) == 20 + kept


def test_what_lacks_a_part_is_counted(shards: Path) -> None:
    write(shards / "more.tar", {"x.png": encoded(99), "y.cls": b"0", "z.png": encoded(98), "z.json": b"{no json"})
    manifest = looked_at(shards).manifest
    assert len(manifest) == 30
    assert manifest.ignored["image in a shard without a label"] == 2
    assert manifest.ignored["label in a shard without an image"] == 1


def test_two_images_of_one_name_are_refused(shards: Path) -> None:
    write(shards / "more.tar", {"x.png": encoded(99), "x.jpg": encoded(98), "x.cls": b"0"})
    with pytest.raises(DataError, match="two images"):
        looked_at(shards)


def test_a_link_to_a_shard_is_not_followed(shards: Path, tmp_path: Path) -> None:
    (shards / "part-2.tar").rename(tmp_path / "outside.tar")
    (shards / "part-2.tar").symlink_to(tmp_path / "outside.tar")
    with pytest.raises(DataError, match="a shard is a link"):
        looked_at(shards)
    assert len(looked_at(shards, data__allow_outside=True).manifest) == 30


def test_no_labels_at_all_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "foreign" / "a.tar", {"x.png": encoded(1)})
    with pytest.raises(DataError, match="an image and a label"):
        looked_at(tmp_path / "foreign")


def test_class_folders_with_an_archive_beside_them_are_class_folders(shards: Path) -> None:
    for name in ("cat", "dog"):
        (shards / name).mkdir()
        for seed in range(5):
            (shards / name / f"{seed}.png").write_bytes(encoded(seed + 100 * len(name)))
    assert read_manifest(shards, settings()).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("told", "what"),
    [
        (rb'{"label": "\ud83d"}', "a class name is not UTF-8"),
        (rb'{"label": "x", "group": "\ud83d"}', "a group is not UTF-8"),
        (rb'{"label": "x", "group": "\udce9"}', "a group is not UTF-8"),
    ],
)
def test_halves_of_characters_are_no_labels_and_no_groups(tmp_path: Path, told: bytes, what: str) -> None:
    members = {"a.png": encoded(0), "a.json": told, "b.png": encoded(1), "b.json": b'{"label": "y"}'}
    write(tmp_path / "foreign" / "a.tar", members)
    with pytest.raises(DataError, match=what):
        looked_at(tmp_path / "foreign")
