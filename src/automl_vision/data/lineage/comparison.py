"""Comparing what pictures show: candidates in falling likeness, each laid over the other.

Copies are among the pairs that are most alike. So the work ends where a long row of pairs held none: in a folder
without copies soon, in a folder full of them late; or when time is up. Both are told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise

import cv2
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from automl_vision.config import DataSettings
from automl_vision.data.facts import Compared, Facts
from automl_vision.data.lineage.candidates import DEPTHS, Candidate, Depth, first_candidates, second_candidates
from automl_vision.data.lineage.contradictions import contradicted, named_pairs
from automl_vision.data.lineage.evidence import EVIDENCE, KEEPS_TOGETHER, LINEAGE_MODES, Evidence, as_bytes
from automl_vision.data.lineage.group_sizes import GroupSizes
from automl_vision.data.lineage.groups import connected
from automl_vision.data.lineage.lineage import Link
from automl_vision.data.lineage.missing_copies import missing_copies
from automl_vision.data.lineage.neighbours import NEIGHBOURS, Nearest, nearest_pairs, thumbnails, turned
from automl_vision.data.lineage.picking import Look, judge_groups
from automl_vision.data.lineage.picture import TINY
from automl_vision.data.lineage.registration import Registration
from automl_vision.data.lineage.sight import Describe, Found, Pair, Pictures, Sight
from automl_vision.data.manifest import Manifest

Progress = Callable[[int, int], None]


#: Pairs that are compared before what they joined is looked at. A constant, so that the number of threads changes
#: nothing.
_BATCH = 64
_WITHOUT_POINTS: tuple[Depth, ...] = ("laid", "again")
#: Share of the time in which pictures are described; what is not by then is not compared.
_DESCRIBING_SHARE = 0.6
#: Pictures that are described before what they gave is kept: whole batches of the network.
_DESCRIBED = 128
#: Pairs of which it is remembered how they compared; else they are compared again.
_REMEMBERED = 300_000
#: Pairs in a row without a copy after which the rest is left: so many, more in a large set, and more for every copy
#: that was found.
_PATIENCE, _PATIENCE_SHARE, _PATIENCE_PER_COPY = 64, 0.05, 0.1
#: Share of the pictures that must have been joined before those that were not are looked at again.
_WORTH_A_SECOND_LOOK = 0.2
#: A picture resembles its nearest as a copy does from this cosine, and from so many standard deviations above what it
#: has with all others. What is missed most often does (docs/LOG.md). Less is enough where the other belongs to a group
#: that has lost a copy.
_STANDS_OUT_COSINE, _STANDS_OUT, _RESEMBLES_SHORT_GROUP = 0.45, 4.6, 3.5


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
    begun = time.monotonic()
    stop, described_by = begun + sight.seconds, begun + _DESCRIBING_SHARE * sight.seconds
    cv2.setNumThreads(1)  # the threads are ours
    pictures = Pictures(sight, facts.content_keys)
    others = [EVIDENCE[name](manifest, facts, settings) for name in LINEAGE_MODES["names"]]
    joined = tuple(link for evidence in others for link in evidence.links)
    rows = _distinct_pixels(facts)
    with ThreadPoolExecutor(max(1, sight.threads), thread_name_prefix="register") as pool:
        described, views = _views(rows, pictures, pool, described_by, progress)
        with threadpool_limits(1, "blas"):  # small products: threads inside of threads only wait for each other
            near = nearest_pairs(views)
            work = _Work(rows, pictures, pool, stop, progress)
            work.look(first_candidates(described, near, facts, others), connected(len(manifest), joined))
            if work.is_worth_a_second_look:
                work.look_again(second_candidates(described, views, work.root, work.sizes(facts)))
                work.expect(missing_copies(work.perhaps, described, views, near, work.root, work.sizes(facts)))
            found = list(work.found.items())
            original = _originals(facts, others, found, pictures, pool, stop)
            names = named_pairs(joined, facts)
            strangers, named = contradicted(names, pictures.is_plain, pictures.registered, pool, stop)
    unknown = (len(rows) - len(described)) * NEIGHBOURS // 2  # about as many as there would have been
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
        unseen=np.union1d(np.setdiff1d(rows, described), sorted(work.unseen)).astype(np.int64),
        resembling=_resembling(described, near, work.sizes(facts)) if sight.describe is not None else _no_rows(),
        original=original,
        marked={row: each.traces for row, each in seen.items() if each.traces},
    )


def _originals(
    facts: Facts,
    others: Sequence[Evidence],
    found: list[Found],
    pictures: Pictures,
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


def _resembling(rows: NDArray[np.int64], near: Nearest, sizes: GroupSizes) -> NDArray[np.int64]:
    """Rows with a picture that stands out from all others, as the original of a copy does."""
    every = np.arange(len(rows))
    alone = (near.nearest >= _STANDS_OUT_COSINE) & (near.standing_out(every, near.nearest) >= _STANDS_OUT)
    ones, others = np.concatenate([near.pairs, near.pairs[:, ::-1]]).T
    standing_out = near.standing_out(ones, np.tile(near.cosine, 2))
    alone[ones[sizes.short[rows[others]] & (standing_out >= _RESEMBLES_SHORT_GROUP)]] = True
    return rows[alone]


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
    rows: NDArray[np.int64], pictures: Pictures, pool: ThreadPoolExecutor, stop: float, progress: Progress | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows that there was time to describe, and (V, n, D) their descriptors."""

    def small(chunk: NDArray[np.int64], until: float) -> NDArray[np.float32] | None:
        calm = (each.calm for each in pool.map(pictures.picture, chunk.tolist()))
        return None if time.monotonic() > until else thumbnails(list(calm))

    describe = pictures.sight.describe
    described, features = _described(rows, pictures, describe or small, stop, progress)
    if describe is not None or not len(described):
        return described, features[None]
    for row in described.tolist():
        pictures.appearance(row)
    return described, turned(features)


def _described(
    rows: NDArray[np.int64], pictures: Pictures, describe: Describe, stop: float, progress: Progress | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows that there was time for, and (n, D) their descriptors in half precision, as they are kept.

    In no order, so that where time ends no class is left out more than another.
    """
    cache, digests = pictures.sight.cache, pictures.digests
    known = {row: cache.descriptor(digests[row]) for row in rows.tolist()}
    unknown = np.array([row for row, each in known.items() if each is None], dtype=np.int64)
    unknown = np.random.default_rng(0).permutation(unknown)
    for start in range(0, len(unknown), _DESCRIBED):
        chunk = unknown[start : start + _DESCRIBED]
        features = None if time.monotonic() > stop else describe(chunk, stop)
        if features is None:
            break
        for row, each in zip(chunk.tolist(), features.astype(np.float16), strict=True):
            known[row] = each
            cache.keep_descriptor(digests[row], each)
        if progress:
            progress(len(rows) - len(unknown) + start + len(chunk), len(rows))
    kept = {row: each for row, each in known.items() if each is not None}
    described = np.array(list(kept), dtype=np.int64)
    return described, np.stack(list(kept.values())).astype(np.float32) if kept else np.zeros((0, 1), np.float32)


class _Work:
    """Comparisons under way.

    Attributes:
        root: what each row is joined to, by what was found so far, and by what joined them before.
        found: pairs that are the same picture, or may be.
        looked: pairs that were laid over each other.
        left: pairs that were left because none before them was a copy for long.
        late: pairs that were left for want of time.
        unseen: rows of such pairs.
        barren: pairs in a row without a copy: the last ones before the rest was left.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        pictures: Pictures,
        pool: ThreadPoolExecutor,
        stop: float,
        progress: Progress | None,
    ) -> None:
        self.root = np.zeros(0, dtype=np.int64)
        self.found: dict[Pair, Registration] = {}
        self.unseen: set[int] = set()
        self.looked = self.left = self.late = self.barren = 0
        self._patience = max(_PATIENCE, _PATIENCE_SHARE * len(rows))
        self._rows = rows
        self._pictures = pictures
        self._pool = pool
        self._stop = stop
        self._progress = progress
        self._seen: dict[Pair, Registration] = {}

    @property
    def is_worth_a_second_look(self) -> bool:
        """Whether the folder is full of copies: where hardly any were found, few were missed."""
        members = np.bincount(self.root[self._rows], minlength=len(self.root))[self.root[self._rows]]
        return not self.late and float((members > 1).mean()) >= _WORTH_A_SECOND_LOOK

    def sizes(self, facts: Facts) -> GroupSizes:
        """Of what is joined by now."""
        return GroupSizes.of(self.root, np.flatnonzero(facts.usable))

    def look(self, candidates: list[Candidate], root: NDArray[np.int64]) -> None:
        """Compare what `root`, and what was joined before it, did not join already; give up where nothing is found."""
        self.root = root
        for start, end in pairwise([*range(0, len(candidates), _BATCH), len(candidates)]):
            if time.monotonic() > self._stop:
                late = self._open([each for each in candidates[start:] if each.hint or not self.left])
                self.late += len(late)
                self.unseen.update(row for each in late for row in each.pair)
                break
            if not self.left and self.barren > self._patience:
                self.left = sum(not each.hint for each in candidates[start:])
            batch = self._open([each for each in candidates[start:end] if each.hint or not self.left])
            copies = self._compare(batch)
            self._patience += _PATIENCE_PER_COPY * copies
            if not self.left:
                self.barren = 0 if copies else self.barren + len(batch)
            self._tell(end, len(candidates))

    def look_again(self, candidates: list[Candidate]) -> None:
        """Compare further pairs, all of them."""
        for start, end in pairwise([*range(0, len(candidates), _BATCH), len(candidates)]):
            if time.monotonic() > self._stop:
                self.late += len(candidates) - start
                break
            self._compare(self._open(candidates[start:end]))
            self._tell(end, len(candidates))

    @property
    def perhaps(self) -> list[Found]:
        """Pairs that may be the same picture, and are in two groups."""
        return [(pair, each) for pair, each in self.found.items() if self.root[pair[0]] != self.root[pair[1]]]

    def expect(self, pairs: list[Pair]) -> None:
        """Join pairs of which it is enough that they may be the same picture."""
        self._keep([(pair, replace(self.found[pair], expected=True)) for pair in pairs])

    def _open(self, candidates: list[Candidate]) -> list[Candidate]:
        """Those that are not joined yet."""
        return [each for each in candidates if self.root[each.pair[0]] != self.root[each.pair[1]]]

    def _compare(self, batch: list[Candidate]) -> int:
        """Each as deep as it is to be looked at while it is not joined; returns how many are the same picture."""
        if len(self._seen) > _REMEMBERED:
            self._seen.clear()
        new = [each.pair for each in batch if each.pair not in self._seen]
        same = self._keep(list(zip(new, self._pool.map(self._pictures.registered, new), strict=True)))
        self.looked += len(new)
        for depth in _WITHOUT_POINTS:
            deep = [each.pair for each in self._open(batch) if DEPTHS.index(each.depth) >= DEPTHS.index(depth)]
            by_first: dict[int, list[Found]] = {}
            for pair in deep:
                by_first.setdefault(pair[0], []).append((pair, self._seen[pair]))
            same += self._keep(list(chain(*self._pool.map(partial(self._pictures.laid, depth), by_first.values()))))
        return same

    def _keep(self, found: list[Found]) -> int:
        same = [pair for pair, each in found if each.same]
        self._seen |= found
        self.found |= {pair: each for pair, each in found if each.same or each.perhaps}
        self.root = _joined(self.root, same)
        return len(same)

    def _tell(self, done: int, of: int) -> None:
        if self._progress:
            self._progress(done, of)


def _joined(root: NDArray[np.int64], pairs: list[tuple[int, int]]) -> NDArray[np.int64]:
    if not pairs:
        return root
    low = connected(len(root), [Link(int(root[a]), int(root[b]), "", "") for a, b in pairs])
    return np.asarray(low[root])


def _compared(found: list[Found], *, unchecked: int, tiny: int, plain: list[int]) -> Compared:
    return Compared(
        pairs=np.array([pair for pair, _ in found], dtype=np.int64).reshape(-1, 2),
        score=np.array([each.score for _, each in found], dtype=np.float64),
        same=np.array([each.same for _, each in found], dtype=np.bool_),
        detail=tuple(each.detail for _, each in found),
        unchecked=unchecked,
        tiny=tiny,
        plain=np.array(plain, dtype=np.int64),
    )
