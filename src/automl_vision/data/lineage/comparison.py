"""Comparing what pictures show: candidates in falling likeness, each laid over the other, until time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from automl_vision.config import DataSettings
from automl_vision.data.decode import FileSignature
from automl_vision.data.facts import Compared, Facts
from automl_vision.data.lineage.evidence import EVIDENCE, KEEPS_TOGETHER, LINEAGE_MODES, Evidence, as_bytes
from automl_vision.data.lineage.groups import connected
from automl_vision.data.lineage.lineage import Link
from automl_vision.data.lineage.neighbours import NEIGHBOURS, nearest_pairs, thumbnails
from automl_vision.data.lineage.picking import Look, judge_groups
from automl_vision.data.lineage.registration import TINY, Picture, Registration, describe_picture, register
from automl_vision.data.lineage.traces import traces
from automl_vision.data.manifest import Manifest

#: (n) rows, and the monotonic seconds until which there is time -> (n, D) features; None where time was up.
Describe = Callable[[NDArray[np.int64], float], NDArray[np.float32] | None]
Progress = Callable[[int, int], None]

#: Pairs that are compared before what they joined is looked at. A constant, so that the number of threads changes
#: nothing.
_BATCH = 64
#: Pictures whose key points are kept at once, about 120 kB each.
_KEPT = 8_000


@dataclass(frozen=True)
class Sight:
    """How the pixels are reached.

    Attributes:
        pixels: row -> (H, W, 3) RGB as decoded.
        describe: features of usable rows; None where there are no weights, and thumbnails stand in.
        threads: that compare at once.
        seconds: after which nothing new begins; infinite where nothing presses.
        signature: row -> signature of its file; None: originals are not sought in groups.
    """

    pixels: Callable[[int], NDArray[np.uint8]]
    describe: Describe | None
    threads: int
    seconds: float
    signature: Callable[[int], FileSignature] | None = None


def compare(
    manifest: Manifest, facts: Facts, settings: DataSettings, sight: Sight, progress: Progress | None = None
) -> Compared:
    """Lay the pictures that may be the same over each other; pairs that other evidence joined are passed over.

    Args:
        manifest: N rows.
        facts: N rows.
        settings: which other evidence there is.
        sight: how the pixels are reached.
        progress: called with (pairs dealt with, pairs in all).
    """
    stop = time.monotonic() + sight.seconds
    cv2.setNumThreads(1)  # the threads are ours
    plain: set[int] = set()
    marked: dict[int, tuple[str, ...]] = {}
    picture = lru_cache(maxsize=_KEPT)(partial(_picture, sight, plain, marked))
    others = [EVIDENCE[name](manifest, facts, settings) for name in LINEAGE_MODES["names"]]
    joined = tuple(link for evidence in others for link in evidence.links)
    rows = _distinct_pixels(facts)
    blas = threadpool_limits(1, "blas")  # small products: threads inside of threads only wait for each other
    with blas, ThreadPoolExecutor(max(1, sight.threads), thread_name_prefix="register") as pool:
        views = _views(rows, sight, lambda each: list(pool.map(picture, each)), stop)
        pairs = _candidates(rows, views, facts, others)
        work = _Work(pairs, lambda pair: register(picture(pair[0]), picture(pair[1])), pool, stop, progress)
        found = work.run(connected(len(manifest), joined))
        original = _originals(facts, others, found, sight, picture, pool, stop)
    unknown = len(rows) * NEIGHBOURS // 2 if views is None else 0  # about as many as there would have been
    unchecked = len(pairs) - work.done + unknown
    seen = _compared(found, unchecked=unchecked, tiny=_tiny(facts), plain=len(plain))
    return replace(seen, original=original, marked={row: marked[row] for row in sorted(marked)})


def _originals(
    facts: Facts,
    others: Sequence[Evidence],
    found: list[tuple[tuple[int, int], Registration]],
    sight: Sight,
    picture: Callable[[int], Picture],
    pool: ThreadPoolExecutor,
    stop: float,
) -> dict[int, float]:
    """Probabilities in the groups of what shows one picture, where nothing stronger names their original."""
    if sight.signature is None:
        return {}
    links = [Link(a, b, "pixels_registered", "") for (a, b), each in found if each.same]
    named = np.zeros(len(facts), dtype=np.bool_)
    for name, each in zip(LINEAGE_MODES["names"], others, strict=True):
        named |= each.claims == "original"
        links += each.links if name not in KEEPS_TOGETHER else ()
    look = Look(sight.pixels, picture, sight.signature)
    return judge_groups(connected(len(facts), links), named, facts, look, pool, stop)


def _picture(sight: Sight, plain: set[int], marked: dict[int, tuple[str, ...]], row: int) -> Picture:
    pixels = sight.pixels(row)
    if found := traces(pixels):
        marked[row] = found
    picture = describe_picture(pixels)
    if picture.plain and not picture.tiny:
        plain.add(row)
    return picture


def _distinct_pixels(facts: Facts) -> NDArray[np.int64]:
    """One row of every distinct picture."""
    usable = np.flatnonzero(facts.usable)
    return usable[np.sort(np.unique(as_bytes(facts.pixel_digests[usable]), return_index=True)[1])]


def _tiny(facts: Facts) -> int:
    sides = facts.table[["width", "height"]].min(axis=1).to_numpy()
    return int((facts.usable & (sides <= TINY)).sum())


def _views(
    rows: NDArray[np.int64], sight: Sight, pictures: Callable[[list[int]], list[Picture]], stop: float
) -> NDArray[np.float32] | None:
    """(V, n, D) descriptors; None where there was no time for all of them."""
    if sight.describe is not None:
        features = sight.describe(rows, stop)
        return None if features is None else features[None]
    greys: list[NDArray[np.uint8]] = []
    for start in range(0, len(rows), _BATCH):
        if time.monotonic() > stop:
            return None
        greys += [each.grey for each in pictures(rows[start : start + _BATCH].tolist())]
    return thumbnails(greys) if greys else np.zeros((8, 0, 1), np.float32)


def _candidates(
    rows: NDArray[np.int64], views: NDArray[np.float32] | None, facts: Facts, others: Sequence[Evidence]
) -> list[tuple[int, int]]:
    """Hints of names first, then nearest neighbours, the most alike first."""
    usable = facts.usable
    hints = [(link.first, link.second) for evidence in others for link in evidence.candidates]
    hints = [pair for pair in hints if usable[list(pair)].all()]
    near = [] if views is None else rows[nearest_pairs(views).pairs].tolist()
    return list(dict.fromkeys([*hints, *((min(a, b), max(a, b)) for a, b in near)]))


@dataclass
class _Work:
    """Comparisons under way.

    Attributes:
        pairs: what to compare, in this order.
        look: lays one pair over each other.
        pool: where.
        stop: monotonic seconds at which no new batch begins.
        progress: is told how far it is.
        done: pairs that were compared or passed over.
    """

    pairs: list[tuple[int, int]]
    look: Callable[[tuple[int, int]], Registration]
    pool: ThreadPoolExecutor
    stop: float
    progress: Progress | None
    done: int = 0

    def run(self, root: NDArray[np.int64]) -> list[tuple[tuple[int, int], Registration]]:
        """What was found of each pair that `root`, and what was joined before it, did not join already."""
        found: list[tuple[tuple[int, int], Registration]] = []
        starts = [*range(0, len(self.pairs), _BATCH), len(self.pairs)]
        for start, end in pairwise(starts):
            if time.monotonic() > self.stop:
                break
            batch = [pair for pair in self.pairs[start:end] if root[pair[0]] != root[pair[1]]]
            seen = list(zip(batch, self.pool.map(self.look, batch), strict=True))
            found += [(pair, each) for pair, each in seen if each.same or each.perhaps]
            root = _joined(root, [pair for pair, each in seen if each.same])
            self.done = end
            if self.progress:
                self.progress(end, len(self.pairs))
        return found


def _joined(root: NDArray[np.int64], pairs: list[tuple[int, int]]) -> NDArray[np.int64]:
    if not pairs:
        return root
    low = connected(len(root), [Link(int(root[a]), int(root[b]), "", "") for a, b in pairs])
    return np.asarray(low[root])


def _compared(found: list[tuple[tuple[int, int], Registration]], *, unchecked: int, tiny: int, plain: int) -> Compared:
    return Compared(
        pairs=np.array([pair for pair, _ in found], dtype=np.int64).reshape(-1, 2),
        score=np.array([each.score for _, each in found], dtype=np.float64),
        same=np.array([each.same for _, each in found], dtype=np.bool_),
        detail=tuple(each.detail for _, each in found),
        unchecked=unchecked,
        tiny=tiny,
        plain=plain,
    )
