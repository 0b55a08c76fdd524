"""Coverage and accuracy by threshold, and thresholds that keep their promise where they were read off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.report.abstention import TARGETS, abstention
from automl_vision.report.predictions import Predictions


def predictions_of(sure: list[float], right: list[bool]) -> Predictions:
    """Two classes; class 0 is said with these probabilities, and is right where it says so."""
    chances = np.stack([np.array(sure), 1 - np.array(sure)], axis=1)
    labels = np.where(right, 0, 1)
    n = len(sure)
    return Predictions(tuple(map(str, range(n))), labels, np.arange(n), chances, ("a", "b"))


SURE_IS_RIGHT = predictions_of([0.6] * 10 + [0.95] * 10, [False] * 10 + [True] * 10)


def test_the_curve_goes_from_all_images_to_the_surest() -> None:
    curve = abstention(SURE_IS_RIGHT, SURE_IS_RIGHT)["curve"]
    assert curve[0] == {"threshold": 0.0, "coverage": 1.0, "accuracy": 0.5}
    assert curve[-1] == {"threshold": 0.95, "coverage": 0.5, "accuracy": 1.0}  # equals are answered together


def test_a_threshold_is_read_off_validation_and_measured_on_test() -> None:
    other = predictions_of([0.96, 0.97, 0.98, 0.6], [True, True, False, True])
    found = {row["target"]: row for row in abstention(SURE_IS_RIGHT, other)["targets"]}
    assert found[0.95]["threshold"] == 0.95
    assert found[0.95]["validation"]["accuracy"] == 1.0
    test = found[0.95]["test"]
    assert (test["n"], test["coverage"], test["accuracy"]) == (3, 0.75, pytest.approx(2 / 3))
    assert test["low"] < 2 / 3 < test["high"]


def test_what_cannot_be_reached_is_said() -> None:
    wrong = predictions_of([0.9, 0.8], [False, False])
    assert all(row["threshold"] is None for row in abstention(wrong, SURE_IS_RIGHT)["targets"])
    right = predictions_of([0.9, 0.8], [True, True])
    assert all(row["threshold"] == 0.0 for row in abstention(right, SURE_IS_RIGHT)["targets"])


@given(
    rows=st.lists(st.tuples(st.sampled_from([0.55, 0.7, 0.8, 0.9, 0.99]), st.booleans()), min_size=1, max_size=40),
)
def test_every_threshold_keeps_its_promise_where_it_was_read_off(rows: list[tuple[float, bool]]) -> None:
    found: dict[str, Any] = abstention(*[predictions_of(*map(list, zip(*rows, strict=True)))] * 2)  # type: ignore[arg-type]
    for row, target in zip(found["targets"], TARGETS, strict=True):
        if row["threshold"] is not None:
            assert row["validation"]["accuracy"] >= target - 1e-12
            assert row["validation"] == row["test"]
    coverages = [point["coverage"] for point in found["curve"]]
    assert coverages[0] == 1.0
    assert coverages == sorted(coverages, reverse=True)
    assert min(coverages) > 0
