from __future__ import annotations

import numpy as np
import pytest

from automl_vision.data.lineage import neighbours
from automl_vision.data.lineage.neighbours import nearest_pairs, thumbnails, turned


def features(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, n, 16)).astype(np.float32)


def test_a_near_copy_comes_first_and_each_pair_once() -> None:
    views = features(30)
    views[0, 20] = views[0, 3] + 0.01
    found = nearest_pairs(views)
    assert found.pairs[0].tolist() == [3, 20]
    assert (found.pairs[:, 0] < found.pairs[:, 1]).all()
    assert len(np.unique(found.pairs, axis=0)) == len(found.pairs)
    assert (np.diff(found.cosine) <= 0).all()
    assert found.cosine.min() >= 0.10


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_images_are_no_error(n: int) -> None:
    assert len(nearest_pairs(features(n)).pairs) <= n * (n - 1) // 2


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = nearest_pairs(features(50))
    monkeypatch.setattr(neighbours, "_BLOCK", 7)
    assert np.array_equal(nearest_pairs(features(50)).pairs, whole.pairs)


def test_thumbnails_find_turned_and_mirrored_pictures() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 6, 6), dtype=np.uint8)
    greys = [np.kron(each, np.ones((8, 8), np.uint8)) for each in coarse]
    greys += [np.rot90(greys[0]), greys[1][:, ::-1], np.rot90(greys[2], 3)[:, ::-1]]
    nearest = {tuple(pair) for pair in nearest_pairs(turned(thumbnails(greys))).pairs[:3].tolist()}
    assert nearest == {(0, 12), (1, 13), (2, 14)}
