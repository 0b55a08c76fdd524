"""Pictures of the pool that show the same: judged by eye, so that joining them is not called wrong.

`twins.csv` has one pair a line: `first`, `second` (paths in one half of the pool) and `judged`: "same picture"
(recoloured, mirrored, cropped, drawn over) or "same scene" (plainly the same thing in another picture of it).
Pictures of one kind, or in one style, are no twins.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

TWINS = Path(__file__).with_name("twins.csv")


def read_twins(file: Path = TWINS) -> list[tuple[str, str]]:
    """Pairs of sources."""
    with file.open(newline="", encoding="utf-8") as opened:
        return [(row["first"], row["second"]) for row in csv.DictReader(opened)]


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
