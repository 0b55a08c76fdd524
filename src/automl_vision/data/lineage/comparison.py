"""Comparing what pictures show: candidates in falling likeness, each laid over the other.

Copies are among the pairs that are most alike. So the work ends where a long row of pairs held none: in a folder
without copies soon, in a folder full of them late; or when time is up. Both are told.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from automl_vision.config import DataSettings
from automl_vision.data.decode import FileSignature
from automl_vision.data.facts import Compared, Facts
from automl_vision.data.lineage.comparison_cache import Appearance, ComparisonCache
from automl_vision.data.lineage.contradictions import contradicted, named_pairs
from automl_vision.data.lineage.evidence import EVIDENCE, KEEPS_TOGETHER, LINEAGE_MODES, Evidence, as_bytes
from automl_vision.data.lineage.groups import connected
from automl_vision.data.lineage.lineage import Link
from automl_vision.data.lineage.names import SIBLING_HINT
from automl_vision.data.lineage.neighbours import NEIGHBOURS, Candidates, nearest_pairs, thumbnails, turned
from automl_vision.data.lineage.overlay import Bank
from automl_vision.data.lineage.picking import Look, judge_groups
from automl_vision.data.lineage.registration import TINY, Picture, Registration, describe_picture, lay_over, register
from automl_vision.data.lineage.traces import traces
from automl_vision.data.manifest import Manifest

#: (n) rows, and the monotonic seconds until which there is time -> (n, D) features; None where time was up.
Describe = Callable[[NDArray[np.int64], float], NDArray[np.float32] | None]
Progress = Callable[[int, int], None]


class NamedDescribe(Protocol):
    """`Describe`, and what does it."""

    @property
    def name(self) -> str:
        """Equal where equal images get equal features."""
        ...

    def __call__(self, rows: NDArray[np.int64], stop: float, /) -> NDArray[np.float32] | None:
        """As `Describe`."""
        ...


#: Pairs that are compared before what they joined is looked at. A constant, so that the number of threads changes
#: nothing.
_BATCH = 64
#: Pictures that are described before what they gave is kept: whole batches of the network.
_DESCRIBED = 128
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
        cache: what earlier runs saw.
    """

    pixels: Callable[[int], NDArray[np.uint8]]
    describe: Describe | None
    threads: int
    seconds: float
    signature: Callable[[int], FileSignature] | None = None
    cache: ComparisonCache = field(default_factory=ComparisonCache)


def compare(
    manifest: Manifest, facts: Facts, settings: DataSettings, sight: Sight, progress: Progress | None = None
) -> Compared:
    """Lay the pictures that may be the same over each other; pairs that other evidence joined are passed over.

    Args:
        manifest: N rows.
        facts: N rows.
        settings: which other evidence there is.
        sight: how the pixels are reached.
        progress: called with (pictures described, pictures in all), then with (pairs dealt with, pairs in all).
    """
    stop = time.monotonic() + sight.seconds
    cv2.setNumThreads(1)  # the threads are ours
    pictures = _Pictures(sight, facts.pixel_digests)
    others = [EVIDENCE[name](manifest, facts, settings) for name in LINEAGE_MODES["names"]]
    joined = tuple(link for evidence in others for link in evidence.links)
    rows = _distinct_pixels(facts)
    with ThreadPoolExecutor(max(1, sight.threads), thread_name_prefix="register") as pool:
        views = _views(rows, pictures, pool, stop, progress)
        with threadpool_limits(1, "blas"):  # small products: threads inside of threads only wait for each other
            near = None if views is None else nearest_pairs(views)
            candidates = _candidates(rows, near, facts, others)
            work = _Work(candidates, len(rows), pictures, pool, stop, progress)
            found = work.run(connected(len(manifest), joined))
            original = _originals(facts, others, found, pictures, pool, stop)
            names = named_pairs(joined, facts)
            strangers, named = contradicted(names, pictures.is_plain, pictures.registered, pool, stop)
    unknown = len(rows) * NEIGHBOURS // 2 if views is None else 0  # about as many as there would have been
    seen = {row: pictures.appearances[row] for row in sorted(pictures.appearances)}
    plain = [row for row, each in seen.items() if each.plain and not each.tiny]
    told = _compared(found, unchecked=work.late + unknown, tiny=_tiny(facts), plain=plain)
    return replace(
        told,
        strangers=np.array(strangers, dtype=np.int64).reshape(-1, 2),
        named=named,
        looked=work.looked,
        left=work.left,
        barren=work.barren if work.left else 0,
        resembling=_resembling(rows, near) if sight.describe is not None else _no_rows(),
        original=original,
        marked={row: each.traces for row, each in seen.items() if each.traces},
    )


def _originals(
    facts: Facts,
    others: Sequence[Evidence],
    found: list[_Found],
    pictures: _Pictures,
    pool: ThreadPoolExecutor,
    stop: float,
) -> dict[int, float]:
    """Probabilities in the groups of what shows one picture, where nothing stronger names their original."""
    sight = pictures.sight
    if sight.signature is None:
        return {}
    links = [Link(a, b, "pixels_registered", "") for (a, b), each in found if each.same]
    named = np.zeros(len(facts), dtype=np.bool_)
    for name, each in zip(LINEAGE_MODES["names"], others, strict=True):
        named |= each.claims == "original"
        links += each.links if name not in KEEPS_TOGETHER else ()
    look = Look(sight.pixels, pictures.picture, sight.signature, sight.cache, pictures.appearance)
    return judge_groups(connected(len(facts), links), named, facts, look, pool, stop)


def _resembling(rows: NDArray[np.int64], near: Candidates | None) -> NDArray[np.int64]:
    """Rows whose nearest picture stands out from all others, as the original of a copy does."""
    if near is None:
        return _no_rows()
    return rows[(near.nearest >= _STANDS_OUT_COSINE) & (near.standing_out >= _STANDS_OUT)]


def _no_rows() -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


def _distinct_pixels(facts: Facts) -> NDArray[np.int64]:
    """One row of every distinct picture."""
    usable = np.flatnonzero(facts.usable)
    return usable[np.sort(np.unique(as_bytes(facts.pixel_digests[usable]), return_index=True)[1])]


def _tiny(facts: Facts) -> int:
    sides = facts.table[["width", "height"]].min(axis=1).to_numpy()
    return int((facts.usable & (sides <= TINY)).sum())


def _views(
    rows: NDArray[np.int64], pictures: _Pictures, pool: ThreadPoolExecutor, stop: float, progress: Progress | None
) -> NDArray[np.float32] | None:
    """(V, n, D) descriptors; None where there was no time for all of them."""

    def small(chunk: NDArray[np.int64], until: float) -> NDArray[np.float32] | None:
        calm = (each.calm for each in pool.map(pictures.picture, chunk.tolist()))
        return None if time.monotonic() > until else thumbnails(list(calm))

    describe = pictures.sight.describe
    features = _described(rows, pictures, describe or small, stop, progress)
    if features is None or describe is not None:
        return None if features is None else features[None]
    for row in rows.tolist():
        pictures.appearance(row)
    return turned(features)


def _described(
    rows: NDArray[np.int64], pictures: _Pictures, describe: Describe, stop: float, progress: Progress | None
) -> NDArray[np.float32] | None:
    """(n, D) descriptors in half precision, as they are kept; None where there was no time for all of them."""
    cache, digests = pictures.sight.cache, pictures.digests
    known = {row: cache.descriptor(digests[row]) for row in rows.tolist()}
    unknown = np.array([row for row, each in known.items() if each is None], dtype=np.int64)
    for start in range(0, len(unknown), _DESCRIBED):
        chunk = unknown[start : start + _DESCRIBED]
        features = None if time.monotonic() > stop else describe(chunk, stop)
        if features is None:
            return None
        for row, each in zip(chunk.tolist(), features.astype(np.float16), strict=True):
            known[row] = each
            cache.keep_descriptor(digests[row], each)
        if progress:
            progress(len(rows) - len(unknown) + start + len(chunk), len(rows))
    kept = [each for each in known.values() if each is not None]
    return np.stack(kept).astype(np.float32) if kept else np.zeros((0, 1), np.float32)


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


class _Pictures:
    """Pictures and pairs of them: looked up, and looked at where no run did before.

    Attributes:
        sight: how the pixels are reached.
        digests: (N) of the pixels.
        appearances: what each picture that was asked for looks like by itself.
        picture: row -> what registration needs of it.
    """

    def __init__(self, sight: Sight, digests: NDArray[np.object_]) -> None:
        self.sight = sight
        self.digests = digests
        self.appearances: dict[int, Appearance] = {}
        self.picture: Callable[[int], Picture] = lru_cache(maxsize=_KEPT)(self._opened)

    def appearance(self, row: int) -> Appearance:
        """What one picture looks like by itself."""
        if not self._is_known(row):
            self.picture(row)
        return self.appearances[row]

    def is_plain(self, row: int) -> bool:
        """Whether a picture has too few key points."""
        return self.appearance(row).plain

    def registered(self, pair: tuple[int, int]) -> Registration:
        """One pair laid over each other by key points."""
        digests, cache = self._digests(pair), self.sight.cache
        found = cache.registration("points", digests)
        if found is None:
            found = register(self.picture(pair[0]), self.picture(pair[1]))
            cache.keep_registration("points", digests, found)
        for row in pair:
            self.appearance(row)
        return found

    def laid(self, pairs: list[_Found]) -> list[_Found]:
        """The same without key points: pairs of one first picture, which is turned in every way once for all."""
        cache = self.sight.cache
        known = {pair: cache.registration("laid", self._digests(pair)) for pair, _ in pairs}
        unknown = [(pair, found) for pair, found in pairs if known[pair] is None]
        if unknown:
            first = self.picture(pairs[0][0][0])
            bank = Bank.of(first.contrast)
        for pair, found in unknown:
            laid = lay_over(first, bank, self.picture(pair[1]), found)
            cache.keep_registration("laid", self._digests(pair), laid)
            known[pair] = laid
        return [(pair, laid) for pair, laid in known.items() if laid is not None]

    def _digests(self, pair: tuple[int, int]) -> tuple[str, str]:
        return self.digests[pair[0]], self.digests[pair[1]]

    def _opened(self, row: int) -> Picture:
        pixels = self.sight.pixels(row)
        picture = describe_picture(pixels)
        if not self._is_known(row):
            seen = Appearance(picture.plain, picture.tiny, traces(pixels))
            self.sight.cache.keep_appearance(self.digests[row], seen)
            self.appearances[row] = seen
        return picture

    def _is_known(self, row: int) -> bool:
        """Whether it need not be opened to tell what it looks like."""
        if row not in self.appearances:
            found = self.sight.cache.appearance(self.digests[row])
            if found is None:
                return False
            self.appearances[row] = found
        return True


@dataclass
class _Work:
    """Comparisons under way.

    Attributes:
        candidates: what to compare, in this order.
        count: how many pictures there are.
        pictures: how they are looked at.
        pool: where.
        stop: monotonic seconds at which no new batch begins.
        progress: is told how far it is.
        looked: pairs that were laid over each other.
        left: pairs that were left because none before them was a copy for long.
        late: pairs that were left for want of time.
        barren: pairs in a row without a copy: the last ones before the rest was left.
    """

    candidates: list[_Candidate]
    count: int
    pictures: _Pictures
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

    def _patience(self, copies: int) -> float:
        return max(_PATIENCE, _PATIENCE_SHARE * self.count) + _PATIENCE_PER_COPY * copies

    def _compared(self, batch: list[_Candidate], root: NDArray[np.int64]) -> list[_Found]:
        """By key points; and where those do not join the two, nor what they belong to, without."""
        pairs = [each.pair for each in batch]
        seen = dict(zip(pairs, self.pool.map(self.pictures.registered, pairs), strict=True))
        root = _joined(root, [pair for pair, each in seen.items() if each.same])
        open_pairs = [each.pair for each in batch if each.near and root[each.pair[0]] != root[each.pair[1]]]
        by_first: dict[int, list[_Found]] = {}
        for pair in open_pairs:
            by_first.setdefault(pair[0], []).append((pair, seen[pair]))
        for again in self.pool.map(self.pictures.laid, by_first.values()):
            seen |= dict(again)
        return list(seen.items())


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
