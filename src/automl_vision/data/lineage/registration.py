"""Are two pictures the same one? Laid over each other, do they agree?

Descriptors of whole images say which pictures resemble each other; they cannot say which are copies. Registration
can: a map is sought that lays the one picture over the other, and the two must agree where they overlap. There are two
ways to a map. Key points: many distinct matches fit it. Where there are few, as in plain, tiny and blurred pictures,
the one is laid over the other in every way (`overlay`), and they must agree nearly everywhere. Merely similar
pictures give few matches that fit, or a map under which they differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from automl_vision.data.lineage.agreement import Agreement, agreement
from automl_vision.data.lineage.keypoints import FEWEST, Fit, Map, Points, find_points, fits, plausible
from automl_vision.data.lineage.overlay import Bank, Contrast, Place, places, refine

Grey = NDArray[np.uint8]

#: Matches times correlation from which two pictures count as the same one.
SAME = 8.0
#: The same where a picture is tiny: key points of 28 pixels are few and alike.
SAME_TINY = 14.0
#: Score from which two pictures may be the same one: neither may then be a test image.
PERHAPS = 3.0
#: Sides up to which a picture is tiny, in pixels of the file.
TINY = 64
#: Key points below which a picture is plain: line art, a ball on white.
PLAIN = 40
#: Longer side in pixels at which pictures are compared; smaller pictures are enlarged to it.
SIDE = 256

#: Least correlation of two pictures whose key points match; tiny ones agree in most places anyway.
_CORRELATION, _CORRELATION_TINY = 0.25, 0.85
#: Of pictures without matches: the least correlation, share of agreeing places, and number of them. Two road signs in
#: one frame reach .89, .60 and 24; two round blobs .91, .82 and 11.
_LAID: tuple[tuple[float, float, float], ...] = ((0.8, 0.75, 15.0), (0.95, 0.92, 8.0))
_LAID_TINY: tuple[tuple[float, float, float], ...] = ((0.97, 0.95, 15.0),)
#: Correlation from which it is worth trying whether the one picture is the other seen in perspective.
_WORTH_TILTING = 0.5
#: Correlation and share of agreeing places from which they may be the same picture.
_PERHAPS_CORRELATION, _PERHAPS_SHARE = 0.7, 0.3
#: Median of the absolute Laplacian above which a picture is noisy, at `SIDE`.
_NOISY = 9.0
#: Where a picture shows something small on an even ground: the size at which that is seen, the grey levels above the
#: ground, how much of the rim may not be ground, pixels kept around it, and when the part is worth cutting out.
_GLANCE, _ABOVE_GROUND, _BUSY_RIM, _MARGIN = 64, 20.0, 0.15, 1
_SMALL_PART, _SMALLEST_PART = 0.8, 24
#: Pixels of the median that takes the salt and pepper out of every picture before it is laid over another.
_MEDIAN = 3


@dataclass(frozen=True)
class Picture:
    """What registration keeps of one image.

    Attributes:
        calm: (H, W) grey levels, contrast-stretched, without noise; longer side `SIDE`.
        points: its key points.
        smoothed: key points after smoothing, where it is noisy; else None.
        tiny: whether a side of the file is at most `TINY`.
    """

    calm: Grey
    points: Points
    smoothed: Points | None
    tiny: bool

    @property
    def plain(self) -> bool:
        """Whether it has too few key points for its copies to be found by them."""
        return len(self.points) < PLAIN

    @cached_property
    def contrast(self) -> Contrast:
        """What `overlay` works on."""
        return Contrast.of(self.calm)


@dataclass(frozen=True)
class Registration:
    """How well one picture can be laid over another.

    Attributes:
        inliers: distinct matches of key points that fit the map; 0 where it was found without them.
        agreement: of the two under the map.
        variant: "plain", "mirrored", "inverted" or "mirrored, inverted".
        tiny: whether one of them is tiny.
        map: (3, 3) from pixels of the second's `Picture.calm` to pixels of the first's; None where none was found.
    """

    inliers: int = 0
    agreement: Agreement = Agreement()
    variant: str = "plain"
    tiny: bool = False
    map: Map | None = None

    @property
    def score(self) -> float:
        """Distinct matches, or places that agree, times correlation; 0 where they do not correlate."""
        if self.inliers:
            return self.inliers * self.correlation if self.correlation >= self._least else 0.0
        return self.agreement.alike * self.agreement.share * self.correlation

    @property
    def correlation(self) -> float:
        """Of the local contrasts, -1..1."""
        return self.agreement.correlation

    @property
    def same(self) -> bool:
        """Whether this is one picture."""
        if self.inliers and self.score > (SAME_TINY if self.tiny else SAME):
            return True
        found = (self.correlation, self.agreement.share, self.agreement.alike)
        return any(np.greater_equal(found, least).all() for least in (_LAID_TINY if self.tiny else _LAID))

    @property
    def perhaps(self) -> bool:
        """Whether it may be one picture. Of tiny ones nobody can tell, so that they are not asked."""
        if self.tiny:
            return False
        laid = self.correlation >= _PERHAPS_CORRELATION and self.agreement.share >= _PERHAPS_SHARE
        return laid or (self.inliers > 0 and self.score >= PERHAPS)

    @property
    def detail(self) -> str:
        """One line for people."""
        by = f"{self.inliers} points" if self.inliers else f"{self.agreement.alike:.0f} places"
        return f"registered {self.variant}: {by}, correlation {self.correlation:.2f}"

    @property
    def _least(self) -> float:
        return _CORRELATION_TINY if self.tiny else _CORRELATION


def describe_picture(pixels: NDArray[np.uint8]) -> Picture:
    """Key points and grey levels of an image.

    Args:
        pixels: (H, W, 3) RGB, upright.
    """
    height, width = pixels.shape[:2]
    grey = _stretched(_resized(_trimmed(_as_grey(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)))))
    noisy = float(np.median(np.abs(cv2.Laplacian(grey, cv2.CV_32F)))) > _NOISY
    calm = _as_grey(cv2.GaussianBlur(cv2.medianBlur(grey, 5), (0, 0), 1.2) if noisy else cv2.medianBlur(grey, _MEDIAN))
    return Picture(calm, find_points(grey), find_points(calm) if noisy else None, min(height, width) <= TINY)


def register(first: Picture, second: Picture) -> Registration:
    """Lay the second picture over the first by key points, mirrored and inverted where that fits better."""
    found = _by_points(first, second, first.points, second.points)
    if found.same or (first.smoothed is None and second.smoothed is None):
        return found
    again = _by_points(first, second, first.smoothed or first.points, second.smoothed or second.points)
    return max(found, again, key=_promise)


def lay_over(first: Picture, bank: Bank, second: Picture, found: Registration) -> Registration:
    """Lay the second picture over the first without key points.

    Args:
        first: a picture.
        bank: of its contrast.
        second: another.
        found: what `register` says of the two; where it found a map, that is refined as well.

    Returns:
        what speaks most for one picture, `found` included.
    """
    tried = places(bank, second.contrast)
    if found.map is not None and found.inliers >= FEWEST:
        start = Place(found.map, "inverted" in found.variant)
        again = refine(first.contrast, second.contrast, start, perspective=False)
        tried += [] if again is None else [again]
    laid = [_laid(first, second, each) for each in tried if plausible(each.map, *second.calm.shape)]
    best = max((found, *laid), key=_promise)
    if best.same or best.correlation < _WORTH_TILTING or best.map is None:
        return best
    tilted = refine(first.contrast, second.contrast, Place(best.map, "inverted" in best.variant), perspective=True)
    if tilted is None or not plausible(tilted.map, *second.calm.shape):
        return best
    return max(best, _laid(first, second, tilted), key=_promise)


def _promise(found: Registration) -> tuple[bool, bool, float]:
    return found.same, found.perhaps, found.agreement.correlation * found.agreement.share


def _laid(first: Picture, second: Picture, place: Place) -> Registration:
    names = ("mirrored" * bool(np.linalg.det(place.map[:2, :2]) < 0), "inverted" * place.inverted)
    variant = ", ".join(filter(None, names)) or "plain"
    agreed = agreement(first.calm, second.calm, place.map, inverted=place.inverted)
    return Registration(0, agreed, variant, first.tiny or second.tiny, place.map)


def _by_points(first: Picture, second: Picture, ours: Points, theirs: Points) -> Registration:
    tiny = first.tiny or second.tiny
    found = [_registered(first, second, each, tiny) for each in fits(ours, theirs)]
    return max(found, key=lambda each: each.score, default=Registration(tiny=tiny))


def _registered(first: Picture, second: Picture, fit: Fit, tiny: bool) -> Registration:
    if fit.inliers < FEWEST or not plausible(fit.map, *second.calm.shape):
        return Registration(variant=fit.variant, tiny=tiny)
    agreed = agreement(first.calm, second.calm, fit.map, inverted=fit.inverted)
    return Registration(fit.inliers, agreed, fit.variant, tiny, fit.map)


def _trimmed(grey: Grey) -> Grey:
    """Without the empty ground around what is shown, where that is small: a stamp on a sheet, a galaxy in the dark."""
    scale = _GLANCE / max(grey.shape)
    if scale * min(grey.shape) < 1:  # a strip
        return grey
    small = cv2.medianBlur(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), 3)
    rim = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    ground = float(np.median(rim))
    shown = np.abs(small.astype(np.float32) - ground) > _ABOVE_GROUND
    if not shown.any() or (np.abs(rim - ground) > _ABOVE_GROUND).mean() > _BUSY_RIM:
        return grey
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    top, left = (max(0, int((at[0] - _MARGIN) / scale)) for at in (rows, columns))
    bottom, right = (math.ceil((at[-1] + 1 + _MARGIN) / scale) for at in (rows, columns))  # as a mirror would cut
    part = grey[top:bottom, left:right]
    return part if part.size < _SMALL_PART * grey.size and min(part.shape) >= _SMALLEST_PART else grey


def _resized(grey: Grey) -> Grey:
    scale = SIDE / max(grey.shape)
    size = (max(8, round(grey.shape[1] * scale)), max(8, round(grey.shape[0] * scale)))
    return _as_grey(cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))


def _stretched(grey: Grey) -> Grey:
    low, high = np.percentile(grey, (1, 99))
    return _as_grey(np.clip((grey - low) * (255.0 / max(high - low, 1.0)), 0, 255))


def _as_grey(values: NDArray[np.generic]) -> Grey:
    return np.asarray(values).astype(np.uint8)
