from __future__ import annotations

import json
from importlib import resources

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_images

from automl_vision.data.decode import signature_of
from automl_vision.data.lineage.cues import Sample, pair_cues, sample
from automl_vision.data.lineage.originals import (
    MEMBER_CUES,
    NONE_CUES,
    PAIR,
    SINGLE,
    SURE,
    Folder,
    Group,
    Picker,
    folder_of,
    load_picker,
    member_cues,
    none_cues,
)
from automl_vision.data.lineage.picking import group_of
from automl_vision.data.lineage.picture import describe_picture
from automl_vision.data.lineage.registration import Registration, register

Pixels = np.ndarray
NOWHERE = Folder({}, {})


def photograph(number: int = 0) -> Pixels:
    pixels = load_sample_images().images[number]
    return cv2.resize(pixels, (400, 267), interpolation=cv2.INTER_AREA)


def turned(pixels: Pixels, degrees: float) -> Pixels:
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return cv2.warpAffine(pixels, matrix, (width, height))


def as_png(pixels: Pixels) -> Sample:
    data = bytes(cv2.imencode(".png", pixels[..., ::-1])[1])
    return sample(pixels, describe_picture(pixels), signature_of(data), len(data))


def probabilities(*pictures: Pixels) -> np.ndarray:
    """All saved alike, so that pixels alone must tell."""
    return load_picker().probabilities(group_of([as_png(np.ascontiguousarray(each)) for each in pictures]), NOWHERE)


def as_jpeg(pixels: Pixels, quality: int) -> Sample:
    coded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].copy()
    return sample(decoded, describe_picture(decoded), signature_of(bytes(coded)), len(coded))


def spoilt(pixels: Pixels) -> list[Pixels]:
    """Copies that have all lost something."""
    noise = np.random.default_rng(0).normal(0, 14, pixels.shape)
    height, width = pixels.shape[:2]
    return [
        turned(cv2.GaussianBlur(pixels, (0, 0), 1.2), -8.0),
        turned(cv2.resize(pixels[30:-30, 40:-50], (width, height)), 17.0),
        turned(pixels, 14.0),
        turned(pixels[:, ::-1], -22.0),
        cv2.GaussianBlur(pixels, (0, 0), 2.0),
        np.clip(turned(pixels, 9.0) + noise, 0, 255).astype(np.uint8),
    ]


@pytest.mark.parametrize("number", [0, 1])
def test_turned_and_blurred_copies_in_files_of_their_own_give_their_original_away(number: int) -> None:
    pixels = photograph(number)
    members = [*(as_jpeg(each, 75) for each in spoilt(pixels)), as_jpeg(pixels, 92)]
    found = load_picker().probabilities(group_of(members), NOWHERE)
    assert int(found.argmax()) == len(members) - 1
    assert found.max() >= SURE


@pytest.mark.parametrize("number", [0, 1])
def test_turned_and_blurred_copies_point_at_their_original_where_only_pixels_tell(number: int) -> None:
    pixels = photograph(number)
    found = probabilities(*spoilt(pixels), pixels)
    assert int(found.argmax()) == len(found) - 1
    assert found.max() > 0.5


@pytest.mark.parametrize("number", [0, 1])
def test_without_the_original_nobody_is_named(number: int) -> None:
    assert probabilities(*spoilt(photograph(number))).max() < SURE


@pytest.mark.parametrize("number", [0, 1])
def test_mirror_images_stay_unsure(number: int) -> None:
    pixels = photograph(number)
    assert probabilities(pixels, pixels[:, ::-1]).max() < SURE
    assert probabilities(pixels, pixels[:, ::-1], pixels[::-1], pixels[::-1, ::-1]).max() < SURE


def test_one_image_is_no_group() -> None:
    assert probabilities(photograph()).tolist() == [0.0]


def test_the_shipped_weights_say_where_they_come_from_and_are_small() -> None:
    file = resources.files("automl_vision.data.lineage").joinpath("original_picker.json")
    assert "fitting/original_picker.py" in load_picker().fitted
    assert len(file.read_bytes()) < 100_000


def test_weights_survive_json() -> None:
    picker = load_picker()
    again = Picker.from_dict(json.loads(json.dumps(picker.to_dict())))
    group = random_group(np.random.default_rng(0), 4)
    assert np.allclose(picker.probabilities(group, NOWHERE), again.probabilities(group, NOWHERE), atol=1e-3)


def random_group(rng: np.random.Generator, n: int) -> Group:
    pairs = rng.normal(0, 2, (n, n, len(PAIR)))
    unseen = rng.random((n, n)) < 0.3
    pairs[unseen | unseen.T | np.eye(n, dtype=bool)] = np.nan
    writers = tuple(rng.choice(["a", "b", "c"], n).tolist())
    return Group(rng.normal(0, 2, (n, len(SINGLE))), pairs, writers, tuple(rng.choice(["8x8", "9x8"], n).tolist()))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9))
def test_probabilities_sum_to_at_most_one_and_do_not_depend_on_the_order(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    group, folder = random_group(rng, n), folder_of([("a", "8x8")], [("b", "9x8"), ("b", "8x8")])
    found = load_picker().probabilities(group, folder)
    assert (found >= 0).all()
    assert found.sum() <= 1 + 1e-9
    order = rng.permutation(n)
    shuffled = Group(
        group.single[order],
        group.pairs[np.ix_(order, order)],
        tuple(group.writers[at] for at in order),
        tuple(group.sizes[at] for at in order),
    )
    assert np.allclose(load_picker().probabilities(shuffled, folder), found[order], atol=1e-9)


def test_cues_have_the_names_they_are_said_to_have() -> None:
    group = random_group(np.random.default_rng(3), 3)
    assert member_cues(group, NOWHERE).shape == (3, len(MEMBER_CUES))
    assert none_cues(group).shape == (len(NONE_CUES),)
    assert len(set(MEMBER_CUES)) == len(MEMBER_CUES)


def directed(first: Pixels, second: Pixels) -> tuple[dict[str, float], dict[str, float]]:
    one, other = as_png(np.ascontiguousarray(first)), as_png(np.ascontiguousarray(second))
    cues = pair_cues(one, other, register(one.picture, other.picture))
    return tuple(dict(zip(PAIR, each.tolist(), strict=True)) for each in cues)


def test_the_whole_picture_shows_more_than_its_part() -> None:
    pixels = photograph()
    whole, part = directed(pixels, pixels[40:220, 60:330])
    assert whole["shows more"] > 0.08  # the rest of what it shows alone is a plain sky
    assert part["shows more"] < 0.02


def test_black_corners_are_filled_and_mirrored_ones_are_its_own() -> None:
    pixels = photograph()
    original, black = directed(pixels, turned(pixels, 20.0))
    assert black["filled flat"] > 0.05 > original["filled flat"]
    padded = cv2.copyMakeBorder(pixels, 40, 40, 40, 40, cv2.BORDER_REFLECT_101)
    original, mirrored = directed(pixels, padded)
    assert mirrored["filled by its own"] > 0.1 > original["filled by its own"]


def test_blur_erasing_and_grey_point_to_the_copy() -> None:
    pixels = photograph()
    original, blurred = directed(pixels, cv2.GaussianBlur(pixels, (0, 0), 2.5))
    assert original["sharper"] > 0.2 > -0.2 > blurred["sharper"]
    erased = pixels.copy()
    erased[60:200, 100:260] = 128
    original, copy = directed(pixels, erased)
    assert copy["erased"] > 0.05 > original["erased"]
    grey = np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    original, copy = directed(pixels, grey)
    assert original["colours unexplained"] > copy["colours unexplained"]


def test_pictures_that_were_not_laid_over_each_other_have_no_cues() -> None:
    one = as_png(photograph())
    with pytest.raises(ValueError, match="not laid over"):
        pair_cues(one, one, Registration())
