"""How far a model falls on another set: intervals, like with like, and figures of unknown origin."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_vision.report.intervals import wilson
from automl_vision.report.shift import MODEL_FILE, RUN_REPORT, drop_section, drop_sentences, own_figures, test_figures


def figure(hits, n):
    low, high = wilson(hits, n)
    return {"value": hits / n if n else 0.0, "low": low, "high": high}


def section(**counts):
    """As `test_section` has it: class=(right, images)."""
    right, images = (sum(each[i] for each in counts.values()) for i in (0, 1))
    rows = [{"class": name, "recall": figure(*each), "support": each[1]} for name, each in counts.items()]
    return {"n": images, "accuracy": figure(right, images), "macro_f1": figure(right, images), "per_class": rows}


def own(**counts):
    return own_figures({"test": json.loads(json.dumps(test_figures(section(**counts))))}, None)


def test_a_drop_is_own_minus_other_with_its_interval():
    drop = drop_section(own(cat=(95, 100), dog=(90, 100)), section(cat=(60, 100), dog=(88, 100)))
    assert drop["accuracy"]["value"] == pytest.approx(0.925 - 0.74)
    cat, dog = drop["classes"]
    assert cat["value"] == pytest.approx(0.35)
    assert cat["low"] < 0.35 < cat["high"]
    assert (cat["beyond_interval"], dog["beyond_interval"]) == (True, False)
    assert drop["mean_recall"]["value"] == pytest.approx((0.35 + 0.02) / 2)
    assert drop["source"] == MODEL_FILE


def test_another_mix_of_classes_alone_does_not_move_mean_recall():
    drop = drop_section(own(cat=(95, 100), dog=(50, 100)), section(cat=(19, 20), dog=(200, 400)))
    assert drop["accuracy"]["value"] > 0.15
    assert drop["mean_recall"]["value"] == pytest.approx(0)


def test_classes_of_one_set_alone_are_not_compared():
    drop = drop_section(own(cat=(9, 10), dog=(0, 0)), section(cat=(8, 10), dog=(8, 10), eel=(0, 0)))
    assert [row["class"] for row in drop["classes"]] == ["cat"]
    told = drop_sentences(drop, ["eel"])
    assert told[0] == "The set has no images of eel."
    nothing = drop_section(own(cat=(9, 10)), section(dog=(8, 10)))
    assert (nothing["mean_recall"], nothing["classes"]) == (None, [])
    assert any("cannot be told" in each for each in drop_sentences(nothing, []))


@pytest.mark.parametrize(
    ("figures", "mine", "why_not", "words"),
    [
        (None, own(cat=(1, 2)), "", "no image"),
        (section(cat=(1, 2)), None, "", "does not say"),
        (section(cat=(1, 2)), own(cat=(1, 2)), "5 images count", "5 images count"),
    ],
)
def test_where_there_is_no_drop_the_reason_is_said(figures, mine, why_not, words):
    drop = drop_section(mine, figures, why_not)
    assert not drop["measured"]
    assert words in drop["reason"]
    assert words in drop_sentences(drop, [])[0]


def test_sentences_say_which_way_and_whether_it_is_chance():
    fell = drop_sentences(drop_section(own(a=(95, 100), b=(95, 100)), section(a=(50, 100), b=(60, 100))), [])
    assert fell[0].startswith("Accuracy fell by 40.0 points (95 % interval 3")
    assert "more than chance explains" in fell[0]
    assert fell[-1].startswith("2 of 2 classes fell")
    rose = drop_sentences(drop_section(own(a=(5, 10), b=(5, 10)), section(a=(6, 10), b=(6, 10))), [])
    assert rose[0].startswith("Accuracy rose by 10.0 points (95 % interval -")
    assert "which chance can explain" in rose[0]
    same = drop_sentences(drop_section(own(a=(5, 10)), section(a=(5, 10))), [])
    assert same[0].startswith("Accuracy is 50.0 % as before on the model's own 10 test images (95 % interval")


counts = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(max_examples=50)
@given(st.lists(st.tuples(counts, counts), min_size=1, max_size=5))
def test_intervals_hold_their_drop_and_are_in_bounds(pairs):
    names = [f"c{i}" for i in range(len(pairs))]
    before = section(**{name: pair[0] for name, pair in zip(names, pairs, strict=True)})
    after = section(**{name: pair[1] for name, pair in zip(names, pairs, strict=True)})
    drop = drop_section(own_figures({"test": test_figures(before)}, None), after)
    for each in (drop["accuracy"], drop["mean_recall"], *drop["classes"]):
        assert -1 - 1e-9 <= each["low"] <= each["value"] <= each["high"] <= 1 + 1e-9
        assert each["value"] == pytest.approx(each["before"] - each["after"])


def test_intervals_keep_their_promise():
    rng, kept = np.random.default_rng(0), {"accuracy": 0, "mean_recall": 0}
    before, after, sizes = np.array([0.9, 0.6, 0.8]), np.array([0.7, 0.6, 0.95]), np.array([30, 30, 30])
    for _ in range(1000):
        drawn = [
            dict(zip("abc", zip(rng.binomial(sizes, p).tolist(), sizes.tolist(), strict=True), strict=True))
            for p in (before, after)
        ]
        drop = drop_section(own(**drawn[0]), section(**drawn[1]))
        for name in kept:
            kept[name] += drop[name]["low"] <= (before - after).mean() <= drop[name]["high"]
    assert all(930 <= each <= 990 for each in kept.values()), kept


# --- figures of unknown origin --------------------------------------------------------------------------------------

TEST = test_figures(section(cat=(9, 10), dog=(5, 10)))
OLD = {key: TEST[key] for key in ("n", "accuracy", "macro_f1")}


def report_of(test, fingerprint="f"):
    return {"test": test, "environment": {"data_fingerprint": fingerprint}}


def test_an_older_file_takes_the_classes_from_the_report_of_its_run():
    provenance = {"test": OLD, "data_fingerprint": "f"}
    found = own_figures(provenance, report_of(section(cat=(9, 10), dog=(5, 10))))
    assert found.source == RUN_REPORT
    assert found.recall.keys() == {"cat", "dog"}
    assert own_figures(provenance, None).recall == {}


@pytest.mark.parametrize(
    "report",
    [
        report_of(section(cat=(9, 10), dog=(5, 10)), "other data"),
        report_of(section(cat=(8, 10), dog=(5, 10))),
        report_of({**section(cat=(9, 10), dog=(5, 10)), "per_class": 3}),
        {"test": None},
        {},
    ],
)
def test_the_report_of_another_model_is_not_taken(report):
    found = own_figures({"test": OLD, "data_fingerprint": "f"}, report)
    assert (found.accuracy, found.recall) == ((0.7, OLD["accuracy"]["low"], OLD["accuracy"]["high"]), {})


@pytest.mark.parametrize(
    "test",
    [
        None,
        3,
        {},
        {**TEST, "n": 0},
        {**TEST, "n": "many"},
        {**TEST, "accuracy": None},
        {**TEST, "accuracy": {"value": 2, "low": 0, "high": 1}},
        {**TEST, "accuracy": {"value": 0.5, "low": 0.6, "high": 1}},
        {**TEST, "accuracy": {"value": float("nan"), "low": 0, "high": 1}},
        {**TEST, "accuracy": {"value": "x", "low": 0, "high": 1}},
    ],
)
def test_figures_that_are_none_are_none(test):
    assert own_figures({"test": test}, None) is None


@pytest.mark.parametrize(
    "recall", [3, None, [], {"cat": 3}, {"cat": {"value": 1, "low": 1, "high": 1}}, {"cat": {"n": 5}}]
)
def test_recall_that_is_none_is_none(recall):
    assert own_figures({"test": {**TEST, "recall": recall}}, None).recall == {}
