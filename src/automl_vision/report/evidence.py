"""The evidence behind groups: as a table for programs, and as picture strips and pairs for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl_vision.data.lineage.evidence import EVIDENCE, KEEPS_TOGETHER
from automl_vision.data.lineage.lineage import Link
from automl_vision.data.preparation import Prepared
from automl_vision.visible import visible

#: Columns of `evidence.csv`; other programs rely on them.
EVIDENCE_COLUMNS = ("first", "second", "evidence", "detail", "score", "effect")

#: What a pair does: it joined two files to one group, or it only bars both groups from the test set.
JOINED, BARRED = "joined", "barred"

#: What people call the rows of the table of evidence; one that is not here goes by its own name.
EVIDENCE_WORDS: dict[str, str] = {
    "columns": "your columns",
    "patterns": "your patterns",
    "names": "file names",
    "pixels_equal": "equal pixels",
    "pixels_registered": "laid over each other",
}

#: Groups that are shown for their size; the others are shown because their evidence is weak.
BIGGEST = 4


@dataclass(frozen=True)
class Shown:
    """How much a page shows: groups, files and merges of one group, and pairs of one kind."""

    groups: int = 20
    files: int = 8
    merges: int = 6
    pairs: int = 12


@dataclass(frozen=True)
class Member:
    """One file as a page shows it.

    Attributes:
        row: of the manifest.
        path, label: as they are to be shown.
        role: "original", "copy" or "unsure".
        set_name: the set it is planned for.
        given: the set that came with the data; empty where none did.
        reason: why it is unsure or an orphan; may be empty.
        number: its number in a strip, from 1; 0 elsewhere.
    """

    row: int
    path: str
    label: str
    role: str
    set_name: str
    given: str = ""
    reason: str = ""
    number: int = 0


@dataclass(frozen=True)
class Merge:
    """One piece of evidence: between which files, what found it, what it saw, and how strong it is.

    `score` is empty where the evidence is a plain yes. Files of a strip go by their number.
    """

    first: str
    second: str
    evidence: str
    words: str
    detail: str
    score: str = ""


@dataclass(frozen=True)
class Strip:
    """One group.

    Attributes:
        group: its number in split.csv.
        size: readable files in it.
        members: the files that are shown, originals first, then those with the weakest evidence.
        merges: the evidence that is shown, weakest first.
        merge_count: pieces of evidence in all.
        labels: the different labels in it.
    """

    group: int
    size: int
    members: tuple[Member, ...]
    merges: tuple[Merge, ...]
    merge_count: int
    labels: tuple[str, ...]

    @property
    def reasons(self) -> dict[str, list[int]]:
        """What is said of the roles of its members: reason -> their numbers."""
        said: dict[str, list[int]] = {}
        for member in self.members:
            if member.reason:
                said.setdefault(member.reason, []).append(member.number)
        return said


@dataclass(frozen=True)
class Pair:
    """Files side by side: two of them, or one where nothing can be put beside it."""

    members: tuple[Member, ...]
    merge: Merge | None = None
    note: str = ""


@dataclass(frozen=True)
class Several:
    """What a page shows of something, and how many there are in all."""

    rows: tuple[Any, ...] = ()
    total: int = 0

    @property
    def left_out(self) -> int:
        """How many are not shown."""
        return self.total - len(self.rows)


@dataclass(frozen=True)
class Pictures:
    """All that is shown with pictures.

    Attributes:
        strips: groups of two files and more.
        unsure: pairs that may be one picture and are in two groups.
        leaks: files that leak across the split that came with the data, each beside what it leaks from.
        conflicts: pairs that show one picture under two labels.
    """

    strips: Several = field(default_factory=Several)
    unsure: Several = field(default_factory=Several)
    leaks: Several = field(default_factory=Several)
    conflicts: Several = field(default_factory=Several)

    def rows(self) -> list[int]:
        """Manifest rows of all files shown, each once."""
        told = (self.strips, self.leaks, self.conflicts, self.unsure)
        groups = (each.members for several in told for each in several.rows)
        return list(dict.fromkeys(member.row for members in groups for member in members))


def evidence_table(prepared: Prepared) -> pd.DataFrame:
    """Every merge and every unsure pair: `EVIDENCE_COLUMNS`, merges first."""
    lineage, paths = prepared.audit.lineage, prepared.manifest.paths
    links = [*lineage.links, *lineage.unsure]
    effects = [JOINED] * len(lineage.links) + [BARRED] * len(lineage.unsure)
    return pd.DataFrame(
        {
            "first": pd.Series([paths[link.first] for link in links], dtype=object),
            "second": pd.Series([paths[link.second] for link in links], dtype=object),
            "evidence": pd.Series([link.evidence for link in links], dtype=object),
            "detail": pd.Series([link.detail for link in links], dtype=object),
            "score": np.array([round(link.score, 3) for link in links], dtype=np.float64),
            "effect": pd.Series(effects, dtype=object),
        },
        columns=list(EVIDENCE_COLUMNS),
    )


def gather_pictures(prepared: Prepared, limits: Shown | None = None) -> Pictures:
    """The groups and pairs that are worth a look, the most doubtful first."""
    scene = _Scene(prepared, limits or Shown())
    return Pictures(scene.strips(), scene.unsure(), scene.leaks(), scene.conflicts())


def doubt_order(links: Sequence[Link]) -> NDArray[np.int64]:
    """(L) places in `links`, the weakest evidence first: by its place in the table of evidence, then by score."""
    rank = {name: place for place, name in enumerate(EVIDENCE)}
    ranks = np.array([rank.get(link.evidence, len(rank)) for link in links], dtype=np.int64)
    scores = np.array([link.score for link in links], dtype=np.float64)
    return np.lexsort((scores, -ranks)).astype(np.int64)


class _Scene:
    """What strips and pairs are made of."""

    def __init__(self, prepared: Prepared, limits: Shown) -> None:
        self._prepared, self._limits = prepared, limits
        self._lineage, self._manifest = prepared.audit.lineage, prepared.manifest
        self._group, self._usable = prepared.audit.lineage.group, prepared.facts.usable
        links = prepared.audit.lineage.links
        self._links = [links[place] for place in doubt_order(links).tolist()]  # weakest first
        firsts = np.array([link.first for link in self._links], dtype=np.int64)
        self._link_group = self._group[firsts]

    def strips(self) -> Several:
        sizes = np.bincount(self._group[self._usable], minlength=int(self._group.max(initial=-1)) + 1)
        biggest = np.argsort(-sizes, kind="stable")[:BIGGEST]
        doubtful = list(dict.fromkeys(self._link_group.tolist()))
        several = [group for group in dict.fromkeys([*biggest.tolist(), *doubtful]) if sizes[group] > 1]
        shown = tuple(self._strip(group, int(sizes[group])) for group in several[: self._limits.groups])
        return Several(shown, int((sizes > 1).sum()))

    def _strip(self, group: int, size: int) -> Strip:
        links = [self._links[place] for place in np.flatnonzero(self._link_group == group).tolist()]
        rows = np.flatnonzero((self._group == group) & self._usable).tolist()
        weakest = {row: place for place, link in reversed([*enumerate(links)]) for row in (link.first, link.second)}
        role = self._lineage.role
        rows.sort(key=lambda row: (role[row] != "original", weakest.get(row, len(links)), row))
        members = tuple(self._member(row, n) for n, row in enumerate(rows[: self._limits.files], start=1))
        numbers = {member.row: f"{member.number}" for member in members}
        # Evidence between files that can be seen comes first.
        links.sort(key=lambda link: not {link.first, link.second} <= numbers.keys())
        merges = tuple(self._merge(link, numbers) for link in links[: self._limits.merges])
        labels = tuple(self._label(row) for row in _first_of_each(rows, self._manifest.labels))
        return Strip(group, size, members, merges, len(links), labels)

    def unsure(self) -> Several:
        links = self._lineage.unsure
        # The strongest of these are the likeliest copies.
        order = np.argsort([-link.score for link in links], kind="stable").tolist()
        return self._pairs([links[place] for place in order])

    def conflicts(self) -> Several:
        labels = self._manifest.labels
        differing = [
            link
            for link in self._links
            if link.evidence not in KEEPS_TOGETHER and labels[link.first] != labels[link.second]
        ]
        conflict = self._prepared.audit.label_conflict
        return self._pairs(
            differing[::-1],  # the surest first
            lambda link: "none of them is used until one is removed" if conflict[link.first] else "they only train",
        )

    def _pairs(self, links: list[Link], note: Callable[[Link], str] = lambda _: "") -> Several:
        shown = tuple(
            Pair((self._member(link.first), self._member(link.second)), self._merge(link), note(link))
            for link in links[: self._limits.pairs]
        )
        return Several(shown, len(links))

    def leaks(self) -> Several:
        leaks = self._prepared.split.leaks
        return Several(tuple(self._leak(row, why) for row, why in leaks[: self._limits.pairs]), len(leaks))

    def _leak(self, row: int, why: str) -> Pair:
        others = sorted(self._elsewhere(row))
        direct = {other: link for link in self._links_of(row) for other in (link.first, link.second)}
        others.sort(key=lambda other: other not in direct)
        if not others:
            return Pair((self._member(row),), note=why)
        link = direct.get(others[0])
        members = (self._member(row), self._member(others[0]))
        return Pair(members, self._merge(link) if link else None, note=why)

    def _elsewhere(self, row: int) -> Iterator[int]:
        """Readable files of the same group that came in another set."""
        for other in np.flatnonzero((self._group == self._group[row]) & self._usable).tolist():
            if self._given(other) != self._given(row):
                yield other

    def _links_of(self, row: int) -> Iterable[Link]:
        places = np.flatnonzero(self._link_group == self._group[row]).tolist()
        return (self._links[place] for place in places if row in (self._links[place].first, self._links[place].second))

    def _given(self, row: int) -> str:
        return (self._manifest.split[row] or "train") if self._manifest.split else ""

    def _label(self, row: int) -> str:
        return visible(self._manifest.class_names[self._manifest.labels[row]])

    def _member(self, row: int, number: int = 0) -> Member:
        lineage = self._lineage
        return Member(
            row=row,
            path=visible(self._manifest.paths[row]),
            label=self._label(row),
            role=str(lineage.role[row]),
            set_name=str(self._prepared.split.name[row]),
            given=self._given(row),
            reason=visible(lineage.reasons.get(row, "")),
            number=number,
        )

    def _merge(self, link: Link, numbers: dict[int, str] | None = None) -> Merge:
        known = numbers or {}
        ends = (known.get(row) or visible(self._manifest.paths[row]) for row in (link.first, link.second))
        first, second = sorted(ends, key=lambda end: (not end.isdecimal(), end))
        words = EVIDENCE_WORDS.get(link.evidence, link.evidence.replace("_", " "))
        score = "" if link.score == 1.0 else f"{link.score:.1f}"
        return Merge(first, second, link.evidence, words, visible(link.detail), score)


def _first_of_each(rows: list[int], labels: NDArray[np.int64]) -> list[int]:
    """The first row of every label, in the order of the labels."""
    first: dict[int, int] = {}
    for row in rows:
        first.setdefault(int(labels[row]), row)
    return [row for _, row in sorted(first.items())]
