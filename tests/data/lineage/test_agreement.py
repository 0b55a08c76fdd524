from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import scene

from automl_vision.data.lineage.agreement import Agreement, agreement

AS_IT_IS = np.eye(3)


def grey(seed: int, side: int = 192) -> np.ndarray:
    return cv2.cvtColor(scene(seed, side), cv2.COLOR_RGB2GRAY)


def moved(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def test_a_picture_agrees_with_itself_everywhere() -> None:
    found = agreement(grey(0), grey(0), AS_IT_IS, inverted=False)
    assert found.correlation == pytest.approx(1.0, abs=1e-5)
    assert found.share == 1.0
    assert found.alike > 15
    assert min(found.covers) > 0.9


def test_bright_agrees_with_dark_only_where_that_is_asked() -> None:
    assert agreement(grey(0), 255 - grey(0), AS_IT_IS, inverted=True).correlation > 0.99
    assert agreement(grey(0), 255 - grey(0), AS_IT_IS, inverted=False).correlation <= 0.0


def test_strangers_do_not_agree() -> None:
    for seed in range(1, 6):
        found = agreement(grey(0), grey(seed), AS_IT_IS, inverted=False)
        assert found.correlation == 0.0
        assert found.share < 0.2


def test_covers_says_how_much_of_each_is_seen_in_the_other() -> None:
    whole, part = grey(0), cv2.resize(grey(0)[48:144, 0:96], (192, 192), interpolation=cv2.INTER_CUBIC)
    onto = moved(-0.25, 47.75) @ np.diag([0.5, 0.5, 1.0])
    found = agreement(whole, part, onto, inverted=False)
    assert found.correlation > 0.98
    assert found.covers == pytest.approx((0.25, 1.0), abs=0.06)
    turned = agreement(part, whole, np.linalg.inv(onto), inverted=False)
    assert turned.covers == pytest.approx((1.0, 0.25), abs=0.06)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2.0])
def test_which_of_the_two_comes_first_changes_no_more_than_their_order(factor: float) -> None:
    first = grey(3)
    second = cv2.resize(first, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)[10:, 20:]
    onto = np.diag([1 / factor, 1 / factor, 1.0]) @ moved(20, 10)
    one = agreement(first, second, onto, inverted=False)
    other = agreement(second, first, np.linalg.inv(onto), inverted=False)
    assert one.correlation == pytest.approx(other.correlation, abs=0.02)
    assert one.covers == pytest.approx(other.covers[::-1], abs=0.05)
    assert one.correlation > 0.9


@settings(deadline=None, max_examples=30)
@given(st.floats(-1e-6, 1e-6), st.booleans())
def test_areas_that_neither_grow_nor_shrink_are_compared_all_the_same(off: float, mirrored: bool) -> None:
    onto = np.diag([-1.0 - off if mirrored else 1.0 + off, 1.0, 1.0])
    onto[0, 2] = 95.0 if mirrored else 0.0
    first = grey(0, 96)
    found = agreement(first, np.ascontiguousarray(first[:, ::-1]) if mirrored else first, onto, inverted=False)
    assert found.correlation > 0.99


def test_an_erased_patch_leaves_the_rest_in_agreement() -> None:
    erased = grey(0).copy()
    erased[30:130, 40:140] = 128
    found = agreement(grey(0), erased, AS_IT_IS, inverted=False)
    assert found.correlation > 0.6
    assert 0.5 < found.share < 0.9
    assert found.places > found.alike > 15


def test_a_watermark_is_no_agreement_of_the_pictures_under_it() -> None:
    first, second = grey(20), grey(21)
    for image in (first, second):
        image[130:180, 10:180] = 255
        cv2.putText(image, "SAMPLE 42", (14, 168), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 0, 2)
    found = agreement(first, second, AS_IT_IS, inverted=False)
    assert found.correlation == 0.0
    assert found.share < 0.5


@pytest.mark.parametrize("shift", [189.0, 5000.0])
def test_pictures_beside_each_other_do_not_agree(shift: float) -> None:
    found = agreement(grey(0), grey(0), moved(shift, 0), inverted=False)
    assert (found.correlation, found.alike, found.places) == (0.0, 0.0, 0.0)
    assert max(found.covers) < 0.05


def test_empty_pictures_agree_in_nothing() -> None:
    empty = np.full((80, 60), 200, np.uint8)
    found = agreement(empty, empty, AS_IT_IS, inverted=False)
    assert (found.correlation, found.share) == (0.0, 0.0)
    assert Agreement().share == 0.0
