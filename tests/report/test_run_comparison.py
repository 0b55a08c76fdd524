"""Runs beside each other: who is compared with whom, and what comes of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import precision_score

from automl_vision.report import comparison
from automl_vision.report.baseline_figures import Baseline
from automl_vision.report.comparison import FinishedRun, build_comparison, data_set_name, holm, macro_precision
from automl_vision.report.predictions import Predictions

CLASSES = ("cat", "dog", "eel")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(comparison, "RESAMPLES", 300)


def answers(said, labels=None, groups=None, classes=CLASSES, paths=None):
    said = np.asarray(said)
    labels = np.arange(len(said)) % 3 if labels is None else np.asarray(labels)
    chances = np.full((len(said), len(classes)), 0.1)
    chances[np.arange(len(said)), said] = 0.8
    groups = np.arange(len(said)) if groups is None else np.asarray(groups)
    paths = tuple(f"{i}.png" for i in range(len(said))) if paths is None else tuple(paths)
    return Predictions(paths, labels, groups, chances, tuple(classes))


def run(name, test, **changes):
    accuracy = float((test.predicted == test.labels).mean())
    figure = {"value": accuracy, "low": max(0.0, accuracy - 0.1), "high": min(1.0, accuracy + 0.1)}
    known = {
        "path": f"runs/{name}",
        "source": "/data/pets",
        "test_digest": "d1",
        "figures": {"accuracy": figure, "macro_f1": figure},
        "looks": 1,
        "seed": 0,
        "backbone": "resnet18",
        "interrupted": False,
    }
    return FinishedRun(name=name, test=test, **(known | changes))


def wrong_at(n, *places):
    said = np.arange(n) % 3
    for place in places:
        said[place] = (said[place] + 1) % 3
    return said


def the_pair(first, second, **changes):
    (found,) = build_comparison([run("a", first), run("b", second, **changes)])["test_sets"]
    (pair,) = found["pairs"]
    return pair


# --- pairs ----------------------------------------------------------------------------------------------------------


def test_a_pair_is_tested_on_the_images_that_tell_it_apart():
    pair = the_pair(answers(wrong_at(90, 0, 1)), answers(wrong_at(90, *range(1, 20))))
    assert (pair["only_first_right"], pair["only_second_right"]) == (18, 1)
    assert pair["p_value"] == pytest.approx(binomtest(18, 19).pvalue)
    assert pair["distinguishable"]
    accuracy = pair["accuracy"]
    assert accuracy["value"] == pytest.approx(17 / 90)
    assert 0 < accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert pair["macro_f1"]["low"] < pair["macro_f1"]["value"] < pair["macro_f1"]["high"]


def test_the_order_of_files_and_of_classes_does_not_matter():
    first, second = answers(wrong_at(30, 0, 1)), answers(wrong_at(30, 5, 6, 7, 8, 9))
    shuffled = np.random.default_rng(0).permutation(30)
    turned = [2, 0, 1]  # place of each class in the other file
    other = Predictions(
        paths=tuple(second.paths[i] for i in shuffled),
        labels=np.array([turned[i] for i in second.labels[shuffled]]),
        groups=second.groups[shuffled],
        probabilities=second.probabilities[shuffled][:, [1, 2, 0]],
        class_names=("dog", "eel", "cat"),
    )
    assert the_pair(first, other) == the_pair(first, second)


def test_a_class_that_one_run_does_not_know_is_no_hindrance():
    both = answers(wrong_at(30, 0, 1))
    more = answers(wrong_at(30, 5), classes=(*CLASSES, "fox"))
    assert the_pair(both, more)["only_second_right"] == 2


def test_images_of_one_group_are_one_piece_of_evidence_if_any_run_says_so():
    first, second = answers(wrong_at(60)), answers(wrong_at(60, *range(12)))
    assert the_pair(first, second)["p_value"] < 0.001
    grouped = replace(second, groups=np.where(np.arange(60) < 12, 0, np.arange(60)))
    pair = the_pair(first, grouped)
    assert pair["p_value"] == 1.0
    assert not pair["distinguishable"]
    (found,) = build_comparison([run("a", first), run("b", grouped)])["test_sets"]
    assert found["groups"] == 49


def test_groups_of_two_runs_join_into_chains():
    first = answers(wrong_at(6), groups=[0, 0, 1, 1, 2, 3])
    second = answers(wrong_at(6), groups=[5, 4, 4, 3, 2, 1])
    (found,) = build_comparison([run("a", first), run("b", second)])["test_sets"]
    assert found["groups"] == 3  # 0 to 3 by a chain, 4 and 5 alone


def test_two_runs_that_say_the_same_are_not_certain_to_be_equal():
    pair = the_pair(answers(wrong_at(20, 3)), answers(wrong_at(20, 3)))
    assert (pair["p_value"], pair["accuracy"]["value"]) == (1.0, 0.0)
    assert pair["accuracy"]["low"] < -0.05 < 0.05 < pair["accuracy"]["high"]
    assert (pair["macro_f1"]["low"], pair["macro_f1"]["high"]) == (None, None)


def test_chance_alone_is_rarely_called_a_difference():
    rng = np.random.default_rng(1)
    called = 0
    for _ in range(40):
        runs = [run(str(k), answers(wrong_at(120, *np.flatnonzero(rng.random(120) < 0.2)))) for k in range(4)]
        (found,) = build_comparison(runs)["test_sets"]
        called += any(pair["distinguishable"] for pair in found["pairs"])
    assert called <= 6  # 2 expected; six pairs uncorrected would be called in 9 or so


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [([], []), ([0.03], [0.03]), ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]), ([0.5, 0.9], [1.0, 1.0])],
)
def test_holm(p_values, expected):
    assert holm(p_values) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_a_corrected_p_value_is_none_smaller_and_keeps_the_order(p_values):
    corrected = holm(p_values)
    assert all(before <= after <= 1 for before, after in zip(p_values, corrected, strict=True))
    assert all(
        after <= min(1, len(p_values) * before) + 1e-12 for before, after in zip(p_values, corrected, strict=True)
    )
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)


# --- who is compared with whom --------------------------------------------------------------------------------------


def test_other_test_images_are_another_table_row_and_no_pair():
    runs = [run("a", answers(wrong_at(9))), run("b", answers(wrong_at(12)), test_digest="d2")]
    found = build_comparison(runs)
    assert [each["pairs"] for each in found["test_sets"]] == [[], []]
    assert [row["test_set"] for row in found["runs"]] == [1, 2]
    assert any("2 different sets of images" in note for note in found["notes"])


def test_equal_names_are_no_equal_images():
    """Without a digest nothing says that 0.png is the same picture."""
    runs = [run(name, answers(wrong_at(9)), test_digest="") for name in "ab"]
    found = build_comparison(runs)
    assert len(found["test_sets"]) == 2
    assert any("a, b does not say which images were tested" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (answers(wrong_at(9), paths=[f"x{i}.png" for i in range(9)]), "other paths"),
        (answers(wrong_at(9), labels=[0] * 9), "other labels"),
    ],
)
def test_images_that_cannot_be_laid_beside_each_other_are_said(other, why):
    (found,) = build_comparison([run("a", answers(wrong_at(9))), run("b", other)])["test_sets"]
    assert found["pairs"] == []
    assert why in found["unpaired"]


def test_looks_are_added_up():
    runs = [run("a", answers(wrong_at(9)), looks=2), run("b", answers(wrong_at(9, 1)))]
    found = build_comparison(runs)
    assert found["test_sets"][0]["looks"] == 3
    assert any("looked at 3 times by these 2 runs" in note for note in found["notes"])
    assert not any("looked at" in note for note in build_comparison(runs[1:])["notes"])


def test_runs_and_data_of_one_name_are_told_apart():
    runs = [
        run("a", answers(wrong_at(9)), path="x/a", source="/one/pets"),
        run("a", answers(wrong_at(9)), path="y/a", source="/two/pets", test_digest="d2"),
    ]
    rows = build_comparison(runs)["runs"]
    assert [row["run"] for row in rows] == ["x/a", "y/a"]
    assert [row["data_set"] for row in rows] == ["/one/pets", "/two/pets"]


@pytest.mark.parametrize(
    ("source", "name"),
    [("/data/pets", "pets"), ("pets/", "pets"), ("a/pets.v2", "pets.v2"), ("a/pets.csv", "pets"), (".csv", ".csv")],
)
def test_the_name_of_a_data_set(source, name):
    assert data_set_name(source) == name


def test_an_interrupted_run_is_said():
    found = build_comparison([run("a", answers(wrong_at(9)), interrupted=True), run("b", answers(wrong_at(9)))])
    assert "Ended early by the user: a." in found["notes"]


def test_equal_runs_give_equal_comparisons_of_plain_types():
    runs = [run("a", answers(wrong_at(30, 1))), run("b", answers(wrong_at(30, 2, 3)))]
    assert json.loads(json.dumps(build_comparison(runs), allow_nan=False)) == build_comparison(runs)


# --- figures --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_macro_precision_is_that_of_scikit_learn(pairs):
    labels, said = (np.array(each) for each in zip(*pairs, strict=True))
    found = macro_precision(answers(said, labels), 0)
    expected = precision_score(labels, said, average="macro", zero_division=0)
    assert found["value"] == pytest.approx(expected)
    assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1


# --- the baseline ---------------------------------------------------------------------------------------------------


def test_the_baseline_stands_beside_the_runs_of_its_data_set():
    given = Baseline("b.csv", "percent", {"Pets": {"accuracy": 0.7}, "dgos": {"macro_f1": 0.5}, "far": {}}, ("year",))
    runs = [run("a", answers(wrong_at(10, 1))), run("dogs", answers(wrong_at(9)), source="/x/y", test_digest="d2")]
    found = build_comparison(runs, given)
    beside = found["runs"][0]["baseline"]
    assert beside["accuracy"]["difference"] == pytest.approx(0.2)
    assert (beside["accuracy"]["low"], beside["accuracy"]["high"]) == pytest.approx((0.1, 0.3))
    assert beside["macro_f1"] is None
    assert found["runs"][1]["baseline"] is None
    assert found["baseline"]["without_run"] == ["dgos", "far"]
    assert found["baseline"]["without_baseline"] == ["y"]
    told = " ".join(found["notes"])
    assert "dgos (did you mean dogs?)" in told
    assert "no line for y" in told
    assert "year" in told


def test_a_baseline_may_name_the_run():
    given = Baseline("b.csv", "share", {"dogs": {"accuracy": 0.5}})
    (row,) = build_comparison([run("dogs", answers(wrong_at(9)), source="/x/images")], given)["runs"]
    assert row["baseline"]["accuracy"]["value"] == 0.5
