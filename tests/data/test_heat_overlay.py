"""A heat map over its image: hot is bright, cold is the image, whatever its aspect."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from automl_vision.data.heat_overlay import COLOURS, DIMMED, overlay
from automl_vision.data.preprocess import MIDDLE, fitted, png, square, stretched

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def test_the_colours_are_infernos_and_grow_lighter() -> None:
    inferno = mpl.colormaps["inferno"](np.linspace(0.25, 1, len(COLOURS)))[:, :3] * 255
    np.testing.assert_allclose(COLOURS, inferno, atol=0.6)
    assert (np.diff(COLOURS @ LUMINANCE) > 0).all()


@pytest.mark.parametrize(("height", "width"), [(40, 120), (120, 40), (64, 64), (1, 300)])
def test_a_place_of_the_square_is_the_same_place_of_the_image(height: int, width: int) -> None:
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, -max(1, width // 4) :] = 255
    heat = square(pixels, 32)[..., 0].astype(np.float32) / 255
    drawn = overlay(pixels, heat)
    assert drawn.shape == pixels.shape
    hot = drawn.astype(int).sum(axis=2)
    assert hot[:, -1].min() > hot[:, : width // 2].max()
    np.testing.assert_allclose(stretched(heat, height, width)[:, -1], 1, atol=0.05)


def test_a_map_of_the_middle_lies_over_the_middle() -> None:
    pixels = np.full((100, 300, 3), 128, dtype=np.uint8)
    heat = np.ones((8, 8), dtype=np.float32)
    drawn = overlay(pixels, heat, MIDDLE).astype(int)
    whole = overlay(pixels, heat).astype(int)
    np.testing.assert_array_equal(drawn[:, 100:200], whole[:, 100:200])
    assert (drawn[:, :100].std(axis=2) == 0).all() and (drawn[:, 200:].std(axis=2) == 0).all(), "grey beside it"


@settings(deadline=None)
@given(
    arrays(np.uint8, (5, 9, 3), elements=st.integers(0, 255)),
    arrays(np.float32, (4, 4), elements=st.floats(0, 1, width=32)),
)
def test_any_image_takes_any_map(pixels: np.ndarray, heat: np.ndarray) -> None:  # type: ignore[type-arg]
    drawn = overlay(pixels, heat)
    assert drawn.dtype == np.uint8
    empty = overlay(pixels, np.zeros_like(heat))
    assert (empty == empty[..., :1]).all()  # grey
    assert empty.max() <= round(DIMMED * 255)


def test_the_hottest_place_is_the_brightest_on_black_and_on_white() -> None:
    heat = np.zeros((8, 8), dtype=np.float32)
    heat[2:4, 5:7] = 1
    for shade in (0, 128, 255):
        drawn = overlay(np.full((64, 64, 3), shade, dtype=np.uint8), heat) @ LUMINANCE
        row, column = np.unravel_index(drawn.argmax(), drawn.shape)
        assert (row // 8, column // 8) in {(2, 5), (2, 6), (3, 5), (3, 6)}


def test_pictures_are_made_smaller_and_never_larger() -> None:
    pixels = np.zeros((100, 400, 3), dtype=np.uint8)
    assert fitted(pixels, 200).shape == (50, 200, 3)
    assert fitted(pixels, 1000).shape == (100, 400, 3)
    assert png(pixels).startswith(b"\x89PNG\r\n")
