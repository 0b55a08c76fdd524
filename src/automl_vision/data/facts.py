"""What decoding every file once told about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: Columns of the table of facts, one row per manifest row, in manifest order.
FACT_COLUMNS: dict[str, str] = {
    "file_digest": "blake2b-128 of the file's bytes, hex; empty where the file cannot be read",
    "pixel_digest": "blake2b-128 of the upright RGB pixels and their size, hex; empty where quarantined",
    "bytes": "file size",
    "width": "pixels after EXIF orientation; 0 where quarantined",
    "height": "pixels after EXIF orientation; 0 where quarantined",
    "format": "JPEG, PNG, WEBP, BMP, TIFF, GIF or PPM; empty where unknown",
    "mode": "Pillow mode as stored (L, RGB, RGBA, P, CMYK, I;16 ...); empty where unknown",
    "frames": "frames or pages in the file; only the first is used",
    "exif_rotated": "True where an EXIF orientation was applied",
    "fault": "one of errors.IMAGE_FAULTS where the file is quarantined, else empty",
    "detail": "one line on the fault",
}


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
        plain: images with too few key points for it.
        original: row -> probability that it is the original of its group, where the pixels were asked.
        marked: row -> what in it looks made by augmentation, one line each.
    """

    pairs: NDArray[np.int64]
    score: NDArray[np.float64]
    same: NDArray[np.bool_]
    detail: tuple[str, ...]
    unchecked: int = 0
    tiny: int = 0
    plain: int = 0
    original: Mapping[int, float] = field(default_factory=dict)
    marked: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    def take(self, rows: NDArray[np.int64], n: int) -> Compared:
        """The same for a manifest that keeps only `rows` of `n`, in that order."""
        place = np.full(n, -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        moved = np.sort(place[self.pairs], axis=1)
        kept = np.flatnonzero((moved >= 0).all(axis=1))
        detail = tuple(self.detail[at] for at in kept)
        told = (self.unchecked, self.tiny, self.plain)
        original = {int(place[row]): each for row, each in self.original.items() if place[row] >= 0}
        marked = {int(place[row]): each for row, each in self.marked.items() if place[row] >= 0}
        return Compared(moved[kept], self.score[kept], self.same[kept], detail, *told, original, marked)

    def to_dict(self) -> dict[str, Any]:
        """Plain types only."""
        return {
            "pairs": self.pairs.tolist(),
            "score": self.score.tolist(),
            "same": self.same.tolist(),
            "detail": list(self.detail),
            "unchecked": self.unchecked,
            "tiny": self.tiny,
            "plain": self.plain,
            "original": {str(row): probability for row, probability in self.original.items()},
            "marked": {str(row): list(words) for row, words in self.marked.items()},
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
            plain=int(values["plain"]),
            original={int(row): float(each) for row, each in values["original"].items()},
            marked={int(row): tuple(each) for row, each in values["marked"].items()},
        )


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

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N) True where the image decoded."""
        return np.asarray(self.table["fault"] == "", dtype=np.bool_)

    @property
    def pixel_digests(self) -> NDArray[np.object_]:
        """(N) hex digest of the pixels, empty where the image did not decode."""
        return self.table["pixel_digest"].to_numpy(dtype=object)
