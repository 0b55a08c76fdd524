"""A smaller manifest with the same mix of classes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.manifest import Manifest

#: Rows that every class gets first, before the rest is dealt in proportion.
FEW = 5


@dataclass(frozen=True)
class _Group:
    """Rows that stay together; `draw` orders the groups of a stratum, by seed and smallest path alone."""

    rows: NDArray[np.int64]
    stratum: tuple[int, str]
    draw: bytes


def sample(manifest: Manifest, keys: NDArray[Any], count: int, seed: int) -> Manifest:
    """At most `count` rows, stratified over classes (and the user's own sets), whole groups.

    The choice depends on the seed and the relative paths alone: not on the order of the rows, nor on the
    values of the keys. A larger `count` keeps what a smaller one chose, but where groups did not fit.

    Args:
        manifest: N rows.
        keys: (N) rows with equal keys stay together.
        count: at least 1.
        seed: another seed is another choice.

    Raises:
        ValueError: `keys` has another length than the manifest, or `count` is below 1.
    """
    if len(keys) != len(manifest) or count < 1:
        raise ValueError(f"needs one key per row and a positive count, got {len(keys)=}, {count=}")
    if count >= len(manifest):
        return manifest
    chosen: list[NDArray[np.int64]] = []
    left = count
    for group in _in_turn(_groups(manifest, keys, seed)):
        if len(group.rows) <= left:
            chosen.append(group.rows)
            left -= len(group.rows)
    return manifest.subset(np.concatenate(chosen) if chosen else np.empty(0, dtype=np.int64))


def _groups(manifest: Manifest, keys: NDArray[Any], seed: int) -> list[_Group]:
    _, inverse = np.unique(keys, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.flatnonzero(np.diff(inverse[order])) + 1
    return [_group(manifest, rows, seed) for rows in np.split(order.astype(np.int64), starts)]


def _group(manifest: Manifest, rows: NDArray[np.int64], seed: int) -> _Group:
    first = min(rows, key=lambda row: manifest.paths[row])
    label = int(np.bincount(manifest.labels[rows]).argmax())
    own_set = (manifest.split[first] or "") if manifest.split else ""
    name = f"{seed}\x1f{manifest.paths[first]}".encode("utf-8", "surrogateescape")
    return _Group(rows, (label, own_set), hashlib.blake2b(name, digest_size=16).digest())


def _in_turn(groups: list[_Group]) -> list[_Group]:
    """All groups in the order in which they are taken, so that every prefix has about the mix of the whole.

    The first `FEW` rows of each class come first, the classes in turn; a later group comes at its place
    within its own stratum, from 0 for the first to 1 for the last.
    """
    totals: dict[tuple[int, str], int] = {}
    for group in groups:
        totals[group.stratum] = totals.get(group.stratum, 0) + len(group.rows)
    dealt = dict.fromkeys(totals, 0)
    in_class: dict[int, int] = {}
    ranked: list[tuple[tuple[int, float, bytes], _Group]] = []
    for group in sorted(groups, key=lambda each: each.draw):
        label = group.stratum[0]
        before, of_class = dealt[group.stratum], in_class.get(label, 0)
        turn = (0, float(of_class)) if of_class < FEW else (1, before / totals[group.stratum])
        ranked.append(((*turn, group.draw), group))
        dealt[group.stratum] = before + len(group.rows)
        in_class[label] = of_class + len(group.rows)
    return [group for _, group in sorted(ranked, key=lambda each: each[0])]
