import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from automl_vision.metrics import METRICS
from automl_vision.report.intervals import (
    Sample,
    class_intervals,
    cluster_bootstrap,
    compare,
    difference_interval,
    group_weights,
    grouped_share,
    metric_intervals,
    paired_proportions,
    sign_test,
    wilson,
)


def sample_of(labels, said, groups=None, classes=None):
    labels = np.asarray(labels)
    classes = classes or int(max(labels.max(), np.max(said))) + 1
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    return Sample(labels, np.eye(classes)[said], groups)


def noisy(n, classes=3, right=0.8, per_group=1, seed=0):
    rng = np.random.default_rng(seed)
    groups = np.arange(n) // per_group
    labels = rng.integers(0, classes, n)[groups]
    wrong = (rng.random(n)[groups]) > right
    return sample_of(labels, np.where(wrong, (labels + 1) % classes, labels), groups, classes)


@given(n=st.integers(1, 500), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_the_textbooks(n, share, confidence):
    hits = round(n * share)
    low, high = wilson(hits, n, confidence)
    expected = binomtest(hits, n).proportion_ci(confidence, method="wilson")
    assert (low, high) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high, abs=1e-9))
    assert 0.0 <= low <= hits / n <= high <= 1.0


def test_wilson_at_the_ends():
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("per_group", [1, 3])
@pytest.mark.parametrize("name", METRICS)
def test_every_interval_holds_its_figure(name, per_group):
    sample = noisy(60, classes=2, per_group=per_group)
    value = METRICS[name].function(sample.labels, sample.probabilities)
    low, high = cluster_bootstrap(name, sample.labels, sample.probabilities, sample.groups, resamples=200, seed=1)
    assert low <= value <= high
    assert low < high


def test_the_seed_decides():
    sample = noisy(50)
    arguments = ("macro_f1", sample.labels, sample.probabilities, sample.groups)
    first = cluster_bootstrap(*arguments, resamples=100, seed=3)
    assert cluster_bootstrap(*arguments, resamples=100, seed=3) == first
    assert cluster_bootstrap(*arguments, resamples=100, seed=4) != first


def test_images_of_one_object_are_not_independent_evidence():
    alone, together = noisy(120), noisy(120, per_group=6)
    widths = [
        np.ptp(cluster_bootstrap("accuracy", s.labels, s.probabilities, s.groups, resamples=300))
        for s in (alone, together)
    ]
    assert widths[1] > 1.8 * widths[0]


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "weighted_f1", "balanced_accuracy", "roc_auc"])
@pytest.mark.parametrize("n", [2, 12, 120])
def test_all_right_is_not_certainty(name, n):
    labels = np.arange(n) % 2
    low, high = metric_intervals([name], sample_of(labels, labels), resamples=100)[name]
    assert high == 1.0
    assert low == pytest.approx(wilson(n, n)[0], abs=0.02) or low < wilson(n, n)[0]


def test_a_rare_class_widens_a_macro_figure_that_is_perfect():
    labels = np.array([0] * 98 + [1] * 2)
    found = metric_intervals(["accuracy", "macro_f1"], sample_of(labels, labels), resamples=50)
    assert found["macro_f1"][0] < found["accuracy"][0] - 0.1


def test_one_group_tells_nothing_of_the_log_loss():
    sample = Sample(np.array([0, 1]), np.full((2, 2), 0.5), np.array([7, 7]))
    assert all(map(math.isnan, cluster_bootstrap("log_loss", sample.labels, sample.probabilities, sample.groups)))


def test_an_undefined_metric_has_no_interval():
    sample = sample_of([0, 0], [0, 1], classes=3)
    found = cluster_bootstrap("roc_auc", sample.labels, sample.probabilities, sample.groups)
    assert all(map(math.isnan, found))
    assert "roc_auc" not in metric_intervals(["roc_auc"], sample)


def test_independent_accuracy_is_wilsons():
    sample = noisy(80)
    hits = int((sample.labels == sample.probabilities.argmax(axis=1)).sum())
    assert metric_intervals(["accuracy"], sample)["accuracy"] == wilson(hits, 80)


def test_blocks_of_weights_do_not_change_the_draws(monkeypatch):
    groups = np.array([0, 0, 1, 2, 5])
    whole = np.concatenate(list(group_weights(groups, 40, 0)))
    monkeypatch.setattr("automl_vision.report.intervals._BLOCK_CELLS", 15)
    parts = list(group_weights(groups, 40, 0))
    assert len(parts) > 1
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@given(groups=st.lists(st.integers(0, 5), min_size=1, max_size=20))
@settings(max_examples=30)
def test_groups_are_drawn_whole(groups):
    groups = np.array(groups)
    for weights in group_weights(groups, 10, 0):
        for name in np.unique(groups):
            assert (weights[:, groups == name] == weights[:, [np.argmax(groups == name)]]).all()


@pytest.mark.parametrize("per_group", [1, 2])
def test_class_intervals_hold_the_figures_and_are_wide_where_images_are_few(per_group):
    labels = np.repeat([0] * 60 + [1] * 3, per_group)
    said = labels.copy()
    said[:10] = 1
    groups = np.repeat(np.arange(63), per_group)
    sample = sample_of(labels, said, groups)
    bounds = class_intervals(sample, resamples=100)
    low, high = bounds["recall"]
    assert high[1] == 1.0
    assert low[1] < 0.5
    assert low[0] < 1 - 10 / 60 / per_group < high[0]
    assert (bounds["f1"][0] <= bounds["f1"][1]).all()


def test_a_class_without_images_can_be_anything():
    low, high = class_intervals(sample_of([0, 0], [0, 0], classes=2))["f1"]
    assert (low[1], high[1]) == (0.0, 1.0)


def test_sign_test_is_mcnemars_on_single_images():
    labels = np.zeros(20, dtype=int)
    ours, theirs = np.zeros(20, dtype=int), np.zeros(20, dtype=int)
    theirs[:9] = 1
    ours[19] = 1
    p = sign_test(sample_of(labels, ours, classes=2), np.eye(2)[theirs])
    assert p == pytest.approx(binomtest(9, 10).pvalue)


def test_a_group_is_one_vote():
    labels, theirs = np.zeros(30, dtype=int), np.ones(30, dtype=int)
    ours = np.zeros(30, dtype=int)
    many = sign_test(sample_of(labels, ours, classes=2), np.eye(2)[theirs])
    few = sign_test(sample_of(labels, ours, np.arange(30) // 10, classes=2), np.eye(2)[theirs])
    assert many < 1e-6
    assert few == 0.25


def test_a_classifier_does_not_differ_from_itself():
    sample = noisy(40)
    found = compare("macro_f1", sample, sample.probabilities, resamples=50)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1.0)


def test_a_better_classifier_is_told_apart():
    sample = noisy(200, right=0.9)
    found = compare("accuracy", sample, np.roll(np.eye(3)[sample.labels], 1, axis=0), resamples=200)
    assert 0 < found.low < found.difference < found.high
    assert found.p_value < 0.001


def test_difference_interval_of_newcombes_example():
    # Newcombe 1998, table II, method 10: 56/70 against 48/80 gives 0.0524 to 0.3339.
    first, second = (56 / 70, *wilson(56, 70)), (48 / 80, *wilson(48, 80))
    assert difference_interval(first, second) == (
        pytest.approx(0.0524, abs=1e-4),
        pytest.approx(0.3339, abs=1e-4),
    )


@pytest.mark.parametrize(("classes", "per_group", "n"), [(3, 1, 120), (20, 1, 200), (3, 2, 160)])
def test_coverage(classes, per_group, n):
    """300 draws: a 95 % interval misses 15 of them on average; more than 30 has a chance under 0.1 %."""
    rng = np.random.default_rng(11)
    right = np.linspace(0.9, 0.75, classes)
    matrix = np.diag(right) + ((1 - right) / (classes - 1))[:, None] * (1 - np.eye(classes))
    joint = matrix / classes
    truth = {
        "accuracy": np.trace(joint),
        "macro_f1": (2 * np.diag(joint) / (joint.sum(0) + joint.sum(1))).mean(),
    }
    missed = dict.fromkeys(truth, 0)
    for number in range(300):
        groups = np.arange(n) // per_group
        labels = rng.integers(0, classes, n)[groups]
        said = (rng.random(n)[groups][:, None] > matrix.cumsum(axis=1)[labels]).sum(axis=1)
        sample = sample_of(labels, said.clip(0, classes - 1), groups, classes)
        found = metric_intervals(list(truth), sample, resamples=150, seed=number)
        for name, value in truth.items():
            missed[name] += not found[name][0] <= value <= found[name][1]
    assert max(missed.values()) <= 30
    assert min(missed.values()) >= 3


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((36, 12, 2, 0), (0.0569, 0.3404)),
        ((36, 14, 0, 0), (0.1528, 0.4167)),
        ((0, 29, 1, 0), (0.6666, 0.9882)),
        ((30, 0, 0, 24), (-0.0358, 0.0358)),
    ],
)
def test_paired_proportions_of_known_counts(counts, expected):
    assert paired_proportions(*counts) == pytest.approx(expected, abs=5e-5)


@given(st.lists(st.integers(0, 60), min_size=4, max_size=4))
def test_paired_proportions_hold_the_difference_and_turn_with_it(counts):
    both, first, second, neither = counts
    low, high = paired_proportions(both, first, second, neither)
    n = sum(counts)
    assert -1 - 1e-12 <= low <= ((first - second) / n if n else 0) <= high <= 1 + 1e-12
    assert paired_proportions(both, second, first, neither) == pytest.approx((-high, -low))


@pytest.mark.parametrize("shares", [(0.7, 0.12, 0.08, 0.1), (0.9, 0.04, 0.04, 0.02), (0.5, 0.0, 0.2, 0.3)])
def test_paired_proportions_keep_their_promise(shares):
    drawn = np.random.default_rng(0).multinomial(80, shares, size=2000)
    bounds = np.array([paired_proportions(*counts) for counts in drawn.tolist()])
    truth = shares[1] - shares[2]
    assert 0.93 < ((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])).mean() <= 0.99


# --- shares of images that come in groups ---------------------------------------------------------------------------


def test_a_share_of_images_each_on_its_own_is_wilsons():
    hits = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    rows = np.array([1.0, 1.0, 1.0, 1.0, 0.0])  # the last one gave no answer
    assert grouped_share(hits, rows) == wilson(3, 4)
    assert grouped_share(np.zeros(0), np.zeros(0)) == (0.0, 1.0)


def test_where_all_images_of_a_group_are_alike_the_groups_count():
    low, high = grouped_share(np.full(10, 20.0), np.full(10, 20.0))
    assert (low, high) == pytest.approx(wilson(10, 10), abs=1e-12)
    low, high = grouped_share(np.array([3.0]), np.array([4.0]))
    assert low < 0.25 < 0.95 < high


@pytest.mark.parametrize(("groups", "within"), [(30, 1.0), (100, 0.5), (100, 0.0)])
def test_it_holds_the_truth_about_as_often_as_it_says(groups, within):
    """Patients of 20 images; a share of them is right or wrong as a whole."""
    rng = np.random.default_rng(0)
    held, naive = 0, 0
    for _ in range(400):
        alike = rng.random(groups) < within
        rows = np.full(groups, 20.0)
        hits = np.where(alike, rows * (rng.random(groups) < 0.8), rng.binomial(20, 0.8, groups))
        for_groups, for_images = grouped_share(hits, rows), wilson(hits.sum(), rows.sum())
        held += for_groups[0] <= 0.8 <= for_groups[1]
        naive += for_images[0] <= 0.8 <= for_images[1]
    assert held / 400 > 0.92
    assert within == 0 or naive / 400 < 0.6
