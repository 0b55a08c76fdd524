import base64
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import pytest
from measured_costs import measured_costs

from automl_vision.report import plots
from automl_vision.report.html import render_html
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


def searched_head():
    """What a search of a head leaves: three epochs, two decisions."""
    options = {"layer 1 operation": ["identity", "relu"], "layer 1 width": ["64", "128"]}
    alpha = {name: [0.4, 0.6] for name in options}
    epochs = [
        {"epoch": e, "train_loss": 1 / e, "val_loss": 1.5 / e, "val_accuracy": 0.5, "entropy": 0.6, "alpha": alpha}
        for e in (1, 2, 3)
    ]
    choices = [
        {"mixture": m, "options": o, "alpha": [0.4, 0.6], "loss": [0.5, 0.4], "accuracy": [0.7, 0.8], "chosen": o[1]}
        for m, o in options.items()
    ]
    return {
        "kind": "darts",
        "candidate": "mlp:128-relu",
        "adopted": False,
        "reason": "linear kept: mlp:128-relu 0.7000 against linear 0.7100",
        "comparison": None,
        "search": {"epochs": epochs, "choices": choices, "collapsed": 2},
    }


@pytest.fixture
def everything(inputs):
    """A report with all that pictures are made of."""
    report = build_report(inputs(head=searched_head(), costs=measured_costs()))
    settings = {"learning_rate": 3e-4, "weight_decay": 1e-4, "label_smoothing": 0.1}
    table = [
        {**row, "number": number, "hyperparameters": {**settings, "optimizer": name, "momentum": 0.9}}
        for number, (row, name) in enumerate(zip(report["trials"]["table"] * 2, ["adamw", "sgd"] * 3, strict=True))
    ]
    report["trials"] |= {"table": table, "sampler": "gp", "importance": {"learning_rate": 0.7, "optimizer": 0.3}}
    return report


def test_every_picture_is_drawn_where_there_is_all_it_is_made_of(everything):
    drawn = draw_plots(everything)
    assert set(drawn) == set(PLOTS)
    assert all(svg.startswith("<svg") and 'role="img"' in svg for svg in drawn.values())


def test_the_search_of_a_head_is_shown(everything):
    drawn = draw_plots(everything)
    assert "layer 1 operation: relu" in text_of(drawn["head_alpha"])
    assert "half that trains alpha" in text_of(drawn["head_fit"])
    assert "learning rate" in text_of(drawn["importance"])
    assert "sgd" in text_of(drawn["settings_tried"])
    page = render_html(everything, drawn)
    assert "linear kept: mlp:128-relu 0.7000 against linear 0.7100" in page
    assert "stopped after epoch 2" in page
    assert all(f'class="plot {name}' in page for name in ("head_alpha", "head_fit", "importance", "settings_tried"))


def test_a_report_of_an_earlier_version_is_drawn_and_rendered(everything):
    del everything["head"], everything["trials"]["importance"], everything["trials"]["sampler"]
    drawn = draw_plots(everything)
    assert not {"head_alpha", "head_fit", "importance"} & set(drawn)
    assert "Another head" not in render_html(everything, drawn)


def test_pictures_of_what_every_run_has_are_drawn_for_a_finished_run(inputs):
    drawn = draw_plots(build_report(inputs()))
    always = {"confusion", "class_counts", "learning_curves", "trial_scores", "reliability", "abstention"}
    assert set(drawn) == always


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
    assert set(drawn) == {"confusion", "reliability", "abstention"}


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
