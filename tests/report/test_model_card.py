"""The model card and the page say which model their figures are of."""

import re

import pytest
from huggingface_hub import ModelCard
from measured_costs import measured_costs

from automl_vision.report.card_front import card_front
from automl_vision.report.html import render_html
from automl_vision.report.model_card import model_card, plain
from automl_vision.report.report import build_report

REFIT = {"steps": [], "refit": {"done": True, "detail": "", "images": 9, "seconds": 1.0}}
MODEL = {"backbone": "resnet18", "temperature": 1.2, "parameters": 1000, "resolution": 96}


@pytest.mark.parametrize("refitted", [True, False])
def test_a_model_that_was_trained_once_more_is_called_so(inputs, refitted):
    changes = {"finish": REFIT} if refitted else {}
    card = " ".join(model_card(build_report(inputs(model=MODEL, **changes))).split())
    assert ("chosen with and then trained on as well, 200 tested on" in card) == refitted
    assert ("chosen with, 200 tested on" in card) == (not refitted)
    assert ("(temperature 1.200, fitted before it was trained once more)" in card) == refitted


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize("refitted", [True, False])
def test_so_does_the_page_beside_temperature_and_thresholds(inputs, refitted):
    changes = {"finish": REFIT} if refitted else {}
    page = " ".join(render_html(build_report(inputs(model=MODEL, **changes)), {}).split())
    assert ("fitted on validation before the model was trained once more" in page) == refitted
    assert ("read off validation, before the model was trained once more" in page) == refitted
    assert ("validation figures are those before it" in page) == refitted


def front_of(report, **changes):
    """The card as the library of the hub reads it."""
    changed = {**report, **changes}
    return ModelCard(card_front("automl-vision", ("small",), changed) + model_card(changed)).data


@pytest.mark.parametrize("name", ["plain", "a: b\n---\n# x", "[](x) 'quoted' \u2028 - yes"])
def test_a_hub_reads_the_figures_of_the_test_set(inputs, name):
    report = build_report(inputs(model=MODEL))
    data = front_of(report, name=name, data={**report["data"], "source": "/home/somebody/birds"})
    assert (data.library_name, data.pipeline_tag) == ("automl-vision", "image-classification")
    assert data.tags == ["image-classification", "small", "automl-vision"]
    assert data.model_name == name
    figures = {each.metric_type: each for each in data.eval_results}
    test = report["test"]
    assert figures["accuracy"].metric_value == pytest.approx(test["accuracy"]["value"], abs=1e-6)
    assert figures["f1"].metric_value == pytest.approx(test["macro_f1"]["value"], abs=1e-6)
    assert f"95 % interval {test['accuracy']['low']:.3f} to" in figures["accuracy"].metric_name
    of = figures["accuracy"]
    assert (of.dataset_name, of.dataset_type, of.dataset_split) == ("birds", "imagefolder", "test")
    assert "somebody" not in card_front("automl-vision", report={**report, "data": {"source": "/home/somebody/birds"}})


def test_a_set_of_the_hub_is_called_by_its_name(inputs):
    report = build_report(inputs(model=MODEL))
    data = front_of(report, data={**report["data"], "source": "hf:somebody/birds@main:small"})
    assert {(each.dataset_name, each.dataset_type) for each in data.eval_results} == {("somebody/birds",) * 2}


def test_what_was_not_tested_states_no_figure():
    assert ModelCard(card_front("timm")).data.eval_results is None


def test_costs_are_in_the_card_where_they_are_known(inputs):
    report = build_report(inputs(model=MODEL, costs=measured_costs()))
    assert "## Costs" in model_card(report)
    assert "one image takes" in model_card(report)
    assert "## Costs" not in model_card(build_report(inputs(model=MODEL)))


def test_nobody_is_called_and_no_mail_is_linked():
    shown = plain("@octocat and a@b.co, mailto:c@d.e")
    assert not re.search(r"@\w", shown)
    assert shown.replace("\u2060", "") == "@octocat and a@b.co, mailto:c@d.e"
