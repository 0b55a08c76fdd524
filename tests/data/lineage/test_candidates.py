"""Which pairs are worth laying over each other."""

from __future__ import annotations

import numpy as np
import pytest

from automl_vision.data.lineage import candidates
from automl_vision.data.lineage.candidates import Candidate
from automl_vision.data.lineage.group_sizes import GroupSizes

RNG = np.random.default_rng(0)


def views_and_root(groups: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors of rows, and what each row is joined to."""
    root = np.array([groups.index(group) for group in groups])
    return RNG.normal(size=(1, len(groups), 16)).astype(np.float32), root


def second_candidates(rows: np.ndarray, views: np.ndarray, root: np.ndarray) -> list[Candidate]:
    return candidates.second_candidates(rows, views, root, GroupSizes.of(root, np.arange(len(root))))


def test_only_what_nothing_was_joined_to_is_looked_at_again() -> None:
    views, root = views_and_root([0, 0, 1, 1, 2, 3])
    found = second_candidates(np.arange(6), views, root)
    assert found
    assert all({4, 5} & set(each.pair) for each in found)
    assert len({each.pair for each in found}) == len(found)
    assert all(each.pair[0] < each.pair[1] for each in found)
    assert [each.cosine for each in found] == sorted((each.cosine for each in found), reverse=True)


def test_a_group_is_asked_once_by_the_member_that_is_most_alike() -> None:
    n = 40
    views = RNG.normal(size=(1, n, 16)).astype(np.float32)
    views[0, 1:31] = views[0, 0] + 0.05 * views[0, 1:31]  # thirty copies of one stranger, all nearer than the original
    views[0, 31] = views[0, 0] + 0.9 * views[0, 31]
    root = np.array([0, *[1] * 30, *range(31, n)])
    mine = [each for each in second_candidates(np.arange(n), views, root) if 0 in each.pair]
    assert sum(1 <= each.pair[1] <= 30 for each in mine) == 1
    assert (0, 31) in {each.pair for each in mine}


def test_rows_without_descriptors_keep_their_numbers() -> None:
    views, _ = views_and_root([0, 1, 2])
    rows, root = np.array([2, 5, 9]), np.arange(10)
    assert {row for each in second_candidates(rows, views, root) for row in each.pair} == {2, 5, 9}


def test_only_the_nearest_few_groups_are_compared_in_all_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_ALL_WAYS_COSINE", -1.0)
    n = 60
    views, root = RNG.normal(size=(1, n, 16)).astype(np.float32), np.arange(n)
    asked = np.zeros(n, dtype=int)
    for each in second_candidates(np.arange(n), views, root):
        asked[list(each.pair)] += each.depth == "again"
    assert asked.min() >= candidates._ALL_WAYS
    assert asked.sum() <= 2 * n * candidates._ALL_WAYS


def test_what_hardly_resembles_is_compared_by_points_alone() -> None:
    views, root = RNG.normal(size=(1, 30, 400)).astype(np.float32), np.arange(30)
    found = second_candidates(np.arange(30), views, root)
    assert found
    assert {each.depth for each in found} == {"points"}


def test_where_most_groups_have_all_their_copies_only_the_others_are_asked() -> None:
    root = np.array([*np.repeat(np.arange(12) * 4, 4), 48, 48, 50, 51])  # twelve groups of four, a pair, two alone
    views = RNG.normal(size=(1, len(root), 16)).astype(np.float32)
    views[0, [48, 50]] = views[0, 51] + 0.5 * views[0, [48, 50]]
    found = second_candidates(np.arange(len(root)), views, root)
    assert {row for each in found for row in each.pair} <= {48, 49, 50, 51}
    assert {each.depth for each in found if each.pair == (48, 51)} == {"again"}


def test_what_resembles_groups_that_lost_a_copy_a_little_is_compared_in_all_ways_with_two_of_them() -> None:
    root = np.array([*np.repeat(np.arange(12) * 4, 4), *np.repeat([48, 50, 52], 2), 54])
    views = RNG.normal(size=(1, len(root), 400)).astype(np.float32)
    views[0, [48, 50, 52]] = views[0, 54] + np.float32([[1.0], [1.5], [2.2]]) * views[0, [48, 50, 52]]
    found = {each.pair: each.depth for each in second_candidates(np.arange(len(root)), views, root)}
    assert found[(48, 54)] == found[(50, 54)] == "again"
    assert found[(52, 54)] == "points"
