"""What copies add to a figure: nothing where there are none, everything where labels mean nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_vision.models.features import OutOfTime
from automl_vision.report import intervals
from automl_vision.report.impact import Dealt, impact_line, impact_sentences, measure_impact

CLASSES = 4


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    drawn = intervals.group_weights
    monkeypatch.setattr("automl_vision.report.impact.group_weights", lambda groups, _, seed: drawn(groups, 200, seed))


def dealt(*, originals=100, copies=0, meaning=0.0, seed=0, dimensions=60):
    """Features of noise, labels that mean as much as asked for, and copies that are nearly their original."""
    rng = np.random.default_rng(seed)
    of_original = np.arange(originals) % CLASSES
    first = rng.normal(size=(originals, dimensions))
    first[:, :CLASSES] += meaning * np.eye(CLASSES)[of_original]
    groups = np.repeat(np.arange(originals), 1 + copies)
    features = first[groups] + 0.05 * rng.normal(size=(len(groups), dimensions))
    is_original = np.arange(len(groups)) % (1 + copies) == 0
    features[is_original] = first
    return Dealt(features.astype(np.float32), of_original[groups], groups, is_original, CLASSES)


def test_with_labels_of_noise_the_naive_split_lies_and_the_clean_one_does_not():
    seeds, originals, chance = 8, 60, 1 / CLASSES
    found = [measure_impact(dealt(originals=originals, copies=3, seed=seed), "accuracy", seed) for seed in range(seeds)]
    error = np.sqrt(chance * (1 - chance) / (seeds * originals))
    assert abs(np.mean([each["clean"]["value"] for each in found]) - chance) < 3 * error
    for each in found:
        assert each["naive"]["value"] > 2 * chance
        assert each["difference"]["low"] > 0.1
        assert each["difference"]["beyond_interval"]


def test_where_labels_mean_something_copies_still_add():
    found = measure_impact(dealt(copies=4, meaning=2.0), "accuracy", 0)
    assert found["clean"]["low"] > 1 / CLASSES
    assert found["naive"]["low"] > found["clean"]["high"]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("meaning", [0.0, 3.0])
def test_without_copies_both_agree(seed, meaning):
    found = measure_impact(dealt(originals=200, meaning=meaning, seed=seed), "accuracy", seed)
    assert found["naive"]["low"] <= found["clean"]["value"] <= found["naive"]["high"]
    assert found["clean"]["low"] <= found["naive"]["value"] <= found["clean"]["high"]
    assert not found["difference"]["beyond_interval"]
    assert found["judged"] == {"naive": 200, "clean": 200}


@settings(max_examples=15, deadline=None)
@given(originals=st.integers(12, 40), copies=st.integers(0, 5), seed=st.integers(0, 2**31))
def test_both_train_on_as_many_images_and_the_clean_one_judges_originals_only(originals, copies, seed):
    data = dealt(originals=originals, copies=copies, seed=seed, dimensions=8)
    found = measure_impact(data, "accuracy", seed)
    assert found["judged"] == {"naive": len(data.labels), "clean": originals}
    sizes = found["trained_on"]
    assert abs(sizes["naive"] - sizes["clean"]) <= 1 + copies
    assert found["difference"]["value"] == pytest.approx(found["naive"]["value"] - found["clean"]["value"])
    for name in ("naive", "clean", "difference"):
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
    json.dumps(found, allow_nan=False)


def test_labels_of_copies_do_not_count_in_the_clean_figure():
    data = dealt(originals=60, copies=1, meaning=6.0)
    wrong = np.where(data.originals, data.labels, (data.labels + 1) % CLASSES)
    lying = Dealt(data.features, wrong, data.groups, data.originals, CLASSES)
    assert measure_impact(lying, "accuracy", 0)["judged"]["clean"] == 60


def test_equal_inputs_give_equal_figures():
    assert measure_impact(dealt(copies=2), "macro_f1", 3) == measure_impact(dealt(copies=2), "macro_f1", 3)


def test_half_a_measurement_is_none():
    with pytest.raises(OutOfTime):
        measure_impact(dealt(copies=1), "accuracy", 0, lambda: True)


def test_no_original_is_a_mistake():
    data = dealt(copies=1)
    nobody = Dealt(data.features, data.labels, data.groups, np.zeros_like(data.originals), CLASSES)
    with pytest.raises(ValueError, match="there are none"):
        measure_impact(nobody, "accuracy", 0)


# --- what is said ---------------------------------------------------------------------------------------------------


def said(**changes):
    figures = {
        "naive": {"value": 0.93, "low": 0.9, "high": 0.95},
        "clean": {"value": 0.82, "low": 0.77, "high": 0.86},
        "difference": {"value": 0.11, "low": 0.07, "high": 0.15, "beyond_interval": True},
    }
    about = {"measured": True, "metric": "accuracy", "what": "copies", "recipe": "frozen net, 96 px", "images": 1200}
    return {**about, **figures, **changes}


def test_the_line_has_both_figures_and_what_copies_add():
    line = impact_line(said())
    assert "Naive split 0.93 [0.90, 0.95], clean split 0.82 [0.77, 0.86]" in line
    assert "copies on both sides add 0.11 [0.07, 0.15] of accuracy" in line


def test_the_sentences_explain_it():
    first, second = impact_sentences(said())
    assert "93.0 % (95 % interval 90.0 to 95.0)" in first
    assert "1,200 training and validation images" in first
    assert "add 11.0 points (95 % interval 7.0 to 15.0)" in second
    assert "not of the model" in second
    assert "no test image" in second


def test_a_difference_within_chance_is_called_so():
    difference = {"value": 0.01, "low": -0.02, "high": 0.04, "beyond_interval": False}
    assert "no more than chance" in impact_line(said(difference=difference))
    assert "no more than chance" in impact_sentences(said(difference=difference))[1]


def test_what_was_not_measured_says_why():
    (sentence,) = impact_sentences({"measured": False, "reason": "the budget has no time for it"})
    assert "was not measured: the budget has no time for it" in sentence
