"""What a model file says of itself is of unknown origin: only figures that are in order are told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl_vision.bundle import Bundle, load_bundle
from automl_vision.predictor import Prediction
from automl_vision.report.shift import _checked
from automl_vision.serving.about import _interval, about
from automl_vision.serving.answers import row_of
from automl_vision.serving.limits import Limits
from automl_vision.serving.pages import coded, percent


@pytest.fixture(scope="module")
def bundle(model_file: Path) -> Bundle:
    return load_bundle(model_file)


GOOD = {"value": 0.5, "low": 0.25, "high": 0.75}


@pytest.mark.parametrize(
    "test",
    [
        None,
        "good",
        [],
        {},
        {"n": 3},
        {"n": 0, "accuracy": GOOD},
        {"n": True, "accuracy": GOOD},
        {"n": "3", "accuracy": GOOD},
        {"n": 3, "accuracy": 0.5},
        {"n": 3, "accuracy": GOOD | {"value": 1.5}},
        {"n": 3, "accuracy": GOOD | {"low": float("nan")}},
        {"n": 3, "accuracy": GOOD | {"high": "<b>"}},
    ],
    ids=repr,
)
def test_figures_out_of_order_are_not_told(bundle: Bundle, test: Any) -> None:
    assert about(replace(bundle, provenance={"test": test}), Path("m.pt"), 0.0, Limits()).test is None


def test_figures_in_order_are_told(bundle: Bundle) -> None:
    told = about(replace(bundle, provenance={"test": {"n": 3, "accuracy": GOOD}}), Path("m.pt"), 0.5, Limits())
    assert told.test == {"n": 3, "accuracy": GOOD, "macro_f1": None}
    plain = json.loads(json.dumps(told.as_json(), allow_nan=False))
    assert plain["threshold"] == 0.5
    assert plain["networks"][0]["backbone"] == "mobilenetv3_small_100"
    assert plain["created"] is None


@pytest.mark.parametrize(
    ("path", "name"),
    [("runs/pets/model.pt", "pets"), ("pets.pt", "pets"), ("/model.pt", "model"), ("a\x1b/model.pt", "a\\x1b")],
)
def test_it_goes_by_the_name_of_its_run_or_its_file(bundle: Bundle, path: str, name: str) -> None:
    assert about(bundle, Path(path), 0.0, Limits()).name == name


def test_words_between_backticks_are_code_and_nothing_else_is() -> None:
    assert coded("a `b<i>` <i> `c") == "a <code>b&lt;i&gt;</code> &lt;i&gt; `c"
    assert percent(0.8734) == "87.3 %"


def test_of_equal_classes_the_first_is_the_label_and_leads() -> None:
    chances = np.array([0.4, 0.4, 0.2])
    row = row_of("x", Prediction("", "ok", "a", 0.4, chances), ("a", "b", "c"), 0.0, 2)
    assert row.probabilities == {"a": 0.4, "b": 0.4}
    assert list(row.probabilities) == [row.label, "b"]


@pytest.mark.parametrize("value", [10**400, float("nan"), float("inf"), -1])
def test_a_figure_of_no_share_is_no_figure(value: float) -> None:
    assert _interval({"value": value, "low": 0.1, "high": 0.9}) is None
    assert _checked({"value": value, "low": 0.1, "high": 0.9}) is None
