"""The counts behind the slider agree with counting by hand, at every threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_vision.report.abstention import abstention
from automl_vision.report.intervals import wilson
from automl_vision.report.predictions import Predictions
from automl_vision.report.thresholds import CLASSES, FIXED, START, THRESHOLDS, by_threshold, fixed_rows, slider_start


def predictions_of(labels, probabilities):
    n, classes = probabilities.shape
    names = tuple(f"c{i}" for i in range(classes))
    return Predictions(tuple(f"{i}" for i in range(n)), labels, np.arange(n), probabilities, names)


@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(1, 80))
@settings(max_examples=40, deadline=None)
def test_counts_are_those_of_counting(seed, classes, n):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(classes, 0.2), n).round(2)  # many lie on a threshold
    test = predictions_of(rng.integers(0, classes, n), probabilities)
    found = by_threshold(test, test)["test"]
    right = test.predicted == test.labels
    for k, threshold in enumerate(THRESHOLDS):
        answered = probabilities.max(axis=1) >= threshold
        assert found["answered"][k] == answered.sum()
        assert found["right"][k] == (answered & right).sum()
        for c in range(classes):
            assert found["per_class"]["answered"][k][c] == (answered & (test.labels == c)).sum()
            assert found["per_class"]["right"][k][c] == (answered & right & (test.labels == c)).sum()
        bounds = (found["low"][k], found["high"][k])
        if answered.any():
            assert bounds == pytest.approx(wilson((answered & right).sum(), answered.sum()), abs=5e-5)
        else:
            assert bounds == (None, None)


def test_thresholds_rise_and_begin_with_answering_everything():
    assert THRESHOLDS[0] == 0.0
    assert (np.diff(THRESHOLDS) > 0).all()
    assert set(FIXED) <= set(THRESHOLDS)


def test_many_classes_are_counted_together():
    labels = np.arange(200) % (CLASSES + 1)
    test = predictions_of(labels, np.eye(CLASSES + 1)[labels])
    assert by_threshold(test, test)["test"]["per_class"] is None


def test_rows_without_a_script(predict):
    validation, test = predict(n=300, sure=0.92), predict(n=100, right=0.7, sure=0.92)
    rows = fixed_rows(by_threshold(validation, test))
    assert [row["threshold"] for row in rows] == list(FIXED)
    everything, *_, nothing = rows
    assert everything["test"]["coverage"] == 1.0
    assert everything["test"]["accuracy"] == (test.predicted == test.labels).mean()
    assert (nothing["test"]["coverage"], nothing["test"]["accuracy"]) == (0.0, None)
    assert fixed_rows(None) == []


@pytest.mark.parametrize(("threshold", "start"), [(None, 0), (0.0, 0), (0.5, 50), (0.503, 51), (0.9995, 0)])
def test_the_slider_begins_where_validation_reaches_its_target(threshold, start):
    assert slider_start({"abstention": {"targets": [{"target": START, "threshold": threshold}]}}) == start
    assert slider_start({"abstention": None}) == 0


def test_copies_of_one_image_make_no_narrower_interval():
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.full(3, 0.3), 60).round(2)
    labels = rng.integers(0, 3, 60)
    once = predictions_of(labels, probabilities)
    names = tuple(str(row) for row in range(600))
    often = Predictions(
        names, labels.repeat(10), np.arange(60).repeat(10), probabilities.repeat(10, axis=0), once.class_names
    )
    plain, copied = by_threshold(once, once)["test"], by_threshold(often, often)["test"]
    widths = [
        (high - low, below - above)
        for low, high, above, below in zip(plain["low"], plain["high"], copied["low"], copied["high"], strict=True)
        if low is not None
    ]
    assert all(copies > 0.9 * single for single, copies in widths)


def test_thresholds_that_are_named_go_by_groups_as_well():
    labels = np.arange(40) % 2
    probabilities = np.where(labels[:, None] == np.arange(2), 0.9, 0.1)
    groups = np.arange(40) // 10
    names = tuple(str(row) for row in range(40))
    test = Predictions(names, labels, groups, probabilities, ("a", "b"))
    counted = abstention(test, test)["targets"][0]["test"]
    assert (counted["low"], counted["high"]) == pytest.approx(wilson(4, 4))
