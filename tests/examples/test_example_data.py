"""The example data are what their README says, and their generators are deterministic."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fashion_holdout import write_holdout
from make_digits import make_digits
from make_duo import make_duo
from make_fashion import CLASS_NAMES, OPERATIONS, augment, make_fashion
from make_shifted import make_shifted
from make_smoke_data import SHAPES, make_smoke_data

FASHION = Path(__file__).parents[2] / "examples" / "fashion"
SOURCE = Path("/usr/share/datasets/fashion-mnist")
AUGMENTOR = re.compile(r"(?P<label>\w+)_original_(?P<key>\d{6})\.png_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.png")
ALBUMENTATIONS = re.compile(r"(?P<key>\d{6})_aug_[12]\.png")
ORIGINAL = re.compile(r"(?P<key>\d{6})\.png")

needs_source = pytest.mark.skipif(
    not SOURCE.is_dir(), reason="needs Debian's dataset-fashion-mnist (apt-get install dataset-fashion-mnist)"
)


def pixels(folder: Path) -> dict[str, bytes]:
    files = sorted(folder.rglob("*.png"))
    return {str(file.relative_to(folder)): read(file).tobytes() for file in files}


def read(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.asarray(image)


def kinds(label: str) -> dict[str, list[str]]:
    """Kind of file name -> the originals' keys."""
    found: dict[str, list[str]] = {"original": [], "augmentor": [], "albumentations": []}
    patterns = {"original": ORIGINAL, "augmentor": AUGMENTOR, "albumentations": ALBUMENTATIONS}
    for file in (FASHION / label).iterdir():
        matches = {kind: match for kind, each in patterns.items() if (match := each.fullmatch(file.name))}
        assert len(matches) == 1, file
        (kind, match), *_ = matches.items()
        assert match.groupdict().get("label", label) == label
        found[kind].append(match["key"])
    return found


def test_the_folders_are_the_classes() -> None:
    assert sorted(each.name for each in FASHION.iterdir() if each.is_dir()) == sorted(CLASS_NAMES)


@pytest.mark.parametrize("label", CLASS_NAMES)
def test_a_class_has_sixty_originals_and_a_third_have_copies(label: str) -> None:
    found = kinds(label)
    copies = Counter(found["augmentor"] + found["albumentations"])
    assert len(set(found["original"])) == len(found["original"]) == 60
    assert len(copies) == 20
    assert set(copies) <= set(found["original"])
    assert set(copies.values()) <= {1, 2}


def test_both_tools_occur_often_enough_to_matter() -> None:
    found = [kinds(label) for label in CLASS_NAMES]
    assert sum(len(each["augmentor"]) for each in found) > 100
    assert sum(len(each["albumentations"]) for each in found) > 100


def test_no_two_images_are_equal_so_only_names_tell_the_copies() -> None:
    images = pixels(FASHION)
    assert len(set(images.values())) == len(images)


def test_the_readme_tells_the_truth() -> None:
    readme = (FASHION / "README.md").read_text()
    files = sorted(FASHION.rglob("*.png"))
    assert f"{len(files)} PNG files" in readme
    assert f"{len(files) - 600} augmented copies" in readme
    assert "MIT" in readme
    assert "Copyright (c) 2017 Zalando SE" in (FASHION / "LICENSE").read_text()
    assert sum(file.stat().st_size for file in files) < 1_000_000


@needs_source
def test_the_generator_writes_the_same_files_again(tmp_path: Path) -> None:
    make_fashion(SOURCE, tmp_path)
    assert pixels(tmp_path) == pixels(FASHION)


@needs_source
def test_the_holdout_shares_no_image_with_the_example(tmp_path: Path) -> None:
    assert write_holdout(SOURCE, tmp_path, count=203) == 203
    held = pixels(tmp_path)
    assert len(held) == 203
    assert not set(held.values()) & set(pixels(FASHION).values())
    assert {len(list((tmp_path / label).iterdir())) for label in CLASS_NAMES} == {20, 21}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.__name__)
def test_every_operation_changes_a_picture_and_keeps_its_shape(operation) -> None:
    import random

    picture = np.linspace(0, 255, 28 * 28).reshape(28, 28)
    changed = operation(picture, random.Random(1))
    assert changed.shape == picture.shape
    assert not np.allclose(changed, picture)


def test_augmenting_depends_on_the_seed_alone() -> None:
    import random

    picture = (np.arange(28 * 28) % 256).astype(np.uint8).reshape(28, 28)
    first, again, other = (augment(picture, random.Random(seed)) for seed in (1, 1, 2))
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_smoke_data_by_default_are_three_classes_of_seven(tmp_path: Path) -> None:
    files = make_smoke_data(tmp_path)
    assert Counter(file.parent.name for file in files) == {"circle": 7, "square": 7, "triangle": 7}
    assert {read(file).shape for file in files} == {(32, 32, 3)}
    assert len(set(pixels(tmp_path).values())) == 21


def test_smoke_data_can_be_more(tmp_path: Path) -> None:
    files = make_smoke_data(tmp_path, classes=len(SHAPES), images=2, size=16, copies=2)
    assert len(files) == len(SHAPES) * 2 * 3
    assert all(file.is_file() for file in files)
    assert sum("_aug_" in file.name for file in files) == len(SHAPES) * 2 * 2


def test_smoke_data_depend_on_the_seed_alone(tmp_path: Path) -> None:
    for name, seed in {"a": 0, "b": 0, "c": 1}.items():
        make_smoke_data(tmp_path / name, images=2, seed=seed)
    assert pixels(tmp_path / "a") == pixels(tmp_path / "b")
    assert not set(pixels(tmp_path / "a").values()) & set(pixels(tmp_path / "c").values())


@pytest.mark.parametrize("classes", [0, 11])
def test_smoke_data_of_other_than_one_to_ten_classes_are_refused(tmp_path: Path, classes: int) -> None:
    with pytest.raises(ValueError, match=str(classes)):
        make_smoke_data(tmp_path, classes=classes)


def test_duo_has_two_classes_and_two_copies_of_each_original(tmp_path: Path) -> None:
    assert make_duo(tmp_path) == 2 * 120 * 3
    images = pixels(tmp_path)
    assert len(set(images.values())) == len(images)
    originals = {Path(name).name: image for name, image in pixels(FASHION).items()}
    for label in ("long", "short"):
        kept = [file for file in (tmp_path / label).iterdir() if ORIGINAL.fullmatch(file.name)]
        assert len(kept) == 120
        assert all(read(file).tobytes() == originals[file.name] for file in kept)


def test_duo_depends_on_the_seed_alone(tmp_path: Path) -> None:
    for name, seed in {"a": 0, "b": 0, "c": 1}.items():
        make_duo(tmp_path / name, copies=1, seed=seed)
    assert pixels(tmp_path / "a") == pixels(tmp_path / "b")
    shared = set(pixels(tmp_path / "a").values()) & set(pixels(tmp_path / "c").values())
    assert len(shared) == 240, "the originals and nothing else"


def test_what_was_taken_elsewhere_is_of_other_originals_and_looks_otherwise(tmp_path: Path) -> None:
    assert make_shifted(tmp_path / "one") == (400, 200)
    assert make_shifted(tmp_path / "two") == (400, 200)
    assert pixels(tmp_path / "one") == pixels(tmp_path / "two")
    here, elsewhere = (pixels(tmp_path / "one" / place) for place in ("here", "elsewhere"))
    originals = pixels(FASHION)
    assert here.keys() & elsewhere.keys() == set()
    assert here.keys() | elsewhere.keys() == {name for name in originals if ORIGINAL.fullmatch(Path(name).name)}
    assert all(originals[name] == image for name, image in here.items())
    darkest = [min(image) for image in elsewhere.values()]
    assert np.median(darkest) > np.median([min(image) for image in here.values()])
    assert set(elsewhere.values()) & set(originals.values()) == set()


def test_digits_are_those_of_scikit_learn(tmp_path: Path) -> None:
    assert make_digits(tmp_path, images=5) == 50
    assert {folder.name: len(list(folder.iterdir())) for folder in tmp_path.iterdir()} == {str(n): 5 for n in range(10)}
    first = read(tmp_path / "0" / "0000.png")
    assert (first.shape, first.min(), first.max() > 200) == ((8, 8), 0, True)
