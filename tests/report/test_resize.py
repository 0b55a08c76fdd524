"""What a report says of images that are not square."""

from __future__ import annotations

from typing import Any

import pytest

from automl_vision.report.resize import resize_sentence

COMPARED = {
    "objective": "accuracy",
    "squash": 0.664,
    "middle": 0.704,
    "gain": 0.04,
    "standard_error": 0.015,
    "train": 1000,
    "val": 1000,
    "backbone": "efficientnet_lite0",
    "resolution": 96,
}


def record(chosen: str, **more: Any) -> dict[str, Any]:
    return {"chosen": chosen, "reason": "the settings ask for it", **more}


def test_it_says_what_is_seen_and_why() -> None:
    assert resize_sentence(record("squash")) == (
        "Networks see the whole of each image, squashed to a square: the settings ask for it."
    )
    assert resize_sentence(record("middle")).startswith("Networks see the largest square in the middle of each image: ")


def test_it_says_what_was_compared_and_on_what() -> None:
    said = resize_sentence(record("middle", compared=COMPARED))
    assert "on 1,000 validation images, the accuracy of a linear probe (frozen efficientnet_lite0, 96 px, " in said
    assert "is 70.4 % with the middle and 66.4 % with the whole" in said
    assert "a difference of 4.0 points, standard error 1.5; the settings" in said


def test_one_group_alone_has_no_standard_error() -> None:
    said = resize_sentence(record("squash", compared={**COMPARED, "standard_error": None}))
    assert "a difference of 4.0 points; the settings" in said


@pytest.mark.parametrize("nothing", [None, {}, record(""), record("squash", square=True)])
def test_where_there_is_nothing_to_say_it_says_nothing(nothing: dict[str, Any] | None) -> None:
    assert resize_sentence(nothing) == ""
