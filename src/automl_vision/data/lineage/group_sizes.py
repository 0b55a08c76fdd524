"""How many files most groups have: a tool that makes copies makes as many of each original.

Where nearly all groups have one size, a smaller one has most likely lost a copy that was not recognised: its original
has a copy somewhere, which may be trained on, and what is alone and resembles such a group may be that copy. Where
sizes vary, as with tools that draw originals at random, nothing follows from them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Share of the groups that must have one size for it to be usual, groups below which nothing is usual, and the smallest
#: size that leaves room for a smaller group.
_SHARE, _FEWEST_GROUPS, _SMALLEST = 0.6, 10, 3


@dataclass(frozen=True)
class GroupSizes:
    """Sizes of groups, counted in files.

    Attributes:
        members: (N) files in the group of each row.
        usual: size of nearly all groups of two and more; None where there is no such size.
    """

    members: NDArray[np.int64]
    usual: int | None

    @classmethod
    def of(cls, root: NDArray[np.int64], rows: NDArray[np.int64]) -> GroupSizes:
        """Sizes as they are.

        Args:
            root: (N) equal in a group; any numbers from 0 to N - 1.
            rows: that count.
        """
        counts = np.bincount(root[rows], minlength=len(root))
        return cls(counts[root], _usual(counts[counts > 1]))

    @property
    def short(self) -> NDArray[np.bool_]:
        """(N) rows of groups of two and more that are smaller than is usual."""
        return np.asarray((self.members > 1) & (self.members < (self.usual or 0)), dtype=np.bool_)

    @property
    def may_grow(self) -> NDArray[np.bool_]:
        """(N) rows of groups that may have lost a copy: all that do not have the usual size."""
        return np.asarray(self.members != self.usual, dtype=np.bool_)


def _usual(sizes: NDArray[np.int64]) -> int | None:
    if len(sizes) < _FEWEST_GROUPS:
        return None
    found, counts = np.unique(sizes, return_counts=True)
    most = int(counts.argmax())
    is_usual = found[most] >= _SMALLEST and counts[most] >= _SHARE * len(sizes)
    return int(found[most]) if is_usual else None
