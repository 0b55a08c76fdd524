"""Decoded images where no disk has room for them: in memory, or decoded whenever they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl_vision.data.build import Wanted
from automl_vision.data.fact_table import PLANE_ROW, FactTable
from automl_vision.data.files import Place, StoredImage
from automl_vision.data.plane import Plane
from automl_vision.data.planes import Planes
from automl_vision.data.preprocess import SQUASH
from automl_vision.data.survey import Fact, in_order, squares_of

#: Files that have squares, in the order of their rows: digest, and where it is.
Files = list[tuple[str, Place]]


@dataclass(frozen=True)
class UndecodedPlane:
    """Squares that are made of their files whenever they are asked for.

    Attributes:
        files: digest and path by row; a file that is another one by then is an error.
        side: of the squares, in pixels.
        threads: that decode at once.
        decode_side, resize: how they are made, see `preprocess.Preprocessing`.
    """

    files: Files
    side: int
    threads: int
    decode_side: int = 0
    resize: str = SQUASH

    def __len__(self) -> int:
        """Number of squares."""
        return len(self.files)

    @property
    def place(self) -> str:
        """The files themselves."""
        return "the image files"

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, side, side, 3) squares of some rows, each in 0..len-1.

        Raises:
            DataError: a file changed since it was looked into, or cannot be decoded any more.
        """
        made = in_order(self._square, rows.tolist(), self.threads)
        squares = np.empty((len(rows), self.side, self.side, 3), dtype=np.uint8)
        for square, pixels in zip(squares, made, strict=True):
            square[:] = pixels
        return squares

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Squares are not made in advance, but what is stored with other images is brought near."""
        for row in rows.tolist():
            place = self.files[row][1]
            if isinstance(place, StoredImage):
                place.expect()

    def close(self) -> None:
        """Nothing is held."""

    def _square(self, row: int) -> NDArray[np.uint8]:
        digest, path = self.files[row]
        return squares_of(path, digest, (self.side,), self.decode_side, self.resize)[0]


class MemoryPlane:
    """(P, side, side, 3) squares in the memory of this process; another process decodes their files instead."""

    def __init__(self, squares: NDArray[np.uint8], elsewhere: UndecodedPlane) -> None:
        self._squares: NDArray[np.uint8] | None = squares
        self._elsewhere = elsewhere

    def __len__(self) -> int:
        """Number of squares."""
        return len(self._elsewhere)

    def __reduce__(self) -> tuple[Any, ...]:
        """What is held here cannot be shared, and each process holding as much could be too much."""
        there = self._elsewhere
        return UndecodedPlane, (there.files, there.side, there.threads, there.decode_side, there.resize)

    @property
    def place(self) -> str:
        """Memory."""
        return "memory"

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, side, side, 3) squares of some rows, each in 0..len-1, a copy.

        Raises:
            OSError: it is closed.
        """
        if self._squares is None:
            raise OSError("it is closed")
        return self._squares[rows]

    def expect(self, rows: NDArray[np.int64]) -> None:
        """They are here."""

    def close(self) -> None:
        """Give the memory back, once nobody else reads."""
        self._squares = None


class UndecodedWriter:
    """Keeps facts and forgets squares; begins with the facts that are known.

    Attributes:
        files: that have squares.
        missing: those of which no facts are known.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._known = None if wanted.known is None else wanted.known()
        self._facts = FactTable()
        digests = [] if self._known is None else self._known["file_digest"].tolist()
        self.files: Files = [(digest, wanted.files[digest]) for digest in digests]
        known = frozenset(digests)
        self.missing = {digest: place for digest, place in wanted.files.items() if digest not in known}

    def add(self, fact: Fact, squares: Sequence[NDArray[np.uint8]] | None) -> None:
        """Take the facts of a file; no squares where it is quarantined."""
        self._facts.add(fact | {PLANE_ROW: -1 if squares is None else len(self.files)})
        if squares is not None:
            digest = fact["file_digest"]
            self.files.append((digest, self._wanted.files[digest]))

    def planes(self) -> Planes:
        """All that was added."""
        added = self._facts.table()
        if self._known is not None:
            known = self._known.assign(**{PLANE_ROW: np.arange(len(self._known))})
            added = pd.concat([known, added], ignore_index=True) if len(added) else known
        return Planes(added, {size: self.plane(size) for size in self._wanted.sizes})

    def plane(self, size: int) -> UndecodedPlane:
        """The squares of one side."""
        wanted = self._wanted
        return UndecodedPlane(self.files, size, wanted.threads, wanted.decode_side, wanted.resize)


class MemoryWriter:
    """Keeps facts and squares in memory.

    Raises:
        MemoryError: there is none for so many.
    """

    def __init__(self, wanted: Wanted) -> None:
        count = len(wanted.files)
        self._squares = {size: np.empty((count, size, size, 3), dtype=np.uint8) for size in wanted.sizes}
        self._undecoded = UndecodedWriter(replace(wanted, known=None))  # its squares are wanted

    def add(self, fact: Fact, squares: Sequence[NDArray[np.uint8]] | None) -> None:
        """Take the facts of a file and one square per side, ascending; no squares where it is quarantined."""
        if squares is not None:
            row = len(self._undecoded.files)
            for kept, pixels in zip(self._squares.values(), squares, strict=True):
                kept[row] = pixels
        self._undecoded.add(fact, squares)

    def planes(self) -> Planes:
        """All that was added."""
        count = len(self._undecoded.files)
        in_memory: dict[int, Plane] = {
            size: MemoryPlane(squares[:count], self._undecoded.plane(size)) for size, squares in self._squares.items()
        }
        return Planes(self._undecoded.planes().facts, in_memory)
