"""The data stages together: what is refused before anything is decoded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pictures import picture

from automl_vision.config import DataSettings, Settings
from automl_vision.data.preparation import Prepared, decode, prepare, read_manifest
from automl_vision.errors import DataError
from make_smoke_data import make_smoke_data


@pytest.mark.parametrize("name", ["group_regex", "original_regex"])
def test_a_pattern_that_matches_nothing_is_refused_with_a_path_to_look_at(tmp_path: Path, name: str) -> None:
    make_smoke_data(tmp_path)

    def settings(pattern: str) -> Settings:
        return replace(Settings(), data=replace(DataSettings(), **{name: pattern}))

    assert len(read_manifest(tmp_path, settings("([0-9]{4})"))) == 21
    with pytest.raises(DataError, match="matches no image") as caught:
        read_manifest(tmp_path, settings("patient([0-9]+)"))
    assert "circle/0000.png" in str(caught.value.fix)


def prepared(folder: Path, window: str) -> Prepared:
    settings = replace(
        Settings(), data=DataSettings(burst_window=window), machine=replace(Settings().machine, cache=False)
    )
    manifest = read_manifest(folder, settings)
    store, facts = decode(manifest, settings, [16], 1)
    try:
        return prepare(manifest, facts, store, settings)
    finally:
        store.close()


def test_bursts_go_to_one_set_together(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for number in (*range(10), *range(20, 24), *range(30, 34), *range(40, 44), *range(50, 54)):
            picture(tmp_path / label / f"f_{number:03d}.png")
    found = prepared(tmp_path, "1")
    for label in ("a", "b"):
        for start, end in ((0, 10), (20, 24), (30, 34), (40, 44), (50, 54)):
            rows = [found.manifest.paths.index(f"{label}/f_{number:03d}.png") for number in range(start, end)]
            assert len(set(found.split.name[rows])) == 1
    assert set(found.split.name) == {"train", "val", "test"}


def test_a_window_that_leaves_nothing_to_split_is_named(tmp_path: Path) -> None:
    for label in ("a", "b"):
        for number in range(12):
            picture(tmp_path / label / f"f_{number:03d}.png")
    with pytest.raises(DataError, match="too few originals") as caught:
        prepared(tmp_path, "1")
    assert caught.value.fix.endswith("or give a smaller --burst-window than 1")
    assert set(prepared(tmp_path, "").split.name) == {"train", "val", "test"}
