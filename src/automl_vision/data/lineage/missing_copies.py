"""Copies that groups have lost, found among what is alone: less is asked of a pair that is expected.

Of all pairs that may show one picture few do. But where a group is smaller than nearly all others, a copy of it is
somewhere; where one of the images that are alone resembles the group as hardly another one does, and may show its
picture, it nearly always is that copy (docs/LOG.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.lineage.group_sizes import GroupSizes
from automl_vision.data.lineage.neighbours import Floats, Nearest, unit_views
from automl_vision.data.lineage.registration import Registration

#: How many images, of all that are alone, may resemble the group more.
_FIRST_FEW = 3

Pair = tuple[int, int]


@dataclass(frozen=True)
class _Claim:
    """An image that is alone and may be what a group has lost: how far it stands out, and the pair that says so."""

    standing_out: float
    lone: int
    group: int
    pair: Pair


def missing_copies(
    perhaps: Iterable[tuple[Pair, Registration]],
    rows: NDArray[np.int64],
    views: Floats,
    near: Nearest,
    root: NDArray[np.int64],
    sizes: GroupSizes,
) -> list[Pair]:
    """Pairs that may show one picture, of an image that is alone and a group that has lost as many copies.

    Args:
        perhaps: pairs of rows that may show one picture.
        rows: (n) of different pictures.
        views: (V, n, D) their descriptors.
        near: what they resemble.
        root: of all rows: what each is joined to.
        sizes: of what is joined.
    """
    asked = _asked(perhaps, root, sizes)
    if sizes.usual is None or not asked:
        return []
    unit = unit_views(views)
    alone = np.flatnonzero(sizes.members[rows] == 1)
    claims: list[_Claim] = []
    for group, pairs in asked.items():
        members = np.flatnonzero(root[rows] == group)
        cosine = np.stack([view[alone] @ unit[0, members].T for view in unit]).max(axis=(0, 2))
        standing_out = near.standing_out(alone, cosine)
        first = np.argsort(-standing_out, kind="stable")[:_FIRST_FEW]
        told = zip(rows[alone[first]].tolist(), standing_out[first].tolist(), strict=True)
        claims += [_Claim(far, lone, group, pairs[lone]) for lone, far in told if lone in pairs]
    return _dealt(claims, sizes.usual, sizes)


def _dealt(claims: list[_Claim], usual: int, sizes: GroupSizes) -> list[Pair]:
    """Each image to one group, and each group no more than it has lost; who stands out most comes first."""
    taken: set[int] = set()
    room = {each.group: usual - int(sizes.members[each.group]) for each in claims}
    chosen: list[Pair] = []
    for each in sorted(claims, key=lambda each: (-each.standing_out, each.pair)):
        if each.lone not in taken and room[each.group] > 0:
            taken.add(each.lone)
            room[each.group] -= 1
            chosen.append(each.pair)
    return chosen


def _asked(
    perhaps: Iterable[tuple[Pair, Registration]], root: NDArray[np.int64], sizes: GroupSizes
) -> dict[int, dict[int, Pair]]:
    """Group that has lost a copy -> image that is alone -> the pair that says most for the two."""
    short = sizes.short
    best: dict[tuple[int, int], tuple[float, Pair]] = {}
    for pair, found in ((pair, found) for pair, found in perhaps if found.nearly):
        for lone, member in (pair, pair[::-1]):
            if sizes.members[lone] == 1 and short[member]:
                key, told = (int(root[member]), lone), (found.score, pair)
                best[key] = max(best.get(key, told), told)
    asked: dict[int, dict[int, Pair]] = {}
    for (group, lone), (_, pair) in best.items():
        asked.setdefault(group, {})[lone] = pair
    return asked
