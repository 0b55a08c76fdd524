"""What augmentation lays over a picture is found, and painted over."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import clouds, drawing, scene

from automl_vision.data.lineage.fills import find_fills, painted_over
from automl_vision.data.lineage.picture import Ground, describe_picture
from automl_vision.data.lineage.registration import lay_over, register

SIDE = 160


def turned(image: np.ndarray, degrees: float, fill: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture, and where it was filled."""
    onto = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), degrees, 1.0)
    own = cv2.warpAffine(np.full((SIDE, SIDE), 255, np.uint8), onto, (SIDE, SIDE))
    return cv2.warpAffine(image, onto, (SIDE, SIDE), borderValue=(fill, fill, fill)), own < 255


def framed(image: np.ndarray, fill: int) -> tuple[np.ndarray, np.ndarray]:
    """Zoomed out."""
    small = cv2.resize(image, (100, 90), interpolation=cv2.INTER_AREA)
    whole, hidden = np.full_like(image, fill), np.ones((SIDE, SIDE), np.bool_)
    whole[30:120, 20:120], hidden[30:120, 20:120] = small, False
    return whole, hidden


def shifted(image: np.ndarray, fill: int) -> tuple[np.ndarray, np.ndarray]:
    whole, hidden = np.full_like(image, fill), np.ones((SIDE, SIDE), np.bool_)
    whole[:, 30:], hidden[:, 30:] = image[:, :-30], False
    return whole, hidden


def erased(image: np.ndarray, fill: int) -> tuple[np.ndarray, np.ndarray]:
    whole, hidden = image.copy(), np.zeros((SIDE, SIDE), np.bool_)
    for rows, columns in ((slice(20, 50), slice(90, 130)), (slice(100, 120), slice(40, 60))):
        whole[rows, columns], hidden[rows, columns] = fill, True
    return whole, hidden


FILLED = {
    "turned by 15": lambda image, fill: turned(image, 15, fill),
    "turned by -40": lambda image, fill: turned(image, -40, fill),
    "zoomed out": framed,
    "shifted": shifted,
    "erased": erased,
}


@pytest.mark.parametrize("fill", [0, 127, 255])
@pytest.mark.parametrize("how", FILLED)
def test_fills_are_found_where_they_are(how: str, fill: int) -> None:
    for seed in (0, 2, 5):  # which show little of these greys themselves
        image, hidden = FILLED[how](scene(seed), fill)
        found = find_fills(cv2.imdecode(cv2.imencode(".jpg", image)[1], cv2.IMREAD_COLOR))
        assert found is not None
        assert found[hidden].mean() > 0.95
        kept = cv2.dilate(hidden.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
        assert found[kept].mean() < 0.03


@pytest.mark.parametrize("make", [scene, clouds, drawing])
def test_what_is_the_pictures_own_is_seldom_taken_for_a_fill(make) -> None:
    assert sum(find_fills(make(seed)) is not None for seed in range(30)) <= 4


def test_a_tiny_picture_is_left_alone() -> None:
    assert find_fills(turned(scene(0), 20, 0)[0][:40, :40]) is None


@given(st.integers(0, 2**32 - 1), st.integers(0, 255))
@settings(max_examples=40, deadline=None)
def test_painting_over_changes_nothing_else_and_adds_no_extremes(seed: int, level: int) -> None:
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 256, (int(rng.integers(9, 60)), int(rng.integers(9, 60))), dtype=np.uint8)
    hidden = rng.random(grey.shape) < rng.uniform(0, 0.9)
    hidden[0, 0] = False
    painted = painted_over(grey, hidden)
    np.testing.assert_array_equal(painted[~hidden], grey[~hidden])
    assert int(painted.min()) >= int(grey[~hidden].min()) - 1
    assert int(painted.max()) <= int(grey[~hidden].max()) + 1
    even = np.full_like(grey, level)
    np.testing.assert_allclose(painted_over(np.where(hidden, 255 - even, even), hidden).astype(int), even, atol=1)


def star(*, ground: int = 255) -> np.ndarray:
    """A pale thing on a sheet: beside black corners nothing of it is left to see."""
    image = np.full((SIDE, SIDE, 3), ground, np.uint8)
    angles = np.arange(10) * np.pi / 5 + 0.3
    radii = np.where(np.arange(10) % 2, 22, 60)
    corners = np.stack([80 + radii * np.cos(angles), 84 + radii * np.sin(angles)], axis=1)
    cv2.fillPoly(image, [corners.astype(np.int32)], (255, 250, 160))
    return cv2.GaussianBlur(image, (0, 0), 2)


@pytest.mark.parametrize("how", ["turned by 15", "turned by -40", "zoomed out", "shifted"])
def test_a_pale_drawing_beside_black_is_the_drawing(how: str) -> None:
    copy = FILLED[how](star(), 0)[0]
    one, other = describe_picture(star()), describe_picture(copy)
    assert one.bare is None
    assert other.bare is not None
    found = lay_over(Ground(one), other, register(one, other))
    assert found.same, found.detail


def test_strangers_with_the_same_fills_stay_strangers() -> None:
    for fill in (0, 255):
        pictures = [describe_picture(erased(turned(scene(seed), 20, fill)[0], fill)[0]) for seed in range(5)]
        assert all(each.bare is not None for each in pictures)
        for at, first in enumerate(pictures):
            ground = Ground(first)
            for second in pictures[:at]:
                assert not lay_over(ground, second, register(first, second)).same
