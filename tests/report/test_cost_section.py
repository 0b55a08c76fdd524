"""What the page and the terminal say of costs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from measured_costs import measured_costs

from automl_vision.bundle import Bundle
from automl_vision.data.preprocess import Preprocessing
from automl_vision.report.costs import cost_rows, cost_sentences, front_note, shipped_line
from automl_vision.report.html import render_html
from automl_vision.report.plots import draw_plots
from automl_vision.report.report import build_report
from automl_vision.report.untested_card import untested_card

pytestmark = pytest.mark.usefixtures("few_resamples")
KEPT = {"latency_ms": 20.0, "size_mb": None, "params_m": 5.0}


@pytest.fixture
def report(inputs):
    return build_report(inputs(costs=measured_costs()))


def test_the_page_shows_costs_and_whose_scores_they_stand_beside(report):
    page = render_html(report, draw_plots(report))
    for text in ("Backbones with what they cost", "12.3 / 15.0", "3.38", "210", "85.0", "export RUN --trial N"):
        assert text in page, text
    assert "no other point has a test figure" in page
    assert "reading and decoding files is not in it" in page
    assert json.loads(json.dumps(report)) == report


def test_a_report_of_an_earlier_version_has_no_section(inputs):
    old = build_report(inputs())
    del old["costs"]
    assert "Backbones with what they cost" not in render_html(old, draw_plots(old))
    assert shipped_line(old) == ""


def test_what_was_not_measured_is_said_and_not_filled_in(inputs):
    costs = measured_costs(measured=False, detail="the run was stopped early", front=[], trials=[])
    costs["networks"] = costs["networks"][1:]
    costs["shipped"]["latency"] = None
    report = build_report(inputs(costs=costs))
    assert cost_sentences(report) == ["Latency and throughput were not measured: the run was stopped early."]
    (row,) = cost_rows(report)
    assert (row["one_image"], row["throughput"], row["asked_mb"], row["trained_mb"]) == ("–",) * 4
    assert "front" not in draw_plots(report)
    assert "one image" not in shipped_line(report)
    render_html(report, draw_plots(report))


def test_limits_are_told_with_what_became_of_them(inputs):
    kept = build_report(inputs(costs=measured_costs(limits=KEPT)))
    assert cost_sentences(kept)[-1] == (
        "Limits: one image takes at most 20 ms (median); the model has at most 5 million parameters. "
        "The shipped model keeps to that."
    )
    assert not [text for text in kept["warnings"] if "may cost" in text]


def test_a_busy_machine_is_told_by_its_percentiles(inputs):
    costs = measured_costs()
    assert not [text for text in cost_sentences(build_report(inputs(costs=costs))) if "busy" in text]
    costs["networks"][0]["on"]["cpu"] |= {"p95_ms": 25.0}
    assert [text for text in cost_sentences(build_report(inputs(costs=costs))) if "The machine was busy" in text]


def test_each_device_has_a_row(inputs):
    costs = measured_costs()
    costs["networks"][0]["on"]["cuda"] = costs["networks"][0]["on"]["cpu"] | {"p50_ms": 1.0}
    rows = cost_rows(build_report(inputs(costs=costs)))
    assert [(row["backbone"], row["device"], row["front"]) for row in rows] == [
        ("net_a", "cpu", True), ("net_a", "cuda", True), ("net_b", "–", False),
    ]  # fmt: skip


def test_the_note_names_the_objective(inputs):
    assert front_note(build_report(inputs(costs=measured_costs(), objective="macro_f1"))).startswith("Macro F1 on")


def test_the_card_of_a_trial_has_no_test_figure():
    about = {
        "trial": 7, "run": "pets", "objective": "accuracy", "validation_score": 0.8125, "validation_images": 1600,
    }  # fmt: skip
    preprocessing = Preprocessing(96, (0.5,) * 3, (0.5,) * 3)
    bundle = Bundle("net_a", "linear", ("cat", "<dog>"), preprocessing, 1.0, {}, provenance=about)
    card = untested_card(bundle, "model-trial-7.pt")
    assert "**This model has not been tested.**" in card
    assert "Accuracy 0.812 on 1,600 images." in card
    assert "Figures on the test set" not in card
    assert "\\<dog\\>" in card
    assert "automl-vision evaluate model-trial-7.pt --data OTHER" in card
    strange = replace(bundle, provenance={"tested": False, "objective": ["a"], "validation_score": "high"})
    assert "It is not known." in untested_card(strange, "model.pt", ["load it"])
