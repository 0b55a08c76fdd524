"""What pictures have in common that as they are have little: edges, what is dim, what is large."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest
from scenes import drawing, scene

from automl_vision.data.lineage.picture import GUISES, Ground, describe_picture
from automl_vision.data.lineage.registration import Registration, lay_over, look_again, register


def solarized(image: np.ndarray, threshold: int) -> np.ndarray:
    return np.where(image >= threshold, 255 - image, image).astype(np.uint8)


def in_all_ways(first: np.ndarray, second: np.ndarray) -> Registration:
    one, other = (describe_picture(np.ascontiguousarray(image)) for image in (first, second))
    ground = Ground(one)
    return look_again(ground, other, lay_over(ground, other, register(one, other)))


@pytest.mark.parametrize("threshold", [96, 128, 160])
@pytest.mark.parametrize("turn", [lambda image: image, lambda image: image[:, ::-1], np.rot90])
def test_a_solarized_picture_is_the_picture(threshold: int, turn) -> None:
    for seed in range(3):
        found = in_all_ways(scene(seed), turn(solarized(scene(seed), threshold)))
        assert found.same, found.detail


def test_only_the_edges_tell() -> None:
    told = []
    for seed in range(6):
        one, other = describe_picture(scene(seed)), describe_picture(solarized(scene(seed), 128))
        ground = Ground(one)
        grey = lay_over(ground, other, register(one, other))
        found = look_again(ground, other, grey)
        assert found.same
        told.append(found.guise == "edges" and not grey.same)
    assert any(told), "else this test would test something else"


@pytest.mark.parametrize("make", [scene, drawing])
def test_strangers_have_other_edges(make) -> None:
    pictures = [describe_picture(make(seed)) for seed in range(8)]
    grounds = [Ground(each) for each in pictures]
    for first, second in combinations(range(8), 2):
        found = register(pictures[first], pictures[second])
        assert not look_again(grounds[first], pictures[second], found).same


def test_nobody_asks_for_the_edges_of_tiny_pictures() -> None:
    one = describe_picture(scene(0, side=48))
    found = register(one, describe_picture(scene(1, side=48)))
    assert look_again(Ground(one), one, found) is found


def test_a_dim_picture_whose_grey_levels_were_spread_is_the_picture() -> None:
    for seed in range(3):
        dim = (20 + 0.1 * scene(seed)).astype(np.uint8)
        for x, y in np.random.default_rng(seed).integers(5, 150, (60, 2)):
            dim[y : y + 3, x : x + 3] = 255  # stars: what is bright decides what a stretched contrast shows
        spread = np.repeat(cv2.equalizeHist(cv2.cvtColor(dim, cv2.COLOR_RGB2GRAY))[..., None], 3, axis=2)
        found = in_all_ways(dim, np.ascontiguousarray(spread[:, ::-1]))
        assert (found.same, found.guise) == (True, "spread"), found.detail


def test_a_guise_is_made_once_and_without_what_was_filled() -> None:
    tilted = cv2.warpAffine(scene(1), cv2.getRotationMatrix2D((80, 80), 20, 1.0), (160, 160))
    picture = describe_picture(tilted)
    assert picture.bare is not None
    for name in GUISES:
        assert picture.in_guise(name) is picture.in_guise(name)
        assert picture.in_guise(name).hidden is not None
    assert picture.in_guise("grey") is picture
