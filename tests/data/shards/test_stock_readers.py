"""What is written is read by the readers that others use: Hugging Face's `datasets`, as a stream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from automl_vision.data.decode import open_rgb

datasets = pytest.importorskip("datasets", reason="the package datasets (extra stream) is not installed")
# Its own code leaves archives open.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def stream(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    files = {name: sorted(map(str, original.glob(f"{name}-00*.tar"))) for name in ("train", "val", "test")}
    return datasets.load_dataset("webdataset", data_files=files, streaming=True)


def table_of(shards: Path) -> pd.DataFrame:
    table = pd.read_parquet(shards / "samples.parquet").astype({"shard": str, "split": str})
    return table[table["shard"] != ""]


def test_the_same_samples_come_in_the_same_order(original: Path, images: Path, stream: Any) -> None:
    table = table_of(original)
    for name in ("train", "val", "test"):
        rows = table[table["split"] == name].to_dict("records")
        found = list(stream[name].cast_column("jpg", datasets.Image(decode=False)))
        assert [each["__key__"] for each in found] == [each["member"].partition(".")[0] for each in rows]
        assert [each["json"]["path"] for each in found] == [each["path"] for each in rows]
        for each, row in zip(found, rows, strict=True):
            assert each["jpg"]["bytes"] == (images / row["path"]).read_bytes()


def test_it_decodes_to_the_same_pixels(images: Path, stream: Any) -> None:
    for each in stream["val"]:
        expected = open_rgb(images / each["json"]["path"]).pixels
        assert (pd.Series(list(each["jpg"].convert("RGB").tobytes())) == expected.ravel()).all()


def test_its_state_goes_on_where_ours_does(original: Path, stream: Any) -> None:
    """Ours is a position in the table: what follows a state of theirs is what follows that row."""
    train = stream["train"].cast_column("jpg", datasets.Image(decode=False))
    following = [each["path"] for each in table_of(original).to_dict("records") if each["split"] == "train"]
    reader = iter(train)
    seen = [next(reader)["json"]["path"] for _ in range(7)]
    state = json.loads(json.dumps(train.state_dict()))
    again = stream["train"].cast_column("jpg", datasets.Image(decode=False))
    again.load_state_dict(state)
    assert seen + [each["json"]["path"] for each in again] == following


def test_files_of_several_formats_are_one_kind_of_sample(original: Path) -> None:
    """There are PNGs among the training images, under the ending of the others."""
    members = set(table_of(original)["member"].str.partition(".")[2])
    assert members == {"jpg"} and any(path.endswith(".png") for path in table_of(original)["path"])
