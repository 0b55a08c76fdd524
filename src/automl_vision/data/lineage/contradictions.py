"""What names join and pixels do not bear out.

A name that says "copy of photo" is believed: the two files stay together and the copy stays a copy. If the name is
wrong, that costs an image; if it is right and not believed, one picture is trained on and tested on. But where the
pixels were seen and nothing common was found in them, the user is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.facts import Facts
from automl_vision.data.lineage.groups import connected
from automl_vision.data.lineage.lineage import Link
from automl_vision.data.lineage.registration import Registration

Pair = tuple[int, int]

#: Pairs between two looks at the clock.
_BATCH = 64
#: Pairs that are looked at; of more, as many from all over the list. A habit shows in a few.
_MOST = 5_000


def named_pairs(links: Iterable[Link], facts: Facts) -> list[Pair]:
    """Pairs of readable, different pictures that names join, each once, at most `_MOST`."""
    usable, pixels = facts.usable, facts.pixel_digests
    pairs = dict.fromkeys((link.first, link.second) for link in links if link.evidence == "names")
    differ = [(a, b) for a, b in pairs if usable[a] and usable[b] and pixels[a] != pixels[b]]
    chosen = np.linspace(0, len(differ) - 1, min(len(differ), _MOST)).round().astype(int)
    return [differ[at] for at in chosen.tolist()]


def contradicted(
    pairs: list[Pair],
    plain: Callable[[int], bool],
    look: Callable[[Pair], Registration],
    pool: ThreadPoolExecutor,
    stop: float,
) -> tuple[list[Pair], int]:
    """Which of the pairs are strangers to the eye, and how many were looked at.

    A pair counts only where neither picture is tiny or plain (of those nobody can tell), and where no other picture
    of the same name leads from one to the other.

    Args:
        pairs: rows that names join.
        plain: row -> whether it has too few key points for its copies to be found.
        look: lays one pair over each other.
        pool: where.
        stop: monotonic seconds at which no new batch begins.
    """
    seen: list[tuple[Pair, Registration]] = []
    for start, end in pairwise([*range(0, len(pairs), _BATCH), len(pairs)]):
        if time.monotonic() > stop:
            break
        batch = pairs[start:end]
        seen += zip(batch, pool.map(look, batch), strict=True)
    agreed = [pair for pair, found in seen if found.same or found.perhaps]
    strangers = [pair for pair, found in seen if not (found.same or found.perhaps or found.tiny)]
    root = _joined(agreed)
    apart = [(a, b) for a, b in strangers if root.get(a, -1 - a) != root.get(b, -1 - b)]
    return [pair for pair in apart if not any(map(plain, pair))], len(seen)


def _joined(pairs: list[Pair]) -> dict[int, int]:
    """Row -> a number of what it is joined to; rows without a pair are left out."""
    rows, place = np.unique(np.array(pairs, dtype=np.int64).reshape(-1, 2), return_inverse=True)
    ends: NDArray[np.int64] = place.reshape(-1, 2)
    root = connected(len(rows), [Link(int(min(e)), int(max(e)), "", "") for e in ends])
    return dict(zip(rows.tolist(), root.tolist(), strict=True))
