"""Rows that need not be decoded, because other sets of decoded images in the cache folder hold them.

An image that is added to 100,000 others makes another set. Its rows are copied from sets whose squares were made in the
same way: whole ones, and what killed builders left. Nothing is believed that its checksum does not fit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl_vision.data.cache_entries import abandoned, cache_entries, held_at_once, is_scratch, key_of
from automl_vision.data.fact_table import COLUMNS, PLANE_ROW, FactTable
from automl_vision.data.journal import JOURNAL, MadeOtherwise, read_journal
from automl_vision.data.plane import FilePlane, ShortPlane
from automl_vision.data.planes import (
    DamagedPlanes,
    block_checksum,
    block_rows,
    cut_planes,
    how_it_was_made,
    how_made,
    open_squares,
    read_facts,
    read_index,
    room_for_rows,
)
from automl_vision.data.preprocess import SQUASH
from automl_vision.data.survey import Fact, is_settled

Row = tuple[Fact, list[NDArray[np.uint8]] | None]


class CheckedSquares:
    """Squares of a plane with a checksum for every few rows; reading rows in order reads each byte once."""

    def __init__(self, plane: FilePlane, crcs: Mapping[int, int], rows: int) -> None:
        self._plane = plane
        self._crcs = crcs
        self._rows = rows
        self._at = -1
        self._block: NDArray[np.uint8] | None = None

    def square(self, row: int) -> NDArray[np.uint8] | None:
        """(side, side, 3); None where it is damaged."""
        at = row // self._rows
        if at != self._at:
            self._block, self._at = self._sound(at), at
        return None if self._block is None else self._block[row - at * self._rows]

    def close(self) -> None:
        """Let go of the file."""
        self._plane.close()

    def _sound(self, at: int) -> NDArray[np.uint8] | None:
        start, stop = at * self._rows, min((at + 1) * self._rows, len(self._plane))
        if stop <= start or at not in self._crcs:
            return None
        try:
            block = self._plane.block(start, stop)
        except (ShortPlane, OSError):
            return None
        return block if block_checksum(block) == self._crcs[at] else None


@dataclass(frozen=True)
class Donor:
    """Rows of another set that are wanted.

    Attributes:
        facts: one row per file, ascending by row in the planes.
        squares: side -> the squares of all its rows, sides ascending.
        whole: whether all that it holds is wanted.
    """

    facts: pd.DataFrame
    squares: Mapping[int, CheckedSquares]
    whole: bool

    def rows(self) -> Iterator[Row]:
        """Facts and squares as decoding would give them, without those that are damaged."""
        for values in self.facts.itertuples(index=False, name=None):
            fact = dict(zip(self.facts.columns, values, strict=True))
            row = int(fact.pop(PLANE_ROW))
            if row < 0:
                yield fact, None
                continue
            found = [checked.square(row) for checked in self.squares.values()]
            sound = [square for square in found if square is not None]
            if len(sound) == len(found):
                yield fact, sound

    def close(self) -> None:
        """Let go of the files."""
        for checked in self.squares.values():
            checked.close()


class Donors:
    """All sets in a cache folder that rows may be taken from, as of when this is made. To look changes none of them.

    To be made before the caller's own scratch folder: it would look like one that was left under this key.

    Args:
        cache_dir: the folder.
        sizes: sides that they must have, and no others; ascending.
        key: the set whose lock the caller holds; none where empty.
        decode_side, resize: how their squares were made, see `preprocess.Preprocessing`.
    """

    def __init__(
        self, cache_dir: Path, sizes: Sequence[int], key: str = "", decode_side: int = 0, resize: str = SQUASH
    ) -> None:
        self._cache_dir = cache_dir
        self._sizes = tuple(sizes)
        self._made = how_made(sizes, decode_side, resize)
        self._scratches = [(folder, key_of(folder) == key) for folder in abandoned(cache_dir)]
        self._emptied: list[Path] = []

    def offering(self, wanted: Collection[str]) -> Iterator[Donor]:
        """Those that hold some of the files, one at a time: the next one closes the last.

        Args:
            wanted: digests; may shrink between two donors, and the search ends when it is empty.
        """
        for folder in (folder for folder, own in self._scratches if own):
            yield from self._opened(folder, wanted)
        for folder in self._whole():
            yield from self._opened(folder, wanted)
        for folder in (folder for folder, own in self._scratches if not own):
            with held_at_once(self._cache_dir, key_of(folder)) as held:
                if held:
                    yield from self._opened(folder, wanted)

    def give_back(self) -> None:
        """Cut what killed builders left to the rows that are whole: what they reserved is missing for others."""
        for folder, own in self._scratches:
            with contextlib.nullcontext(True) if own else held_at_once(self._cache_dir, key_of(folder)) as held:
                if held:
                    self._cut(folder)

    def _cut(self, folder: Path) -> None:
        # What was made otherwise is not ours to judge, and what cannot be cut stays as it is.
        with contextlib.suppress(MadeOtherwise, OSError):
            places = [row.place for row in read_journal(folder / JOURNAL, self._made)]
            cut_planes(folder, self._sizes, max(places, default=-1) + 1)

    def emptied(self) -> tuple[Path, ...]:
        """Folders of killed builders all of whose rows were wanted."""
        return tuple(self._emptied)

    def _whole(self) -> list[Path]:
        try:
            return [entry.folder for entry in cache_entries(self._cache_dir)]
        except OSError:
            return []  # it cannot be looked into: whatever it holds is decoded

    def _opened(self, folder: Path, wanted: Collection[str]) -> Iterator[Donor]:
        is_unfinished = is_scratch(folder)
        if not wanted:
            return
        try:
            donor = (_unfinished_set if is_unfinished else _whole_set)(folder, self._sizes, self._made, wanted)
        except (DamagedPlanes, MadeOtherwise, OSError):
            return  # it is no donor, and its rows are decoded
        with contextlib.closing(donor):
            yield donor
        if is_unfinished and donor.whole:
            self._emptied.append(folder)


def _whole_set(folder: Path, sizes: Sequence[int], made: Mapping[str, Any], wanted: Collection[str]) -> Donor:
    index = read_index(folder, sizes)
    if how_it_was_made(index) != made:
        raise DamagedPlanes("made in another way")
    digests = read_facts(folder, index, ["file_digest"])["file_digest"]
    if not any(digest in wanted for digest in digests):
        raise DamagedPlanes("nothing that is wanted")
    squares = open_squares(folder, index["count"], sizes)
    checked = {
        size: CheckedSquares(plane, dict(enumerate(index["crc32"][str(size)])), block_rows(size))
        for size, plane in squares.items()
    }
    facts = read_facts(folder, index)
    return Donor(_usable(facts[facts["file_digest"].isin(list(wanted))]), checked, whole=False)


def _unfinished_set(folder: Path, sizes: Sequence[int], made: Mapping[str, Any], wanted: Collection[str]) -> Donor:
    table, whole, written = FactTable(), True, 0
    crcs: dict[int, dict[int, int]] = {size: {} for size in sizes}
    for row in read_journal(folder / JOURNAL, made):
        written = max(written, row.place + 1)
        if row.fact["file_digest"] not in wanted:
            whole = False
            continue
        table.add(row.fact)
        for size, crc in zip(sizes, row.crcs, strict=False):  # no checksums where it is quarantined
            crcs[size][row.place] = crc
    # After a power cut the journal may name rows that did not arrive.
    count = min(written, room_for_rows(folder, sizes))
    squares = open_squares(folder, count, sizes, reserved=True)
    checked = {size: CheckedSquares(plane, crcs[size], rows=1) for size, plane in squares.items()}
    facts = table.table()
    return Donor(_usable(facts[facts[PLANE_ROW] < count]), checked, whole)


def _usable(facts: pd.DataFrame) -> pd.DataFrame:
    """Rows that say of a file what every machine would, in the order of the planes."""
    settled = np.array(
        [is_settled(*known) for known in zip(facts["fault"], facts["detail"], strict=True)], dtype=np.bool_
    )
    has_squares = (facts[PLANE_ROW] >= 0) == (facts["fault"] == "")
    return facts[has_squares & settled].sort_values(PLANE_ROW)[list(COLUMNS)]
