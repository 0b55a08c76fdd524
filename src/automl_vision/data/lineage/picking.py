"""Naming the original of every group that nothing stronger names: samples of its members, their pairs, the picker."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.decode import FileSignature
from automl_vision.data.facts import Facts
from automl_vision.data.lineage.comparison_cache import ComparisonCache, Signed
from automl_vision.data.lineage.cues import Sample, pair_cues, sample
from automl_vision.data.lineage.originals import PAIR, REACH, Folder, Group, folder_of, load_picker
from automl_vision.data.lineage.picture import TINY, Picture
from automl_vision.data.lineage.registration import register

#: Members above which a group is left unsure: it is more likely a chain of near-duplicates than one picture.
_MOST_MEMBERS = 64
#: Lone images whose files are looked at, evenly over all of them.
_LONE = 2_000


@dataclass(frozen=True)
class Look:
    """How the members are reached.

    Attributes:
        pixels: row -> (H, W, 3) RGB as decoded.
        picture: row -> the same, described for registration.
        signature: row -> signature of its file.
        cache: the cues of groups that were judged before.
        glance: is told of members that need not be opened again.
    """

    pixels: Callable[[int], NDArray[np.uint8]]
    picture: Callable[[int], Picture]
    signature: Callable[[int], FileSignature]
    cache: ComparisonCache
    glance: Callable[[int], object]


def judge_groups(
    root: NDArray[np.int64], named: NDArray[np.bool_], facts: Facts, look: Look, pool: Executor, stop: float
) -> dict[int, float]:
    """Row -> probability that it is the original, for the members of the groups that were judged.

    Of rows with equal pixels one is judged, and its answer stands for all of them.

    Args:
        root: (N) group keys: what shows one picture.
        named: (N) rows that stronger evidence takes for originals; their groups are not judged.
        facts: N rows.
        look: how the members are reached.
        pool: where groups are judged, one in each thread.
        stop: monotonic seconds from which no group is begun.
    """
    groups = list(_groups(root, named, facts))
    if not groups:
        return {}
    folder = _folder(root, groups, facts, look, pool)

    def judge(members: list[int]) -> NDArray[np.float64] | None:
        return None if time.monotonic() > stop else _probabilities(members, folder, facts, look)

    answers = zip(groups, pool.map(judge, groups), strict=True)
    judged = [pair for members, found in answers if found is not None for pair in zip(members, found, strict=True)]
    by_digest = {facts.pixel_digests[row]: float(probability) for row, probability in judged}
    rows = np.flatnonzero(facts.usable & np.isin(facts.pixel_digests, list(by_digest)))
    return {int(row): by_digest[facts.pixel_digests[row]] for row in rows}


def _groups(root: NDArray[np.int64], named: NDArray[np.bool_], facts: Facts) -> Iterator[list[int]]:
    """Members of each group with pixels of their own, in the order of their content, so that names change nothing.

    Of tiny pictures the weights know nothing.
    """
    digests, keys = facts.pixel_digests, facts.content_keys
    tiny = facts.table[["width", "height"]].min(axis=1).to_numpy() <= TINY
    settled = set(root[named | (facts.usable & tiny)].tolist())
    usable = np.flatnonzero(facts.usable)
    by_root: dict[int, dict[str, int]] = {}
    for row in usable.tolist():
        by_root.setdefault(int(root[row]), {}).setdefault(digests[row], row)
    for key, rows in by_root.items():
        if key not in settled and 2 <= len(rows) <= _MOST_MEMBERS:
            yield sorted(rows.values(), key=keys.__getitem__)


def _folder(root: NDArray[np.int64], groups: Sequence[list[int]], facts: Facts, look: Look, pool: Executor) -> Folder:
    grouped = [row for members in groups for row in members]
    _, inverse, counts = np.unique(root, return_inverse=True, return_counts=True)
    alone = np.flatnonzero(facts.usable & (counts[inverse] == 1))
    alone = alone[np.argsort(facts.content_keys[alone].astype(str), kind="stable")]
    alone = alone[:: max(1, math.ceil(len(alone) / _LONE))]
    sides = np.sort(facts.table[["width", "height"]].to_numpy(), axis=1)

    def key(row: int) -> tuple[str, str]:
        return look.signature(row).writer, "x".join(map(str, sides[row].tolist()))

    return folder_of(list(pool.map(key, alone.tolist())), list(pool.map(key, grouped)))


def _probabilities(members: Sequence[int], folder: Folder, facts: Facts, look: Look) -> NDArray[np.float64]:
    return load_picker().probabilities(_group(members, facts, look), folder)


def _group(members: Sequence[int], facts: Facts, look: Look) -> Group:
    digests, sizes = facts.content_keys, facts.table["bytes"].to_numpy()
    signed = [Signed(digests[row], look.signature(row), int(sizes[row])) for row in members]
    known = look.cache.group(signed)
    if known is not None:
        for row in members:
            look.glance(row)
        return known
    files = zip(members, signed, strict=True)
    group = group_of([sample(look.pixels(row), look.picture(row), file.signature, file.size) for row, file in files])
    look.cache.keep_group(signed, group)
    return group


def group_of(samples: Sequence[Sample]) -> Group:
    """The cues of a group."""
    pairs, _ = lay_over_each_other(samples)
    return Group(
        np.array([each.single for each in samples]),
        pairs,
        tuple(each.writer for each in samples),
        tuple("x".join(map(str, sorted(each.size))) for each in samples),
    )


def lay_over_each_other(samples: Sequence[Sample]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(n, n, P) cues of the pairs, NaN where they were not compared, and (n, n) which pairs are the same picture.

    In a large group each member is laid over `REACH` others on either side of it, in the order given.
    """
    n = len(samples)
    pairs, same = np.full((n, n, len(PAIR)), np.nan), np.eye(n, dtype=np.bool_)
    for first, second in combinations(range(n), 2):
        if min(second - first, n - second + first) > REACH:
            continue
        found = register(samples[first].picture, samples[second].picture)
        if found.map is not None and (found.same or found.perhaps):
            pairs[first, second], pairs[second, first] = pair_cues(samples[first], samples[second], found)
            same[first, second] = same[second, first] = found.same
    return pairs, same
