"""What the report says of the choice and the finish, in words and figures."""

from __future__ import annotations

import numpy as np
import pytest

from automl_vision.calibration import apply_temperature
from automl_vision.metrics import METRICS
from automl_vision.report.finish import finish_rows, refit_sentence, selection_line, selection_sentences
from automl_vision.report.html import render_html
from automl_vision.report.plots import draw_plots
from automl_vision.report.report import build_report, calibration_section

STEP = {"step": "soup", "title": "average of weights", "tried": True, "detail": "the weights of 2", "seconds": 1.0}
ADOPTED = {**STEP, "adopted": True, "simpler": 0.8, "candidate": 0.85, "gain": 0.05, "standard_error": 0.02}
KEPT = {**STEP, "adopted": False, "simpler": 0.8, "candidate": 0.81, "gain": 0.01, "standard_error": None}
SKIPPED = {**STEP, "adopted": False, "tried": False, "simpler": None, "candidate": None, "gain": None}
SELECTION = {
    "trial": 3,
    "left_out": 4,
    "reason": "trial 3 is the best on validation",
    "objective": "accuracy",
    "naive": 0.871,
    "candidates": 12,
    "resamples": 1000,
    "value": 0.853,
    "low": 0.78,
    "high": 0.91,
}


def test_one_line_has_the_naive_and_the_corrected_figure() -> None:
    assert selection_line({"selection": SELECTION}) == (
        "Validation accuracy 87.1 %; corrected for the choice among 12 candidates 85.3 % "
        "(95 % interval 78.0 to 91.0 %)."
    )
    assert selection_line({}) == selection_line({"selection": None}) == ""
    unknown = {**SELECTION, "value": None, "low": None, "high": None}
    assert "hang together too much" in selection_line({"selection": unknown})


def test_what_was_left_out_is_said() -> None:
    said = " ".join(selection_sentences({"selection": SELECTION}))
    assert said.startswith("Trial 3 is the best on validation.")
    assert "4 further trials took no part" in said
    assert "took no part" not in " ".join(selection_sentences({"selection": {**SELECTION, "left_out": 0}}))


def test_every_step_has_a_verdict() -> None:
    rows = finish_rows({"finish": {"steps": [ADOPTED, KEPT, SKIPPED], "refit": None}})
    assert [row["verdict"] for row in rows] == ["adopted", "kept the simpler", "not tried"]
    assert [row["gain"] for row in rows] == ["+5.0 ± 2.0", "+1.0 ± ∞", "–"]
    assert finish_rows({}) == []


def test_a_refit_says_whose_the_validation_figures_are() -> None:
    done = {"finish": {"steps": [], "refit": {"done": True, "detail": "", "images": 9, "seconds": 1.0}}}
    assert "validation figures are those before it" in refit_sentence(done)
    not_done = {"finish": {"steps": [], "refit": {"done": False, "detail": "no time: it needs 9 s"}}}
    assert "no time" in refit_sentence(not_done)
    assert refit_sentence({"finish": {"steps": [], "refit": None}}) == refit_sentence({}) == ""


def test_calibration_before_is_what_the_temperature_was_applied_to(predict) -> None:
    raw = predict(right=0.8)
    logs = np.log(raw.probabilities)
    calibrated = type(raw)(raw.paths, raw.labels, raw.groups, apply_temperature(logs, 2.5), raw.class_names)
    found = calibration_section(calibrated, calibrated, 2.5)
    for name in ("ece", "log_loss"):
        assert found["test"]["before"][name] == pytest.approx(METRICS[name].function(raw.labels, raw.probabilities))
        expected = METRICS[name].function(raw.labels, calibrated.probabilities)
        assert found["validation"]["after"][name] == pytest.approx(expected)


def test_the_page_shows_all_of_it(inputs, few_resamples) -> None:
    finish = {"steps": [ADOPTED, SKIPPED], "refit": {"done": True, "detail": "", "images": 9, "seconds": 1.0}}
    report = build_report(inputs(selection=SELECTION, finish=finish))
    page = render_html(report, draw_plots(report)).replace("\u00a0", " ")
    for words in (
        *("corrected for the choice among 12 candidates 85.3 %", "average of weights", "adopted", "+5.0 ± 2.0"),
        *("those before it", "temperature of 1.200", "ECE before", "predict --abstain", "Share of images answered"),
    ):
        assert words in page


def test_a_report_of_an_earlier_version_still_has_a_page(inputs, few_resamples) -> None:
    report = build_report(inputs())
    for name in ("selection", "finish", "calibration", "abstention"):
        del report[name]
    page = render_html(report, draw_plots(report))
    assert "How the model was chosen" not in page
    assert "ECE before" not in page
