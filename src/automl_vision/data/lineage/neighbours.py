"""Which pictures resemble each other enough to be laid over each other: nearest neighbours of descriptors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: Neighbours of each image that are looked at.
NEIGHBOURS = 10
#: Least cosine of a candidate. A large set has ten strangers nearer than that for every image.
_FLOOR, _FLOOR_LARGE, _LARGE = 0.20, 0.25, 5_000
#: Rows of the table of cosines that are in memory at once.
_BLOCK = 1_024
#: Images above which each is compared with those in the nearest cells only, and images, drawn at random, that then
#: stand for all others where it is asked how far the nearest stands out from them.
_EXACT, _OTHERS = 30_000, 2_048
#: Side in pixels of the thumbnails that stand in for features.
_THUMBNAIL = 16


@dataclass(frozen=True)
class Nearest:
    """Pairs of nearest neighbours, the most alike first.

    Attributes:
        pairs: (M, 2) rows of the descriptors, first < second, each pair once.
        cosine: (M) how alike, falling.
        nearest: (n) cosine of each image with its nearest.
        others, deviation: (n) mean and standard deviation of the cosines that each image has with images beyond its
            nearest. In a large set a random sample stands for them.
    """

    pairs: NDArray[np.int64]
    cosine: Floats
    nearest: Floats
    others: Floats
    deviation: Floats

    def standing_out(self, rows: NDArray[np.int64], cosine: Floats) -> Floats:
        """How many standard deviations these cosines of `rows` are above what the rows have with others."""
        return np.asarray((cosine - self.others[rows]) / np.maximum(self.deviation[rows], 1e-6), dtype=np.float32)


def nearest_pairs(views: Floats, k: int = NEIGHBOURS) -> Nearest:
    """Each image with its `k` nearest by cosine, above a floor; approximately above 30,000 images, see `cells`.

    Args:
        views: (V, n, D) descriptors of n images in V views; the first view is the image as it is. Two images are as
            alike as the first's best view is to the second as it is.
        k: neighbours of each image.
    """
    n = views.shape[1]
    if n < 2:
        none, zero = np.zeros(0, np.float32), np.zeros(n, np.float32)
        return Nearest(np.zeros((0, 2), np.int64), none, zero, zero, zero)
    unit = unit_views(views)
    search = _exactly if n <= _EXACT else _in_cells
    blocks = list(search(unit, min(k, n - 1)))
    pairs, cosine, *of_each = (np.concatenate(each) for each in zip(*blocks, strict=True))
    falling, best = _once(pairs, cosine, _FLOOR if n <= _LARGE else _FLOOR_LARGE)
    return Nearest(falling, best, *of_each)


def nearest_of(views: Floats, rows: NDArray[np.int64], k: int) -> Iterator[tuple[int, NDArray[np.int64], Floats]]:
    """Each of `rows`, its `k` nearest, the nearest first, and their cosines; however few of n they are.

    Args:
        views: as in `nearest_pairs`.
        rows: (m) of the descriptors.
        k: neighbours of each.
    """
    k = min(k, views.shape[1] - 1)
    if k < 1:
        return
    unit = unit_views(views)
    for block in (rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)):
        cosine = _cosines(unit, block, unit[0])
        cosine[np.arange(len(block)), block] = -np.inf
        near = np.argpartition(cosine, -k, axis=1)[:, -k:]
        alike = np.take_along_axis(cosine, near, axis=1)
        falling = np.lexsort((near, -alike), axis=1)
        near, alike = np.take_along_axis(near, falling, axis=1), np.take_along_axis(alike, falling, axis=1)
        yield from zip(block.tolist(), near, alike, strict=True)


def thumbnails(greys: Sequence[NDArray[np.uint8]]) -> Floats:
    """(n, D) small grey squares, row by row: for want of features."""
    return np.stack([_thumbnail(grey).ravel() for grey in greys]).astype(np.float32)


def turned(squares: Floats) -> Floats:
    """(n, D) thumbnails to (8, n, D) in the eight ways to turn and mirror them."""
    side = math.isqrt(squares.shape[1])
    small = squares.reshape(-1, side, side)
    turns = [np.rot90(small, quarters, (1, 2)) for quarters in range(4)]
    views = [*turns, *(view[:, :, ::-1] for view in turns)]
    return np.stack([view.reshape(len(small), -1) for view in views])


def _thumbnail(grey: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean grey of 16 x 16 fields."""
    rows, columns = (np.linspace(0, side, _THUMBNAIL + 1).astype(np.int64)[:-1] for side in grey.shape)
    sums = np.add.reduceat(np.add.reduceat(grey.astype(np.float64), rows, axis=0), columns, axis=1)
    ones = np.add.reduceat(np.add.reduceat(np.ones(grey.shape), rows, axis=0), columns, axis=1)
    return np.asarray(sums / ones, dtype=np.float64)


def unit_views(views: Floats) -> Floats:
    """(V, n, D) unit vectors around the mean image: what all images share says nothing about two of them."""
    moved = views - views[0].mean(axis=0)
    return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=2, keepdims=True), 1e-12), dtype=np.float32)


#: Pairs and cosines of one block of images, and for each image the nearest, and mean and deviation of the others.
_Block = tuple[NDArray[np.int64], Floats, Floats, Floats, Floats]


def _exactly(unit: Floats, k: int) -> Iterator[_Block]:
    for rows in _blocks(unit.shape[1]):
        cosine = _cosines(unit, rows, unit[0])
        cosine[np.arange(len(rows)), rows] = -np.inf
        near = np.argpartition(cosine, -k, axis=1)[:, -k:]
        alike = np.take_along_axis(cosine, near, axis=1)
        np.put_along_axis(cosine, near, np.nan, axis=1)
        cosine[np.arange(len(rows)), rows] = np.nan
        yield _block(rows, near, alike, cosine)


def _in_cells(unit: Floats, k: int) -> Iterator[_Block]:
    from automl_vision.data.lineage.cells import Cells  # scikit-learn: only for large sets

    n = unit.shape[1]
    near, alike = Cells.of(unit[0]).nearest(unit[0], unit, k)
    others = np.sort(np.random.default_rng(0).permutation(n)[:_OTHERS])
    for rows in _blocks(n):
        cosine = _cosines(unit, rows, unit[0, others])
        for column in near[rows].T:  # one at a time: all at once would take k times the memory
            cosine[column[:, None] == others] = np.nan
        cosine[rows[:, None] == others] = np.nan
        yield _block(rows, near[rows], alike[rows], cosine)


def _blocks(n: int) -> Iterator[NDArray[np.int64]]:
    return (np.arange(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK))


def _cosines(unit: Floats, rows: NDArray[np.int64], others: Floats) -> Floats:
    """(rows, others) of the view that is most alike."""
    cosine = unit[0, rows] @ others.T
    for view in unit[1:]:
        np.maximum(cosine, view[rows] @ others.T, out=cosine)
    return np.asarray(cosine, dtype=np.float32)


def _block(rows: NDArray[np.int64], near: NDArray[np.int64], alike: Floats, others: Floats) -> _Block:
    pairs = np.stack([np.repeat(rows, near.shape[1]), near.ravel()], axis=1)
    return pairs, alike.ravel(), alike.max(axis=1), *_of_others(others, alike.max(axis=1))


def _of_others(cosine: Floats, nearest: Floats) -> tuple[Floats, Floats]:
    """(n) mean and standard deviation of what is not NaN; where nothing or one is left, nothing stands out."""
    if np.isnan(cosine).sum(axis=1).min() >= cosine.shape[1] - 1:
        return nearest, np.ones(len(nearest), dtype=np.float32)
    return np.nanmean(cosine, axis=1).astype(np.float32), np.nanstd(cosine, axis=1).astype(np.float32)


def _once(pairs: NDArray[np.int64], cosine: Floats, floor: float) -> tuple[NDArray[np.int64], Floats]:
    alike = cosine >= floor
    ordered = np.sort(pairs[alike], axis=1)
    unique, inverse = np.unique(ordered, axis=0, return_inverse=True)
    best = np.full(len(unique), -np.inf, dtype=np.float32)
    np.maximum.at(best, inverse.ravel(), cosine[alike])
    falling = np.lexsort((unique[:, 1], unique[:, 0], -best))
    return unique[falling].astype(np.int64), best[falling]
