from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import clouds, scene

from automl_vision.data.lineage.keypoints import (
    VARIANTS,
    _likeness_in_all_variants,
    find_points,
    fits,
    plausible,
)

HEIGHT, WIDTH = 120, 200


def linear(a: float, b: float, c: float, d: float) -> np.ndarray:
    return np.array([[a, b, 7.0], [c, d, -3.0], [0.0, 0.0, 1.0]])


def horizon(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [x, y, 1.0]])


def test_variants_undo_themselves() -> None:
    for order in VARIANTS.values():
        assert np.array_equal(order[order], np.arange(128))


@settings(deadline=None, max_examples=25)
@given(ours=st.integers(1, 400), theirs=st.integers(1, 400), seed=st.integers(0, 2**32 - 1))
def test_likeness_in_sums_and_differences_is_that_of_each_variant(ours: int, theirs: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = (random.random((count, 128), dtype=np.float32) for count in (ours, theirs))
    found = {name: each.copy() for name, each in _likeness_in_all_variants(first, second).items()}
    assert list(found) == list(VARIANTS)
    for name, order in VARIANTS.items():
        assert np.allclose(found[name], first @ second[:, order].T, rtol=1e-5)


def test_threads_do_not_write_into_each_others_likeness() -> None:
    random = np.random.default_rng(0)
    pairs = [tuple(random.random((200, 128), dtype=np.float32) for _ in range(2)) for _ in range(40)]

    def plain(pair: tuple[np.ndarray, ...]) -> bool:
        likeness = _likeness_in_all_variants(*pair)
        return all(np.allclose(likeness["plain"], pair[0] @ pair[1].T, rtol=1e-5) for _ in range(5))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(plain, pairs))


@given(
    scale=st.floats(0.26, 3.9),
    angle=st.floats(0, 2 * np.pi),
    mirrored=st.booleans(),
    shift=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
)
def test_what_people_do_to_pictures_is_plausible(
    scale: float, angle: float, mirrored: bool, shift: tuple[float, float]
) -> None:
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    onto = linear(cos, -sin, sin, cos) @ np.diag([-1.0 if mirrored else 1.0, 1.0, 1.0])
    onto[:2, 2] = shift
    assert plausible(onto, HEIGHT, WIDTH)


@given(scale=st.one_of(st.floats(0, 0.249), st.floats(4.01, 1e6)), angle=st.floats(0, 2 * np.pi))
def test_extreme_scales_are_not(scale: float, angle: float) -> None:
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    assert not plausible(linear(cos, -sin, sin, cos), HEIGHT, WIDTH)


IMPLAUSIBLE = {
    "squeezed": linear(1.0, 0.0, 0.0, 0.35),
    "sheared": linear(1.0, 2.0, 0.0, 1.0),
    "flattened": linear(1.0, 1.0, 1.0, 1.0),
    "nothing": linear(0.0, 0.0, 0.0, 0.0),
    "folded over: the horizon crosses it": horizon(-1 / 100, 0.0),
    "the horizon touches a corner": horizon(-1 / WIDTH, 0.0),
    "behind the horizon": -np.eye(3),
    "tilted until one side is many times the other": horizon(-0.004, 0.0),
    "no number": np.full((3, 3), np.nan),
    "infinite": np.diag([np.inf, 1.0, 1.0]),
}


@pytest.mark.parametrize("name", IMPLAUSIBLE)
def test_what_nobody_does_is_not_plausible(name: str) -> None:
    assert not plausible(IMPLAUSIBLE[name], HEIGHT, WIDTH)


def test_a_mild_tilt_is_plausible_on_either_side() -> None:
    for x, y in ((0.001, 0.0), (-0.001, 0.0), (0.0005, -0.001)):
        assert plausible(horizon(x, y), HEIGHT, WIDTH)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_map_of_a_changed_picture_is_found_under_its_variant(variant: str) -> None:
    grey = scene(0)[:, :, 0]
    changed = grey[:, ::-1] if "mirrored" in variant else grey
    changed = 255 - changed if "inverted" in variant else changed
    best = max(fits(find_points(grey), find_points(np.ascontiguousarray(changed))), key=lambda fit: fit.inliers)
    assert best.variant == variant
    assert best.inverted == ("inverted" in variant)
    true = np.array([[-1.0, 0, 159], [0, 1, 0], [0, 0, 1]]) if "mirrored" in variant else np.eye(3)
    corners = np.array([[0, 0, 1], [159, 0, 1], [0, 159, 1], [159, 159, 1]]).T
    assert np.abs((best.map @ corners)[:2] / (best.map @ corners)[2] - (true @ corners)[:2]).max() < 3.0


def test_without_points_there_is_no_map() -> None:
    empty = find_points(np.full((64, 64), 90, np.uint8))
    assert len(empty) == 0
    some = find_points(scene(1)[:, :, 0])
    assert fits(empty, some) == fits(some, empty) == fits(empty, empty) == []


def test_points_are_no_more_than_asked_for_and_faint_ones_are_sought_where_there_are_few() -> None:
    assert len(find_points(clouds(0, side=256, sigma=1.5)[:, :, 0])) == 400
    assert 0 < len(find_points(clouds(1, sigma=10)[:, :, 0])) < 120
