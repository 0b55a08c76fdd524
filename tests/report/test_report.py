import json

import numpy as np
import pytest

from automl_vision.metrics import METRICS
from automl_vision.report import report as subject
from automl_vision.report.predictions import Predictions
from automl_vision.report.report import build_report, verify


def through_json(report):
    return json.loads(json.dumps(report, allow_nan=False))


@pytest.fixture
def built(inputs):
    return build_report(inputs())


def test_is_plain_json_and_loses_nothing_on_the_way(built):
    assert through_json(built) == built


def test_has_the_keys_that_scripts_rely_on(built):
    assert {
        "format",
        "name",
        "created",
        "test",
        "validation",
        "augmented_validation",
        "gap",
        "baselines",
        "warnings",
        "objective",
        "data",
        "looks",
        "stop_reason",
        "budget_seconds",
        "seconds",
        "trials",
        "model",
        "environment",
    } <= set(built)
    assert built["format"] == 1
    assert {"n", "classes", "per_class", "confusion"} <= set(built["test"])
    for name in set(METRICS) - {"binary_f1"}:
        assert set(built["test"][name]) == {"value", "low", "high"}
        assert built["test"][name]["low"] <= built["test"][name]["value"] <= built["test"][name]["high"]


def test_equal_inputs_give_equal_reports(inputs):
    assert build_report(inputs()) == build_report(inputs())


@pytest.mark.parametrize("per_group", [1, 3])
def test_is_recomputed_from_the_saved_predictions_to_the_last_bit(inputs, predict, tmp_path, per_group):
    rng = np.random.default_rng(5)
    plain = predict(per_group=per_group)
    test = Predictions(plain.paths, plain.labels, plain.groups, rng.dirichlet([1, 1, 1], 200), plain.class_names)
    report = build_report(inputs(test=test, seed=4))
    test.to_csv(tmp_path / "predictions_test.csv")
    assert verify(through_json(report), Predictions.from_csv(tmp_path / "predictions_test.csv")) == []


def test_a_changed_figure_is_found_by_name(built, predict):
    changed = through_json(built)
    changed["test"]["accuracy"]["value"] = np.nextafter(changed["test"]["accuracy"]["value"], 1)
    changed["test"]["per_class"][1]["support"] += 1
    changed["test"]["confusion"][0][0] -= 1
    found = verify(changed, predict())
    assert [line.split(":")[0] for line in found] == [
        "test.accuracy.value",
        "test.per_class[1].support",
        "test.confusion[0][0]",
    ]


def test_a_changed_prediction_is_found(built, predict):
    assert verify(built, predict(right=0.86))


def test_a_missing_part_is_found(built, predict):
    changed = through_json(built)
    del changed["test"]["ece"]
    changed["test"]["per_class"].pop()
    assert len(verify(changed, predict())) == 2


def test_the_confusion_matrix_adds_up(built, predict):
    matrix = np.array(built["test"]["confusion"])
    assert matrix.sum() == built["test"]["n"] == 200
    assert matrix.sum(axis=1).tolist() == [row["support"] for row in built["test"]["per_class"]]
    assert np.trace(matrix) / 200 == built["test"]["accuracy"]["value"]
    off_diagonal = int(matrix.sum() - np.trace(matrix))
    assert sum(row["count"] for row in built["test"]["confused"]) == off_diagonal


def test_two_classes_have_a_binary_f1_and_three_do_not(inputs, predict, built):
    two = build_report(inputs(test=predict(classes=("no", "yes"))))
    assert 0 < two["test"]["binary_f1"]["low"] < two["test"]["binary_f1"]["value"]
    assert "binary_f1" not in built["test"]


def test_what_is_undefined_is_null(inputs, predict):
    plain = predict(n=4)
    only_cats = Predictions(
        plain.paths, np.zeros(4, dtype=np.int64), plain.groups, plain.probabilities, plain.class_names
    )
    report = build_report(inputs(test=only_cats))
    assert report["test"]["roc_auc"] == {"value": None, "low": None, "high": None}
    assert report["test"]["per_class"][1]["support"] == 0
    assert report["test"]["per_class"][1]["recall"]["value"] == 0.0
    assert through_json(report) == report


def test_without_augmented_copies_the_section_is_null(inputs):
    assert build_report(inputs(augmented_validation=None))["augmented_validation"] is None


def test_many_classes_leave_out_the_matrix_but_name_the_confusions(inputs, predict, monkeypatch):
    monkeypatch.setattr(subject, "MATRIX_CLASSES", 2)
    test = build_report(inputs())["test"]
    assert test["confusion"] is None
    assert test["confused"][0]["count"] >= test["confused"][-1]["count"] > 0


def test_the_majority_baseline_is_the_largest_training_class(inputs, predict):
    data = {"class_counts": {"train": [1, 50, 2]}}
    report = build_report(inputs(data=data))
    row = next(row for row in report["baselines"] if row["name"] == "majority class")
    dogs = np.mean(predict().labels == 1)
    assert row["accuracy"]["value"] == pytest.approx(dogs)
    assert row["gain"]["distinguishable"] is True
    assert row["gain"]["value"] == pytest.approx(report["test"]["accuracy"]["value"] - dogs)


def test_the_winner_is_the_last_baseline_row_with_the_figures_of_the_test(built):
    assert built["baselines"][-1]["accuracy"] == built["test"]["accuracy"]
    assert built["baselines"][-1]["gain"] is None


def test_the_gap_is_validation_minus_test(built):
    gap = built["gap"]
    assert gap["difference"] == gap["validation"] - gap["test"]
    assert gap["low"] < gap["difference"] < gap["high"]
    assert gap["beyond_interval"] is False


def test_imbalance_is_worked_out_from_the_training_counts(inputs):
    assert build_report(inputs(data={"class_counts": {"train": [40, 10, 20]}}))["data"]["imbalance"] == 4.0
    assert build_report(inputs(data={"class_counts": {"train": [40, 0, 20]}}))["data"]["imbalance"] is None


def test_a_single_test_image_does_not_break_it(inputs, predict):
    report = through_json(build_report(inputs(test=predict(n=1))))
    assert report["test"]["accuracy"]["high"] - report["test"]["accuracy"]["low"] > 0.5
