"""What decoding every file once told about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl_vision.data.preprocess import LEAST_DECODE_SIDE

#: Columns of the table of facts, one row per manifest row, in manifest order.
FACT_COLUMNS: dict[str, str] = {
    "file_digest": "blake2b-128 of the file's bytes, hex; empty where the file cannot be read",
    "pixel_digest": "blake2b-128 of the upright RGB pixels as decoded and their size, hex; empty where quarantined",
    "whole_digest": "the same of the whole image, where that was decoded at a fraction and is too plain for a hash, or "
    "another file may have its pixels; else empty",
    "picture_hash": "signs of the lowest frequencies of the brightness, hex; empty where quarantined or too plain",
    "bytes": "file size",
    "width": "pixels after EXIF orientation; 0 where quarantined",
    "height": "pixels after EXIF orientation; 0 where quarantined",
    "scale": "1 where it was decoded wholly; 2, 4 or 8: a JPEG decoded at that fraction of its size",
    "format": "JPEG, PNG, WEBP, BMP, TIFF, GIF or PPM; empty where unknown",
    "mode": "Pillow mode as stored (L, RGB, RGBA, P, CMYK, I;16 ...); empty where unknown",
    "frames": "frames or pages in the file, 1,000 where there are more; only the first is used",
    "exif_rotated": "True where an EXIF orientation was applied",
    "taken": "when, in seconds since 1970 by the camera's clock (EXIF DateTimeOriginal); NaN where unknown",
    "fault": "one of errors.IMAGE_FAULTS where the file is quarantined, else empty",
    "detail": "one line on the fault",
}

#: JPEGs with a shorter side are always decoded wholly, whichever squares are made of them.
SMALLEST_DRAFTED = 2 * LEAST_DECODE_SIDE

#: Number of the way in which pictures are compared. To be raised when it or `Compared` changes: what another way left
#: is not read, but compared again.
METHOD = 4


def _no_rows() -> NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


def _no_pairs() -> NDArray[np.int64]:
    return np.zeros((0, 2), dtype=np.int64)


@dataclass(frozen=True)
class Compared:
    """What laying pictures over each other told. Pairs that are strangers are not listed.

    Attributes:
        pairs: (M, 2) rows of the manifest, first < second.
        score: (M) distinct matches times correlation, see `data.lineage.registration`.
        same: (M) True where this is one picture; else it may be.
        detail: (M) one line each.
        unchecked: candidates that were not compared for want of time.
        tiny: images too small for this to say that they are no copies.
        plain: (P) rows with too few key points for it, among those that were laid over others.
        strangers: (K, 2) rows that names join and that do not show one picture, first < second.
        named: pairs joined by names that were looked at.
        looked: pairs that were laid over each other.
        resembling: (R) rows that resemble their nearest picture far more than all others.
        left: pairs, less alike than those, that were left because no copy was found among the last of them for long.
        barren: how many those last ones were; 0 where nothing was left.
        original: row -> probability that it is the original of its group, where the pixels were asked.
        marked: row -> what in it looks made by augmentation, one line each.
        unseen: rows that were not compared with all that they resemble, for want of time.
    """

    pairs: NDArray[np.int64]
    score: NDArray[np.float64]
    same: NDArray[np.bool_]
    detail: tuple[str, ...]
    unchecked: int = 0
    tiny: int = 0
    plain: NDArray[np.int64] = field(default_factory=_no_rows)
    strangers: NDArray[np.int64] = field(default_factory=_no_pairs)
    named: int = 0
    looked: int = 0
    left: int = 0
    barren: int = 0
    resembling: NDArray[np.int64] = field(default_factory=_no_rows)
    original: Mapping[int, float] = field(default_factory=dict)
    marked: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    unseen: NDArray[np.int64] = field(default_factory=_no_rows)

    def take(self, rows: NDArray[np.int64], n: int) -> Compared:
        """The same for a manifest that keeps only `rows` of `n`, in that order."""
        place = np.full(n, -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        moved, strangers = np.sort(place[self.pairs], axis=1), np.sort(place[self.strangers], axis=1)
        kept = np.flatnonzero((moved >= 0).all(axis=1))
        original = {int(place[row]): each for row, each in self.original.items() if place[row] >= 0}
        marked = {int(place[row]): each for row, each in self.marked.items() if place[row] >= 0}
        return replace(
            self,
            pairs=moved[kept],
            score=self.score[kept],
            same=self.same[kept],
            detail=tuple(self.detail[at] for at in kept),
            plain=_moved(self.plain, place),
            resembling=_moved(self.resembling, place),
            original=original,
            marked=marked,
            unseen=_moved(self.unseen, place),
            strangers=strangers[(strangers >= 0).all(axis=1)],
        )

    def is_of(self, n: int) -> bool:
        """Whether it can be of a manifest of `n` rows: a file may say anything."""
        named = [self.pairs, self.plain, self.strangers, self.resembling, self.unseen, self.original, self.marked]
        rows = np.concatenate([np.array(list(each), dtype=np.int64).ravel() for each in named])
        count = len(self.pairs)
        fits = {len(self.score), len(self.same), len(self.detail)} == {count}
        return fits and bool(((rows >= 0) & (rows < n)).all())

    def to_dict(self) -> dict[str, Any]:
        """Plain types only."""
        return {
            "pairs": self.pairs.tolist(),
            "score": self.score.tolist(),
            "same": self.same.tolist(),
            "detail": list(self.detail),
            "unchecked": self.unchecked,
            "tiny": self.tiny,
            "plain": self.plain.tolist(),
            "strangers": self.strangers.tolist(),
            "named": self.named,
            "looked": self.looked,
            "left": self.left,
            "barren": self.barren,
            "resembling": self.resembling.tolist(),
            "original": {str(row): probability for row, probability in self.original.items()},
            "marked": {str(row): list(words) for row, words in self.marked.items()},
            "unseen": self.unseen.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Compared:
        """The inverse of `to_dict`."""
        return cls(
            pairs=np.array(values["pairs"], dtype=np.int64).reshape(-1, 2),
            score=np.array(values["score"], dtype=np.float64),
            same=np.array(values["same"], dtype=np.bool_),
            detail=tuple(values["detail"]),
            unchecked=int(values["unchecked"]),
            tiny=int(values["tiny"]),
            plain=np.array(values["plain"], dtype=np.int64),
            strangers=np.array(values["strangers"], dtype=np.int64).reshape(-1, 2),
            named=int(values["named"]),
            looked=int(values["looked"]),
            left=int(values["left"]),
            barren=int(values["barren"]),
            resembling=np.array(values["resembling"], dtype=np.int64),
            original={int(row): float(each) for row, each in values["original"].items()},
            marked={int(row): tuple(each) for row, each in values["marked"].items()},
            unseen=np.array(values["unseen"], dtype=np.int64),
        )


def _moved(rows: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
    moved = place[rows]
    return np.sort(moved[moved >= 0])


@dataclass(frozen=True)
class Facts:
    """What is known of the files.

    Attributes:
        table: one row of `FACT_COLUMNS` per row of the manifest.
        compared: what comparing the pictures told; None where they were not compared.
    """

    table: pd.DataFrame
    compared: Compared | None = None

    def __len__(self) -> int:
        return len(self.table)

    def take(self, rows: NDArray[np.int64]) -> Facts:
        """The facts of a manifest that keeps only `rows`, in that order."""
        compared = self.compared.take(rows, len(self)) if self.compared else None
        return Facts(self.table.iloc[rows].reset_index(drop=True), compared)

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        """(N) True where the image decoded; not to be changed."""
        usable = np.array(self.table["fault"] == "", dtype=np.bool_)
        usable.flags.writeable = False
        return usable

    @property
    def taken(self) -> NDArray[np.float64] | None:
        """(N) seconds by the camera's clock, NaN where unknown; None before any file was opened."""
        return self.table["taken"].to_numpy(dtype=np.float64) if "taken" in self.table else None

    @property
    def pixel_digests(self) -> NDArray[np.object_]:
        """(N) hex, equal where the pixels are; empty where the image did not decode.

        Whole pixels, where files that were decoded at a fraction may share them with files that were not.
        """
        decoded, whole = (self.table[name].to_numpy(dtype=object) for name in ("pixel_digest", "whole_digest"))
        return np.where(whole == "", decoded, whole)

    @property
    def known_digests(self) -> NDArray[np.object_]:
        """(M) hex, every digest by which these images may be recognised, with or without a draft."""
        columns = (self.table[name].to_numpy(dtype=object) for name in ("pixel_digest", "whole_digest"))
        return np.concatenate([column[column != ""] for column in columns])

    @property
    def content_keys(self) -> NDArray[np.object_]:
        """(N) hex, what an image's content is known by where images are put in an order, and where results are kept.

        The digest of the pixels; of JPEGs that are large enough to be decoded at a fraction that of the file, so that
        the order, and with it the split, is the same whichever sides are stored. Two files with equal pixels may have
        two of them.
        """
        table = self.table
        large = table[["width", "height"]].min(axis=1).to_numpy() >= SMALLEST_DRAFTED
        file, pixels = (table[name].to_numpy(dtype=object) for name in ("file_digest", "pixel_digest"))
        return np.where(large & (table["format"] == "JPEG").to_numpy(), file, pixels)

    @property
    def picture_hashes(self) -> NDArray[np.object_]:
        """(N) hex, see `data.fingerprint.picture_hash`; empty where the image did not decode or is too plain."""
        return self.table["picture_hash"].to_numpy(dtype=object)
