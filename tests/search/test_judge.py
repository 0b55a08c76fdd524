"""Comparing candidates: the standard error is that of the difference, over groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from automl_vision.search.judge import INFLUENCES, Gain, Judge


def judge_of(labels: list[int], groups: list[int] | None = None, objective: str = "accuracy") -> Judge:
    return Judge(np.array(labels), np.arange(len(labels)) if groups is None else np.array(groups), 3, objective)


def drawn(n: int, seed: int, *, per_group: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, groups and what two correlated candidates say; rows of one group fail together."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, n // per_group, p=[0.6, 0.3, 0.1]).repeat(per_group)
    ease = random.normal(size=n // per_group).repeat(per_group)

    def said(skill: float) -> np.ndarray:
        right = ease + 0.5 * random.normal(size=n // per_group).repeat(per_group) + skill > 0
        return np.where(right, labels, (labels + 1) % 3)

    return labels, np.arange(n // per_group).repeat(per_group), said(0.8), said(0.5)


def test_scores_are_those_of_the_textbook() -> None:
    labels, groups, said, _ = drawn(200, 0)
    assert Judge(labels, groups, 3, "accuracy").score(said) == (said == labels).mean()
    assert Judge(labels, groups, 3, "macro_f1").score(said) == pytest.approx(f1_score(labels, said, average="macro"))
    expected = balanced_accuracy_score(labels, said)
    assert Judge(labels, groups, 3, "balanced_accuracy").score(said) == pytest.approx(expected)


def test_one_more_image_right_is_one_standard_error_and_no_more() -> None:
    for n in (5, 24, 200, 999):
        judge = judge_of([0] * n)
        more, less = np.zeros(n, np.int64), np.zeros(n, np.int64)
        less[0] = 1
        gain = judge.gain(more, less)
        assert gain.value == pytest.approx(gain.standard_error, rel=1e-6)
        assert not gain.exceeds(1.0)
        assert gain.exceeds(0.5)


@pytest.mark.parametrize("objective", INFLUENCES)
@pytest.mark.parametrize("per_group", [1, 4])
def test_the_standard_error_is_the_spread_over_samples(objective: str, per_group: int) -> None:
    gains = []
    for seed in range(400):
        labels, groups, first, second = drawn(400, seed, per_group=per_group)
        gains.append(Judge(labels, groups, 3, objective).gain(first, second))
    spread = np.std([gain.value for gain in gains])
    said = np.mean([gain.standard_error for gain in gains])
    assert said == pytest.approx(spread, rel=0.15)
    if per_group > 1:  # images of one group are no further evidence
        alone = Judge(labels, np.arange(400), 3, objective).gain(first, second)
        assert gains[-1].standard_error > 1.5 * alone.standard_error


@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=30),
    objective=st.sampled_from(sorted(INFLUENCES)),
)
def test_a_gain_is_the_loss_the_other_way_round(rows: list[tuple[int, int, int]], objective: str) -> None:
    labels, first, second = (np.array(column) for column in zip(*rows, strict=True))
    judge = Judge(labels, np.arange(len(rows)), 3, objective)
    there, back = judge.gain(first, second), judge.gain(second, first)
    assert there.value == pytest.approx(-back.value)
    assert there.standard_error == pytest.approx(back.standard_error)
    assert INFLUENCES[objective](labels, first, 3).sum() == pytest.approx(0, abs=1e-12)
    itself = judge.gain(first, first)
    assert (itself.value, itself.standard_error) == (0.0, 0.0)
    assert not itself.exceeds(0.0)


def test_one_group_is_no_evidence_at_all() -> None:
    judge = judge_of([0, 0, 0, 0], groups=[7, 7, 7, 7])
    gain = judge.gain(np.zeros(4, np.int64), np.ones(4, np.int64))
    assert gain.value == 1.0
    assert gain.standard_error == math.inf
    assert not gain.exceeds(0.5)
    assert gain.to_dict() == {"gain": 1.0, "standard_error": None}


def test_right_everywhere_against_wrong_everywhere_is_beyond_doubt() -> None:
    assert judge_of([0, 1, 2, 0]).gain(np.array([0, 1, 2, 0]), np.array([1, 2, 0, 1])).exceeds(1.0)
    assert Gain(0.1, 0.0).exceeds(1.0)
    assert not Gain(-0.1, 0.0).exceeds(1.0)
