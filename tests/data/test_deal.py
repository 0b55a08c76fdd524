from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lineage_cases import digest

from automl_vision.data.deal import Deck, deal, quota

SHARES = {"test": 0.2, "val": 0.2}


def deck_of(groups: list[list[int]], class_count: int) -> Deck:
    """`groups[g][c]` originals of class c in group g."""
    rows = [(g, c) for g, counts in enumerate(groups) for c, n in enumerate(counts) for _ in range(n)]
    numbers, labels = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    keys = np.array([digest((g, i)) for i, (g, _) in enumerate(rows)], dtype=object)
    return Deck.of(numbers, labels, keys, class_count)


def covers(groups: list[list[int]], sets: tuple[int, ...]) -> bool:
    held = [{c for g, s in enumerate(sets) if s == k for c, n in enumerate(groups[g]) if n} for k in range(3)]
    everything = {c for counts in groups for c, n in enumerate(counts) if n}
    return all(each == everything for each in held)


@pytest.mark.parametrize(
    ("originals", "share", "expected"),
    [(3, 0.2, 1), (6, 0.2, 1), (7, 0.2, 2), (7, 0.01, 2), (10, 0.2, 2), (13, 0.2, 3), (100, 0.15, 15)],
)
def test_quota(originals: int, share: float, expected: int) -> None:
    assert quota(originals, share) == expected


@settings(deadline=None)
@given(st.integers(7, 60), st.integers(0, 5), st.sampled_from([0.1, 0.2, 0.3]))
def test_single_images_meet_the_quota_exactly(n: int, seed: int, share: float) -> None:
    dealt = deal(deck_of([[1]] * n, 1), {"test": share, "val": 0.2}, seed)
    assert dealt is not None
    held = list(dealt.values())
    assert held.count("test") == quota(n, share)
    assert held.count("val") == quota(n, 0.2)


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=10, max_size=40), st.integers(0, 5))
def test_groups_come_near_the_quota(sizes: list[int], seed: int) -> None:
    dealt = deal(deck_of([[n] for n in sizes], 1), SHARES, seed)
    assert dealt is not None
    for held in SHARES:
        got = sum(sizes[g] for g, s in dealt.items() if s == held)
        assert abs(got - quota(sum(sizes), 0.2)) <= max(sizes) / 2


def test_a_giant_group_stays_in_train() -> None:
    for seed in range(20):
        assert set(deal(deck_of([[100], [2], [1]], 1), SHARES, seed) or {}) == {1, 2}


groups_over_classes = st.integers(1, 3).flatmap(
    lambda c: st.lists(st.lists(st.integers(0, 3), min_size=c, max_size=c).filter(any), min_size=3, max_size=7)
)


@settings(max_examples=150, deadline=None)
@given(groups_over_classes, st.integers(0, 3))
def test_every_class_reaches_every_set_where_any_deal_can(groups: list[list[int]], seed: int) -> None:
    dealt = deal(deck_of(groups, len(groups[0])), SHARES, seed)
    if dealt is None:
        options = itertools.product(range(3), repeat=len(groups))
        assert not any(covers(groups, option) for option in options)
    else:
        number = {"test": 0, "val": 1}
        assert covers(groups, tuple(number.get(dealt.get(g, ""), 2) for g in range(len(groups))))


@settings(deadline=None)
@given(st.integers(0, 3), st.permutations(range(12)))
def test_the_deal_depends_on_content_alone(seed: int, order: list[int]) -> None:
    labels = np.array([0, 1] * 6)
    keys = np.array([digest(i) for i in range(12)], dtype=object)
    plain = deal(Deck.of(np.arange(12), labels, keys, 2), SHARES, seed)
    mixed = deal(Deck.of(np.arange(12), labels[order], keys[order], 2), SHARES, seed)
    assert plain is not None
    assert mixed is not None
    assert {keys[g]: s for g, s in plain.items()} == {keys[order][g]: s for g, s in mixed.items()}


def test_seeds_deal_differently() -> None:
    deck = deck_of([[1]] * 30, 1)
    assert len({tuple(sorted((deal(deck, SHARES, seed) or {}).items())) for seed in range(8)}) == 8
