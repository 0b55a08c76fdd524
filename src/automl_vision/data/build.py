"""Filling a set of decoded images: rows that are held elsewhere are copied, all others decoded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from automl_vision.data.donors import Donor
from automl_vision.data.planes import RowWriter
from automl_vision.data.survey import Fact, Squares, in_order, look_into

Progress = Callable[[int, int], None]
#: Sets that hold some of the files, which are given by their digests.
Offering = Callable[[Collection[str]], Iterator[Donor]]


@dataclass(frozen=True)
class Wanted:
    """What a set of decoded images is to hold.

    Attributes:
        files: digest -> path of every distinct file, in the order in which they are decoded.
        sizes: sides of the squares in pixels, ascending.
        threads: that decode.
        progress: told (files done, files in all).
    """

    files: Mapping[str, Path]
    sizes: tuple[int, ...]
    threads: int
    progress: Progress

    @property
    def nbytes(self) -> int:
        """Of all squares, if all files can be decoded."""
        return len(self.files) * sum(3 * size * size for size in self.sizes)


def no_donors(_wanted: Collection[str]) -> Iterator[Donor]:
    """Nothing is held elsewhere."""
    return iter(())


def fill(wanted: Wanted, writer: RowWriter, offering: Offering = no_donors) -> None:
    """Hand every wanted file to the writer, once.

    Raises:
        DataError: a file changes while it is read.
    """
    missing = dict(wanted.files)
    for donor in offering(missing):
        for fact, squares in donor.rows():
            del missing[fact["file_digest"]]
            writer.add(fact, squares)
            wanted.progress(len(wanted.files) - len(missing), len(wanted.files))
    done = len(wanted.files) - len(missing)

    def look(item: tuple[str, Path]) -> tuple[Fact, Squares | None]:
        return look_into(item[1], item[0], wanted.sizes)

    for fact, decoded in in_order(look, missing.items(), wanted.threads):
        writer.add(fact, decoded)
        done += 1
        wanted.progress(done, len(wanted.files))


def undecoded(files: Collection[str], offering: Offering) -> int:
    """How many of the files, given by their digests, would have to be decoded."""
    missing = dict.fromkeys(files)
    for donor in offering(missing):
        for digest in donor.facts["file_digest"]:
            missing.pop(digest, None)
    return len(missing)
