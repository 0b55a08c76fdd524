"""The page of an evaluation: names are text, and it stands with and without a drop."""

import re

import numpy as np
import pytest

from automl_vision.report.evaluation_page import render_evaluation
from automl_vision.report.predictions import Predictions
from automl_vision.report.report import test_section as section_of
from automl_vision.report.shift import drop_section, own_figures
from automl_vision.report.shift import test_figures as kept_figures

HOSTILE = "<img src=x onerror=alert(1)>\u202e"
KNOWN = {"checked": False, "reason": "no fingerprint"}


def figures(wrong):
    labels = np.arange(40) % 2
    said = np.where(np.arange(40) < wrong, 1 - labels, labels)
    paths = tuple(f"{i}.png" for i in range(40))
    return section_of(Predictions(paths, labels, np.arange(40), np.eye(3)[said], ("cat", HOSTILE, "eel")), 0)


@pytest.fixture
def page():
    def render(drop, known=KNOWN):
        said = figures(20)
        failed = [{"path": HOSTILE, "error": HOSTILE}]
        plain = {**said, "drop": drop, "missing_classes": ["eel"], "known": known, "failed": failed}
        return render_evaluation(plain, name=HOSTILE, model=HOSTILE, created="2026-01-02")

    return render


def test_names_are_text_and_nothing_is_loaded(page):
    own = own_figures({"test": kept_figures(figures(0))}, None)
    text = page(drop_section(own, figures(20)))
    assert "<img" not in text
    assert "\u202e" not in text
    assert not re.search(r'<[^>]*(src|href)="(?!data:|#)', text)
    assert "Accuracy fell by 50.0 points" in text
    assert "Recall, own test" in text
    assert "The set has no images of eel." in text


def test_without_a_drop_it_says_why(page):
    text = page({"measured": False, "reason": "for a reason"})
    assert "for a reason" in text
    assert "Recall, own test" not in text


def test_what_the_model_knows_is_said(page):
    known = {
        "checked": True,
        "seen": {"exactly": 2, "nearly": 1},
        "test": {"exactly": 4, "nearly": 0},
        "excluded": 3,
        "too_plain": 5,
        "look": {"number": 2},
    }
    text = page({"measured": False, "reason": "x"}, known)
    assert "3 images were in training or validation" in text
    assert "4 are the model&#39;s own test images" in text
    assert "look 2 at" in text
