"""Pairs of pictures that are worth laying over each other, and how thoroughly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.facts import Facts
from automl_vision.data.lineage.evidence import Evidence
from automl_vision.data.lineage.group_sizes import GroupSizes
from automl_vision.data.lineage.names import SIBLING_HINT
from automl_vision.data.lineage.neighbours import Floats, Nearest, nearest_of

#: How far a comparison goes while the pair is not joined: key points; and without them; and the other way round and
#: edge by edge.
Depth = Literal["points", "laid", "again"]
DEPTHS: tuple[Depth, ...] = get_args(Depth)

#: Pairs of each picture, the most alike first, that are laid over each other without key points where those did not
#: decide, and how alike they must be.
_LAID, _LAID_COSINE = 4, 0.35
#: Of a picture that nothing was joined to, or half as many as is usual: neighbours that are looked through; groups
#: among them that it is held against, each by the member it is most like; and those it is compared with in all ways, if
#: they are as alike as that. Of groups that have lost a copy, it is compared so with as many more, if at all alike.
_SEEN_AGAIN, _HELD_AGAINST, _ALL_WAYS, _ALL_WAYS_COSINE, _SHORT_COSINE = 48, 8, 2, 0.5, 0.3


@dataclass(frozen=True)
class Candidate:
    """Two rows that may show the same picture.

    Attributes:
        pair: first < second.
        cosine: how alike they are; 1 where a name hints at it.
        hint: whether a name does, so that it is compared in any case.
        depth: how far the comparison goes.
    """

    pair: tuple[int, int]
    cosine: float
    hint: bool
    depth: Depth


def first_candidates(
    rows: NDArray[np.int64], near: Nearest, facts: Facts, others: Sequence[Evidence]
) -> list[Candidate]:
    """Hints of names first, then nearest neighbours, the most alike first; last what only siblings hint at.

    Args:
        rows: (n) what the neighbours were sought among.
        near: pairs of them, as numbers 0 <= i < n.
        facts: of all rows.
        others: evidence that hints at pairs.
    """
    usable = facts.usable
    hints = [link for evidence in others for link in evidence.candidates]
    hints = [link for link in hints if usable[[link.first, link.second]].all()]
    strong = [(link.first, link.second) for link in hints if link.score > SIBLING_HINT]
    weak = [(link.first, link.second) for link in hints if link.score <= SIBLING_HINT]
    ordered = {pair: Candidate(pair, 1.0, hint=True, depth="laid") for pair in strong}
    for each in _neighbours(rows, near):
        ordered.setdefault(each.pair, each)
    for pair in weak:
        ordered.setdefault(pair, Candidate(pair, 1.0, hint=True, depth="laid"))
    return list(ordered.values())


def _neighbours(rows: NDArray[np.int64], found: Nearest) -> Iterator[Candidate]:
    seen: Counter[int] = Counter()
    for (a, b), cosine in zip(rows[found.pairs].tolist(), found.cosine.tolist(), strict=True):
        seen.update((a, b))
        near = cosine >= _LAID_COSINE and min(seen[a], seen[b]) <= _LAID
        yield Candidate((min(a, b), max(a, b)), cosine, hint=False, depth="laid" if near else "points")


def second_candidates(
    rows: NDArray[np.int64], views: Floats, root: NDArray[np.int64], sizes: GroupSizes
) -> list[Candidate]:
    """What pictures that nothing was joined to, or few, are held against, the most alike first.

    A copy that resembles its original little may resemble dozens of others more. Most of those are joined by now, and
    a group needs to be asked once; one that has all its copies needs not be asked.

    Args:
        rows: (n) of different pictures.
        views: (V, n, D) their descriptors.
        root: of all rows: what each is joined to.
        sizes: of what is joined.
    """
    members = sizes.members[rows]
    usual = float(np.median(members[members > 1])) if (members > 1).any() else 1.0
    lone = np.flatnonzero(members <= max(1.0, usual / 2))
    short, may_grow = sizes.short, sizes.may_grow
    found: dict[tuple[int, int], Candidate] = {}
    for at, near, cosine in nearest_of(views, lone, _SEEN_AGAIN):
        apart = (root[rows[near]] != root[rows[at]]) & may_grow[rows[near]]
        near, cosine = near[apart], cosine[apart]
        firsts = np.sort(np.unique(root[rows[near]], return_index=True)[1])[:_HELD_AGAINST]
        left = _ALL_WAYS
        for place, nth in enumerate(firsts.tolist()):
            a, b = int(rows[at]), int(rows[near[nth]])
            lost_one = bool(short[b]) and cosine[nth] >= _SHORT_COSINE and left > 0
            left -= lost_one
            again = lost_one or (place < _ALL_WAYS and cosine[nth] >= _ALL_WAYS_COSINE)
            pair, depth = (min(a, b), max(a, b)), DEPTHS[-1 if again else 0]
            if pair not in found or again:
                found[pair] = Candidate(pair, float(cosine[nth]), hint=False, depth=depth)
    return sorted(found.values(), key=lambda each: (-each.cosine, each.pair))
