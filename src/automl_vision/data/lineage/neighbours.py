"""Which pictures resemble each other enough to be laid over each other: nearest neighbours of descriptors."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
#: Side in pixels of the thumbnails that stand in for features.
_THUMBNAIL = 16


@dataclass(frozen=True)
class Candidates:
    """Pairs that may show the same picture, the most alike first.

    Attributes:
        pairs: (M, 2) rows of the descriptors, first < second, each pair once.
        cosine: (M) how alike, falling.
        nearest: (n) cosine of each image with its nearest.
        standing_out: (n) how far that is above what the image has with images beyond its nearest, in their standard
            deviations.
    """

    pairs: NDArray[np.int64]
    cosine: Floats
    nearest: Floats
    standing_out: Floats


def nearest_pairs(views: Floats, k: int = NEIGHBOURS) -> Candidates:
    """Each image with its `k` nearest by cosine, above a floor.

    Args:
        views: (V, n, D) descriptors of n images in V views; the first view is the image as it is. Two images are as
            alike as the first's best view is to the second as it is.
        k: neighbours of each image.
    """
    n = views.shape[1]
    if n < 2:
        none = np.zeros(0, np.float32)
        return Candidates(np.zeros((0, 2), np.int64), none, np.zeros(n, np.float32), np.zeros(n, np.float32))
    unit = _centred(views)
    blocks = [_nearest(unit, start, min(k, n - 1)) for start in range(0, n, _BLOCK)]
    pairs, cosine, nearest, standing_out = (np.concatenate(each) for each in zip(*blocks, strict=True))
    falling, best = _once(pairs, cosine, _FLOOR if n <= _LARGE else _FLOOR_LARGE)
    return Candidates(falling, best, nearest, standing_out)


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


def _centred(views: Floats) -> Floats:
    """Unit vectors around the mean image: what all images share says nothing about two of them."""
    moved = views - views[0].mean(axis=0)
    return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=2, keepdims=True), 1e-12), dtype=np.float32)


def _nearest(unit: Floats, start: int, k: int) -> tuple[NDArray[np.int64], Floats, Floats, Floats]:
    """Pairs and cosines of one block of images, and for each image the nearest and how far that stands out."""
    rows = np.arange(start, min(start + _BLOCK, unit.shape[1]))
    cosine = unit[0, rows] @ unit[0].T
    for view in unit[1:]:
        np.maximum(cosine, view[rows] @ unit[0].T, out=cosine)
    cosine[np.arange(len(rows)), rows] = -np.inf
    near = np.argpartition(cosine, -k, axis=1)[:, -k:]
    pairs = np.stack([np.repeat(rows, k), near.ravel()], axis=1)
    alike = np.take_along_axis(cosine, near, axis=1)
    nearest = alike.max(axis=1)
    np.put_along_axis(cosine, near, np.nan, axis=1)
    cosine[np.arange(len(rows)), rows] = np.nan
    return pairs, alike.ravel(), nearest, _standing_out(nearest, cosine)


def _standing_out(nearest: Floats, others: Floats) -> Floats:
    """(n) how many standard deviations the nearest is above the others, which hold NaN for what does not count."""
    if np.isnan(others).sum(axis=1).min() >= others.shape[1] - 1:
        return np.zeros(len(nearest), dtype=np.float32)
    above = (nearest - np.nanmean(others, axis=1)) / np.maximum(np.nanstd(others, axis=1), 1e-6)
    return np.asarray(above, dtype=np.float32)


def _once(pairs: NDArray[np.int64], cosine: Floats, floor: float) -> tuple[NDArray[np.int64], Floats]:
    alike = cosine >= floor
    ordered = np.sort(pairs[alike], axis=1)
    unique, inverse = np.unique(ordered, axis=0, return_inverse=True)
    best = np.full(len(unique), -np.inf, dtype=np.float32)
    np.maximum.at(best, inverse.ravel(), cosine[alike])
    falling = np.lexsort((unique[:, 1], unique[:, 0], -best))
    return unique[falling].astype(np.int64), best[falling]
