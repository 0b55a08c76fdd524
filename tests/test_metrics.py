import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_vision.errors import UsageError
from automl_vision.metrics import (
    METRICS,
    TALLY_METRICS,
    confusion,
    objective_for,
    per_class,
    tally,
)

REFERENCE = {
    "accuracy": lambda y, p, s: sk.accuracy_score(y, s),
    "balanced_accuracy": lambda y, p, s: sk.recall_score(y, s, labels=np.unique(y), average="macro", zero_division=0),
    "macro_f1": lambda y, p, s: sk.f1_score(y, s, average="macro", zero_division=0),
    "weighted_f1": lambda y, p, s: sk.f1_score(y, s, average="weighted", zero_division=0),
    "micro_f1": lambda y, p, s: sk.f1_score(y, s, average="micro", zero_division=0),
    "log_loss": lambda y, p, s: sk.log_loss(y, p, labels=range(p.shape[1])),
}


@st.composite
def predictions(draw, least=2, most=6):
    classes = draw(st.integers(least, most))
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Coarse numbers, so that ties between scores occur.
    raw = rng.integers(0, draw(st.sampled_from([3, 1000])), size=(n, classes)) + 0.01
    return rng.integers(0, classes, size=n), raw / raw.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", REFERENCE)
@given(case=predictions())
@settings(max_examples=60, deadline=None)
def test_equals_scikit_learn(name, case):
    labels, probabilities = case
    expected = REFERENCE[name](labels, probabilities, probabilities.argmax(axis=1))
    assert METRICS[name].function(labels, probabilities) == pytest.approx(expected, abs=1e-12)


@given(case=predictions(2, 2))
@settings(max_examples=60, deadline=None)
def test_two_classes_equal_scikit_learn(case):
    labels, probabilities = case
    f1 = sk.f1_score(labels, probabilities.argmax(axis=1), zero_division=0)
    assert METRICS["binary_f1"].function(labels, probabilities) == pytest.approx(f1, abs=1e-12)
    if len(np.unique(labels)) == 2:
        area = sk.roc_auc_score(labels, probabilities[:, 1])
        assert METRICS["roc_auc"].function(labels, probabilities) == pytest.approx(area, abs=1e-12)


@given(case=predictions(3))
@settings(max_examples=60, deadline=None)
def test_one_against_the_rest_equals_scikit_learn_or_is_undefined(case):
    labels, probabilities = case
    area = METRICS["roc_auc"].function(labels, probabilities)
    if len(np.unique(labels)) < probabilities.shape[1]:
        assert area is None
    else:
        expected = sk.roc_auc_score(labels, probabilities, multi_class="ovr")
        assert area == pytest.approx(expected, abs=1e-12)


def test_balanced_accuracy_is_scikit_learns_where_every_prediction_occurs():
    labels, said = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 0, 2])
    ours = METRICS["balanced_accuracy"].function(labels, np.eye(3)[said])
    assert ours == pytest.approx(sk.balanced_accuracy_score(labels, said), abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
@given(case=predictions(2, 3), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_whole_weights_are_repeated_rows(name, case, seed):
    labels, probabilities = case
    weights = np.random.default_rng(seed).integers(0, 3, size=(2, len(labels)))
    weights[:, 0] += 1
    metric = METRICS[name]
    if name == "binary_f1" and probabilities.shape[1] != 2:
        return
    together = metric.weighted(labels, probabilities, weights.astype(float))
    for row, figure in zip(weights, together, strict=True):
        rows = np.repeat(np.arange(len(labels)), row)
        alone = metric.weighted(labels[rows], probabilities[rows], np.ones((1, len(rows))))[0]
        np.testing.assert_allclose(figure, alone, atol=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_no_rows_have_no_figure(name):
    assert METRICS[name].function(np.zeros(0, dtype=np.int64), np.zeros((0, 2))) is None


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].higher_is_better])
def test_all_right_is_one(name):
    labels = np.array([0, 1, 0, 1])
    assert METRICS[name].function(labels, np.eye(2)[labels]) == 1.0


def test_binary_f1_is_only_for_two_classes():
    assert METRICS["binary_f1"].function(np.array([0, 1, 2]), np.eye(3)) is None


def test_calibration_error_of_a_known_case():
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10)
    labels = np.array([0] * 8 + [1] * 2 + [1] * 5 + [0] * 5)
    # Bin of .9: 80 % right, gap .1; bin of .6: 50 % right, gap .1.
    assert METRICS["ece"].function(labels, probabilities) == pytest.approx(0.1)


def test_confusion_has_the_truth_in_rows():
    matrix = confusion(np.array([0, 0, 2]), np.array([1, 1, 2]), 3)
    assert matrix.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 1]]
    assert matrix.dtype == np.int64


@given(case=predictions())
@settings(max_examples=50, deadline=None)
def test_per_class_equals_scikit_learn(case):
    labels, probabilities = case
    said, classes = probabilities.argmax(axis=1), probabilities.shape[1]
    ours = per_class(confusion(labels, said, classes))
    theirs = sk.precision_recall_fscore_support(labels, said, labels=range(classes), zero_division=0)
    for name, expected in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
        np.testing.assert_allclose(ours[name], expected, atol=1e-12)


def test_tally_agrees_with_the_confusion_matrix():
    rng = np.random.default_rng(0)
    labels, said = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    counts, matrix = tally(labels, said, 4, np.ones((1, 50))), confusion(labels, said, 4)
    assert counts.hits[0].tolist() == np.diag(matrix).tolist()
    assert counts.support[0].tolist() == matrix.sum(axis=1).tolist()
    assert counts.predicted[0].tolist() == matrix.sum(axis=0).tolist()


def test_tally_metrics_are_metrics():
    assert set(TALLY_METRICS) <= set(METRICS)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([30, 10], "accuracy"), ([31, 10], "macro_f1"), ([5], "accuracy"), ([5, 0], "macro_f1")],
)
def test_auto_objective_turns_above_three_to_one(counts, expected):
    assert objective_for(counts, "auto") == expected


def test_a_set_objective_is_kept_whatever_the_counts():
    assert objective_for([100, 1], "accuracy") == "accuracy"


@pytest.mark.parametrize("name", ["makro_f1", "log_loss"])
def test_an_unknown_or_minimised_objective_is_refused(name):
    with pytest.raises(UsageError, match=name):
        objective_for([1, 1], name)
