from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_vision.data.lineage.group_sizes import GroupSizes


def sized(*sizes: int) -> GroupSizes:
    root = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    return GroupSizes.of(root, np.arange(len(root)))


def test_where_nearly_all_groups_have_one_size_smaller_ones_are_short() -> None:
    sizes = sized(*[5] * 10, 4, 2, 6, 1, 1)
    assert sizes.usual == 5
    assert np.flatnonzero(sizes.short).tolist() == list(range(50, 56))
    assert np.flatnonzero(sizes.may_grow).tolist() == list(range(50, 64)), "two pictures may be joined by mistake"


@pytest.mark.parametrize(
    "sizes",
    [[5] * 8 + [4], [5] * 5 + [4] * 5 + [3] * 5, [2] * 30 + [3], [1] * 50, []],
    ids=["few groups", "sizes vary", "pairs have no smaller group", "no copies", "nothing"],
)
def test_else_nothing_follows_from_sizes(sizes: list[int]) -> None:
    found = sized(*sizes) if sizes else GroupSizes.of(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert found.usual is None
    assert not found.short.any()
    assert found.may_grow.all()


def test_only_files_that_count_count() -> None:
    root = np.repeat(np.arange(12) * 3, 3)
    assert GroupSizes.of(root, np.arange(36)).usual == 3
    without = np.delete(np.arange(36), [0, 3, 6])
    assert np.flatnonzero(GroupSizes.of(root, without).short).tolist() == list(range(9))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=60), st.randoms())
def test_the_order_of_rows_changes_nothing(sizes: list[int], random) -> None:
    root = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    order = np.array(random.sample(range(len(root)), len(root)))
    straight, mixed = (GroupSizes.of(each, np.arange(len(root))) for each in (root, root[order]))
    assert straight.usual == mixed.usual
    assert np.array_equal(straight.short[order], mixed.short)
