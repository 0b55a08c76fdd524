from __future__ import annotations

import numpy as np
import pytest

from automl_vision.data.lineage import cells, neighbours
from automl_vision.data.lineage.neighbours import Nearest, nearest_of, nearest_pairs, thumbnails, turned


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


def with_copies(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(1, n, D) features in which the last quarter are copies, and of which row each is one."""
    rng = np.random.default_rng(seed)
    copies = n // 4
    spread = 1 / np.sqrt(np.arange(1, 97))
    made = rng.normal(size=(n, 96)) * spread
    of = rng.choice(n - copies, copies, replace=False)
    noise = rng.uniform(0.2, 2.0, (copies, 1)) * rng.normal(size=(copies, 96))
    made[n - copies :] = made[of] + noise * np.sqrt((spread**2).mean())
    return made[None].astype(np.float32), of


def test_above_the_limit_copies_are_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "CELL", 30)
    views, of = with_copies(3_000)
    exact = nearest_pairs(views)
    monkeypatch.setattr(neighbours, "_EXACT", 100)
    found = nearest_pairs(views)
    assert np.array_equal(nearest_pairs(views).pairs, found.pairs), "the same again"
    copies = {(int(source), 2_250 + at) for at, source in enumerate(of)}
    near = copies & set(map(tuple, exact.pairs.tolist()))
    assert len(near) > 0.9 * len(copies)
    assert len(near & set(map(tuple, found.pairs.tolist()))) >= 0.99 * len(near)
    assert (found.pairs[:, 0] < found.pairs[:, 1]).all()
    assert (np.diff(found.cosine) <= 0).all()
    assert set(map(tuple, found.pairs.tolist())) != set(map(tuple, exact.pairs.tolist())), "it is another way"
    assert (found.nearest <= exact.nearest + 1e-5).all()
    assert (np.abs(found.nearest - exact.nearest) < 1e-5).mean() > 0.95


def standing_out(near: Nearest) -> np.ndarray:
    return near.standing_out(np.arange(len(near.nearest)), near.nearest)


def test_what_has_no_others_does_not_stand_out() -> None:
    assert not standing_out(nearest_pairs(features(3))).any()


def test_above_the_limit_a_sample_tells_what_stands_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "CELL", 30)
    views, _ = with_copies(3_000)
    exact = standing_out(nearest_pairs(views))
    monkeypatch.setattr(neighbours, "_EXACT", 100)
    sampled = standing_out(nearest_pairs(views))
    assert np.isfinite(sampled).all()
    assert np.abs(sampled / exact - 1).mean() < 0.05


def test_the_nearest_of_a_few_are_those_that_all_pairs_give() -> None:
    views = np.random.default_rng(0).normal(size=(2, 40, 8)).astype(np.float32)
    rows = np.array([3, 17, 39])
    unit = views - views[0].mean(axis=0)
    unit /= np.linalg.norm(unit, axis=2, keepdims=True)
    cosine = np.maximum(unit[0] @ unit[0].T, unit[1] @ unit[0].T)
    np.fill_diagonal(cosine, -2)
    for (at, near, alike), row in zip(nearest_of(views, rows, 6), rows, strict=True):
        assert at == row
        np.testing.assert_array_equal(near, np.argsort(-cosine[row], kind="stable")[:6])
        np.testing.assert_allclose(alike, np.sort(cosine[row])[::-1][:6], rtol=1e-5)


def test_a_picture_alone_has_no_nearest() -> None:
    assert list(nearest_of(np.ones((1, 1, 4), np.float32), np.array([0]), 6)) == []
