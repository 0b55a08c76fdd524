"""A smaller manifest with the same mix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_vision.data.manifest import Manifest
from automl_vision.data.sample import FEW, sample


def manifest_of(labels: list[int], paths: list[str] | None = None) -> Manifest:
    names = tuple(f"class {label}" for label in range(max(labels) + 1))
    return Manifest(Path("/data"), tuple(paths or [f"{i:04}.png" for i in range(len(labels))]), np.array(labels), names)


rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=1, max_size=60)


@given(rows=rows, count=st.integers(1, 70), seed=st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_groups_stay_whole_and_the_count_is_a_limit(rows: list[tuple[int, int]], count: int, seed: int) -> None:
    manifest = manifest_of([label for label, _ in rows])
    keys = np.array([key for _, key in rows])
    chosen = sample(manifest, keys, count, seed)
    assert len(chosen) <= count
    assert chosen.class_names == manifest.class_names
    kept = {manifest.paths.index(path) for path in chosen.paths}
    for key in np.unique(keys):
        group = set(np.flatnonzero(keys == key).tolist())
        assert group <= kept or not group & kept


@given(rows=rows, count=st.integers(1, 70), shuffle=st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_neither_the_order_nor_the_values_of_keys_matter(
    rows: list[tuple[int, int]], count: int, shuffle: object
) -> None:
    labels = [label for label, _ in rows] + [4]
    keys = [key for _, key in rows] + [99]
    order = list(range(len(labels)))
    shuffle.shuffle(order)
    names = [f"{i}.png" for i in range(len(labels))]
    plain = sample(manifest_of(labels, names), np.array(keys), count, seed=1)
    mixed = sample(
        manifest_of([labels[i] for i in order], [names[i] for i in order]),
        np.array([f"key {100 - keys[i]}" for i in order]),
        count,
        seed=1,
    )
    assert sorted(plain.paths) == sorted(mixed.paths)


def test_classes_keep_their_shares_and_small_ones_a_few() -> None:
    manifest = manifest_of([0] * 600 + [1] * 300 + [2] * 100 + [3] * 7)
    chosen = sample(manifest, np.arange(1007), 100, seed=0)
    counts = np.bincount(chosen.labels)
    assert len(chosen) == 100
    assert np.abs(counts[:3] - [60, 30, 10]).max() <= FEW
    assert counts[3] >= FEW


def test_the_users_own_sets_keep_their_shares() -> None:
    labels = [0, 1] * 100
    split = tuple("train" if i < 160 else "test" for i in range(200))
    base = manifest_of(labels)
    manifest = Manifest(base.root, base.paths, base.labels, base.class_names, split=split)
    chosen = sample(manifest, np.arange(200), 50, seed=0)
    assert abs(chosen.split.count("test") - 10) <= 3


def test_a_few_rows_for_many_classes_are_spread() -> None:
    chosen = sample(manifest_of([i % 10 for i in range(100)]), np.arange(100), 10, seed=0)
    assert (np.bincount(chosen.labels) == 1).all()


def test_the_seed_decides_and_enough_is_all() -> None:
    manifest = manifest_of([0, 1] * 50)
    keys = np.arange(100)
    assert sample(manifest, keys, 20, seed=0).paths == sample(manifest, keys, 20, seed=0).paths
    assert sample(manifest, keys, 20, seed=0).paths != sample(manifest, keys, 20, seed=1).paths
    assert sample(manifest, keys, 100, seed=0) is manifest


def test_mistakes_of_the_caller() -> None:
    with pytest.raises(ValueError, match="count"):
        sample(manifest_of([0, 1]), np.arange(2), 0, seed=0)
    with pytest.raises(ValueError, match="key"):
        sample(manifest_of([0, 1]), np.arange(3), 1, seed=0)
