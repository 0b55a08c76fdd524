import base64
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import pytest

from automl_vision.report import plots
from automl_vision.report.plots import PLOTS, draw_plots, plain
from automl_vision.report.report import build_report

pytestmark = pytest.mark.usefixtures("few_resamples")

EVIL = (
    "<img src=x onerror=alert(1)>",
    "$x_1$",
    "日本語 🐱",
    "two\nlines",
    "\x01\x02",
    "$",
    "a" * 300,
    "\\frac{",
)


def text_of(svg):
    return " ".join(ElementTree.fromstring(svg).itertext())


def test_every_picture_is_drawn_for_a_finished_run(inputs):
    drawn = draw_plots(build_report(inputs()))
    assert set(drawn) == set(PLOTS)
    assert all(svg.startswith("<svg") and 'role="img"' in svg for svg in drawn.values())


def test_equal_reports_give_equal_pictures(inputs):
    report = build_report(inputs())
    assert draw_plots(report) == draw_plots(report)


def test_global_settings_stay_as_they_are(inputs):
    before = dict(mpl.rcParams)
    draw_plots(build_report(inputs()))
    assert dict(mpl.rcParams) == before


def test_class_names_are_literal_text(inputs, predict):
    drawn = draw_plots(build_report(inputs(test=predict(classes=EVIL))))
    for name in ("confusion", "class_counts"):
        shown = text_of(drawn[name])
        assert "$x_1$" in shown
        assert "日本語 🐱" in shown
        assert "<img" not in drawn[name]


def test_text_follows_the_ink_of_the_page(inputs):
    drawn = draw_plots(build_report(inputs()))
    assert "currentColor" in drawn["confusion"]
    assert not any(sentinel in svg for svg in drawn.values() for sentinel in ("#010203", "#010204"))


@pytest.mark.parametrize("classes", [2, 20, 21, 100])
def test_confusion_stays_readable(inputs, predict, monkeypatch, classes):
    monkeypatch.setattr(plots, "PLOTS", {"confusion": PLOTS["confusion"]})
    names = tuple(f"c{i:03}" for i in range(classes))
    drawn = draw_plots(build_report(inputs(test=predict(n=300, classes=names))))
    shown = text_of(drawn["confusion"]).split()
    labels = [word for word in shown if word.startswith("c0")]
    assert 4 <= len(labels) <= 80
    assert len(drawn["confusion"]) < plots.LARGEST_SVG


def test_a_run_without_trials_has_no_curves(inputs):
    drawn = draw_plots(build_report(inputs(trials={}, data={})))
    assert set(drawn) == {"confusion", "reliability"}


def test_a_failed_trial_has_a_gap_and_not_a_crash(inputs):
    table = [
        {"number": 0, "score": None, "state": "failed", "curve": []},
        {"number": 1, "score": 0.5, "curve": [{"epoch": 1, "score": 0.5, "train_loss": None}]},
    ]
    assert {"learning_curves", "trial_scores"} <= set(draw_plots(build_report(inputs(trials={"table": table}))))


def test_a_large_drawing_comes_as_png(inputs, monkeypatch):
    monkeypatch.setattr(plots, "PLOTS", {"confusion": PLOTS["confusion"]})
    monkeypatch.setattr(plots, "LARGEST_SVG", 1000)
    drawn = draw_plots(build_report(inputs()))["confusion"]
    assert base64.b64decode(drawn.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")


def test_a_label_is_one_short_line():
    assert plain("a\nb") == "a b"
    assert plain("x" * 300) == "x" * 10 + "…" + "x" * 11
    assert len(plain("x" * 300)) == 22
