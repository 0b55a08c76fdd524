from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.data.lineage.traces import DETECTORS, traces

Pixels = np.ndarray


def picture(seed: int = 0, width: int = 192, height: int = 144) -> Pixels:
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(
        rng.integers(40, 256, (18, 24, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )
    return np.clip(coarse + rng.normal(0, 5, coarse.shape), 0, 255).astype(np.uint8)


def turned(pixels: Pixels, degrees: float, border: int = cv2.BORDER_CONSTANT, fill: int = 0) -> Pixels:
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return cv2.warpAffine(pixels, matrix, (width, height), borderMode=border, borderValue=(fill,) * 3)


def tilted(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    here = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    there = here + np.array([(20, 12), (-30, 8), (-9, -25), (14, -15)], np.float32)
    return cv2.warpPerspective(pixels, cv2.getPerspectiveTransform(here, there), (width, height))


@pytest.mark.parametrize("degrees", [-35.0, -12.0, 10.0, 25.0])
@pytest.mark.parametrize("fill", [0, 128, 255])
def test_corners_that_a_turn_leaves_are_seen(degrees: float, fill: int) -> None:
    assert "wedges" in traces(turned(picture(), degrees, fill=fill))[0]


def test_the_wedges_of_a_tilted_plane_are_seen() -> None:
    assert "wedges" in traces(tilted(picture()))[0]


def test_jpeg_does_not_hide_the_corners() -> None:
    coded = cv2.imencode(".jpg", turned(picture(), 20.0), [cv2.IMWRITE_JPEG_QUALITY, 75])[1]
    assert traces(cv2.imdecode(coded, cv2.IMREAD_COLOR))


def test_repeated_and_mirrored_sides_are_seen() -> None:
    inner = picture()[:, 30:]
    repeated = cv2.copyMakeBorder(inner, 0, 0, 30, 0, cv2.BORDER_REPLICATE)
    mirrored = cv2.copyMakeBorder(inner, 0, 0, 30, 0, cv2.BORDER_REFLECT_101)
    assert traces(repeated) == ("the last lines at a side repeat each other",)
    assert traces(mirrored) == ("a strip at a side mirrors the next one",)


@pytest.mark.parametrize("seed", range(8))
def test_a_photograph_has_none(seed: int) -> None:
    assert traces(picture(seed)) == ()


def drawing(shape: str) -> Pixels:
    page = np.full((160, 200, 3), 255, np.uint8)
    centre = (100, 80)
    if shape == "disc":
        cv2.circle(page, centre, 79, (200, 40, 40), -1)
    elif shape == "card":
        box = cv2.boxPoints((centre, (120.0, 80.0), 20.0)).astype(np.int32)
        cv2.fillConvexPoly(page, box, (40, 90, 200))
    elif shape == "road sign":
        cv2.fillConvexPoly(page, np.array([(100, 0), (199, 80), (100, 159), (0, 80)]), (240, 200, 0))
    elif shape == "letterbox":
        page[:] = picture(3, 200, 160)
        page[:20] = page[-20:] = 0
    elif shape == "roof":
        cv2.fillConvexPoly(page, np.array([(0, 60), (100, 5), (199, 60), (199, 159), (0, 159)]), (90, 60, 30))
    return page


@pytest.mark.parametrize("shape", ["disc", "card", "road sign", "letterbox", "roof", "empty"])
def test_drawings_on_white_and_bars_have_none(shape: str) -> None:
    assert traces(drawing(shape)) == ()


def test_a_night_sky_has_none() -> None:
    sky = np.clip(np.random.default_rng(0).normal(6, 2, (150, 200, 3)), 0, 255)
    sky[40:110, 60:140] += 150 * np.random.default_rng(1).random((70, 80, 1))
    assert traces(sky.astype(np.uint8)) == ()


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 255))
def test_any_size_and_any_plain_colour_is_answered(height: int, width: int, value: int) -> None:
    assert traces(np.full((height, width, 3), value, np.uint8)) == ()


def test_every_detector_is_a_line_for_people() -> None:
    assert all(len(words) > 20 and words[0].islower() for words in DETECTORS)
