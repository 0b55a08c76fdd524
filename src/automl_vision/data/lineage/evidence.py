"""The table of evidence: every way to learn that images belong together, strongest first.

A row of `EVIDENCE` reads the manifest and the facts and answers with links (which rows belong together) and
claims (which rows are originals or copies). `groups.trace_lineage` merges the links and lets the strongest
claim win. The last row reads what comparing the pictures told; `comparison.compare` looks first at the
`candidates` that names leave.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from automl_vision.config import DataSettings
from automl_vision.data.facts import Compared, Facts
from automl_vision.data.lineage.bursts import burst_links
from automl_vision.data.lineage.lineage import Link
from automl_vision.data.lineage.names import read_names
from automl_vision.data.manifest import Manifest
from automl_vision.rules import parse_burst_window


@dataclass(frozen=True)
class Evidence:
    """What one row of the table found.

    Attributes:
        claims: (N) "original", "copy", "unsure" (one of several files is the original), or "" for no claim.
        links: pairs that belong together.
        reason: why, for rows that `reasons` does not name.
        reasons: row -> why, where each row has its own reason.
        candidates: pairs that may be the same picture; never merged, left for evidence that sees the pixels.
        unsure: pairs that may be the same picture although the pixels were seen; never merged, but neither
            is tested on.
        doubtful: rows that are not tested on where they are alone: they may be copies that were missed.
    """

    claims: NDArray[np.str_]
    links: tuple[Link, ...] = ()
    reason: str = ""
    reasons: Mapping[int, str] = field(default_factory=dict)
    candidates: tuple[Link, ...] = ()
    unsure: tuple[Link, ...] = ()
    doubtful: tuple[int, ...] = ()


def columns(manifest: Manifest, facts: Facts, settings: DataSettings) -> Evidence:
    """The user's own columns: a group keeps rows together, `is_augmented` tells copies from originals.

    A group (patient, video) says nothing about roles: its members are originals that must stay together.
    """
    del facts, settings
    claims = _no_claims(len(manifest))
    if manifest.is_augmented is not None:
        said = {True: "copy", False: "original", None: ""}
        claims = np.array([said[value] for value in manifest.is_augmented], dtype="U8")
    links = _linked_by_key(manifest.group, "columns", "group") if manifest.group is not None else ()
    return Evidence(claims, links, reason="the column of augmented images says so")


def patterns(manifest: Manifest, facts: Facts, settings: DataSettings) -> Evidence:
    """The user's regular expressions, searched in the path relative to the root.

    The first round brackets of `group_regex` name the group; what `original_regex` matches is an original,
    everything else a copy.
    """
    del facts
    claims = _no_claims(len(manifest))
    links: tuple[Link, ...] = ()
    if settings.original_regex:
        is_original = re.compile(settings.original_regex).search
        claims = np.array(["original" if is_original(p) else "copy" for p in manifest.paths], dtype="U8")
    if settings.group_regex:
        found = map(re.compile(settings.group_regex).search, manifest.paths)
        keys = [match[1] if match else None for match in found]
        links = _linked_by_key(keys, "patterns", "group")
    return Evidence(claims, links, reason="--original-regex does not match its path")


def bursts(manifest: Manifest, facts: Facts, settings: DataSettings) -> Evidence:
    """Pictures taken one right after the other, where the user gives a window, see `bursts.burst_links`.

    Members are originals that must stay together.
    """
    links: tuple[Link, ...] = ()
    if settings.burst_window:
        links = burst_links(manifest, facts.taken, parse_burst_window(settings.burst_window))
    return Evidence(_no_claims(len(manifest)), links)


def names(manifest: Manifest, facts: Facts, settings: DataSettings) -> Evidence:
    """File and folder names as known tools write them, see `name_rules.NAME_RULES`."""
    del facts, settings
    read = read_names(manifest)
    return Evidence(read.claims, read.links, "named like a copy", read.reasons, read.candidates)


def pixels_equal(manifest: Manifest, facts: Facts, settings: DataSettings) -> Evidence:
    """Equal pixels (equal files are among them): copies of each other; `groups` keeps one as original.

    Which one is not said here, because it depends on what stronger evidence says about each of them.
    """
    del manifest, settings
    digests = facts.pixel_digests
    rows = np.flatnonzero(facts.usable & (digests != ""))
    _, inverse, counts = np.unique(as_bytes(digests[rows]), return_inverse=True, return_counts=True)
    shared = rows[counts[inverse] > 1]
    claims = _no_claims(len(facts))
    claims[shared] = "copy"
    first: dict[str, int] = {}
    hubs = ((first.setdefault(digests[row], row), row) for row in shared.tolist())
    links = tuple(Link(hub, row, "pixels_equal", "same pixels") for hub, row in hubs if hub != row)
    return Evidence(claims, links, reason="the same pixels as another image")


def pixels_registered(manifest: Manifest, facts: Facts, settings: DataSettings) -> Evidence:
    """Pictures that agree when they are laid over each other, see `registration`.

    All of them are unsure here; where pixels also tell which is the original, see `originals`, `groups` settles it. In
    a folder full of copies some are missed: what resembles another picture, or is too plain to be recognised, is
    doubtful there.
    """
    del manifest, settings
    claims = _no_claims(len(facts))
    if facts.compared is None:
        return Evidence(claims)
    seen = facts.compared
    told = zip(seen.pairs.tolist(), seen.detail, seen.score.tolist(), strict=True)
    links = np.array([Link(a, b, "pixels_registered", detail, score) for (a, b), detail, score in told], dtype=object)
    claims[seen.pairs[seen.same].ravel()] = "unsure"
    return Evidence(
        claims,
        links=tuple(links[seen.same]),
        reason="shows the same picture as another image; the pixels do not tell which was first",
        reasons={
            row: f"shows the same picture as another image; that it was first is {probability:.0%} likely by its pixels"
            for row, probability in seen.original.items()
        },
        unsure=tuple(links[~seen.same]),
        doubtful=_doubtful(seen) if _full_of_copies(facts, seen) else (),
    )


def _doubtful(seen: Compared) -> tuple[int, ...]:
    return tuple(np.union1d(np.union1d(seen.plain, seen.resembling), seen.unseen).astype(int).tolist())


def _full_of_copies(facts: Facts, seen: Compared) -> bool:
    """Whether many images show what another shows; where not all were compared, whether many of the pairs did."""
    copies = len(np.unique(seen.pairs[seen.same]))
    if copies >= FULL_OF_COPIES * max(1, int(facts.usable.sum())):
        return True
    return bool(len(seen.unseen)) and int(seen.same.sum()) >= OFTEN_COPIES * max(seen.looked, _FEWEST_PAIRS)


EvidenceFunction = Callable[[Manifest, Facts, DataSettings], Evidence]

EVIDENCE: dict[str, EvidenceFunction] = {
    "columns": columns,
    "patterns": patterns,
    "bursts": bursts,
    "names": names,
    "pixels_equal": pixels_equal,
    "pixels_registered": pixels_registered,
}

#: What the setting `data.lineage` looks at. "off" is what the user says, and what is true by definition.
LINEAGE_MODES: dict[str, tuple[str, ...]] = {
    "full": ("columns", "patterns", "bursts", "names", "pixels_equal", "pixels_registered"),
    "names": ("columns", "patterns", "bursts", "names", "pixels_equal"),
    "off": ("columns", "patterns", "bursts", "pixels_equal"),
}

#: Share of the images that are found to show what another shows from which more must be expected to be missed.
FULL_OF_COPIES = 0.1

#: The same of pairs, the most alike first, where time ended before all were compared, and how few say nothing.
OFTEN_COPIES, _FEWEST_PAIRS = 0.2, 30

#: Evidence that keeps rows together without saying that they show the same picture.
KEEPS_TOGETHER = frozenset({"columns", "patterns", "bursts"})

#: Evidence under which two labels are no contradiction.
MAY_DIFFER_IN_LABEL = KEEPS_TOGETHER | {"pixels_registered"}


def precedence(manifest: Manifest, facts: Facts, rows: NDArray[np.int64]) -> list[int]:
    """`rows` in the order in which equal pictures are taken for the original.

    A row in the user's own test set comes first, so that of two equal pictures it is the one in train that
    leaves; then the file digest, so that the choice depends on content; then the plainer path.
    """
    rank = {"test": 0, "val": 1}
    sets = manifest.split or (None,) * len(manifest)
    digests = facts.table["file_digest"].to_numpy(dtype=object)

    def key(row: int) -> tuple[int, str, int, str]:
        path = manifest.paths[row]
        return rank.get(sets[row] or "", 2), digests[row], len(path), path

    return sorted((int(row) for row in rows), key=key)


def as_bytes(digests: NDArray[np.object_]) -> NDArray[np.bytes_]:
    """Hex digests as fixed-width bytes, which numpy sorts many times faster than objects."""
    return np.array(digests.tolist(), dtype=np.bytes_) if len(digests) else np.empty(0, dtype="S1")


def _no_claims(n: int) -> NDArray[np.str_]:
    return np.zeros(n, dtype="U8")


def _linked_by_key(keys: Sequence[str | None], evidence: str, what: str) -> tuple[Link, ...]:
    first: dict[str, int] = {}
    return tuple(_star(keys, first, evidence, what))


def _star(keys: Sequence[str | None], first: dict[str, int], evidence: str, what: str) -> Iterable[Link]:
    for row, key in enumerate(keys):
        if key is not None and (hub := first.setdefault(key, row)) != row:
            yield Link(hub, row, evidence, f"{what} {key}")
