import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from automl_vision.report.gallery import Gallery, Heat, Pair, Shot
from automl_vision.report.html import ROWS, duration, render_html, settings_text, shown, typeset, verdict
from automl_vision.report.plots import draw_plots
from automl_vision.report.predictions import Predictions
from automl_vision.report.report import build_report
from automl_vision.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("few_resamples")

EVIL = "<img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(self.text)


def page_of(inputs, pictures=None):
    report = json.loads(json.dumps(build_report(inputs)))
    html = render_html(report, draw_plots(report) if pictures is None else pictures)
    return html, Page(html)


def suspects(**changes):
    """A section on labels with one suspect."""
    row = {"path": "x.jpg", "label": "cat", "suggested": "dog", "probability": 0.9, "probability_of_label": 0.05}
    row |= {"margin": -0.85, "set": "train", "group": 1, "role": "original", "alike": 0, "tiny": False}
    known = {"recipe": "linear probe", "images": {"train": 900, "val": 200}, "left_out": 0, "seconds": 0.3}
    return known | {
        "measured": True,
        "suspects": 7,
        "groups": 6,
        "listed": 7,
        "gallery": [row | {"picture": "data:image/png;base64,AAAA"} | changes],
    }


def shortcut(**changes):
    """A section on shortcuts with one alarm."""
    row = {"name": "file_type", "title": "file type", "balanced_accuracy": 0.97, "chance_high": 0.4, "limit": 0.5}
    row |= {"alarm": True, "beyond_chance": True, "told": []}
    known = {"measured": True, "images": 900, "classes": 3, "chance": 1 / 3, "alarms": 1, "left_out": 0}
    return known | {"families": [row | changes], "seconds": 0.2}


def test_tells_the_story_in_order(inputs):
    told = {"label_check": {"measured": False, "reason": "x"}, "shortcuts": {"measured": False, "reason": "y"}}
    html, _ = page_of(inputs(**told), {"trial_scores": "<svg></svg>"})
    order = [
        "verdict",
        "data",
        "findings",
        "shortcuts",
        "classes",
        "confusion",
        "validation",
        "baselines",
        "labels",
        "calibration",
        "abstention",
        "curves",
        "trials",
        "time",
        "provenance",
        "checklist",
    ]
    places = [html.index(f'<section id="{name}"') for name in order]
    assert places == sorted(places)


def test_says_the_figures(inputs):
    run = inputs()
    report = build_report(run)
    _, page = page_of(run, {})
    assert f"{100 * report['test']['accuracy']['value']:.1f} %" in page.words
    assert "budget used" in page.words
    assert "resnet18" in page.words
    assert "x.jpg" in page.words


def test_asks_nothing_of_the_outside(inputs):
    html, page = page_of(inputs())
    assert not {"link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    pulled = [value for _, key, value in page.attributes if key in ("src", "href", "xlink:href", "srcset", "action")]
    assert [value for value in pulled if not value.startswith(("#", "data:image/png;base64,"))] == []
    assert "url(http" not in html
    assert "@import" not in html
    policy = next(value for _, key, value in page.attributes if key == "content" and "default-src" in value)
    assert "default-src 'none'" in policy


def test_its_own_script_may_run_and_no_other(inputs):
    html, page = page_of(inputs())
    assert page.tags.count("script") == 1
    assert not [key for tag, key, _ in page.attributes if tag == "script"]
    (text,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    policy = next(value for _, key, value in page.attributes if key == "content" and "default-src" in value)
    assert f"script-src 'sha256-{digest}';" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]
    assert not {"eval", "innerHTML", "document.write"} & set(re.findall(r"[\w.]+", text))


def test_names_from_the_data_are_text(inputs, predict):
    row = {"kind": EVIL, "path": EVIL, "detail": EVIL, "fix": EVIL}
    trial = {
        "number": 0,
        "backbone": EVIL,
        "origin": EVIL,
        "state": EVIL,
        "score": 0.5,
        "hyperparameters": {EVIL: EVIL},
        "curve": [{"epoch": 1, "score": 0.5}],
        "kind": "finetune",
    }
    other = trial | {"number": 1, "backbone": "</svg><script>alert(2)</script>"}
    _, clean = page_of(inputs())
    run = inputs(
        name=EVIL,
        created=EVIL,
        test=predict(n=20, classes=(EVIL, "$x$", "</style><script>alert(1)</script>")),
        data={"class_counts": {"train": [1, 2, 3]}, "findings": [row]},
        baselines={EVIL: predict(n=20).probabilities},
        looks=({EVIL: EVIL}, {"when": EVIL}),
        label_check=suspects(label=EVIL, suggested=EVIL, path=EVIL, picture=None),
        shortcuts=shortcut(told=[f"class {EVIL}: median width 3 px"]),
        stop_reason=EVIL,
        seconds={EVIL: 1.0},
        trials={"table": [trial, other], EVIL: EVIL},
        model={EVIL: EVIL},
        environment={EVIL: {EVIL: EVIL}},
    )
    _, page = page_of(run)
    assert page.tags.count("script") == clean.tags.count("script") == 1
    assert page.tags.count("img") == clean.tags.count("img") == 0
    assert page.tags.count("style") == clean.tags.count("style")
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    assert page.words.count(EVIL) > 15


def test_suspects_and_alarms_are_told(inputs):
    html, page = page_of(inputs(label_check=suspects(), shortcuts=shortcut(told=["class cat: format PNG in 95 %"])))
    assert '<img src="data:image/png;base64,AAAA" alt="">' in html
    assert "Of 7 of them it believes another class than the label" in page.words
    assert "A shortcut may be in the data: from file type alone" in page.words
    assert "may be a shortcut" in page.words


def test_nothing_found_is_said_too(inputs):
    nothing = suspects() | {"suspects": 0, "groups": 0, "listed": 0, "gallery": []}
    _, page = page_of(inputs(label_check=nothing, shortcuts={"measured": False, "reason": "the moon is full"}))
    assert "None of 1,100 training and validation labels looks wrong" in page.words
    assert "was not measured: the moon is full." in page.words


def test_a_report_of_an_earlier_version_is_rendered(inputs):
    report = build_report(inputs())
    for name in ("label_check", "shortcuts", "care", "checklist"):
        del report[name]
    del report["abstention"]["by_threshold"]
    page = Page(render_html(report, {}))
    assert "script" not in page.tags
    assert "Copies of one picture are on one side of the split" in page.words


def test_works_without_pictures_and_with_little_known(inputs):
    run = inputs(
        augmented_validation=None,
        data={},
        looks=(),
        seconds={},
        trials={},
        model={},
        environment={},
        stop_reason="",
        budget_seconds=None,
    )
    assert "None is on record" in render_html(build_report(run), {})


def test_a_png_is_an_image_of_the_page(inputs):
    html = render_html(build_report(inputs()), {"confusion": "data:image/png;base64,AAAA"})
    assert '<img src="data:image/png;base64,AAAA" alt="Confusion matrix of the test set">' in html


def test_ten_thousand_classes_fit(inputs, predict):
    count = 10_000
    few = predict(n=300, classes=("a", "b"))
    names = tuple(f"class number {i}" for i in range(count))
    chances = np.zeros((300, count))
    chances[np.arange(300), np.arange(300) * 7 % count] = 1.0
    big = Predictions(few.paths, np.arange(300) * 31 % count, np.arange(300), chances, names)
    findings = [{"kind": "truncated", "path": f"{i}.jpg", "detail": "x" * 1000, "fix": "y"} for i in range(5000)]
    trials = {"table": [{"number": i, "score": 0.1, "hyperparameters": {"a": "z" * 1000}} for i in range(3000)]}
    run = inputs(
        test=big,
        validation=big,
        augmented_validation=None,
        trials=trials,
        data={"class_counts": {"train": [1] * count}, "findings": findings},
    )
    html, page = page_of(run)
    assert len(html.encode()) < 1_000_000
    assert f"{ROWS['classes']} of 10,000 classes shown" in page.words
    assert "the other 2,940 are in" in page.words
    assert "the other 4,960 are in" in page.words


def test_the_verdict_speaks_plainly(inputs):
    text = verdict(build_report(inputs()))
    assert text.startswith("On 200 images that had no part in training or choosing, the model is right in 8")
    assert text.endswith("No check found a reason to doubt these figures.")
    twice = verdict(build_report(inputs(looks=({}, {}))))
    assert twice.endswith("One thing to know before trusting them:")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.04, "0.0 s"),
        (12.4, "12 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (0.000312345, "0.0003123"),
        ({"a": [1, 2]}, "a 1, 2"),
    ],
)
def test_values(value, text):
    assert shown(value) == text


def test_long_values_are_cut():
    assert len(shown("x" * 5000)) == 200


def test_typesetting_leaves_names_alone():
    assert typeset("-1.5 to 3 % of t-shirt-2") == "−1.5 to 3\u00a0% of t-shirt-2"


def test_settings_of_a_trial_name_what_is_unusual_alone():
    recipe = Recipe("finetune", "net", 96, augment="geometric")
    usual = settings_text(recipe.to_dict())
    assert "augment geometric" in usual
    assert not [name for name in ("mix", "loss", "head", "freeze", "flip") if name in usual]
    changed = dataclasses.replace(recipe, mix="cutmix", freeze_stages=2, horizontal_flip=False)
    assert set(settings_text(changed.to_dict()).split(", ")) - set(usual.split(", ")) == {
        "mix cutmix",
        "freeze stages 2",
        f"horizontal flip {shown(False)}",
    }


def test_the_page_says_whether_images_may_be_mirrored(inputs):
    report = build_report(inputs())
    line = "mirror images: left-right no, upside-down no, quarter turns yes"
    allowed = {"horizontal_flip": False, "vertical_flip": False, "quarter_turns": True}
    told = {**report, "trials": {**report["trials"], "symmetries": {"tested": True, "allowed": allowed}}}
    assert line in render_html(told, {})
    assert "mirror images" not in render_html(report, {})


def test_the_page_says_what_is_seen_of_images_that_are_not_square(inputs):
    report = build_report(inputs())
    chosen = {"chosen": "middle", "reason": "the settings ask for it"}
    said = "the largest square in the middle of each image: the settings ask for it"
    assert said in render_html({**report, "data": {**report["data"], "resize": chosen}}, {})
    assert "square in the middle" not in render_html(report, {})


def test_mistakes_stand_beside_their_heat_maps_and_names_are_text(inputs):
    picture = "data:image/png;base64,iVBORw0KGgo="
    one = Shot(EVIL, EVIL, "dog", 0.75, 0.125, picture, True, (Heat("dog", picture), Heat(EVIL, "")))
    pairs = (Pair(EVIL, "dog", 3, 0.5, one, one), Pair("dog", EVIL, 1, 0.25, one, None))
    report = build_report(inputs())
    page = Page(render_html(report, {}, Gallery(7, (one,), pairs, cut_short=True)))
    assert len([tag for tag in page.tags if tag == "article"]) == 3
    assert [value for tag, key, value in page.attributes if (tag, key) == ("img", "src")] == [picture] * 8
    assert "onerror" not in {key for _, key, _ in page.attributes}
    for words in ("75.0 %", "12.5 %", "nothing speaks for it", "1 of 7 mistakes shown", "The budget ended", "no cause"):
        assert words in page.words
    assert f"No test image of {EVIL} is recognised." in page.words


def test_without_mistakes_there_is_no_gallery(inputs):
    report = build_report(inputs())
    for gallery in (None, Gallery(0, (), ())):
        assert 'id="mistakes"' not in render_html(report, {}, gallery)
