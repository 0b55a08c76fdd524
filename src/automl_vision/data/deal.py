"""Dealing whole groups to test and val such that every class reaches every set in about its share.

The order of the groups is a hash of seed and content: shuffled rows and renamed files are dealt alike. A
group of one class is the easy case. Groups that span classes (one patient, several diagnoses) make this a
covering problem, solved greedily: first one group per class and set, rarest class first; then the quotas are
filled. A deal that gets stuck is tried again in another order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

#: Orders that are tried before a deal counts as impossible.
ATTEMPTS = 200


@dataclass(frozen=True)
class Deck:
    """The groups that may be dealt, as sparse counts of originals per class.

    Attributes:
        group: (G) group numbers, ascending.
        key: (G) what the order depends on: the smallest of what its originals have.
        start: (G + 1) where the classes of each group begin in `label` and `count`.
        label: (P) class of each pair of group and class.
        count: (P) originals of that class in that group.
        class_count: C.
    """

    group: NDArray[np.int64]
    key: tuple[str, ...]
    start: NDArray[np.int64]
    label: NDArray[np.int64]
    count: NDArray[np.int64]
    class_count: int

    @classmethod
    def of(
        cls,
        groups: NDArray[np.int64],
        labels: NDArray[np.int64],
        keys: NDArray[np.object_],
        class_count: int,
    ) -> Deck:
        """Count the originals, given as (n) groups, labels and keys of their content (`Facts.content_keys`)."""
        pairs, count = np.unique(np.stack([groups, labels]), axis=1, return_counts=True)
        group, start = np.unique(pairs[0], return_index=True)
        smallest: dict[int, str] = {}
        for number, key in zip(groups.tolist(), keys.tolist(), strict=True):
            smallest[number] = min(key, smallest.get(number, key))
        return cls(
            group=group,
            key=tuple(smallest[number] for number in group.tolist()),
            start=np.append(start, pairs.shape[1]),
            label=pairs[1],
            count=count,
            class_count=class_count,
        )

    def order(self, seed: int, attempt: int) -> NDArray[np.int64]:
        """(G) positions of the groups in the order of this seed."""
        salt = f"{seed}/{attempt}/".encode()
        hashes = [hashlib.blake2b(salt + key.encode(), digest_size=8).digest() for key in self.key]
        return np.argsort(np.frombuffer(b"".join(hashes), dtype=">u8"), kind="stable")


def deal(deck: Deck, shares: Mapping[str, float], seed: int) -> dict[int, str] | None:
    """Set of each group that leaves train, by group number; None where no deal was found.

    Args:
        shares: set -> share of each class's originals, in the order of dealing.
    """
    for attempt in range(ATTEMPTS):
        hand = _Hand.opened(deck, shares, deck.order(seed, attempt))
        if hand.cover():
            hand.fill()
            sets = list(shares)
            return {int(deck.group[g]): sets[s] for g, s in hand.dealt.items() if s < len(sets)}
        if len(deck.label) == len(deck.group):
            return None  # no group spans classes: another order changes nothing
    return None


def quota(originals: int, share: float) -> int:
    """Originals of a class that a set gets: the rounded share, at least 1, at least 2 from 7 originals on."""
    return max(int(share * originals + 0.5), 2 if originals >= 7 else 1)


@dataclass
class _Hand:
    """A deal in progress. Sets are numbered: those of `shares` in order, then train."""

    classes: list[list[tuple[int, int]]]  # group -> (class, originals)
    of_class: list[list[int]]  # class -> groups in the order of the seed
    quotas: list[list[int]]  # set -> class -> originals, train left out
    rarest_first: list[int]
    held: list[list[int]]  # set -> class -> originals dealt
    dealt: dict[int, int] = field(default_factory=dict)  # group -> set

    @classmethod
    def opened(cls, deck: Deck, shares: Mapping[str, float], order: NDArray[np.int64]) -> _Hand:
        start, label, count = deck.start.tolist(), deck.label.tolist(), deck.count.tolist()
        pairs = list(zip(label, count, strict=True))
        classes = [pairs[start[g] : start[g + 1]] for g in range(len(deck.group))]
        of_class: list[list[int]] = [[] for _ in range(deck.class_count)]
        for g in order.tolist():
            for c, _ in classes[g]:
                of_class[c].append(g)
        total = np.bincount(deck.label, weights=deck.count, minlength=deck.class_count).astype(int).tolist()
        return cls(
            classes=classes,
            of_class=of_class,
            quotas=[[quota(n, share) for n in total] for share in shares.values()],
            rarest_first=sorted((c for c in range(deck.class_count) if of_class[c]), key=lambda c: len(of_class[c])),
            held=[[0] * deck.class_count for _ in range(len(shares) + 1)],
        )

    def cover(self) -> bool:
        """Give every class one group in every set; False where that got stuck."""
        for c in self.rarest_first:
            for s in range(len(self.held)):
                if self.held[s][c]:
                    continue
                chosen = self._cover_with(c, s)
                if chosen is None:
                    return False
                self._give(chosen, s)
        return True

    def fill(self) -> None:
        """Bring every class nearer to its quota, as long as that takes no other class further away."""
        for s, quotas in enumerate(self.quotas):
            for c in self.rarest_first:
                for g in self._undealt(c):
                    if self.held[s][c] >= quotas[c]:
                        break
                    if self._gain(g, s) > 0:
                        self._give(g, s)

    def _cover_with(self, c: int, s: int) -> int | None:
        if s == len(self.quotas):
            return max(self._undealt(c), key=self._size, default=None)
        too_large: list[int] = []
        for g in self._undealt(c):
            if all(n <= self.quotas[s][d] - self.held[s][d] for d, n in self.classes[g]):
                return g
            too_large.append(g)
        return min(too_large, key=self._size, default=None)

    def _size(self, g: int) -> int:
        return sum(n for _, n in self.classes[g])

    def _undealt(self, c: int) -> Iterator[int]:
        return (g for g in self.of_class[c] if g not in self.dealt)

    def _gain(self, g: int, s: int) -> int:
        quotas, held = self.quotas[s], self.held[s]
        return sum(abs(held[d] - quotas[d]) - abs(held[d] + n - quotas[d]) for d, n in self.classes[g])

    def _give(self, g: int, s: int) -> None:
        self.dealt[g] = s
        for d, n in self.classes[g]:
            self.held[s][d] += n
