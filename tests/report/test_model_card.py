"""The model card and the page say which model their figures are of."""

import pytest

from automl_vision.report.html import render_html
from automl_vision.report.model_card import model_card
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
