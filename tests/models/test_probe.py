from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from automl_vision.models import probe as module
from automl_vision.models.probe import NoRoom, deal_folds, fit_linear, fit_probe, most_rows


def blobs(n: int, dims: int, classes: int, seed: int = 0, spread: float = 1.0):
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % classes).astype(np.int64)
    centres = rng.normal(size=(classes, dims)) * spread
    features = (centres[labels] + rng.normal(size=(n, dims))) * rng.uniform(0.1, 10, dims) + 5
    return features.astype(np.float32), labels


@pytest.mark.parametrize(("n", "dims"), [(60, 8), (40, 100)])
def test_it_is_the_logistic_regression_of_the_textbook(n: int, dims: int) -> None:
    features, labels = blobs(n, dims, 3, spread=0.3)
    strength = 0.1
    probe = fit_probe(features, labels, np.arange(n), 3, strengths=[strength])
    std = np.maximum(features.std(axis=0), np.quantile(features.std(axis=0), 0.75))
    standard = (features - features.mean(axis=0)) / std
    reference = LogisticRegression(C=1 / (n * strength), max_iter=5000, tol=1e-8).fit(standard, labels)
    assert np.allclose(probe.probabilities(features), reference.predict_proba(standard), atol=2e-3)
    assert np.allclose(probe.weight * std, reference.coef_, atol=2e-3)


@pytest.mark.parametrize("faint", [1e-4, 1e-7])
def test_features_that_hardly_vary_get_no_large_weights(faint: float) -> None:
    features, labels = blobs(60, 100, 3)
    noise = np.random.default_rng(1).normal(size=(60, 60))
    features[:, :60] = 5 + faint * noise
    probe = fit_probe(features, labels, np.arange(60), 3)
    assert np.abs(probe.weight[:, :60]).max() < np.abs(probe.weight[:, 60:]).max()
    nudged = features + np.float32(0.01) * np.random.default_rng(2).normal(size=features.shape).astype(np.float32)
    assert np.abs(probe.probabilities(features) - probe.probabilities(nudged)).max() < 0.05


def test_features_of_which_most_are_constant_are_told_apart_by_the_rest() -> None:
    features, labels = blobs(60, 100, 3)
    features[:, :90] = 5.0
    probe = fit_probe(features, labels, np.arange(60), 3)
    assert np.isfinite(probe.weight).all()
    assert (probe.probabilities(features).argmax(axis=1) == labels).mean() > 0.9


def test_held_out_rows_were_not_seen() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 200)).astype(np.float32)
    labels = rng.integers(0, 2, 60)
    probe = fit_probe(features, labels, np.arange(60), 2, strengths=[0.001])
    assert (probe.probabilities(features).argmax(axis=1) == labels).mean() > 0.95  # it can learn noise by heart
    assert probe.cv_accuracy[0] < 0.75  # and does not pretend to know it


def test_copies_in_a_group_do_not_help() -> None:
    rng = np.random.default_rng(1)
    features = np.repeat(rng.normal(size=(40, 100)), 3, axis=0).astype(np.float32)
    labels, groups = np.repeat(rng.integers(0, 2, 40), 3), np.repeat(np.arange(40), 3)
    apart = fit_probe(features, labels, np.arange(120), 2, strengths=[0.01])
    together = fit_probe(features, labels, groups, 2, strengths=[0.01])
    assert apart.cv_accuracy[0] > 0.9 > 0.8 > together.cv_accuracy[0]


def test_the_least_log_loss_wins() -> None:
    features, labels = blobs(90, 30, 3, spread=0.3)
    probe = fit_probe(features, labels, np.arange(90), 3)
    assert probe.strength == probe.strengths[int(np.argmin(probe.cv_log_loss))]
    chosen = -np.log(probe.out_of_fold[np.arange(90), labels]).mean()
    assert chosen == pytest.approx(min(probe.cv_log_loss), rel=1e-4)


def test_nine_images_of_three_classes() -> None:
    features, labels = blobs(9, 1280, 3)
    probe = fit_probe(features, labels, np.arange(9), 3)
    assert (probe.probabilities(features).argmax(axis=1) == labels).all()
    assert probe.out_of_fold.shape == (9, 3)
    assert probe.out_of_fold.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_two_classes_one_of_them_a_single_group() -> None:
    features, labels = blobs(12, 5, 2)
    groups = np.where(labels == 1, 99, np.arange(12))
    probe = fit_probe(features, labels, groups, 2)
    assert np.isfinite(probe.weight).all() and np.isfinite(probe.cv_log_loss).all()


def test_one_group_alone_still_gives_a_probe() -> None:
    features, labels = blobs(12, 5, 2, spread=3.0)
    probe = fit_probe(features, labels, np.zeros(12, np.int64), 2)
    assert (probe.probabilities(features).argmax(axis=1) == labels).all()


def test_weaker_penalties_are_not_tried_once_they_are_worse() -> None:
    rng = np.random.default_rng(0)
    noise, labels = rng.normal(size=(60, 200)).astype(np.float32), rng.integers(0, 2, 60)
    probe = fit_probe(noise, labels, np.arange(60), 2, strengths=[1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0])
    assert probe.strength >= 1.0 and len(probe.strengths) < 6


def test_it_stops_when_the_time_is_over_and_keeps_what_there_is() -> None:
    features, labels = blobs(60, 20, 3)
    asked: list[bool] = []
    probe = fit_probe(features, labels, np.arange(60), 3, should_stop=lambda: asked.append(True) is None)
    assert len(asked) <= 2 and len(probe.strengths) == 1
    assert (probe.probabilities(features).argmax(axis=1) == labels).mean() > 0.9


def test_constant_features_and_absent_classes_are_harmless() -> None:
    features, labels = blobs(20, 4, 2)
    features[:, 1] = 3.0
    probe = fit_probe(features, labels, np.arange(20), 5)
    assert probe.weight.shape == (5, 4)
    assert np.isfinite(probe.weight).all() and np.isfinite(probe.bias).all()
    constant = fit_probe(np.ones((6, 3), np.float32), np.arange(6) % 2, np.arange(6), 2)
    assert constant.probabilities(np.ones((1, 3), np.float32)) == pytest.approx(0.5, abs=1e-3)


def test_the_same_input_gives_the_same_probe() -> None:
    features, labels = blobs(30, 50, 3)
    first, again = (fit_probe(features, labels, np.arange(30), 3, seed=3) for _ in range(2))
    assert np.array_equal(first.weight, again.weight)


def test_repeated_folds_average_what_each_deal_holds_out() -> None:
    features, labels = blobs(60, 20, 3, spread=0.3)
    deals = [fit_probe(features, labels, np.arange(60), 3, strengths=[0.1], seed=seed) for seed in (4, 5)]
    assert not np.allclose(deals[0].out_of_fold, deals[1].out_of_fold)
    both = fit_probe(features, labels, np.arange(60), 3, strengths=[0.1], seed=4, repeats=2)
    expected = (deals[0].out_of_fold + deals[1].out_of_fold) / 2
    assert np.allclose(both.out_of_fold, expected, atol=2e-3)
    assert np.allclose(both.weight, deals[0].weight, atol=2e-3)


def test_copies_in_a_group_do_not_help_however_often_folds_are_dealt() -> None:
    rng = np.random.default_rng(1)
    features = np.repeat(rng.normal(size=(40, 100)), 3, axis=0).astype(np.float32)
    labels, groups = np.repeat(rng.integers(0, 2, 40), 3), np.repeat(np.arange(40), 3)
    together = fit_probe(features, labels, groups, 2, strengths=[0.01], repeats=3)
    assert together.cv_accuracy[0] < 0.8


def test_bad_input_is_refused() -> None:
    features, labels = blobs(6, 3, 2)
    with pytest.raises(ValueError, match="two groups"):
        deal_folds(labels, np.zeros(6, np.int64), 5, seed=0)
    features[0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        fit_probe(features, labels, np.arange(6), 2)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=2, max_size=40),
    folds=st.integers(2, 6),
    seed=st.integers(0, 9),
)
def test_groups_never_straddle_folds(rows: list[tuple[int, int]], folds: int, seed: int) -> None:
    labels, groups = (np.array(column) for column in zip(*rows, strict=True))
    if len(set(groups)) < 2:
        return
    fold = deal_folds(labels, groups, folds, seed)
    assert all(len(set(fold[groups == group])) == 1 for group in set(groups))
    assert set(fold) == set(range(fold.max() + 1))
    assert 2 <= fold.max() + 1 <= min(folds, len(set(groups)))


def test_classes_are_spread_over_folds() -> None:
    labels = np.repeat([0, 1, 2], [50, 10, 5])
    fold = deal_folds(labels, np.arange(65), 5, seed=0)
    counts = np.array([[np.sum((fold == k) & (labels == c)) for c in range(3)] for k in range(5)])
    assert (counts == [10, 2, 1]).all()


def test_where_memory_is_short_folds_are_fitted_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = blobs(60, 5, 3)
    at_once: list[int] = []
    solve = module._solve

    def counted(scores, targets, seen, *rest, **named):
        at_once.append(len(seen))
        return solve(scores, targets, seen, *rest, **named)

    monkeypatch.setattr(module, "_solve", counted)
    one = 3 * (module.ROW_BYTES * 60 + module.DIRECTION_BYTES * 6)
    made = []
    for free in (None, 2 * 4 * one, 2 * 3 * one, int(1.3 * one)):
        monkeypatch.setattr(module, "available_memory", lambda free=free: free)
        made.append(fit_probe(features, labels, np.arange(60), 3, strengths=[0.1], folds=3))
    assert at_once == [4, 4, 3, 1, 1, 1, 1, 1]
    for each in made[1:]:
        assert np.allclose(each.out_of_fold, made[0].out_of_fold, atol=2e-3)
        assert np.allclose(each.weight, made[0].weight, atol=2e-3)


def test_where_not_even_one_fold_fits_there_is_no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = blobs(60, 5, 3)
    monkeypatch.setattr(module, "available_memory", lambda: 3 * module.ROW_BYTES * 60)
    with pytest.raises(NoRoom, match="a linear head of 3 classes on 60 images takes"):
        fit_probe(features, labels, np.arange(60), 3)
    with pytest.raises(NoRoom):
        fit_linear(features, labels, 3, 0.1)


@pytest.mark.parametrize("dims", [1, 64, 1280])
@pytest.mark.parametrize("free", [10**5, 10**6, 10**9])
def test_so_many_rows_as_fit_do_and_more_do_not(monkeypatch: pytest.MonkeyPatch, dims: int, free: int) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: free)
    rows = int(most_rows(dims, 10, 2))
    assert module._at_once(rows, min(rows, dims), 10, 2) == 2
    assert module._at_once(rows + 1, min(rows + 1, dims), 10, 2) == 1
