"""Which mistakes a report shows, and that a page of them is safe to render again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from automl_vision.report.gallery import (
    Gallery,
    Heat,
    Pair,
    Shot,
    shot,
    worst_confusions,
    worst_mistakes,
)
from automl_vision.report.html import render_html
from automl_vision.report.predictions import Predictions
from automl_vision.report.report import build_report

PICTURE = "data:image/png;base64,iVBORw0KGgo="


def predictions(labels, said, sure, groups=None, classes=("a", "b", "c")):
    n = len(labels)
    chances = np.array([[(1 - p) / (len(classes) - 1)] * len(classes) for p in sure])
    chances[np.arange(n), said] = sure
    paths = tuple(f"{k}.png" for k in range(n))
    return Predictions(paths, np.array(labels), np.arange(n) if groups is None else np.array(groups), chances, classes)


def test_the_surest_mistakes_come_first_one_of_each_group():
    told = predictions(
        [0, 0, 1, 2, 2, 1], [1, 0, 0, 1, 0, 0], [0.6, 0.9, 0.95, 0.7, 0.8, 0.9], groups=[0, 1, 2, 3, 4, 2]
    )
    assert worst_mistakes(told) == [2, 4, 3, 0]
    assert worst_mistakes(told, most=2) == [2, 4]


def test_no_mistakes_no_pictures():
    told = predictions([0, 1, 2], [0, 1, 2], [0.9, 0.9, 0.9])
    assert worst_mistakes(told) == []
    assert worst_confusions(told) == []


def test_a_confusion_has_its_surest_mistake_and_what_is_recognised_best():
    told = predictions(
        [0, 0, 0, 1, 1, 1, 2],
        [1, 1, 0, 1, 1, 2, 0],
        [0.6, 0.8, 0.9, 0.7, 0.95, 0.6, 0.5],
    )
    worst, *others = worst_confusions(told)
    assert (worst.label, worst.predicted, worst.count, worst.share) == (0, 1, 2, pytest.approx(2 / 3))
    assert (worst.mistaken, worst.example) == (1, 4)
    nobody = next(each for each in others if each.predicted == 2)
    assert (nobody.mistaken, nobody.example) == (5, None)  # the only c is mistaken itself


@pytest.mark.usefixtures("few_resamples")
def test_pairs_are_those_of_the_report(predict):
    from automl_vision.report.report import test_section

    told = predict(n=120, right=0.7)
    ours = [
        (told.class_names[each.label], told.class_names[each.predicted], each.count) for each in worst_confusions(told)
    ]
    theirs = [(each["true"], each["predicted"], each["count"]) for each in test_section(told, 0)["confused"]]
    assert ours == theirs[: len(ours)]
    assert len(ours) > 1


def test_an_image_says_both_probabilities():
    one = shot(predictions([0], [1], [0.7]), 0)
    assert (one.label, one.predicted) == ("a", "b")
    assert (one.probability, one.own_probability) == (pytest.approx(0.7), pytest.approx(0.15))


def some_gallery(picture=PICTURE):
    one = Shot("x.png", "a", "b", 0.7, 0.2, picture, True, (Heat("b", picture), Heat("a", "")))
    return Gallery(5, (one,), (Pair("a", "b", 3, 0.5, one, None), Pair("b", "a", 1, 0.1, one, one)), cut_short=True)


def test_a_gallery_survives_json():
    gallery = some_gallery()
    assert Gallery.from_dict(json.loads(json.dumps(gallery.to_dict()))) == gallery


@pytest.mark.parametrize(
    "uri", ["https://example.com/x.png", "javascript:alert(1)", "data:text/html;base64,AAAA", 'x" onerror="1', 5, None]
)
def test_pictures_that_are_none_are_refused(uri):
    values = some_gallery().to_dict()
    values["mistakes"][0]["picture"] = uri
    with pytest.raises(ValueError, match="no picture"):
        Gallery.from_dict(values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"total": 1},
        {"total": 1, "mistakes": 5, "pairs": [], "cut_short": 0},
        {"total": 1, "mistakes": [1], "pairs": [], "cut_short": 0},
    ],
)
def test_what_is_no_gallery_is_refused(values):
    with pytest.raises(ValueError):
        Gallery.from_dict(values)


def test_the_page_says_why_there_are_no_pictures(inputs):
    gallery = Gallery(0, (), (), trouble="RuntimeError: <no> such layer")
    page = render_html(build_report(inputs()), {}, Gallery.from_dict(gallery.to_dict()))
    assert "they could not be made" in page
    assert "RuntimeError: &lt;no&gt; such layer" in page
