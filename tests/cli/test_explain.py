"""`predict --explain DIR`: one heat map per image, under a name of its own, and a path in every output."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_bundles
import torch
from command import Result, assert_harmless, assert_mistake
from PIL import Image

from automl_vision.bundle import save_bundle
from automl_vision.cli.heat_maps import LONGEST, require_apart, safe_name

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_bundle(small_bundles.several(), path)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures, two of one name, and a file that is none."""
    folder = tmp_path / "images"
    found = sorted(small_bundles.EXAMPLES.rglob("*.png"))[::57][:3]
    for place, file in zip(("a/x.png", "b/x.png", "b/y.png"), found, strict=True):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / place)
    (folder / "b" / "z.png").write_text("no picture")
    return folder


def rows(result: Result, form: str) -> list[dict[str, Any]]:
    if form == "json":
        return [json.loads(line) for line in result.lines()]
    return list(csv.DictReader(io.StringIO(result.out)))


@pytest.mark.parametrize("form", ["json", "csv"])
def test_every_image_gets_a_picture_and_its_path(
    model: Path, pictures: Path, tmp_path: Path, command: Command, form: str
) -> None:
    folder = tmp_path / "maps"
    result = command("predict", model, pictures, "--format", form, "--explain", folder)
    assert result.code == 3
    assert_harmless(result)
    told = [row["heat_map"] for row in rows(result, form)]
    assert told[:3] == [str(folder / name) for name in ("x.png", "x-2.png", "y.png")]
    assert not told[3]
    assert sorted(path.name for path in folder.iterdir()) == ["x-2.png", "x.png", "y.png"]
    for row, path in zip(rows(result, form)[:3], told, strict=False):
        with Image.open(path) as drawn, Image.open(row["path"]) as original:
            assert drawn.size == original.size
            assert np.ptp(np.asarray(drawn).astype(int), axis=2).max() > 20  # colours on grey


def test_the_table_has_the_path_too(model: Path, pictures: Path, tmp_path: Path, command: Command) -> None:
    result = command("predict", model, pictures / "a", pictures / "b" / "z.png", "--explain", tmp_path / "maps")
    assert result.code == 3
    assert result.lines()[0].endswith(f"  {tmp_path / 'maps' / 'x.png'}")
    assert "heat map" not in result.lines()[1]


def test_without_the_option_nothing_changes(model: Path, pictures: Path, command: Command) -> None:
    plain = command("predict", model, pictures / "a", "--format", "json")
    assert "heat_map" not in rows(plain, "json")[0]
    assert "heat_map" not in command("predict", model, pictures / "a", "--format", "csv").out


def test_what_is_there_is_never_overwritten(model: Path, pictures: Path, tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "maps"
    folder.mkdir()
    (folder / "x.png").write_text("mine")
    again = [command("predict", model, pictures / "a", "--format", "json", "--explain", folder) for _ in range(2)]
    assert [Path(rows(each, "json")[0]["heat_map"]).name for each in again] == ["x-2.png", "x-3.png"]
    assert (folder / "x.png").read_text() == "mine"
    assert (folder / "x-2.png").read_bytes() == (folder / "x-3.png").read_bytes()


def test_who_abstains_still_says_where_it_looked(model: Path, pictures: Path, tmp_path: Path, command: Command) -> None:
    options = ("--abstain", "1", "--format", "json", "--explain", tmp_path / "maps")
    (row,) = rows(command("predict", model, pictures / "a", *options), "json")
    assert (row["status"], row["label"]) == ("abstained", None)
    assert Path(row["heat_map"]).is_file()


def test_an_empty_map_is_said_and_not_drawn(pictures: Path, tmp_path: Path, command: Command) -> None:
    bundle = small_bundles.single()
    for name, tensor in bundle.state_dict.items():
        if name.startswith("head."):
            torch.nn.init.zeros_(tensor)
    save_bundle(bundle, tmp_path / "model.pt")
    result = command("predict", tmp_path / "model.pt", pictures / "a", "--explain", tmp_path / "maps")
    assert result.code == 0
    assert result.lines()[0].endswith("no heat map")
    assert "No heat map for 1: nothing in these images speaks for their class." in result.err
    assert list((tmp_path / "maps").iterdir()) == []


def test_an_exported_model_cannot_explain_itself(pictures: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    result = command("predict", tmp_path / "model.onnx", pictures, "--explain", tmp_path / "maps")
    assert_mistake(result, 2, "model.pt")
    assert not (tmp_path / "maps").exists()


def test_heat_maps_do_not_go_among_the_images(model: Path, pictures: Path, command: Command) -> None:
    for folder in (pictures, pictures / "a" / "maps", pictures / "a" / ".." / "maps"):
        assert_mistake(command("predict", model, pictures, "--explain", folder), 2, "--explain")
    assert not (pictures / "maps").exists()


def test_a_folder_that_cannot_be_made_is_a_mistake(
    model: Path, pictures: Path, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "file").write_text("")
    assert_mistake(command("predict", model, pictures / "a", "--explain", tmp_path / "file"), 2, "--explain")


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("photo 1", "photo_1"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..", "image"),
        ("", "image"),
        ("\x1b[31m\udcff", "_31m_"),
        ("катя", "катя"),
        ("a" * 300, "a" * LONGEST),
    ],
)
def test_names_are_safe(stem: str, name: str) -> None:
    safe = safe_name(stem)
    assert safe == name or (stem.startswith("\x1b") and set(safe) <= set("_31m"))
    assert len(f"{safe}-999999.png".encode()) < 255
    assert not safe.startswith(".")


def test_they_do_not_go_where_a_pattern_finds_them_either(model: Path, pictures: Path, command: Command) -> None:
    image = next((pictures / "a").glob("*"))
    for named, folder in (
        (f"{pictures}/a/*", pictures / "a"),
        (f"{pictures}/**/*.png", pictures / "maps"),
        (f"{pictures}/*/*.png", pictures / "maps"),
        (f"{pictures}/*/{image.stem}*.png", pictures / "b" / ".." / "maps"),
        (f"{pictures.parent}/*/**/*", pictures / "maps" / "deep"),
        (f"{pictures}/*", pictures / "maps"),
        (str(image), pictures / "a" / ".." / "a"),
    ):
        assert_mistake(command("predict", model, named, "--explain", folder), 2, "--explain")
    assert not (pictures / "maps").exists()


@pytest.mark.parametrize("pattern", ["*/*.jpg", "a/*.png", "?/*.png", "*/[!mx]*.png", "*.png"])
def test_where_no_pattern_finds_them_they_may_go(pictures: Path, pattern: str) -> None:
    require_apart(pictures / "maps", [f"{pictures}/{pattern}"], [pictures / "a" / "x.png"])
