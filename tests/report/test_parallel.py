"""Parallel coordinates: what is drawn, and that it is well-formed whatever names hold."""

import itertools
import re
from xml.etree import ElementTree

import pytest

from automl_vision.report.parallel import AXES, LINES, parallel_coordinates


def report_of(rows):
    return {"trials": {"table": rows}}


def trial(number, score, kind="finetune", **changes):
    row = {"number": number, "kind": kind, "score": score, "backbone": "resnet18", "resolution": 96, "epochs": 3}
    hyperparameters = {"learning_rate": 10.0 ** -(2 + number % 7), "optimizer": ["adamw", "sgd"][number % 2]}
    return row | {"hyperparameters": hyperparameters} | changes


def drawn(rows):
    return ElementTree.fromstring(str(parallel_coordinates(report_of(rows))))


def test_a_line_per_fine_tune_from_its_settings_to_its_score():
    rows = [trial(k, 0.5 + k / 100) for k in range(10)] + [trial(99, 0.99, kind="probe"), trial(98, None)]
    svg = drawn(rows)
    lines = svg.findall("polyline")
    assert len(lines) == 10
    assert lines[-1].get("class") == "best"  # on top
    assert lines[-1].find("title").text == "trial 9: 59.0 %"
    titles = [text.text for text in svg.findall("text") if text.get("class") == "title"]
    assert titles == ["optimizer", "learning rate", "score"]  # all other settings are the same
    heights = [float(point.split(",")[1]) for point in lines[-1].get("points").split()]
    assert heights[-1] == min(heights)  # the best score is at the top
    assert len(heights) == 3


def test_the_learning_rate_is_on_a_logarithmic_axis():
    rows = [trial(k, 0.5, hyperparameters={"learning_rate": 10.0**-k}) for k in range(1, 8)]
    heights = sorted(float(re.split("[, ]", line.get("points"))[1]) for line in drawn(rows).findall("polyline"))
    steps = [b - a for a, b in itertools.pairwise(heights)]
    assert steps == pytest.approx([steps[0]] * 6, abs=0.2)


@pytest.mark.parametrize("rows", [[], [trial(0, 0.5)], [trial(0, 0.5), trial(0, 0.6)], [{"number": 1}]])
def test_nothing_is_drawn_where_nothing_differs(rows):
    assert parallel_coordinates(report_of(rows)) == ""


def test_foreign_names_are_text_and_missing_values_are_left_out():
    evil = "</svg><script>&\x01"
    rows = [trial(0, 0.5, backbone=evil), trial(1, 0.6, backbone=None), trial(2, 0.7, hyperparameters={})]
    svg = drawn(rows)
    assert "</svg><script>" in "".join(svg.itertext())
    assert len(svg.findall("polyline")) == 3


def test_size_is_bounded():
    names = ("weight_decay", "layer_decay", "batch_size", "strength", "label_smoothing", "drop_path", "mix", "augment")
    rows = [
        trial(k, 0.5, backbone=f"net{k}", resolution=k, epochs=k, hyperparameters=dict.fromkeys(names, k / 7))
        for k in range(3 * LINES)
    ]
    svg = drawn(rows)
    assert len(svg.findall("polyline")) == LINES
    assert len(svg.findall("line")) == AXES + 1
    assert len(str(parallel_coordinates(report_of(rows)))) < 100_000
