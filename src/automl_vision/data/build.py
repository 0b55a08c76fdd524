"""Filling a set of decoded images: rows that are held elsewhere are copied, all others decoded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from automl_vision.data.donors import Donor
from automl_vision.data.files import Place
from automl_vision.data.planes import RowWriter
from automl_vision.data.preprocess import SQUASH
from automl_vision.data.survey import Fact, Squares, in_order, is_settled, look_into, whole_digest
from automl_vision.data.whole_digests import may_have_copies

Progress = Callable[[int, int], None]
#: Sets that hold some of the files, which are given by their digests.
Offering = Callable[[Collection[str]], Iterator[Donor]]


def _silent(_text: str) -> None:
    return


@dataclass(frozen=True)
class Wanted:
    """What a set of decoded images is to hold.

    Attributes:
        files: digest -> path of every distinct file, in the order in which they are decoded.
        sizes: sides of the squares in pixels, ascending.
        threads: that decode.
        progress: told (files done, files in all).
        decode_side, resize: how squares are made, see `preprocess.Preprocessing`.
        ahead: whether squares are to be held, and not made whenever they are asked for.
        known: gives facts of files without a fault, made in the same way, that need no decoding where no squares are
            wanted; None where there are none.
        tell: told whom the work waits for.
    """

    files: Mapping[str, Place]
    sizes: tuple[int, ...]
    threads: int
    progress: Progress
    decode_side: int = 0
    resize: str = SQUASH
    ahead: bool = True
    known: Callable[[], pd.DataFrame | None] | None = None
    tell: Callable[[str], None] = _silent

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
            if missing.pop(fact["file_digest"], None) is None:
                continue  # it was offered before
            writer.add(fact, squares)
            wanted.progress(len(wanted.files) - len(missing), len(wanted.files))
    done = len(wanted.files) - len(missing)

    def look(item: tuple[str, Place]) -> tuple[Fact, Squares | None]:
        return look_into(item[1], item[0], wanted.sizes, wanted.decode_side, wanted.resize)

    again: list[tuple[str, Place]] = []
    for (fact, decoded), item in zip(in_order(look, missing.items(), wanted.threads), missing.items(), strict=True):
        if not is_settled(fact["fault"], fact["detail"]):
            again.append(item)
            continue
        writer.add(fact, decoded)
        done += 1
        wanted.progress(done, len(wanted.files))
    for item in again:  # one at a time, without others in memory beside it
        writer.add(*look(item))
        done += 1
        wanted.progress(done, len(wanted.files))


def settles(wanted: Wanted, files: Collection[str]) -> bool:
    """Whether more is known of one of the files by now than that this machine could not read it."""
    for digest in files:
        fact, _ = look_into(wanted.files[digest], digest, wanted.sizes, wanted.decode_side, wanted.resize)
        wanted.progress(0, len(wanted.files))
        if is_settled(fact["fault"], fact["detail"]):
            return True
    return False


def with_whole_digests(wanted: Wanted, facts: pd.DataFrame) -> pd.DataFrame:
    """The facts of all files, with the digests of whole pixels where equal ones could be missed without them.

    Which ones these are depends on the other files: what a donor had is not enough, or is too much.
    """
    known = facts["whole_digest"].to_numpy(dtype=object)
    own = np.where(facts["picture_hash"] == "", known, "")  # too plain for a hash: whatever the other files are
    rows = may_have_copies(facts.assign(whole_digest=own))
    files = facts["file_digest"].to_numpy(dtype=object)
    total = len(wanted.files)

    def look(row: int) -> str:
        return known[row] or whole_digest(wanted.files[files[row]], files[row])

    for row, digest in zip(rows.tolist(), in_order(look, rows.tolist(), wanted.threads), strict=True):
        own[row] = digest
        wanted.progress(total, total)  # it may stop the work
    return facts.assign(whole_digest=pd.Series(own, dtype="str"))


def undecoded(files: Collection[str], offering: Offering) -> int:
    """How many of the files, given by their digests, would have to be decoded."""
    missing = dict.fromkeys(files)
    for donor in offering(missing):
        for digest in donor.facts["file_digest"]:
            missing.pop(digest, None)
    return len(missing)
