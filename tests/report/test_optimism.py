"""BBC-CV in simulations in which the truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from automl_vision.report import optimism
from automl_vision.report.optimism import corrected_for_choice

Array = Any


def equally_good(
    seed: int, *, n: int = 100, candidates: int = 20, right: float = 0.8, per_group: int = 1
) -> tuple[Array, Array, Array]:
    """Labels, groups and (K, n) predictions of candidates that differ by luck alone."""
    random = np.random.default_rng(seed)
    groups = np.arange(n) // per_group
    labels = random.integers(0, 3, groups.max() + 1)[groups]
    hit = (random.random((candidates, groups.max() + 1)) < right)[:, groups]
    return labels, groups, np.where(hit, labels, (labels + 1) % 3)


@pytest.mark.parametrize("per_group", [1, 4])
@pytest.mark.parametrize("candidates", [5, 30])
def test_the_best_of_equals_looks_better_than_it_is_and_the_corrected_figure_does_not(
    candidates: int, per_group: int
) -> None:
    naive, corrected, covered = [], [], []
    for seed in range(60):
        labels, groups, predicted = equally_good(seed, candidates=candidates, per_group=per_group)
        found = corrected_for_choice("accuracy", labels, groups, predicted, 3, seed=seed)
        naive.append((predicted == labels).mean(axis=1).max())
        corrected.append(found["value"])
        covered.append(found["low"] <= 0.8 <= found["high"])
    error = np.std(corrected) / np.sqrt(len(corrected))
    assert np.mean(naive) > 0.8 + 0.03
    assert abs(np.mean(corrected) - 0.8) < 3 * error
    assert np.mean(covered) >= 0.93


def test_where_one_candidate_is_plainly_best_there_is_nothing_to_correct() -> None:
    labels, groups, predicted = equally_good(0, n=600, candidates=10, right=0.5)
    predicted[3] = np.where(np.random.default_rng(1).random(600) < 0.9, labels, (labels + 1) % 3)
    found = corrected_for_choice("accuracy", labels, groups, predicted, 3)
    assert found["value"] == pytest.approx((predicted[3] == labels).mean(), abs=0.003)


def test_macro_f1_of_equals_is_corrected_downwards() -> None:
    naive, corrected = [], []
    for seed in range(20):
        labels, groups, predicted = equally_good(seed, n=150)
        found = corrected_for_choice("macro_f1", labels, groups, predicted, 3, seed=seed)
        naive.append(max(f1_score(labels, said, average="macro") for said in predicted))
        corrected.append(found["value"])
    true = 0.8  # every class is right and wrong as often as any other
    error = np.std(corrected) / np.sqrt(len(corrected))
    assert np.mean(naive) > true + 0.03
    assert abs(np.mean(corrected) - true) < 3 * error + 0.005  # F1 of few images is a little low


def test_one_candidate_is_no_choice() -> None:
    labels, groups, predicted = equally_good(0, candidates=1)
    found = corrected_for_choice("accuracy", labels, groups, predicted, 3)
    assert found["candidates"] == 1
    assert found["value"] == pytest.approx((predicted[0] == labels).mean(), abs=0.005)


def test_images_of_one_group_are_drawn_together() -> None:
    """Forty images of four groups are four pieces of evidence: the interval is wide."""
    labels, _, predicted = equally_good(0, n=40, candidates=4)
    ones = np.arange(40)
    fours = ones // 10
    alone, together = (corrected_for_choice("accuracy", labels, each, predicted, 3) for each in (ones, fours))
    assert together["resamples"] < alone["resamples"] == optimism.RESAMPLES  # all four may be drawn


def test_of_equals_the_first_is_chosen() -> None:
    labels = np.zeros(50, np.int64)
    predicted = np.zeros((2, 50), np.int64)
    predicted[1, :25] = 1
    found = corrected_for_choice("accuracy", labels, np.arange(50), predicted, 2)
    assert found["value"] == found["high"] == 1.0
    assert found["low"] == pytest.approx(0.929, abs=0.001)  # Wilson's bound for 50 of 50


def test_one_group_leaves_nothing_outside() -> None:
    labels, _, predicted = equally_good(0, n=10)
    found = corrected_for_choice("accuracy", labels, np.zeros(10, np.int64), predicted, 3)
    assert (found["value"], found["low"], found["high"], found["resamples"]) == (None, None, None, 0)


def test_large_sets_get_fewer_resamples_and_the_same_seed_the_same_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, groups, predicted = equally_good(0)
    again = [corrected_for_choice("balanced_accuracy", labels, groups, predicted, 3, seed=5) for _ in range(2)]
    assert again[0] == again[1]
    monkeypatch.setattr(optimism, "MOST_CELLS", 300 * predicted.size)
    assert corrected_for_choice("accuracy", labels, groups, predicted, 3)["resamples"] == 300
    monkeypatch.setattr(optimism, "MOST_CELLS", 1)
    assert corrected_for_choice("accuracy", labels, groups, predicted, 3)["resamples"] == optimism.FEWEST_RESAMPLES
