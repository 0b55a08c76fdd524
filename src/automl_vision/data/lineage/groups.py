"""From evidence to groups and roles: links are merged, and the strongest claim on a row wins."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl_vision.config import DataSettings
from automl_vision.data.facts import Facts
from automl_vision.data.lineage.evidence import EVIDENCE, KEEPS_TOGETHER, LINEAGE_MODES, Evidence, as_bytes, precedence
from automl_vision.data.lineage.group_sizes import GroupSizes
from automl_vision.data.lineage.lineage import Lineage, Link
from automl_vision.data.lineage.originals import SURE
from automl_vision.data.manifest import Manifest

#: Originals of a class that may be tested on from which nothing has to be trusted that was not compared.
_ENOUGH = 12


def trace_lineage(manifest: Manifest, facts: Facts, settings: DataSettings) -> Lineage:
    """Groups, roles and orphans of all rows, from every row of `EVIDENCE` that `settings.lineage` allows.

    A row without any claim is an original. In a group whose original is known, files of one source are its
    copies. A copy in a group without an original is an orphan.
    """
    found = {name: EVIDENCE[name](manifest, facts, settings) for name in LINEAGE_MODES[settings.lineage]}
    links = tuple(link for evidence in found.values() for link in evidence.links)
    group = _numbered(connected(len(manifest), links), manifest, facts)
    decided = _decided_by(found, len(manifest))
    role = _roles(found, decided, group)
    _name_by_pixels(role, decided, found, manifest, facts)
    _keep_one_of_equal_pixels(role, decided, group, manifest, facts)
    doubted = _doubt_rival_originals(role, decided, group, links)
    orphan = (role == "copy") & ~_in_marked_group(group, (role == "original") | doubted)
    reasons = _reasons(found, decided, orphan | (role == "unsure"))
    unsure = _apart(found, group)
    doubtful = _doubtful(found, decided, group)
    _spare_small_classes(doubtful, role, manifest, facts)
    short = _short_groups(found, decided, role, facts)
    barred = _barred(unsure, group) | doubtful | _looks_augmented(role, decided, found, facts)
    barred[list(short)] = True
    lone = tuple(np.flatnonzero(doubtful).tolist())
    return Lineage(group, role, orphan, barred, links, reasons, unsure, lone, short)


def declared_groups(manifest: Manifest, settings: DataSettings) -> NDArray[np.int64]:
    """(N) group keys from columns, patterns and names alone, before any file was opened."""
    unopened = Facts(pd.DataFrame())
    modes = [name for name in LINEAGE_MODES[settings.lineage] if not name.startswith("pixels_")]
    links = (link for name in modes for link in EVIDENCE[name](manifest, unopened, settings).links)
    return connected(len(manifest), links)


def connected(n: int, links: Iterable[Link]) -> NDArray[np.int64]:
    """(n) the smallest row that each row is linked to, directly or through others."""
    pairs = np.array([(link.first, link.second) for link in links], dtype=np.int64).reshape(-1, 2)
    root = np.arange(n, dtype=np.int64)
    while True:
        ends = root[pairs]
        low = ends.min(axis=1)
        if (ends == low[:, None]).all():
            return root
        for side in (0, 1):
            np.minimum.at(root, ends[:, side], low)
        while (root[root] != root).any():
            root = root[root]


def content_order(manifest: Manifest, facts: Facts) -> NDArray[np.int64]:
    """(N) rank of each row by its content; equal content shares a rank. Quarantined rows come last, by path."""
    rank = np.zeros(len(manifest), dtype=np.int64)
    usable = facts.usable
    rank[usable] = np.unique(as_bytes(facts.content_keys[usable]), return_inverse=True)[1]
    rest = sorted(np.flatnonzero(~usable).tolist(), key=manifest.paths.__getitem__)
    rank[rest] = len(manifest) + np.arange(len(rest))
    return rank


def _numbered(root: NDArray[np.int64], manifest: Manifest, facts: Facts) -> NDArray[np.int64]:
    roots, inverse = np.unique(root, return_inverse=True)
    first = np.full(len(roots), np.iinfo(np.int64).max)
    np.minimum.at(first, inverse, content_order(manifest, facts))
    number = np.empty(len(roots), dtype=np.int64)
    number[np.argsort(first, kind="stable")] = np.arange(len(roots))
    return number[inverse]


def _decided_by(found: dict[str, Evidence], n: int) -> NDArray[np.str_]:
    decided = np.zeros(n, dtype=f"U{max(map(len, found), default=1)}")  # no wider: it is as long as the data
    for name, evidence in found.items():
        decided[(decided == "") & (evidence.claims != "")] = name
    return decided


def _roles(found: dict[str, Evidence], decided: NDArray[np.str_], group: NDArray[np.int64]) -> NDArray[np.str_]:
    role = np.full(len(decided), "original", dtype="U8")
    for name, evidence in found.items():
        rows = decided == name
        role[rows] = evidence.claims[rows]
    known = _in_marked_group(group, (role == "original") & (decided != ""))
    role[(role == "unsure") & known] = "copy"
    return role


def _name_by_pixels(
    role: NDArray[np.str_], decided: NDArray[np.str_], found: dict[str, Evidence], manifest: Manifest, facts: Facts
) -> None:
    """Where pixels are sure of an original, it is the original, and what shows the same picture are its copies.

    A group stays as it is where anything stronger names another original, or calls this one a copy.
    """
    seen = facts.compared if "pixels_registered" in found else None
    sure = [row for row, probability in seen.original.items() if probability >= SURE] if seen else []
    if not sure:
        return
    root = _shows_the_same(found, len(role))
    open_ = np.isin(decided, ("", "pixels_equal", "pixels_registered")) | (role == "unsure")
    settled = set(root[~open_ & (role == "original")].tolist())
    for row in precedence(manifest, facts, np.array(sure, dtype=np.int64)):
        if open_[row] and int(root[row]) not in settled:
            settled.add(int(root[row]))
            members = open_ & (root == root[row])
            role[members], decided[members] = "copy", "pixels_registered"
            role[row] = "original"


def _shows_the_same(found: dict[str, Evidence], n: int) -> NDArray[np.int64]:
    """(n) the smallest row that shows the same picture as each row."""
    return connected(n, (link for name, each in found.items() if name not in KEEPS_TOGETHER for link in each.links))


def _short_groups(
    found: dict[str, Evidence], decided: NDArray[np.str_], role: NDArray[np.str_], facts: Facts
) -> dict[int, str]:
    """Originals of groups that are smaller than nearly all others, where the user does not say what they are."""
    if facts.compared is None or "pixels_registered" not in found:
        return {}
    sizes = GroupSizes.of(_shows_the_same(found, len(role)), np.flatnonzero(facts.usable))
    rows = sizes.short & (role == "original") & ~np.isin(decided, ("columns", "patterns"))
    return {
        row: f"{sizes.members[row]} files show this picture, where nearly all that have copies have {sizes.usual}"
        for row in np.flatnonzero(rows).tolist()
    }


def _keep_one_of_equal_pixels(
    role: NDArray[np.str_],
    decided: NDArray[np.str_],
    group: NDArray[np.int64],
    manifest: Manifest,
    facts: Facts,
) -> None:
    """Make the first of equal pictures the original, unless stronger evidence has settled it.

    A picture that equals a known copy is a copy, too, where the original of that copy is known.
    """
    only_equal = decided == "pixels_equal"
    known = _in_marked_group(group, (role == "original") & (decided != ""))
    judged = ~only_equal & ((role == "original") | known)
    digests = facts.pixel_digests
    settled = set(digests[judged & _in_marked_group(group, only_equal)].tolist())
    for row in precedence(manifest, facts, np.flatnonzero(only_equal)):
        if digests[row] not in settled:
            role[row] = "original"
            settled.add(digests[row])


def _doubt_rival_originals(
    role: NDArray[np.str_], decided: NDArray[np.str_], group: NDArray[np.int64], links: tuple[Link, ...]
) -> NDArray[np.bool_]:
    """(N) the rows that become unsure: where pixels joined rows that names or equal pixels took for originals,
    one may be a copy of the other.

    What the user's own columns and patterns say stands.
    """
    registered = np.zeros(len(role), dtype=np.bool_)
    for link in links:
        if link.evidence == "pixels_registered":
            registered[[link.first, link.second]] = True
    guessed = np.isin(decided, ("names", "pixels_equal")) & (role == "original")
    originals = np.bincount(group[role == "original"], minlength=int(group.max(initial=-1)) + 1)
    doubted = guessed & _in_marked_group(group, registered) & (originals[group] > 1)
    role[doubted] = "unsure"
    return np.asarray(doubted, dtype=np.bool_)


def _apart(found: dict[str, Evidence], group: NDArray[np.int64]) -> tuple[Link, ...]:
    """Unsure pairs that nothing else joined."""
    unsure = (link for evidence in found.values() for link in evidence.unsure)
    return tuple(link for link in unsure if group[link.first] != group[link.second])


def _barred(unsure: tuple[Link, ...], group: NDArray[np.int64]) -> NDArray[np.bool_]:
    barred = np.zeros(len(group), dtype=np.bool_)
    for link in unsure:
        barred[[link.first, link.second]] = True
    return _in_marked_group(group, barred)


def _doubtful(found: dict[str, Evidence], decided: NDArray[np.str_], group: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N) doubtful rows that are alone; what belongs to a group has been recognised.

    Where the user's own columns and patterns say what a row is, there is no doubt.
    """
    rows = np.array([row for evidence in found.values() for row in evidence.doubtful], dtype=np.int64)
    doubtful = np.zeros(len(group), dtype=np.bool_)
    doubtful[rows] = True
    alone = np.bincount(group)[group] == 1
    return np.asarray(doubtful & alone & ~np.isin(decided, ("columns", "patterns")), dtype=np.bool_)


def _spare_small_classes(doubtful: NDArray[np.bool_], role: NDArray[np.str_], manifest: Manifest, facts: Facts) -> None:
    """Where time was short, what was not compared is trusted in classes that would be left with too few originals.

    A search must end with a model; the findings say how many pairs were not compared.
    """
    unseen = np.zeros(len(role), dtype=np.bool_)
    if facts.compared is not None:
        unseen[facts.compared.unseen] = True
        unseen[np.union1d(facts.compared.plain, facts.compared.resembling)] = False
    for label in np.unique(manifest.labels[doubtful & unseen]):
        of_class = manifest.labels == label
        if int((of_class & (role == "original") & ~doubtful).sum()) < _ENOUGH:
            doubtful[of_class & unseen] = False


def _looks_augmented(
    role: NDArray[np.str_], decided: NDArray[np.str_], found: dict[str, Evidence], facts: Facts
) -> NDArray[np.bool_]:
    """(N) originals by default or by pixels that look made by augmentation: copies, it may be, of what is not here."""
    seen = facts.compared if "pixels_registered" in found else None
    marked = list(seen.marked) if seen else []
    looks = np.isin(facts.pixel_digests, facts.pixel_digests[marked]) & facts.usable
    said = np.isin(decided, ("columns", "patterns", "names"))
    return np.asarray(looks & ~said & (role == "original"), dtype=np.bool_)


def _in_marked_group(group: NDArray[np.int64], marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N) True for every row whose group has a marked row."""
    has = np.zeros(int(group.max(initial=-1)) + 1, dtype=np.bool_)
    has[group[marked]] = True
    return has[group]


def _reasons(found: dict[str, Evidence], decided: NDArray[np.str_], rows: NDArray[np.bool_]) -> dict[int, str]:
    chosen = ((int(row), found[str(decided[row])]) for row in np.flatnonzero(rows))
    return {row: evidence.reasons.get(row, evidence.reason) for row, evidence in chosen}
