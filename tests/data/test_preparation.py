"""The data stages together: what is refused before anything is decoded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pictures import picture
from PIL import Image

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
    assert caught.value.fix.endswith("or give a smaller --burst-window than 1, or none")
    assert set(prepared(tmp_path, "").split.name) == {"train", "val", "test"}


def film(folder: Path, frames: int, shuffle: bool) -> None:
    rng = np.random.default_rng(int(shuffle))
    made = np.clip(128 + rng.normal(0, 6, (frames, 16, 16)).cumsum(axis=0), 0, 255).astype(np.uint8)
    folder.mkdir(parents=True)
    for number, grey in enumerate(rng.permutation(made) if shuffle else made):
        Image.fromarray(grey).resize((40, 40)).save(folder / f"f_{number:03d}.png")


def test_files_that_look_like_frames_are_told_until_a_window_is_given(tmp_path: Path) -> None:
    film(tmp_path / "a", 60, shuffle=False)
    film(tmp_path / "b", 60, shuffle=True)
    told = [each for each in prepared(tmp_path, "").audit.findings if each.kind == "looks_like_bursts"]
    assert len(told) == 1
    assert "in 1 of 2 classes with running numbers ('a')" in told[0].message
    assert "--burst-window 5" in told[0].fix
    for number in (10, 20, 30, 40, 50):  # cuts
        (tmp_path / "a" / f"f_{number:03d}.png").unlink()
        (tmp_path / "b" / f"f_{number:03d}.png").unlink()
    assert "looks_like_bursts" not in {each.kind for each in prepared(tmp_path, "1").audit.findings}
