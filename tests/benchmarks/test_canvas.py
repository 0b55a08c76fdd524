"""The canvas benchmark: arms that differ in their crops alone, sets that are not square, an interval that holds."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.special import ndtr

import canvas
from automl_vision.data.preprocess import MIDDLE, Preprocessing, square
from automl_vision.models.classifier import build_classifier
from automl_vision.runtime import Runtime
from automl_vision.training import augment
from automl_vision.training.loop import Trainer, TrainingData
from canvas import ARMS, Cut, Pictures, boxes_with_aspect, difference, open_pictures, recipe_of
from canvas_sets import SETS, _boxes, write_set
from photographs import photograph

CPU = Runtime(torch.device("cpu"), None, 1)
SIZE = 32


def write_pictures(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    """`folder/{train,test}/class_k/n.png`, one picture of each size per class."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for label in ("class_0", "class_1"):
            inner = folder / part / label
            inner.mkdir(parents=True)
            for number, (width, height) in enumerate(sizes):
                photograph(width, height, rng).save(inner / f"{number}.png")
    return folder


def shape(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


# --- sets ------------------------------------------------------------------------------------------------------------


def test_tiles_are_dealt_to_both_parts_and_are_not_square(tmp_path: Path) -> None:
    source = tmp_path / "photographs"
    source.mkdir()
    for name in ("one", "two"):
        photograph(900, 700, np.random.default_rng(len(name))).save(source / f"{name}.jpg")
    count = write_set("tiles", source, tmp_path / "out", most=20)
    files = sorted((tmp_path / "out").rglob("*.jpg"))
    assert count == len(files) == 20
    assert {file.relative_to(tmp_path / "out").parts[:2] for file in files} == {
        (part, name) for part in ("train", "test") for name in ("one", "two")
    }
    shapes = [shape(file) for file in files]
    assert all(0.5 < width / height < 2 for width, height in shapes)
    assert len({width / height for width, height in shapes}) > 10


@given(st.integers(120, 900), st.integers(120, 900), st.integers(0, 99))
def test_tiles_of_a_photograph_share_no_pixel(width: int, height: int, seed: int) -> None:
    taken = np.zeros((height, width), dtype=int)
    for left, top, right, bottom in _boxes(width, height, np.random.default_rng(seed)):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        taken[top:bottom, left:right] += 1
    assert taken.max() <= 1


def test_drawings_that_are_square_or_equal_are_left_out(tmp_path: Path) -> None:
    source, rng = tmp_path / "png", np.random.default_rng(0)
    (source / "animals").mkdir(parents=True)
    (source / "shapes").mkdir()
    for number in range(45):
        drawing = Image.fromarray(rng.integers(256, size=(30, 60, 3), dtype=np.uint8))
        drawing.save(source / "animals" / f"wide_{number}.png")
        drawing.save(source / "animals" / f"again_{number}.png")
        drawing.save(source / "shapes" / f"{number}.png")
        drawing.resize((31, 30)).save(source / "animals" / f"square_{number}.png")
    assert write_set("clipart", source, tmp_path / "out", most=1000) == 45
    assert {file.parent.name for file in (tmp_path / "out").rglob("*.png")} == {"animals"}
    assert len(list((tmp_path / "out" / "test" / "animals").iterdir())) == 30


def test_garments_are_whole_and_keep_their_part(tmp_path: Path) -> None:
    for part, count in (("train", 6), ("t10k", 4)):
        images = np.full((count, 28, 28), 255, dtype=np.uint8)
        with gzip.open(tmp_path / f"{part}-images-idx3-ubyte.gz", "wb") as file:
            file.write(bytes(16) + images.tobytes())
        with gzip.open(tmp_path / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(bytes(8) + bytes(count))
    assert write_set("garments", tmp_path, tmp_path / "out", most=5) == 5 + 4
    files = {part: list((tmp_path / "out" / part / "t_shirt").iterdir()) for part in ("train", "test")}
    assert {part: len(those) for part, those in files.items()} == {"train": 5, "test": 4}
    shapes = [shape(file) for those in files.values() for file in those]
    assert all(1.3 < max(sides) / min(sides) < 1.8 for sides in shapes)


def test_a_set_is_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        write_set(next(iter(SETS)), tmp_path, tmp_path, most=1)


# --- crops -----------------------------------------------------------------------------------------------------------


def test_the_arms_crop_what_the_product_crops() -> None:
    assert (canvas.AREA, canvas.ASPECT) == (augment._AREA, augment._ASPECT)


@given(st.integers(0, 999), st.floats(0.3, 3.0))
def test_an_aspect_holds_in_the_original(seed: int, aspect: float) -> None:
    side, aspects = 1000, torch.full((50,), aspect)
    boxes = boxes_with_aspect(torch.rand(4, 50, generator=torch.Generator().manual_seed(seed)), side, aspects)
    top, left, height, width = boxes.double().unbind(1)
    assert bool((torch.minimum(top, left) >= 0).all())
    assert bool((torch.maximum(top + height, left + width) <= side).all())
    in_original = aspect * width / height
    assert bool(((in_original > 4 / 5 - 0.01) & (in_original < 5 / 4 + 0.01)).all())
    touching = torch.maximum(height, width) == side
    assert bool((touching | (height * width > 0.59 * side**2)).all())


def trainer(kind: type[Trainer], pictures: Pictures) -> Trainer:
    rows = pictures.rows("train")
    data = TrainingData(
        canvas.store_for(kind, pictures), rows, pictures.labels(rows), rows[:2], pictures.labels(rows[:2]), 2
    )
    made = kind(
        replace(recipe_of("mobilenetv3_small_100", SIZE, 1), batch_size=4),
        data,
        build_classifier("mobilenetv3_small_100", 2, resolution=SIZE),
        Preprocessing(size=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3),
        CPU,
        lambda _labels, _scores: 0.0,
    )
    if isinstance(made, Cut):
        made.pictures = pictures
    return made


def batch(arm: str, pictures: Pictures) -> tuple[torch.Tensor, torch.Tensor]:
    return trainer(ARMS[arm].trainer, pictures)._batch(0, torch.arange(len(pictures.rows("train"))))


def test_all_arms_see_the_same_images_in_batches_of_one_form(tmp_path: Path) -> None:
    pictures = open_pictures(write_pictures(tmp_path / "set", [(80, 50), (50, 70)]), SIZE, None, 1, middles=True)
    wanted = batch("ours", pictures)
    for arm in ARMS:
        images, targets = batch(arm, pictures)
        assert (images.shape, images.dtype) == (wanted[0].shape, torch.uint8)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(targets, wanted[1])
        assert abs(float(images.float().mean() - wanted[0].float().mean())) < 15


def test_where_the_file_is_the_canvas_the_same_crops_come_out(tmp_path: Path) -> None:
    """Boxes and flips are those of the product, so that nothing but the arm's own difference is measured."""
    pictures = open_pictures(write_pictures(tmp_path / "set", [(64, 64)] * 3), SIZE, None, 1, middles=True)
    assert pictures.store.plane_for(math.ceil(1.15 * SIZE)) == 64
    ours = batch("ours", pictures)[0].int()
    for arm in ("squashed from file", "larger canvas"):
        assert int((batch(arm, pictures)[0].int() - ours).abs().max()) <= 2, arm
    assert torch.equal(batch("middle", pictures)[0].int(), ours)


def test_resize_and_centre_crop_shows_the_middle(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "set", [(50, 70)])
    pixels = np.zeros((40, 120, 3), dtype=np.uint8)
    pixels[:, 40:80] = 200
    Image.fromarray(pixels).save(folder / "test" / "class_0" / "0.png")
    pictures = open_pictures(folder, SIZE, None, 1)
    (middle,) = canvas.TESTS["middle"](pictures, pictures.rows("test"))
    for shown in (pictures.centred, middle):
        assert shown.shape == (2, 3, SIZE, SIZE)
        assert int(shown[0, :, :, 2:-2].min()) == 200


def test_the_arm_of_middles_trains_and_is_tested_on_squares_that_are_deployed_so(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "set", [(80, 50), (51, 70)])
    pictures = open_pictures(folder, SIZE, None, 1, middles=True)
    rows = pictures.rows("test")
    (shown,) = canvas.TESTS[ARMS["middle"].test](pictures, rows)
    originals = [np.asarray(pictures.opened(row)) for row in rows.tolist()]
    expected = canvas.stacked([square(pixels, SIZE, MIDDLE) for pixels in originals])
    assert torch.equal(shown, expected)
    assert canvas.store_for(ARMS["middle"].trainer, pictures).resize == MIDDLE
    assert canvas.store_for(ARMS["ours"].trainer, pictures) is pictures.store
    with pytest.raises(ValueError, match="needs squares of the middles"):
        canvas.store_for(ARMS["middle"].trainer, replace(pictures, middles=None))


def test_the_row_auto_is_what_each_seed_chose(tmp_path: Path) -> None:
    ours, middle = np.array([True, False]), np.array([False, True])
    results = {"set": {seed: {"ours": ours, "middle": middle} for seed in range(3)}}
    (tmp_path / "auto").mkdir()
    for seed, chosen in enumerate(["middle", "squash"]):
        (tmp_path / "auto" / f"set-{seed}.json").write_text(json.dumps({"chosen": chosen}))
    by_seed = canvas.with_auto(results, tmp_path)["set"]
    assert by_seed[0]["auto"] is middle and by_seed[1]["auto"] is ours
    assert "auto" not in by_seed[2]
    assert [row["seeds"] for row in canvas.table(results) if row["arm"] == "auto"] == [2]


@given(st.floats(0.2, 5.0))
def test_a_middle_is_a_square_of_the_original_and_as_large_as_can_be(aspect: float) -> None:
    top, left, height, width = canvas.middle_boxes(1000, torch.tensor([aspect])).double().unbind(1)
    assert aspect * width / height == pytest.approx(1, abs=0.01)
    assert max(height, width) == 1000
    assert abs(1000 - height - 2 * top) <= 1
    assert abs(1000 - width - 2 * left) <= 1


# --- the interval ----------------------------------------------------------------------------------------------------


def held(rng: np.random.Generator, of_seed: float, of_image: float, seeds: int = 5, images: int = 400) -> bool:
    """Whether the interval of one simulated benchmark holds what other seeds say of other images."""
    easy, level = of_image * rng.standard_normal(images), {"ours": 1.3, "theirs": 1.2}
    right = {
        arm: each + easy + of_seed * rng.standard_normal((seeds, 1)) + 0.5 * rng.standard_normal((seeds, images)) > 0
        for arm, each in level.items()
    }
    share = {arm: ndtr(each / math.hypot(of_image, of_seed, 0.5)) for arm, each in level.items()}
    found = difference(right["ours"], right["theirs"])
    return bool(found.low <= 100 * (share["ours"] - share["theirs"]) <= found.high)


@pytest.mark.parametrize(("of_seed", "of_image"), [(0.0, 1.0), (0.1, 1.0), (0.3, 0.5)])
def test_the_interval_holds_the_difference_of_other_seeds_and_images(of_seed: float, of_image: float) -> None:
    rng = np.random.default_rng(0)
    assert np.mean([held(rng, of_seed, of_image) for _ in range(400)]) >= 0.93


def test_the_sign_is_ours_minus_theirs_and_nothing_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    theirs = rng.random((4, 500)) < 0.7
    ours = theirs | (rng.random((4, 500)) < 0.2)
    found = difference(ours, theirs)
    assert found.low > 3
    assert found.mean == pytest.approx(100 * (ours.mean() - theirs.mean()))
    assert found.verdict == "costs less than 0.3"
    assert difference(theirs, ours).verdict == "costs more than 0.3"
    nothing = difference(theirs, theirs)
    assert (nothing.low, nothing.mean, nothing.high) == (0, 0, 0)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_trains_each_seed_once_and_prints_a_row_per_arm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_pictures(tmp_path / "set", [(60, 40), (40, 60), (50, 80), (90, 50)]), tmp_path / "out"
    line = ["--data", str(data), "--out", str(out), "--json", str(tmp_path / "table.json"), "--seeds", "2"]
    line += ["--backbone", "mobilenetv3_small_100", "--no-pretrained", "--size", str(SIZE), "--epochs", "1"]
    canvas.main([*line, "--threads", "1"])
    printed = capsys.readouterr().out
    rows = json.loads((tmp_path / "table.json").read_text())
    assert [(row["arm"], row["seeds"], row["images"]) for row in rows] == [(arm, 2, 8) for arm in ARMS]
    assert rows[0]["ours_minus"] is None
    for row in rows[1:]:
        assert row["ours_minus"]["mean"] == pytest.approx(100 * (rows[0]["accuracy"] - row["accuracy"]))
        assert f"| set | {row['arm']} | 2 | 8 | {row['accuracy']:.4f} |" in printed
    before = {file: file.stat().st_mtime_ns for file in out.glob("*.json")}
    assert len(before) == 2
    canvas.main([*line, "--threads", "1", "--auto"])
    asked, _, shown = capsys.readouterr().out.partition("| set | arm |")
    assert asked.count("auto chooses Networks see the whole") == 2, "no features without pretrained weights"
    assert "| set | auto | 2 | 8 |" in shown
    assert {file: file.stat().st_mtime_ns for file in out.glob("*.json")} == before
