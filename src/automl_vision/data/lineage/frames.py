"""Whether files look like frames of videos: are neighbours in number more alike than others of their class?

Running numbers alone say nothing, and pictures of one class are alike anyway. So each pair of consecutive numbers is
set against a third picture, drawn at random: of the same series where that is long enough, because one author's
drawings are alike, too, else of the class. Where numbers mean nothing, the neighbour is the nearer one in half of the
cases.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.lineage.bursts import numbered_series
from automl_vision.data.manifest import Manifest

#: (n) rows -> (n, D) thumbnails.
Thumbnails = Callable[[NDArray[np.int64]], NDArray[np.float32]]

#: Pairs below which a class is not judged: 26 of 30 by chance happens once in 30,000 times.
FEWEST_PAIRS = 30
#: Pairs that are looked at in all, spread over the classes.
_MOST_PAIRS = 3_000
#: Files of a series from which the third picture comes from it.
_LONG_SERIES = 12
#: Frames: the neighbour is nearer in at least this share of the pairs ...
_NEARER = 0.85
#: ... and its median distance is at most this share of the third picture's.
_RATIO = 0.6
#: ... and is itself small, of 255 grey levels.
_NEAR = 30.0


@dataclass(frozen=True)
class Likeness:
    """What the pairs of one class told.

    Attributes:
        pairs: consecutive numbers that were looked at.
        nearer: share of them in which the neighbour is nearer than the third picture, 0..1.
        ratio: median distance of the neighbours over that of the third pictures.
        near: median distance of the neighbours, in grey levels of 255.
    """

    pairs: int
    nearer: float
    ratio: float
    near: float

    @property
    def frames(self) -> bool:
        """Whether they look like frames."""
        enough = self.pairs >= FEWEST_PAIRS
        return enough and self.nearer >= _NEARER and self.ratio <= _RATIO and self.near <= _NEAR


def likeness_of_neighbours(
    manifest: Manifest, considered: NDArray[np.bool_], group: NDArray[np.int64], thumbnails: Thumbnails
) -> dict[int, Likeness]:
    """Label -> what its pairs told, for classes with at least `FEWEST_PAIRS` pairs of consecutive numbers.

    Args:
        manifest: N rows.
        considered: (N) rows that are looked at: readable originals.
        group: (N) rows of one group are no pair: that they are alike is known.
        thumbnails: how the pixels are reached.
    """
    pairs = _consecutive(manifest, considered, group)
    enough = sorted(label for label, found in pairs.items() if len(found) >= FEWEST_PAIRS)
    chosen = [enough[at] for at in _spread(len(enough), _MOST_PAIRS // FEWEST_PAIRS)]
    each = max(FEWEST_PAIRS, _MOST_PAIRS // max(len(chosen), 1))
    rng = np.random.default_rng(0)
    told: dict[int, Likeness] = {}
    for label in chosen:
        members = np.flatnonzero(considered & (manifest.labels == label))
        taken = [pairs[label][at] for at in _spread(len(pairs[label]), each)]
        third = [_third(pair, members, rng) for pair in taken]
        told[label] = _likeness(taken, third, thumbnails)
    return told


@dataclass(frozen=True)
class _Pair:
    first: int
    second: int
    series: NDArray[np.int64]  # all rows of the series that have the label


def _consecutive(manifest: Manifest, considered: NDArray[np.bool_], group: NDArray[np.int64]) -> dict[int, list[_Pair]]:
    found: defaultdict[int, list[_Pair]] = defaultdict(list)
    for _, members in sorted(numbered_series(manifest).items()):
        labelled: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for number, row in members:
            if considered[row]:
                labelled[int(manifest.labels[row])].append((number, row))
        for label, kept in labelled.items():
            series = np.array([row for _, row in kept], dtype=np.int64)
            found[label] += [
                _Pair(row, other, series)
                for (number, row), (following, other) in pairwise(kept)
                if following - number == 1 and group[row] != group[other]
            ]
    return found


def _third(pair: _Pair, members: NDArray[np.int64], rng: np.random.Generator) -> int:
    """A row that is not in the pair."""
    source = pair.series if len(pair.series) >= _LONG_SERIES else members
    while True:
        third = int(source[rng.integers(len(source))])
        if third not in (pair.first, pair.second):
            return third


def _likeness(pairs: list[_Pair], third: list[int], thumbnails: Thumbnails) -> Likeness:
    first = thumbnails(np.array([pair.first for pair in pairs], dtype=np.int64))
    second = thumbnails(np.array([pair.second for pair in pairs], dtype=np.int64))
    other = thumbnails(np.array(third, dtype=np.int64))
    near, far = (np.abs(first - each).mean(axis=1) for each in (second, other))
    median, least = float(np.median(near)), float(np.finfo(np.float32).tiny)
    ratio = median / max(float(np.median(far)), least)
    return Likeness(len(pairs), float((near < far).mean()), ratio, median)


def _spread(n: int, most: int) -> list[int]:
    """At most `most` of the numbers below n, evenly over them."""
    return np.linspace(0, n - 1, min(n, most)).round().astype(int).tolist() if n else []
