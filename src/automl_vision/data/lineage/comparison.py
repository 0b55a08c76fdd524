"""Comparing what pictures show: candidates in falling likeness, each laid over the other.

Copies are among the pairs that are most alike. So the work ends where a long row of pairs held none: in a folder
without copies soon, in a folder full of them late; or when time is up. Both are told.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
from automl_vision.data.lineage.contradictions import contradicted, named_pairs
from automl_vision.data.lineage.evidence import EVIDENCE, KEEPS_TOGETHER, LINEAGE_MODES, Evidence, as_bytes
from automl_vision.data.lineage.groups import connected
from automl_vision.data.lineage.lineage import Link
from automl_vision.data.lineage.names import SIBLING_HINT
from automl_vision.data.lineage.neighbours import NEIGHBOURS, Candidates, nearest_pairs, thumbnails
from automl_vision.data.lineage.overlay import Bank
from automl_vision.data.lineage.picking import Look, judge_groups
from automl_vision.data.lineage.registration import TINY, Picture, Registration, describe_picture, lay_over, register
from automl_vision.data.lineage.traces import traces
from automl_vision.data.manifest import Manifest

#: (n) rows, and the monotonic seconds until which there is time -> (n, D) features; None where time was up.
Describe = Callable[[NDArray[np.int64], float], NDArray[np.float32] | None]
Progress = Callable[[int, int], None]

#: Pairs that are compared before what they joined is looked at. A constant, so that the number of threads changes
#: nothing.
_BATCH = 64
#: Pictures whose grey levels and key points are kept at once, about 120 kB each.
_KEPT = 8_000
#: Pairs in a row without a copy after which the rest is left: so many, more in a large set, and more for every copy
#: that was found.
_PATIENCE, _PATIENCE_SHARE, _PATIENCE_PER_COPY = 128, 0.05, 2
#: Pairs of each picture, the most alike first, that are laid over each other without key points where those did not
#: decide, and how alike they must be.
_LAID, _LAID_COSINE = 4, 0.35
#: A picture resembles its nearest as a copy does from this cosine, and from so many standard deviations above what it
#: has with all others. What is missed most often does (docs/LOG.md).
_STANDS_OUT_COSINE, _STANDS_OUT = 0.45, 4.6


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
    with ThreadPoolExecutor(max(1, sight.threads), thread_name_prefix="register") as pool:
        views = _views(rows, sight, lambda each: list(pool.map(picture, each)), stop)
        with blas:
            near = None if views is None else nearest_pairs(views)
            candidates = _candidates(rows, near, facts, others)
            work = _Work(candidates, len(rows), picture, pool, stop, progress)
            found = work.run(connected(len(manifest), joined))
            original = _originals(facts, others, found, sight, picture, pool, stop)
            strangers, named = contradicted(named_pairs(joined, facts), picture, work.look, pool, stop)
    unknown = len(rows) * NEIGHBOURS // 2 if views is None else 0  # about as many as there would have been
    told = _compared(found, unchecked=work.late + unknown, tiny=_tiny(facts), plain=sorted(plain))
    return replace(
        told,
        strangers=np.array(strangers, dtype=np.int64).reshape(-1, 2),
        named=named,
        looked=work.looked,
        left=work.left,
        barren=work.barren if work.left else 0,
        resembling=_resembling(rows, near) if sight.describe is not None else _no_rows(),
        original=original,
        marked={row: marked[row] for row in sorted(marked)},
    )


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


def _resembling(rows: NDArray[np.int64], near: Candidates | None) -> NDArray[np.int64]:
    """Rows whose nearest picture stands out from all others, as the original of a copy does."""
    if near is None:
        return _no_rows()
    return rows[(near.nearest >= _STANDS_OUT_COSINE) & (near.standing_out >= _STANDS_OUT)]


def _no_rows() -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


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
        greys += [each.calm for each in pictures(rows[start : start + _BATCH].tolist())]
    return thumbnails(greys) if greys else np.zeros((8, 0, 1), np.float32)


@dataclass(frozen=True)
class _Candidate:
    """Two rows that may show the same picture.

    Attributes:
        pair: first < second.
        cosine: how alike they are; 1 where a name hints at it.
        hint: whether a name does, so that it is compared in any case.
        near: whether it is among the first few of one of the two.
    """

    pair: tuple[int, int]
    cosine: float
    hint: bool
    near: bool


def _candidates(
    rows: NDArray[np.int64], near: Candidates | None, facts: Facts, others: Sequence[Evidence]
) -> list[_Candidate]:
    """Hints of names first, then nearest neighbours, the most alike first; last what only siblings hint at."""
    usable = facts.usable
    hints = [link for evidence in others for link in evidence.candidates]
    hints = [link for link in hints if usable[[link.first, link.second]].all()]
    strong = [(link.first, link.second) for link in hints if link.score > SIBLING_HINT]
    weak = [(link.first, link.second) for link in hints if link.score <= SIBLING_HINT]
    ordered = {pair: _Candidate(pair, 1.0, hint=True, near=True) for pair in strong}
    for each in [] if near is None else _neighbours(rows, near):
        ordered.setdefault(each.pair, each)
    for pair in weak:
        ordered.setdefault(pair, _Candidate(pair, 1.0, hint=True, near=True))
    return list(ordered.values())


def _neighbours(rows: NDArray[np.int64], found: Candidates) -> Iterator[_Candidate]:
    seen: Counter[int] = Counter()
    for (a, b), cosine in zip(rows[found.pairs].tolist(), found.cosine.tolist(), strict=True):
        seen.update((a, b))
        near = cosine >= _LAID_COSINE and min(seen[a], seen[b]) <= _LAID
        yield _Candidate((min(a, b), max(a, b)), cosine, hint=False, near=near)


_Found = tuple[tuple[int, int], Registration]


@dataclass
class _Work:
    """Comparisons under way.

    Attributes:
        candidates: what to compare, in this order.
        pictures: how many pictures there are.
        picture: row -> what registration needs of it.
        pool: where.
        stop: monotonic seconds at which no new batch begins.
        progress: is told how far it is.
        looked: pairs that were laid over each other.
        left: pairs that were left because none before them was a copy for long.
        late: pairs that were left for want of time.
        barren: pairs in a row without a copy: the last ones before the rest was left.
    """

    candidates: list[_Candidate]
    pictures: int
    picture: Callable[[int], Picture]
    pool: ThreadPoolExecutor
    stop: float
    progress: Progress | None
    looked: int = 0
    left: int = 0
    late: int = 0
    barren: int = 0

    def run(self, root: NDArray[np.int64]) -> list[_Found]:
        """What was found of each pair that `root`, and what was joined before it, did not join already."""
        found: list[_Found] = []
        copies = 0
        starts = [*range(0, len(self.candidates), _BATCH), len(self.candidates)]
        for start, end in pairwise(starts):
            if time.monotonic() > self.stop:
                self.late = sum(each.hint or not self.left for each in self.candidates[start:])
                break
            if not self.left and self.barren > self._patience(copies):
                self.left = sum(not each.hint for each in self.candidates[start:])
            batch = [each for each in self.candidates[start:end] if each.hint or not self.left]
            batch = [each for each in batch if root[each.pair[0]] != root[each.pair[1]]]
            seen = self._compared(batch, root)
            found += [(pair, each) for pair, each in seen if each.same or each.perhaps]
            same = [pair for pair, each in seen if each.same]
            copies += len(same)
            if not self.left:
                self.barren = 0 if same else self.barren + len(batch)
            root = _joined(root, same)
            self.looked += len(seen)
            if self.progress:
                self.progress(end, len(self.candidates))
        return found

    def look(self, pair: tuple[int, int]) -> Registration:
        """Lay one pair over each other by key points."""
        return register(self.picture(pair[0]), self.picture(pair[1]))

    def _patience(self, copies: int) -> float:
        return max(_PATIENCE, _PATIENCE_SHARE * self.pictures) + _PATIENCE_PER_COPY * copies

    def _compared(self, batch: list[_Candidate], root: NDArray[np.int64]) -> list[_Found]:
        """By key points; and where those do not join the two, nor what they belong to, without."""
        pairs = [each.pair for each in batch]
        seen = dict(zip(pairs, self.pool.map(self.look, pairs), strict=True))
        root = _joined(root, [pair for pair, each in seen.items() if each.same])
        open_pairs = [each.pair for each in batch if each.near and root[each.pair[0]] != root[each.pair[1]]]
        by_first: dict[int, list[_Found]] = {}
        for pair in open_pairs:
            by_first.setdefault(pair[0], []).append((pair, seen[pair]))
        for again in self.pool.map(self._laid, by_first.values()):
            seen |= dict(again)
        return list(seen.items())

    def _laid(self, pairs: list[_Found]) -> list[_Found]:
        """Pairs of one first picture, which is turned in every way once for all of them."""
        first = self.picture(pairs[0][0][0])
        bank = Bank.of(first.contrast)
        return [(pair, lay_over(first, bank, self.picture(pair[1]), found)) for pair, found in pairs]


def _joined(root: NDArray[np.int64], pairs: list[tuple[int, int]]) -> NDArray[np.int64]:
    if not pairs:
        return root
    low = connected(len(root), [Link(int(root[a]), int(root[b]), "", "") for a, b in pairs])
    return np.asarray(low[root])


def _compared(found: list[_Found], *, unchecked: int, tiny: int, plain: list[int]) -> Compared:
    return Compared(
        pairs=np.array([pair for pair, _ in found], dtype=np.int64).reshape(-1, 2),
        score=np.array([each.score for _, each in found], dtype=np.float64),
        same=np.array([each.same for _, each in found], dtype=np.bool_),
        detail=tuple(each.detail for _, each in found),
        unchecked=unchecked,
        tiny=tiny,
        plain=np.array(plain, dtype=np.int64),
    )
