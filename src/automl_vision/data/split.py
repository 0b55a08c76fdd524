"""Train, validation and test rows, such that no group straddles and the test set holds originals only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SetName = Literal["train", "val", "test", "aside", "quarantine"]


@dataclass(frozen=True)
class Split:
    """Which rows each stage may see.

    Attributes:
        name: (N) "train", "val", "test", "aside" (readable, but using it would leak) or "quarantine".
        eligible: (N) True where the image could have been a test image.
        augmented_val: rows set aside that are copies of validation originals; they are only ever reported.
        leaks: rows that the user's own split had leak and that were set aside, with the reason.
        seed: the seed that dealt the groups; None where the split is wholly the user's.
    """

    name: NDArray[np.str_]
    eligible: NDArray[np.bool_]
    augmented_val: NDArray[np.int64]
    leaks: tuple[tuple[int, str], ...] = ()
    seed: int | None = None

    def rows(self, name: SetName) -> NDArray[np.int64]:
        """(n) sorted manifest rows of one set."""
        return np.flatnonzero(self.name == name).astype(np.int64)
