"""Which images belong together, and which of them is the original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Role = Literal["original", "copy", "unsure"]


@dataclass(frozen=True)
class Link:
    """One piece of evidence that two rows belong to one group.

    Attributes:
        first, second: manifest rows, first < second.
        evidence: name of the row of the table of evidence that found it.
        detail: what exactly agreed, one line ("same pixels", "name cat_aug_3 -> cat").
        score: strength of the evidence on its own scale; 1.0 where it is a plain yes.
    """

    first: int
    second: int
    evidence: str
    detail: str
    score: float = 1.0


@dataclass(frozen=True)
class Lineage:
    """Groups and roles of all rows.

    Attributes:
        group: (N) group number, 0 <= group < G. Numbers depend on content, not on names or order.
        role: (N) "original", "copy" or "unsure".
        orphan: (N) True for a copy whose original was not found: nobody knows which set it would leak into.
        barred: (N) True where the group may show the same picture as another group, or looks made by augmentation:
            not sure enough to join them or to call it a copy, and not safe enough to test on.
        links: the evidence behind every merge.
        reasons: row -> why it is an orphan or unsure, one line, for the reader of the audit.
        unsure: pairs behind `barred`: perhaps one picture, in two groups.
        doubtful: rows behind `barred`: alone in their group, and perhaps copies that were missed.
        short: originals behind `barred`, of groups that have most likely lost a copy -> why, one line.
    """

    group: NDArray[np.int64]
    role: NDArray[np.str_]
    orphan: NDArray[np.bool_]
    barred: NDArray[np.bool_]
    links: tuple[Link, ...] = ()
    reasons: Mapping[int, str] = field(default_factory=dict)
    unsure: tuple[Link, ...] = ()
    doubtful: tuple[int, ...] = ()
    short: Mapping[int, str] = field(default_factory=dict)
