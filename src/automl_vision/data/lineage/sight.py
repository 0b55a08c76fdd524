"""How the comparison reaches pictures, and what it saw of them and of pairs of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.decode import FileSignature
from automl_vision.data.lineage.comparison_cache import Appearance, Asked, ComparisonCache
from automl_vision.data.lineage.picture import Ground, Picture, describe_picture
from automl_vision.data.lineage.registration import Registration, lay_over, look_again, register
from automl_vision.data.lineage.traces import traces

#: (n) rows, and the monotonic seconds until which there is time -> (n, D) features; None where time was up.
Describe = Callable[[NDArray[np.int64], float], NDArray[np.float32] | None]


class NamedDescribe(Protocol):
    """`Describe`, and what does it."""

    @property
    def name(self) -> str:
        """Equal where equal images get equal features."""
        ...

    def __call__(self, rows: NDArray[np.int64], stop: float, /) -> NDArray[np.float32] | None:
        """As `Describe`."""
        ...


#: Two rows, the first smaller.
Pair = tuple[int, int]
#: And how the second picture is laid over the first.
Found = tuple[Pair, Registration]

#: Pictures whose grey levels and key points are kept at once, about 120 kB each.
_KEPT = 8_000


@dataclass(frozen=True)
class Sight:
    """How the pixels are reached.

    Attributes:
        pixels: row -> (H, W, 3) RGB as decoded.
        describe: features of usable rows; None where there are no weights, and thumbnails stand in.
        threads: that compare at once.
        seconds: after which nothing new begins; infinite where nothing presses.
        signature: row -> signature of its file; None: originals are not sought in groups.
        cache: what earlier runs saw.
    """

    pixels: Callable[[int], NDArray[np.uint8]]
    describe: Describe | None
    threads: int
    seconds: float
    signature: Callable[[int], FileSignature] | None = None
    cache: ComparisonCache = field(default_factory=ComparisonCache)


class Pictures:
    """Pictures and pairs of them: looked up, and looked at where no run did before.

    Attributes:
        sight: how the pixels are reached.
        digests: (N) that the content is known by, see `Facts.content_keys`.
        appearances: what each picture that was asked for looks like by itself.
        picture: row -> what registration needs of it.
    """

    def __init__(self, sight: Sight, digests: NDArray[np.object_]) -> None:
        self.sight = sight
        self.digests = digests
        self.appearances: dict[int, Appearance] = {}
        self.picture: Callable[[int], Picture] = lru_cache(maxsize=_KEPT)(self._opened)

    def appearance(self, row: int) -> Appearance:
        """What one picture looks like by itself."""
        if not self._is_known(row):
            self.picture(row)
        return self.appearances[row]

    def is_plain(self, row: int) -> bool:
        """Whether a picture has too few key points."""
        return self.appearance(row).plain

    def registered(self, pair: Pair) -> Registration:
        """One pair laid over each other by key points."""
        digests, cache = self._digests(pair), self.sight.cache
        found = cache.registration("points", digests)
        if found is None:
            found = register(self.picture(pair[0]), self.picture(pair[1]))
            cache.keep_registration("points", digests, found)
        for row in pair:
            self.appearance(row)
        return found

    def laid(self, asked: Asked, pairs: list[Found]) -> list[Found]:
        """The same without key points: pairs of one first picture, which is turned in every way once for all."""
        cache, lay = self.sight.cache, look_again if asked == "again" else lay_over
        known = {pair: cache.registration(asked, self._digests(pair)) for pair, _ in pairs}
        unknown = [(pair, found) for pair, found in pairs if known[pair] is None]
        if unknown:
            ground = Ground(self.picture(pairs[0][0][0]))
        for pair, found in unknown:
            laid = lay(ground, self.picture(pair[1]), found)
            cache.keep_registration(asked, self._digests(pair), laid)
            known[pair] = laid
        return [(pair, laid) for pair, laid in known.items() if laid is not None]

    def _digests(self, pair: Pair) -> tuple[str, str]:
        return self.digests[pair[0]], self.digests[pair[1]]

    def _opened(self, row: int) -> Picture:
        pixels = self.sight.pixels(row)
        picture = describe_picture(pixels)
        if not self._is_known(row):
            seen = Appearance(picture.plain, picture.tiny, traces(pixels))
            self.sight.cache.keep_appearance(self.digests[row], seen)
            self.appearances[row] = seen
        return picture

    def _is_known(self, row: int) -> bool:
        """Whether it need not be opened to tell what it looks like."""
        if row not in self.appearances:
            found = self.sight.cache.appearance(self.digests[row])
            if found is None:
                return False
            self.appearances[row] = found
        return True
