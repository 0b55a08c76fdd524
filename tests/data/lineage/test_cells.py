from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from automl_vision.data.lineage import cells
from automl_vision.data.lineage.cells import Cells


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def scattered(n: int, seed: int = 0) -> np.ndarray:
    """Vectors whose directions are spread unevenly, as those of pictures are."""
    spread = np.arange(1, 49) ** -0.5
    return unit(np.random.default_rng(seed).normal(size=(n, 48)) * spread)


def exact(vectors: np.ndarray, k: int) -> np.ndarray:
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, -2)
    return np.sort(np.argpartition(cosine, -k, axis=1)[:, -k:], axis=1)


def test_with_all_cells_it_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "CELL", 20)
    monkeypatch.setattr(cells, "PROBES", 100)
    vectors = scattered(300)
    rows, cosine = Cells.of(vectors).nearest(vectors, vectors[None], 7)
    assert np.array_equal(np.sort(rows, axis=1), exact(vectors, 7))
    np.testing.assert_allclose(cosine, (vectors[:, None] * vectors[rows]).sum(axis=2), atol=1e-6)


def test_every_vector_is_in_one_cell() -> None:
    divided = Cells.of(scattered(2_000))
    assert len(divided.members) == 2_000 // cells.CELL
    assert np.array_equal(np.sort(np.concatenate(divided.members)), np.arange(2_000))


def test_blocks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "CELL", 50)
    monkeypatch.setattr(cells, "PROBES", 6)
    vectors = scattered(1_000)

    def found(threads: int) -> np.ndarray:
        with threadpool_limits(threads):
            return np.sort(Cells.of(vectors).nearest(vectors, vectors[None], 10)[0], axis=1)

    whole = found(1)
    assert np.array_equal(found(2), whole)
    monkeypatch.setattr(cells, "_AT_ONCE", 777)
    assert np.array_equal(found(1), whole)


@pytest.mark.parametrize("n", [11, 60, 1_000])
def test_equal_vectors_are_no_error(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "CELL", 50)
    vectors = np.repeat(scattered(1), n, axis=0)
    rows, cosine = Cells.of(vectors).nearest(vectors, vectors[None], 10)
    assert (rows != np.arange(n)[:, None]).all()
    assert all(len(set(near)) == 10 for near in rows.tolist())
    assert cosine == pytest.approx(1.0, abs=1e-5)


def test_where_too_few_were_seen_the_row_stands_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "CELL", 3)
    monkeypatch.setattr(cells, "PROBES", 1)
    vectors = scattered(60)
    rows, cosine = Cells.of(vectors).nearest(vectors, vectors[None], 10)
    nobody = cosine == -1
    assert nobody.any()
    assert np.array_equal(rows[nobody], np.repeat(np.arange(60)[:, None], 10, axis=1)[nobody])
    assert (rows != np.arange(60)[:, None])[~nobody].all()


def test_a_copy_seen_in_another_way_is_found() -> None:
    vectors = scattered(2_000)
    views = np.stack([vectors, vectors[:, ::-1]])
    vectors[7] = views[1, 1_500]
    rows, cosine = Cells.of(vectors).nearest(vectors, views, 5)
    assert rows[1_500, cosine[1_500].argmax()] == 7


def test_memory_does_not_grow_with_the_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one cell holds most of them."""
    monkeypatch.setattr(cells, "_AT_ONCE", 200_000)
    vectors = scattered(3_000)
    vectors[1_000:] = unit(vectors[:1] + 0.05 * scattered(2_000))
    divided = Cells.of(vectors)
    tracemalloc.start()
    divided.nearest(vectors, vectors[None], 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000 * 3_000 * 4 / 5
