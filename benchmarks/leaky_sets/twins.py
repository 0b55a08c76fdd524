"""Pictures of the half `test` of the pool that show the same: judged by eye, so that joining them is not called wrong.

`twins.csv` has one pair a line: `first`, `second` (paths in that half) and what was judged:

- "same picture": recoloured, mirrored, cropped or drawn over;
- "same scene": plainly the same thing at the same place in another picture of it;
- "shared part": a part of the one drawing was used in the other. These are no twins: joining them is wrong, but it
  is told apart from joining strangers.

Pictures of one kind, or in one style, are nothing of it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TWINS = Path(__file__).with_name("twins.csv")
_SAME, _PART = ("same picture", "same scene"), "shared part"


@dataclass(frozen=True)
class Judged:
    """Pairs of sources.

    Attributes:
        twins: that show the same picture or scene.
        parts: that share a part of the drawing, and no more.
    """

    twins: tuple[tuple[str, str], ...] = ()
    parts: tuple[tuple[str, str], ...] = ()


def read_judged(file: Path = TWINS) -> Judged:
    """What was judged so far."""
    with file.open(newline="", encoding="utf-8") as opened:
        rows = [((row["first"], row["second"]), row["judged"]) for row in csv.DictReader(opened)]
    return Judged(
        tuple(pair for pair, judged in rows if judged in _SAME), tuple(pair for pair, judged in rows if judged == _PART)
    )


def kin(sources: Iterable[str], twins: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Source -> a name that it shares with its twins, and theirs."""
    parent = {source: source for source in sources}
    for pair in twins:
        first, second = (_root(parent, each) for each in pair)
        parent[max(first, second)] = min(first, second)
    return {source: _root(parent, source) for source in parent}


def _root(parent: dict[str, str], source: str) -> str:
    while parent.setdefault(source, source) != source:
        source = parent[source]
    return source
