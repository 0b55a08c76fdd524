import numpy as np
import pytest
from measured_costs import measured_costs

from automl_vision.report.report import build_report
from automl_vision.report.warnings import CHECKS


def said(report, word):
    return [sentence for sentence in report["warnings"] if word in sentence]


def test_a_sound_run_has_none(inputs):
    assert build_report(inputs())["warnings"] == []


def cases(inputs, predict):
    test = predict()
    few = predict(n=27, classes=tuple("abc"))
    row = {"kind": "finetune", "score": 0.5, "error": "", "epochs": 3, "hyperparameters": {"epochs": 5}}
    asked_for = {"one_recipe": True, "table": [row | {"state": "complete"}]}
    shortcut = {"name": "file_type", "title": "file type", "balanced_accuracy": 0.97, "told": [], "alarm": False}
    unsaid = {"alarms": 0, "left_out": 0, "images": 100}
    return {
        "Validation flatters": (
            inputs(validation=predict(right=0.97)),
            inputs(validation=predict(right=0.88)),
        ),
        "easier than the validation": (
            inputs(validation=predict(right=0.6)),
            inputs(validation=predict(right=0.83)),
        ),
        "can no longer tell candidates apart": (
            inputs(validation=predict(right=1.0)),
            inputs(validation=predict(right=0.95)),
        ),
        "cannot be told apart from the probe": (
            inputs(baselines={"probe": predict(right=0.84).probabilities}),
            inputs(baselines={"probe": predict(right=0.6).probabilities}),
        ),
        "cannot be told apart from the majority class": (
            inputs(test=predict(right=0.34)),
            inputs(),
        ),
        "The probe is better": (
            inputs(baselines={"probe": np.eye(3)[test.labels]}),
            inputs(baselines={"probe": test.probabilities}),
        ),
        "looked at 2 times": (inputs(looks=({"when": "a"}, {"when": "b"})), inputs()),
        "The test set is small": (inputs(test=predict(n=30, right=0.7)), inputs()),
        "fewer than 10 test images": (inputs(test=few), inputs(test=predict(n=30))),
        "could not be read": (
            inputs(data={"images": 100, "quarantined": 6}),
            inputs(data={"images": 100, "quarantined": 5}),
        ),
        "gave no model: loss is not finite.": (
            inputs(
                trials=asked_for | {"table": [row | {"state": "failed", "score": None, "error": "loss is not finite"}]}
            ),
            inputs(trials=asked_for),
        ),
        "gave no model; the time ended": (inputs(trials=asked_for | {"table": []}), inputs(trials={"table": []})),
        "ended after 3 of 5 epochs": (
            inputs(trials=asked_for | {"table": [row | {"state": "stopped"}]}),
            inputs(trials={"table": [row | {"state": "stopped"}]}),
        ),
        "ended within the last epoch": (
            inputs(trials=asked_for | {"table": [row | {"state": "stopped", "epochs": 5}]}),
            inputs(trials=asked_for | {"table": [row | {"state": "complete", "epochs": 5}]}),
        ),
        "exceeds what it may cost: 9.00 ms": (
            inputs(costs=measured_costs(shipped=measured_costs()["shipped"] | {"excess": "9.00 ms for one image"})),
            inputs(costs=measured_costs()),
        ),
        "from file type alone": (
            inputs(shortcuts={"measured": True, "chance": 1 / 3, "families": [shortcut | {"alarm": True}]} | unsaid),
            inputs(shortcuts={"measured": True, "chance": 1 / 3, "families": [shortcut]} | unsaid),
        ),
        "mlflow was given up": (inputs(troubles=("mlflow was given up (it hung).",)), inputs()),
        "the budget allows no more": (
            inputs(data={"found": 900, "drawn": 600}),
            inputs(data={"found": 900, "drawn": 900}),
        ),
    }


WORDS = [
    "Validation flatters",
    "easier than the validation",
    "can no longer tell candidates apart",
    "cannot be told apart from the probe",
    "cannot be told apart from the majority class",
    "The probe is better",
    "looked at 2 times",
    "The test set is small",
    "fewer than 10 test images",
    "could not be read",
    "from file type alone",
    "the budget allows no more",
    "exceeds what it may cost: 9.00 ms",
    "mlflow was given up",
    "gave no model: loss is not finite.",
    "gave no model; the time ended",
    "ended after 3 of 5 epochs",
    "ended within the last epoch",
]


@pytest.mark.parametrize("word", WORDS)
def test_each_is_raised_when_it_applies_and_only_then(inputs, predict, word):
    applies, does_not = cases(inputs, predict)[word]
    assert len(said(build_report(applies), word)) == 1
    assert said(build_report(does_not), word) == []


@pytest.mark.usefixtures("few_resamples")
def test_every_check_has_its_cases(inputs, predict):
    assert set(cases(inputs, predict)) == set(WORDS)
    raised = [build_report(applies) for applies, _ in cases(inputs, predict).values()]
    assert all(any(check(report) for report in raised) for check in CHECKS)


def test_says_how_many_more_images_would_do(inputs, predict):
    report = build_report(inputs(test=predict(n=30, right=0.7)))
    accuracy = report["test"]["accuracy"]
    half = (accuracy["high"] - accuracy["low"]) / 2
    more = int(np.ceil(30 * (half / 0.1) ** 2)) - 30
    assert f"About {more} images more" in said(report, "small")[0]


def test_an_imbalanced_winner_is_judged_by_macro_f1(inputs, predict):
    """Accuracy cannot tell it from the majority class, the objective can."""
    labels = np.array([0] * 190 + [1] * 10)
    base = predict(classes=("common", "rare"))
    chances = np.eye(2)[np.where(np.arange(200) >= 193, 1, 0)]
    chances[:4] = [0.0, 1.0]
    test = type(base)(base.paths, labels, np.arange(200), chances, base.class_names)
    data = {"class_counts": {"train": [190, 10]}}
    by_f1 = build_report(inputs(test=test, objective="macro_f1", data=data))
    by_accuracy = build_report(inputs(test=test, objective="accuracy", data=data))
    assert not said(by_f1, "told apart")
    assert said(by_accuracy, "told apart")


def test_a_model_that_was_trained_once_more_may_be_better_on_test(inputs, predict):
    """It is not the model of the validation figure any more: no sign that the sets were divided badly."""
    finish = {"steps": [], "refit": {"done": True, "detail": "", "images": 9, "seconds": 1.0}}
    assert not said(build_report(inputs(validation=predict(right=0.6), finish=finish)), "easier than")
    assert said(build_report(inputs(validation=predict(right=0.97), finish=finish)), "Validation flatters")
