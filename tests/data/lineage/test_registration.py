from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scenes import drawing, scene

from automl_vision.data.lineage.agreement import Agreement
from automl_vision.data.lineage.picture import Ground, describe_picture
from automl_vision.data.lineage.registration import Registration, lay_over, register


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    side = image.shape[0]
    return cv2.warpAffine(image, cv2.getRotationMatrix2D((side / 2, side / 2), degrees, 1.0), (side, side))


def noisy(image: np.ndarray) -> np.ndarray:
    return np.clip(image + np.random.default_rng(1).normal(0, 30, image.shape), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 20])[1], cv2.IMREAD_COLOR)


COPIES = {
    "resaved": (lambda image: image.copy(), "plain"),
    "mirrored": (lambda image: image[:, ::-1], "mirrored"),
    "upside down": (lambda image: image[::-1], "mirrored"),
    "turned by 90": (np.rot90, "plain"),
    "turned by 25": (lambda image: turned(image, 25), "plain"),
    "cropped": (lambda image: image[20:130, 35:150], "plain"),
    "inverted": (lambda image: 255 - image, "inverted"),
    "inverted and mirrored": (lambda image: 255 - image[:, ::-1], "mirrored, inverted"),
    "darker": (lambda image: (image * 0.5).astype(np.uint8), "plain"),
    "squeezed": (lambda image: cv2.resize(image, (160, 100)), "plain"),
    "blurred": (lambda image: cv2.GaussianBlur(image, (0, 0), 2), "plain"),
    "noisy": (noisy, "plain"),
    "jpeg": (jpeg, "plain"),
}


def registered(first: np.ndarray, second: np.ndarray) -> Registration:
    return register(*(describe_picture(np.ascontiguousarray(image)) for image in (first, second)))


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_the_same_picture(name: str) -> None:
    make, variant = COPIES[name]
    for seed in (0, 1):
        found = registered(scene(seed), make(scene(seed)))
        assert found.same, found.detail
        assert found.variant == variant


def test_strangers_of_one_kind_are_not_the_same_picture() -> None:
    pictures = [describe_picture(scene(seed)) for seed in range(12)]
    found = [register(a, b) for at, a in enumerate(pictures) for b in pictures[:at]]
    assert not any(each.same for each in found)


def board(fields: int, shift: int = 0, side: int = 192) -> np.ndarray:
    at = (np.arange(side) + shift) * fields // side
    pattern = ((at[:, None] + at[None, :]) % 2 * 255).astype(np.uint8)
    return np.repeat(pattern[:, :, None], 3, axis=2)


def texture(seed: int) -> np.ndarray:
    """One kind of grain everywhere."""
    grain = np.random.default_rng(seed).integers(0, 256, (192, 192)).astype(np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(grain, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    return np.repeat(smooth[:, :, None], 3, axis=2)


@pytest.mark.parametrize("kind", [drawing, texture])
def test_line_art_and_textures_of_one_kind_stay_apart(kind) -> None:
    pictures = [describe_picture(kind(seed)) for seed in range(10)]
    scores = [register(a, b).score for at, a in enumerate(pictures) for b in pictures[:at]]
    assert max(scores) <= 8.0


def test_crops_of_a_texture_that_do_not_overlap_are_strangers() -> None:
    whole = texture(3)
    assert not registered(whole[:90, :90], whole[100:, 100:]).same


def test_checkerboards_of_other_fields_stay_apart() -> None:
    assert not registered(board(6), board(8)).same
    assert not registered(board(5), board(9)).same


def sign(symbol: str) -> np.ndarray:
    """Road signs in one frame, saved as JPEG, which leaves the same ripples beside the same lines."""
    image = np.full((300, 300, 3), 255, np.uint8)
    cv2.fillPoly(image, [np.array([[150, 5], [295, 150], [150, 295], [5, 150]])], (0, 215, 255), cv2.LINE_AA)
    if symbol == "circle":
        cv2.circle(image, (150, 150), 55, (0, 0, 0), -1, cv2.LINE_AA)
    else:
        cv2.fillPoly(image, [np.array([[150, 75], [225, 190], [75, 190]])], (0, 0, 0), cv2.LINE_AA)
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 93])[1], cv2.IMREAD_COLOR)


def test_two_road_signs_in_one_frame_stay_apart() -> None:
    assert not registered(sign("circle"), sign("triangle")).same


def test_a_shared_watermark_does_not_make_one_picture_of_two() -> None:
    first, second = scene(20), scene(21)
    for image in (first, second):
        image[110:150, 10:150] = 255
        cv2.putText(image, "SAMPLE 42", (14, 140), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (0, 0, 0), 2)
    assert not registered(first, second).same


@pytest.mark.parametrize("value", [0, 127, 255])
def test_a_plain_field_is_nobodys_copy(value: int) -> None:
    plain = np.full((100, 120, 3), value, np.uint8)
    assert registered(plain, plain).score == 0.0
    assert registered(plain, scene(0)).score == 0.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 2), (5, 5), (30, 6000), (2000, 70)])
def test_odd_shapes_are_no_error(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert not registered(image, scene(0)).same


def test_tiny_pictures_need_more_and_never_may_be() -> None:
    small = cv2.resize(scene(0), (48, 48), interpolation=cv2.INTER_AREA)
    found = registered(small, small[:, ::-1])
    assert found.tiny and found.same
    weak = Registration(inliers=13, agreement=Agreement(0.95), tiny=True)
    assert not weak.same and not weak.perhaps
    assert Registration(inliers=13, agreement=Agreement(0.95)).same
    assert Registration(inliers=40, agreement=Agreement(0.7), tiny=True).score == 0.0


def test_threads_find_what_one_finds() -> None:
    pictures = [describe_picture(scene(seed)) for seed in range(3)]
    pictures += [describe_picture(np.ascontiguousarray(turned(scene(seed), 15))) for seed in range(3)]
    pairs = [(a, b) for at, a in enumerate(pictures) for b in pictures[:at]]
    alone = [register(*pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda pair: register(*pair), pairs))
    assert [replace(each, map=None) for each in threaded] == [replace(each, map=None) for each in alone]
    for one, other in zip(threaded, alone, strict=True):
        np.testing.assert_array_equal(one.map, other.map)


def sheet(at: tuple[int, int], *, side: int = 480, ground: int = 255) -> tuple[np.ndarray, np.ndarray]:
    """A small drawing, and the same on a large empty sheet."""
    small = cv2.GaussianBlur(drawing(5, side=140), (0, 0), 0.7)
    small = small if ground == 255 else 255 - small
    large = np.full((side, side, 3), ground, np.uint8)
    large[at[0] : at[0] + 140, at[1] : at[1] + 140] = small
    return small, large


@pytest.mark.parametrize("ground", [0, 255])
@pytest.mark.parametrize("at", [(40, 300), (170, 170), (320, 15)])
def test_a_small_drawing_on_a_large_sheet_is_the_drawing(at: tuple[int, int], ground: int) -> None:
    small, large = sheet(at, ground=ground)
    found = registered(small, large)
    assert found.same, found.detail
    assert found.map is not None
    shrunk = 256 / 480
    left, right = (at[1] + 0.5) * shrunk - 0.5, (at[1] + 139.5) * shrunk - 0.5
    top, bottom = (at[0] + 0.5) * shrunk - 0.5, (at[0] + 139.5) * shrunk - 0.5
    corners = found.map @ np.array([[left, top, 1], [right, top, 1], [left, bottom, 1], [right, bottom, 1]]).T
    expected = [[0, 255, 0, 255], [0, 0, 255, 255]]
    np.testing.assert_allclose(corners[:2] / corners[2], expected, atol=4.0)
    strangers = np.full_like(large, ground)
    strangers[at[0] : at[0] + 140, at[1] : at[1] + 140] = np.abs(drawing(6, side=140).astype(int) - (255 - ground))
    assert not registered(small, strangers).same


@pytest.mark.parametrize("at", [(40, 300), (171, 163), (320, 15)])
def test_a_sheet_is_cut_as_its_mirror_image_is(at: tuple[int, int]) -> None:
    _, large = sheet(at)
    calm = describe_picture(large).calm
    assert min(calm.shape) > 200
    np.testing.assert_array_equal(describe_picture(np.ascontiguousarray(large[:, ::-1])).calm, calm[:, ::-1])
    np.testing.assert_array_equal(describe_picture(np.ascontiguousarray(large[::-1])).calm, calm[::-1])


def test_what_fills_its_frame_is_not_cut() -> None:
    photograph = scene(4, side=256)
    whole = cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY)
    calm = describe_picture(photograph).calm
    assert calm.shape == whole.shape
    assert np.corrcoef(calm.ravel(), whole.ravel())[0, 1] > 0.97
    speck = np.full((300, 200, 3), 255, np.uint8)
    speck[150:158, 90:98] = 0
    assert describe_picture(speck).calm.shape == (256, 171), "too small to stand for the picture"


def test_a_road_sign_without_key_points_stays_apart_too() -> None:
    circle, triangle = describe_picture(sign("circle")), describe_picture(sign("triangle"))
    found = lay_over(Ground(circle), triangle, register(circle, triangle))
    assert not found.same
