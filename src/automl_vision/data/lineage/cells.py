"""Nearest neighbours in a large set, approximately: only what lies in the nearest cells is looked at.

The vectors are divided into cells around k-means centres, and each is compared with those in the cells whose centres
are nearest to it (the inverted file of Jegou, Douze and Schmid, "Product Quantization for Nearest Neighbor Search",
TPAMI 2011). A neighbour just beyond the cells that are looked at is missed; between a picture and its copy that is
rare, as they are nearer to each other than to nearly all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

#: Vectors of a cell on average, and the nearest cells that are looked at.
CELL, PROBES = 400, 24
#: Vectors for each centre that the centres are found with, and batches of them.
_FITTED, _FIT_BATCH = 40, 4_096
#: Cosines that are in memory at once.
_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Cells:
    """A division of n unit vectors.

    Attributes:
        centres: (C, D).
        members: for each centre, the rows that are nearest to it; a cell may be empty.
    """

    centres: Floats
    members: tuple[Rows, ...]

    @classmethod
    def of(cls, unit: Floats, seed: int = 0) -> Cells:
        """Divide (n, D) unit vectors; the same ones are always divided alike."""
        count = max(1, len(unit) // CELL)
        rng = np.random.default_rng(seed)
        fitted = np.sort(rng.permutation(len(unit))[: _FITTED * count])
        with threadpool_limits(1):  # the number of threads would change the order of sums
            means = MiniBatchKMeans(count, batch_size=_FIT_BATCH, n_init=1, random_state=seed).fit(unit[fitted])
        centres = np.asarray(means.cluster_centers_, dtype=np.float32)
        return cls(centres, _by_cell(_nearest_centres(unit, centres, 1), count))

    def nearest(self, unit: Floats, views: Floats, k: int) -> tuple[Rows, Floats]:
        """Each vector with its `k` nearest others, in no order.

        Args:
            unit: (n, D) the vectors that were divided.
            views: (V, n, D) the same seen in other ways; the nearest to any of them count.
            k: neighbours of each, fewer than n.

        Returns:
            (n, k) rows and (n, k) cosines. Where fewer were seen, the row itself, at a cosine of -1.
        """
        n = len(unit)
        rows, cosine = np.repeat(np.arange(n)[:, None], k, axis=1), np.full((n, k), -1.0, dtype=np.float32)
        for view in views:
            asking = _by_cell(_nearest_centres(view, self.centres, PROBES), len(self.centres))
            pairs = zip(self.members, asking, strict=True)
            for members, askers in ((ours, theirs) for ours, theirs in pairs if len(ours)):
                for some in _in_blocks(askers, len(members)):
                    alike = view[some] @ unit[members].T
                    alike[some[:, None] == members] = -1.0
                    rows[some], cosine[some] = _best(rows[some], cosine[some], members, alike, k)
        return rows, cosine


def _nearest_centres(vectors: Floats, centres: Floats, count: int) -> Rows:
    """(n, count) centres that are nearest to each vector, in no order."""
    count = min(count, len(centres))
    lengths = (centres**2).sum(axis=1) / 2
    found = [np.zeros((0, count), dtype=np.int64)]
    for some in _in_blocks(np.arange(len(vectors)), len(centres)):
        near = vectors[some] @ centres.T - lengths
        found.append(np.argpartition(near, -count, axis=1)[:, -count:])
    return np.concatenate(found)


def _by_cell(cells: Rows, count: int) -> tuple[Rows, ...]:
    """Of (n, P) cells of each row, for each cell its rows, ascending."""
    order = np.argsort(cells.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(cells.ravel(), minlength=count))[:-1]
    return tuple(np.split(order // cells.shape[1], ends))


def _in_blocks(rows: Rows, width: int) -> Iterator[Rows]:
    """So many rows at a time that a table of that width is no larger than `_AT_ONCE`."""
    step = max(1, _AT_ONCE // max(1, width))
    return (rows[start : start + step] for start in range(0, len(rows), step))


def _best(rows: Rows, cosine: Floats, members: Rows, alike: Floats, k: int) -> tuple[Rows, Floats]:
    """The `k` most alike of those before and the new ones; a row that is both counts once, at its best."""
    if alike.shape[1] > k:
        top = np.argpartition(alike, -k, axis=1)[:, -k:]
        members, alike = members[top], np.take_along_axis(alike, top, axis=1)
    else:
        members = np.broadcast_to(members, alike.shape)
    again = members[:, :, None] == rows[:, None, :]
    before = np.where(again, alike[:, :, None], -1.0).max(axis=1)
    cosine = np.maximum(cosine, before)
    alike = np.where(again.any(axis=2), -1.0, alike)
    all_rows, all_cosine = np.concatenate([rows, members], axis=1), np.concatenate([cosine, alike], axis=1)
    top = np.argpartition(all_cosine, -k, axis=1)[:, -k:]
    return np.take_along_axis(all_rows, top, axis=1), np.take_along_axis(all_cosine, top, axis=1)
