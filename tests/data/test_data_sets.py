"""Hugging Face data sets: the stored bytes reach the data stages unchanged, and no code of a set is run."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from automl_vision.config import Settings, load_settings
from automl_vision.data.cache_entries import cache_entries, give_up, lock_of
from automl_vision.data.hub_name import absolute, is_hub_name, parse_hub_name
from automl_vision.data.hugging_face import _data_caches
from automl_vision.data.manifest import Manifest
from automl_vision.data.preparation import decode, read_manifest
from automl_vision.data.unpacked import Source, own_names, unpack
from automl_vision.errors import BudgetExhausted, DataError, Interrupted
from automl_vision.runtime import Clock
from automl_vision.stages.read import asked_while_waiting
from automl_vision.stop_request import StopRequest

datasets = pytest.importorskip("datasets", reason="the package datasets (extra hub) is not installed")


def encoded(seed: int, form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def part(
    rows: Sequence[tuple[bytes | None, Any]],
    *,
    label: Any = None,
    names: Sequence[str | None] | None = None,
    image: str = "image",
    more: dict[str, list[Any]] | None = None,
) -> Any:
    """A data set of (encoded image, label) rows."""
    called = names or [None] * len(rows)
    columns: dict[str, list[Any]] = {
        image: [
            None if data is None and name is None else {"bytes": data, "path": name}
            for (data, _), name in zip(rows, called, strict=True)
        ],
        "label": [each for _, each in rows],
        **(more or {}),
    }
    features = {image: datasets.Image(), "label": label or datasets.ClassLabel(names=["cat", "dog"])}
    kinds = {name: datasets.Value("string") for name in more or {}}
    return datasets.Dataset.from_dict(columns, features=datasets.Features({**features, **kinds}))


def saved(folder: Path, content: Any) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder.parent / "hf")
        content.save_to_disk(str(folder))
    return folder


def rows_of(start: int, count: int) -> list[tuple[bytes, int]]:
    return [(encoded(start + n, "JPEG" if n % 2 else "PNG"), n % 2) for n in range(count)]


PARTS = {"train": rows_of(0, 6), "validation": rows_of(10, 4), "test": rows_of(20, 4)}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOML_VISION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", str(tmp_path / "hf"))


@pytest.fixture
def three_parts(tmp_path: Path) -> Path:
    return saved(tmp_path / "saved", datasets.DatasetDict({name: part(rows) for name, rows in PARTS.items()}))


def settings_with(**data: Any) -> Settings:
    return load_settings(overrides={f"data.{key}": value for key, value in data.items()})


def content(manifest: Manifest) -> list[tuple[bytes, str, str | None]]:
    sets = manifest.split or (None,) * len(manifest)
    return sorted(
        (manifest.file(row).read_bytes(), manifest.class_names[manifest.labels[row]], sets[row])
        for row in range(len(manifest))
    )


def test_bytes_labels_and_sets_are_those_that_were_stored(three_parts: Path) -> None:
    manifest = read_manifest(three_parts, Settings())
    sets = {"train": "train", "validation": "val", "test": "test"}
    wanted = [(data, ("cat", "dog")[label], sets[name]) for name, rows in PARTS.items() for data, label in rows]
    assert content(manifest) == sorted(wanted)
    assert manifest.paths[0] == "test/000000.png"
    assert manifest.paths[-1] == "validation/000003.jpg"


def test_what_decoding_tells_is_what_it_tells_of_the_same_files(three_parts: Path, tmp_path: Path) -> None:
    for name, rows in PARTS.items():
        for number, (data, label) in enumerate(rows):
            file = tmp_path / "folders" / name / ("cat", "dog")[label] / f"{number}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.with_suffix(".jpg" if number % 2 else ".png").write_bytes(data)
    found = []
    for data in (three_parts, tmp_path / "folders"):
        manifest = read_manifest(data, Settings())
        store, facts = decode(manifest, Settings(), (16,), 1)
        found.append(sorted(facts.table[["file_digest", "pixel_digest", "format"]].itertuples(index=False, name=None)))
        store.close()
    assert found[0] == found[1]


def test_files_are_written_once_and_again_when_they_went(three_parts: Path, tmp_path: Path) -> None:
    told: list[str] = []
    first = read_manifest(three_parts, Settings(), told.append)
    assert len(told) == 1 and "14 images" in told[0]
    assert read_manifest(three_parts, Settings(), told.append).root == first.root
    assert len(told) == 1, "nothing is written a second time"
    (entry,) = cache_entries(tmp_path / "cache")
    assert (entry.kind, entry.images, entry.folder) == ("unpacked", 14, first.root)
    assert entry.bytes >= sum(len(data) for rows in PARTS.values() for data, _ in rows)
    assert give_up(tmp_path / "cache", 0) == (entry,)
    assert not first.root.exists()
    again = read_manifest(three_parts, Settings(), told.append)
    assert len(told) == 2
    assert again.fingerprint == first.fingerprint


@pytest.mark.parametrize(
    "name",
    ["/etc/hostname", "../../elsewhere.png", "train/../../elsewhere.png", "train/sub/x.png", "test/000000.png", 7, [],
     "", "train/", "train/..", "train/a\\b.png", "too few"],
    ids=str,
)  # fmt: skip
def test_names_that_somebody_put_into_the_cache_are_not_believed(three_parts: Path, tmp_path: Path, name: Any) -> None:
    """The set is unpacked again, as where an entry is damaged."""
    first = read_manifest(three_parts, Settings())
    file = first.root / "unpacked.json"
    told = json.loads(file.read_text())
    names = told["names"]["train"]
    told["names"]["train"] = names[1:] if name == "too few" else [name, *names[1:]]
    file.write_text(json.dumps(told))
    lines: list[str] = []
    again = read_manifest(three_parts, Settings(), lines.append)
    assert len(lines) == 1 and "Unpacking" in lines[0]
    assert content(again) == content(first)
    assert json.loads(file.read_text())["names"]["train"] == names


def test_a_set_that_was_saved_anew_is_read_anew(three_parts: Path, tmp_path: Path) -> None:
    before = read_manifest(three_parts, Settings())
    other = datasets.DatasetDict({name: part(rows_of(100 + 9 * n, 5)) for n, name in enumerate(PARTS)})
    saved(tmp_path / "other", other)
    for file in sorted(three_parts.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    three_parts.rmdir()
    (tmp_path / "other").rename(three_parts)
    after = read_manifest(three_parts, Settings())
    assert after.root != before.root
    assert len(after) == 15


def test_without_a_cache_the_files_go_with_the_process(three_parts: Path, tmp_path: Path) -> None:
    own = load_settings(overrides={"machine.cache": False})
    manifest = read_manifest(three_parts, own)
    assert manifest.file(0).is_file()
    assert not manifest.root.is_relative_to(tmp_path / "cache")
    assert read_manifest(three_parts, own).root == manifest.root


def test_names_that_tell_copies_are_kept(tmp_path: Path) -> None:
    names = ["a.png", "a_flip.png", "b.png", "deep/c.png"]
    data = saved(tmp_path / "set", part([(encoded(n), n % 2) for n in range(4)], names=names))
    assert read_manifest(data, Settings()).paths == (
        "images/a.png",
        "images/a_flip.png",
        "images/b.png",
        "images/c.png",
    )


@pytest.mark.parametrize("names", [["a.png", "A.png"], ["a.png", None], ["a.png", ".hidden.png"], ["..", "b.png"]])
def test_names_that_files_cannot_have_become_numbers(tmp_path: Path, names: list[str | None]) -> None:
    data = saved(tmp_path / "set", part([(encoded(n), n) for n in range(2)], names=names))
    assert read_manifest(data, Settings()).paths == ("images/000000.png", "images/000001.png")


@given(st.lists(st.none() | st.text(max_size=12) | st.builds("{}.png".format, st.text(max_size=8)), max_size=5))
def test_own_names_are_names_of_files_in_one_folder(paths: list[str | None]) -> None:
    names = own_names(paths)
    if names:
        assert len({name.casefold() for name in names}) == len(paths)
        assert all(Path(name).name == name and name not in ("", ".", "..") and "\\" not in name for name in names)


@pytest.mark.parametrize(
    ("label", "values", "names"),
    [
        (lambda: datasets.Value("string"), ["b", "a"], ("a", "b")),
        (lambda: datasets.Value("int64"), [7, 12], ("12", "7")),
        (lambda: datasets.Value("bool"), [True, False], ("False", "True")),
    ],
)
def test_labels_need_not_have_class_names(
    tmp_path: Path, label: Any, values: list[Any], names: tuple[str, ...]
) -> None:
    data = saved(tmp_path / "set", part(list(zip([encoded(1), encoded(2)], values, strict=True)), label=label()))
    assert read_manifest(data, Settings()).class_names == names


def test_rows_without_label_or_image_are_named_or_left_out(tmp_path: Path) -> None:
    rows = [(encoded(1), 0), (encoded(2), -1), (None, 1), (encoded(4), 1), (encoded(5), None)]
    data = saved(tmp_path / "set", part(rows))
    with pytest.raises(DataError) as caught:
        read_manifest(data, Settings())
    assert "row 1: no label" in str(caught.value)
    assert "row 2: no image" in str(caught.value)
    assert "3 rows" in str(caught.value)
    manifest = read_manifest(data, settings_with(skip_bad_rows=True))
    assert len(manifest) == 2
    assert sum(manifest.ignored.values()) == 3


def test_a_damaged_image_is_quarantined_by_name(tmp_path: Path) -> None:
    rows = [(encoded(n), n % 2) for n in range(4)]
    data = saved(tmp_path / "set", part([*rows, (b"\xff\xd8 no picture", 0), (b"", 1)]))
    manifest = read_manifest(data, Settings())
    store, facts = decode(manifest, Settings(), (16,), 1)
    store.close()
    faults = dict(zip(manifest.paths, facts.table["fault"], strict=True))
    assert {path: fault for path, fault in faults.items() if fault} == {
        "images/000004.jpg": "truncated",
        "images/000005.bin": "empty",
    }


def test_columns_are_asked_for_where_several_fit(tmp_path: Path) -> None:
    one = part([(encoded(n), n) for n in range(2)], image="photo").rename_column("label", "fine")
    other = part([(encoded(n), n) for n in range(2)], image="scan", label=datasets.ClassLabel(names=["x", "y"]))
    two = datasets.concatenate_datasets([one, other.rename_column("label", "coarse")], axis=1)
    data = saved(tmp_path / "two", two)
    with pytest.raises(DataError, match="several columns may be the image: photo, scan; name it with --image-column"):
        read_manifest(data, Settings())
    with pytest.raises(DataError, match="several columns may be the label: fine, coarse"):
        read_manifest(data, settings_with(image_column="scan"))
    chosen = read_manifest(data, settings_with(image_column="scan", label_column="coarse"))
    assert chosen.class_names == ("x", "y")
    with pytest.raises(DataError, match="did you mean 'photo'") as caught:
        read_manifest(data, settings_with(image_column="foto"))
    assert "scan: Image(" in str(caught.value)


def test_a_set_without_images_lists_its_columns(tmp_path: Path) -> None:
    data = saved(tmp_path / "set", datasets.Dataset.from_dict({"text": ["a"], "label": [0]}))
    with pytest.raises(DataError, match="there is no image column") as caught:
        read_manifest(data, Settings())
    assert "text: Value('string')" in str(caught.value)
    with pytest.raises(DataError, match="'text' cannot be used"):
        read_manifest(data, settings_with(image_column="text"))


def test_plain_bytes_are_images_where_nothing_else_is(tmp_path: Path) -> None:
    data = saved(tmp_path / "set", datasets.Dataset.from_dict({"raw": [encoded(1), encoded(2)], "label": ["a", "b"]}))
    assert content(read_manifest(data, Settings())) == sorted([(encoded(1), "a", None), (encoded(2), "b", None)])


def test_groups_copies_and_sets_come_from_columns_too(tmp_path: Path) -> None:
    more = {"group": ["p", "p", "q"], "is_augmented": ["yes", "no", ""], "split": ["train", "train", "test"]}
    data = saved(tmp_path / "set", part([(encoded(n), n % 2) for n in range(3)], more=more))
    manifest = read_manifest(data, Settings())
    assert manifest.group == ("p", "p", "q")
    assert manifest.is_augmented == (True, False, None)
    assert manifest.split == ("train", "train", "test")


def test_parts_of_other_names_need_a_set(tmp_path: Path) -> None:
    parts = {"train": part(rows_of(0, 4)), "extra": part(rows_of(9, 2)), "holdout": part(rows_of(20, 4))}
    data = saved(tmp_path / "set", datasets.DatasetDict(parts))
    with pytest.raises(DataError, match="extra, holdout") as caught:
        read_manifest(data, Settings())
    assert "--split-names" in str(caught.value)
    manifest = read_manifest(data, settings_with(split_names={"extra": "none", "holdout": "test"}))
    assert sorted({*(manifest.split or ())}, key=str) == ["test", "train"]
    assert len(manifest) == 8
    with pytest.raises(DataError, match="holdot"):
        read_manifest(data, settings_with(split_names={"holdot": "test"}))
    with pytest.raises(DataError, match="no part"):
        read_manifest(data, settings_with(split_names=dict.fromkeys(parts, "none")))


def test_one_part_is_no_split(tmp_path: Path) -> None:
    data = saved(tmp_path / "set", datasets.DatasetDict(train=part(rows_of(0, 4))))
    assert read_manifest(data, Settings()).split is None


# --- what the `datasets` package loads ------------------------------------------------------------------------------


def image_folders(root: Path) -> Path:
    for name, rows in PARTS.items():
        for number, (data, label) in enumerate(rows):
            file = root / name / ("cat", "dog")[label] / f"{name}{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    return root


def test_files_that_a_set_names_are_read_where_it_lies(tmp_path: Path) -> None:
    root = image_folders(tmp_path / "folders")
    manifest = read_manifest(Path(f"hf:{root}"), Settings())
    sets = {"train": "train", "validation": "val", "test": "test"}
    wanted = [(data, ("cat", "dog")[label], sets[name]) for name, rows in PARTS.items() for data, label in rows]
    assert content(manifest) == sorted(wanted)
    assert manifest.paths[0] == "test/test0.png"


def test_files_elsewhere_are_not_read_unless_they_may_be(tmp_path: Path) -> None:
    (tmp_path / "private.png").write_bytes(encoded(99))
    table = datasets.Dataset.from_dict(
        {"image": [{"bytes": encoded(1), "path": None}, {"bytes": None, "path": str(tmp_path / "private.png")}]}
        | {"label": ["a", "b"]},
        features=datasets.Features(
            {"image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}}
            | {"label": datasets.Value("string")}
        ),
    )
    data = saved(tmp_path / "set", table)
    shut = read_manifest(data, Settings())
    assert [shut.file(row).exists() for row in range(2)] == [True, False]
    open_ = read_manifest(data, settings_with(allow_outside=True))
    assert open_.file(1).read_bytes() == encoded(99)


def test_a_part_cannot_lead_out_of_the_cache(three_parts: Path) -> None:
    """Its name becomes a folder."""
    record = three_parts / "dataset_dict.json"
    (three_parts / "train").rename(three_parts.parent / "elsewhere")
    record.write_text(json.dumps({"splits": ["../elsewhere", "test", "validation"]}))
    with pytest.raises(DataError, match="no folder may have"):
        read_manifest(three_parts, settings_with())


def test_the_token_of_the_hub_is_no_image() -> None:
    from huggingface_hub import constants

    caches = _data_caches()
    assert Path(constants.HF_HUB_CACHE) in caches
    assert not any(Path(constants.HF_TOKEN_PATH).is_relative_to(folder) for folder in caches)


def test_a_link_that_leads_out_of_a_set_is_not_followed(tmp_path: Path) -> None:
    images = image_folders(tmp_path / "set")
    secret = tmp_path / "secret.png"
    inside = sorted(images.rglob("*.png"))[0]
    inside.rename(secret)
    inside.symlink_to(secret)
    manifest = read_manifest(Path(f"hf:{images}"), settings_with())
    missing = [row for row in range(len(manifest)) if not manifest.file(row).is_file()]
    assert len(missing) == 1


def test_parquet_is_loaded_with_its_features(tmp_path: Path) -> None:
    (tmp_path / "pq").mkdir()
    part(PARTS["train"]).to_parquet(str(tmp_path / "pq" / "train.parquet"))
    manifest = read_manifest(Path(f"hf:{tmp_path / 'pq'}"), Settings())
    assert content(manifest) == sorted((data, ("cat", "dog")[label], None) for data, label in PARTS["train"])


def test_a_program_of_a_set_is_refused_and_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(DataError, match="a program of its own, which is never run"):
        read_manifest(Path(f"hf:{folder}"), Settings())
    assert not (tmp_path / "ran").exists()


def test_other_forms_are_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "train.csv").write_text("image,label\na,b\n")
    with pytest.raises(DataError, match="csv"):
        read_manifest(Path(f"hf:{folder}"), Settings())


def test_a_hub_that_is_not_there_is_told_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(DataError, match="hub was not reached"):
        read_manifest(Path("hf:nobody/nothing"), Settings())
    assert time.monotonic() - started < 10
    assert datasets.config.HF_HUB_OFFLINE is False, "the switch is put back"


@pytest.mark.parametrize("name", ["hf:", "hf:a@", "hf:a:b:c", "hf:a@b@c"])
def test_names_are_checked(name: str) -> None:
    with pytest.raises(DataError, match="no name of a data set"):
        parse_hub_name(Path(name))


def test_names_have_a_revision_and_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = parse_hub_name(Path("hf:me/pets@refs/convert/parquet:small"))
    assert (named.name, named.revision, named.config) == ("me/pets", "refs/convert/parquet", "small")
    assert absolute(Path("hf:me/pets@v1:small")) == Path("hf:me/pets@v1:small")
    assert is_hub_name(absolute(Path("hf:me/pets")))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert absolute(Path("hf:./here")) == Path(f"hf:{tmp_path / 'here'}")
    assert absolute(Path("here")) == tmp_path / "here"


# --- a hub ----------------------------------------------------------------------------------------------------------

COMMIT = "a" * 40
#: Reads a set as a process does that was started with the hub's address, and says what it found.
SCRIPT = """
import json, sys
from pathlib import Path
from automl_vision.config import Settings
from automl_vision.data.preparation import read_manifest
found = read_manifest(Path("hf:me/pets"), Settings())
print(json.dumps([found.file(row).read_bytes().hex() for row in range(len(found))] + [sorted(set(found.split))]))
"""


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as loading a set of Parquet files asks for."""

    files: dict[str, bytes]

    def _answer(self) -> None:
        path = self.path.split("?")[0].strip("/")
        entries = [
            {"type": "file", "path": name, "size": len(data), "oid": sha1(data).hexdigest()}
            for name, data in self.files.items()
        ]
        if path.startswith("api/datasets/me/pets/tree/"):
            below = path.removeprefix(f"api/datasets/me/pets/tree/{COMMIT}").strip("/")
            folder = {"type": "directory", "path": "data", "oid": "d" * 40, "size": 0}
            self._send(json.dumps(entries if below else [folder]).encode())
        elif path.startswith("api/datasets/me/pets"):
            siblings = [{"rfilename": name} for name in self.files]
            about = {"id": "me/pets", "sha": COMMIT, "private": False, "gated": False, "tags": [], "siblings": siblings}
            self._send(json.dumps(about).encode())
        elif (name := path.removeprefix(f"datasets/me/pets/resolve/{COMMIT}/")) in self.files:
            self._send(self.files[name])
        else:
            self._send(b"", 404)

    def _send(self, data: bytes, code: int = 200) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if code == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = _answer  # noqa: N815 - names of the base class

    def log_message(self, *_: Any) -> None:
        return


def test_a_set_of_the_hub_is_downloaded_once(tmp_path: Path) -> None:
    """And is there without the hub from then on."""
    files = {}
    for name in ("train", "test"):
        part(PARTS[name]).to_parquet(str(tmp_path / f"{name}.parquet"))
        files[f"data/{name}-00000-of-00001.parquet"] = (tmp_path / f"{name}.parquet").read_bytes()
    hub = HTTPServer(("127.0.0.1", 0), type("Handler", (Hub,), {"files": files}))
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    source = Path(__file__).parents[2] / "src"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "PYTHONPATH": str(source),
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(tmp_path / "home"),
    }

    def read() -> list[Any]:
        ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment)
        assert ended.returncode == 0, ended.stderr
        found: list[Any] = json.loads(ended.stdout)
        return found

    try:
        first = read()
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
    wanted = [data.hex() for name in ("test", "train") for data, _ in PARTS[name]]
    assert first == [*wanted, ["test", "train"]]
    assert read() == first


def test_waiting_for_who_unpacks_the_same_set_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl_vision.data.cache_entries._PATIENCE_SECONDS", 0.05)
    said: list[str] = []
    stop, clock = StopRequest(), Clock(time.monotonic(), 600.0)
    asked = asked_while_waiting(stop, clock)
    of_no_time = asked_while_waiting(StopRequest(), Clock(time.monotonic() - 9.0, 5.0))

    def ask() -> None:
        asked()
        stop.requested = True

    source = Source("key", {}, "image", lambda _: False)
    with FileLock(lock_of(tmp_path, "key")):
        with pytest.raises(Interrupted, match="waiting for another process"):
            unpack(source, tmp_path, None, said.append, ask)
        with pytest.raises(BudgetExhausted, match="another process unpacked"):
            unpack(source, tmp_path, None, said.append, of_no_time)
    assert said == ["Waiting for another process, which unpacks the same data set."] * 2
