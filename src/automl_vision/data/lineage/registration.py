"""Are two pictures the same one? Laid over each other, do they agree?

Descriptors of whole images say which pictures resemble each other; they cannot say which are copies. Registration
can: a map is sought that lays the one picture over the other, and the two must agree where they overlap. There are two
ways to a map. Key points: many distinct matches fit it. Where there are few, as in plain, tiny and blurred pictures,
the one is laid over the other in every way (`overlay`), and they must agree nearly everywhere. Merely similar
pictures give few matches that fit, or a map under which they differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from automl_vision.data.lineage.agreement import Agreement, agreement
from automl_vision.data.lineage.keypoints import FEWEST, Fit, Map, Points, fits, plausible
from automl_vision.data.lineage.overlay import Place, places, refine
from automl_vision.data.lineage.picture import Ground, Guise, Picture


@dataclass(frozen=True)
class _Rule:
    """When two pictures count as the same one, and when they may be.

    Attributes:
        same: matches times correlation from which they are the same.
        perhaps: the same from which they may be.
        correlation: that pictures with matches must have.
        laid: of pictures laid over each other, by matches or without: the least correlation, share of agreeing
            places, and number of them, any one of these.
        perhaps_laid: the least correlation and share from which they may be.
    """

    same: float
    perhaps: float
    correlation: float
    laid: tuple[tuple[float, float, float], ...]
    perhaps_laid: tuple[float, float] = (0.7, 0.3)


#: Two road signs in one frame reach .83, .76 and 49, or .89, .60 and 24; two round blobs .91, .82 and 11.
_GREY = _Rule(8.0, 3.0, 0.25, ((0.8, 0.82, 15.0), (0.95, 0.92, 8.0), (0.7, 0.9, 20.0)))
#: Key points of 28 pixels are few and alike, and tiny pictures agree in most places anyway.
_TINY = _Rule(14.0, 3.0, 0.85, ((0.97, 0.95, 15.0),))
#: Drawings in one style have edges in common, and large parts.
_EDGES = _Rule(16.0, 8.0, 0.25, ((0.9, 0.9, 15.0),), (0.8, 0.7))
_RULES: dict[Guise, _Rule] = {"grey": _GREY, "edges": _EDGES, "spread": _EDGES}

#: What was registered, in words.
_SAID: dict[Guise, str] = {
    "grey": "registered",
    "edges": "edges registered",
    "spread": "grey levels spread evenly registered",
}

#: Score from which what may be the same picture is, where it is expected (docs/LOG.md).
_EXPECTED = 4.2
#: Without matches: the share of one of the two that the other must cover; pixels within which it lies as a flip or a
#: quarter turn would lay it; grey levels within which it has its colours. And the correlation from which it is asked.
_OVERLAP, _MOVED, _RECOLOURED, _WORTH_ASKING = 0.45, 12.0, 6.0, 0.6
#: Correlation from which it is worth trying whether the one picture is the other seen in perspective.
_WORTH_TILTING = 0.5


@dataclass(frozen=True)
class Registration:
    """How well one picture can be laid over another.

    Attributes:
        inliers: distinct matches of key points that fit the map; 0 where it was found without them.
        agreement: of the two under the map.
        variant: "plain", "mirrored", "inverted" or "mirrored, inverted".
        tiny: whether one of them is tiny.
        map: (3, 3) from pixels of the second to pixels of the first, both at longer side `SIDE`; None where there is
            none.
        guise: what of the pictures was compared.
        moved: pixels by which a corner lies off the corner that a flip or a quarter turn would lay it on; infinite
            where the two do not agree.
        recoloured: grey levels by which most of it differs in colour; infinite where the two do not agree.
        expected: whether one of them is alone, and the group of the other has lost a copy: then it is enough that they
            are nearly the same.
    """

    inliers: int = 0
    agreement: Agreement = Agreement()
    variant: str = "plain"
    tiny: bool = False
    map: Map | None = None
    guise: Guise = "grey"
    moved: float = math.inf
    recoloured: float = math.inf
    expected: bool = False

    @property
    def score(self) -> float:
        """Distinct matches, or places that agree, times correlation; 0 where they do not correlate."""
        if self.inliers:
            return self.inliers * self.correlation if self.correlation >= self._rule.correlation else 0.0
        return self.agreement.alike * self.agreement.share * self.correlation

    @property
    def correlation(self) -> float:
        """Of the local contrasts, -1..1."""
        return self.agreement.correlation

    @property
    def same(self) -> bool:
        """Whether this is one picture."""
        if (self.inliers and self.score > self._rule.same) or (self.expected and self.nearly):
            return True
        found = (self.correlation, self.agreement.share, self.agreement.alike)
        return self._is_told_apart and any(np.greater_equal(found, least).all() for least in self._rule.laid)

    @property
    def perhaps(self) -> bool:
        """Whether it may be one picture. Of tiny ones nobody can tell, so that they are not asked."""
        if self.tiny:
            return False
        found = (self.correlation, self.agreement.share)
        laid = bool(np.greater_equal(found, self._rule.perhaps_laid).all())
        return (laid and self._is_told_apart) or (self.inliers > 0 and self.score >= self._rule.perhaps)

    @property
    def nearly(self) -> bool:
        """Whether it may be one picture, and is where that is expected."""
        return self.perhaps and self.score >= _EXPECTED

    @property
    def detail(self) -> str:
        """One line for people."""
        by = f"{self.inliers} points" if self.inliers else f"{self.agreement.alike:.0f} places"
        why = ", and its group has lost a copy" if self.expected else ""
        return f"{_SAID[self.guise]} {self.variant}: {by}, correlation {self.correlation:.2f}{why}"

    def turned_round(self) -> Registration:
        """The same, from the first picture to the second."""
        covers = self.agreement.covers[::-1]
        onto = None if self.map is None else np.asarray(np.linalg.inv(self.map), dtype=np.float64)
        return replace(self, agreement=replace(self.agreement, covers=covers), map=onto)

    @property
    def _is_told_apart(self) -> bool:
        """Whether the map says more than that two plain shapes can be laid over each other: any two squares can.

        Of two squares in two places and in two colours nobody can tell; a copy may have changed its colours, or its
        place.
        """
        overlap = max(self.agreement.covers) >= _OVERLAP
        return overlap and (self.moved <= _MOVED or self.recoloured <= _RECOLOURED)

    @property
    def _rule(self) -> _Rule:
        return _TINY if self.tiny else _RULES[self.guise]


def register(first: Picture, second: Picture) -> Registration:
    """Lay the second picture over the first by key points, mirrored and inverted where that fits better."""
    found = _by_points(first, second, first.points, second.points)
    if not found.same and (first.smoothed is not None or second.smoothed is not None):
        again = _by_points(first, second, first.smoothed or first.points, second.smoothed or second.points)
        found = max(found, again, key=_promise)
    if not found.same and (first.bare is not None or second.bare is not None):
        found = max(found, register(first.bare or first, second.bare or second), key=_promise)
    return found


def lay_over(ground: Ground, second: Picture, found: Registration) -> Registration:
    """Lay the second picture over the first without key points.

    Args:
        ground: the first picture.
        second: another.
        found: what `register` says of the two; where it found a map, that is refined as well.

    Returns:
        what speaks most for one picture, `found` included.
    """
    best = _laid_over(ground, second, found)
    if not best.same and (ground.picture.bare is not None or second.bare is not None):
        best = max(best, _laid_over(ground.bare, second.bare or second, found), key=_promise)
    return best


def look_again(ground: Ground, second: Picture, found: Registration) -> Registration:
    """Lay the pictures over each other also the other way round, and in other guises.

    What is laid over what makes a difference where the two have little in common. Edges tell where a picture was
    turned upside down above a threshold; grey levels spread evenly, where a dim one was brightened.

    Args:
        ground: the first picture.
        second: another.
        found: what `lay_over` says of the two.

    Returns:
        what speaks most for one picture, `found` included.
    """
    if found.same or found.tiny:
        return found
    other = Ground(second)
    tries: tuple[Callable[[], Registration], ...] = (
        lambda: lay_over(other, ground.picture, found.turned_round()).turned_round(),
        lambda: _by_points_in("spread", ground.picture, second),
        lambda: _over_edges(ground, second),
        lambda: _over_edges(other, ground.picture).turned_round(),
    )
    for each in tries:
        found = max(found, each(), key=_promise)
        if found.same:
            break
    return found


def _by_points_in(guise: Guise, first: Picture, second: Picture) -> Registration:
    first, second = first.in_guise(guise), second.in_guise(guise)
    return replace(_by_points(first, second, first.points, second.points), guise=guise)


def _over_edges(ground: Ground, second: Picture) -> Registration:
    found = _by_points_in("edges", ground.picture, second)
    if found.same:
        return found
    return replace(_laid_over(ground.in_guise("edges"), second.in_guise("edges"), found), guise="edges")


def _promise(found: Registration) -> tuple[bool, bool, float]:
    return found.same, found.perhaps, found.agreement.correlation * found.agreement.share


def _laid_over(ground: Ground, second: Picture, found: Registration) -> Registration:
    first = ground.picture
    tried = places(ground.bank, second.contrast)
    if found.map is not None and found.inliers >= FEWEST:
        start = Place(_between(first, second, found.map), "inverted" in found.variant)
        again = refine(first.contrast, second.contrast, start, perspective=False)
        tried += [] if again is None else [again]
    laid = [_laid(first, second, each) for each in tried if plausible(each.map, *second.calm.shape)]
    best = max((found, *laid), key=_promise)
    if best.same or best.correlation < _WORTH_TILTING or best.map is None:
        return best
    start = Place(_between(first, second, best.map), "inverted" in best.variant)
    tilted = refine(first.contrast, second.contrast, start, perspective=True)
    if tilted is None or not plausible(tilted.map, *second.calm.shape):
        return best
    return max(best, _laid(first, second, tilted), key=_promise)


def _laid(first: Picture, second: Picture, place: Place) -> Registration:
    names = ("mirrored" * bool(np.linalg.det(place.map[:2, :2]) < 0), "inverted" * place.inverted)
    variant = ", ".join(filter(None, names)) or "plain"
    return _agreed(first, second, Fit(0, place.map, variant))


def _by_points(first: Picture, second: Picture, ours: Points, theirs: Points) -> Registration:
    found = [_registered(first, second, each) for each in fits(ours, theirs)]
    return max(found, key=lambda each: each.score, default=Registration(tiny=first.tiny or second.tiny))


def _registered(first: Picture, second: Picture, fit: Fit) -> Registration:
    if fit.inliers < FEWEST or not plausible(fit.map, *second.calm.shape):
        return Registration(variant=fit.variant, tiny=first.tiny or second.tiny)
    return _agreed(first, second, fit)


def _agreed(first: Picture, second: Picture, fit: Fit) -> Registration:
    hidden = first.hidden, second.hidden
    agreed = agreement(first.calm, second.calm, fit.map, inverted=fit.inverted, hidden=hidden)
    whole = first.whole @ fit.map @ np.linalg.inv(second.whole)
    whole /= whole[2, 2]
    found = Registration(fit.inliers, agreed, fit.variant, first.tiny or second.tiny, whole)
    if agreed.correlation < _WORTH_ASKING:
        return found
    moved, recoloured = _moved(first, second, whole), _recoloured(first, second, fit.map)
    return replace(found, moved=moved, recoloured=recoloured)


def _moved(first: Picture, second: Picture, whole: Map) -> float:
    ours, theirs = (np.array([(0, 0), (w, 0), (w, h), (0, h)]) - 0.5 for h, w in (first.frame, second.frame))
    at = np.column_stack([theirs, np.ones(4)]) @ whole.T
    laid = at[:, :2] / at[:, 2:]
    flips = [np.roll(corners, turn, axis=0) for corners in (ours, ours[::-1]) for turn in range(4)]
    return float(min(np.abs(laid - each).max() for each in flips))


def _recoloured(first: Picture, second: Picture, onto: Map) -> float:
    """Median over what both show of the largest difference of a channel."""
    ours, theirs = (_scaling(each.calm.shape, each.colours.shape) for each in (first, second))
    small = ours @ onto @ np.linalg.inv(theirs)
    height, width = first.colours.shape[:2]
    laid = cv2.warpPerspective(second.colours, small, (width, height))
    reached = cv2.warpPerspective(np.full(second.colours.shape[:2], 255, np.uint8), small, (width, height))
    apart = np.abs(first.colours.astype(np.int16) - laid).max(axis=2)[reached > 250]
    return float(np.median(apart)) if len(apart) else math.inf


def _scaling(large: tuple[int, ...], small: tuple[int, ...]) -> Map:
    """Pixels of the one to pixels of the other: centres of pixels lie at whole numbers."""
    across, down = small[1] / large[1], small[0] / large[0]
    return np.array([[across, 0.0, 0.5 * across - 0.5], [0.0, down, 0.5 * down - 0.5], [0.0, 0.0, 1.0]])


def _between(first: Picture, second: Picture, whole: Map) -> Map:
    """A map between the whole images as one between what was cut out of them."""
    between = np.linalg.inv(first.whole) @ whole @ second.whole
    return np.asarray(between / between[2, 2], dtype=np.float64)
