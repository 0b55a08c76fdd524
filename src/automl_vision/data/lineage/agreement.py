"""Do two pictures that are laid over each other show the same?"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]
Map = NDArray[np.float64]

#: Side in pixels at which overlaid pictures are compared.
SIDE = 96
#: The neighbourhood whose mean and spread are normalised away before the whole is correlated.
_SIGMA = 5.0
#: Grey levels below which local contrast is taken for noise.
_FLAT = 2.0
#: Least share of the frame that must overlap.
_OVERLAP = 0.04
#: Least share of the overlap in which the pictures agree by themselves: a watermark that two strangers share gives
#: many matches, and a map under which all the rest differs. What counts as agreeing, and as having something to see.
_SHARE, _AGREES, _VISIBLE = 0.5, 0.3, 0.1
#: Places are neighbourhoods of this many pixels; they hold something to see from this many grey levels, and agree from
#: this correlation.
_PLACE_SIGMA, _SEEN, _ALIKE = 4.0, 6.0, 0.8
_PLACE_AREA = (2.5 * _PLACE_SIGMA) ** 2


@dataclass(frozen=True)
class Agreement:
    """How well two overlaid pictures agree.

    Attributes:
        correlation: of their local contrasts, -1..1; 0 where most of what is to be seen does not agree.
        alike: independent places where both show something and it is the same.
        places: independent places where at least one shows something.
        covers: (2) share of the first picture that the second covers, and the other way round.
    """

    correlation: float = 0.0
    alike: float = 0.0
    places: float = 0.0
    covers: tuple[float, float] = (0.0, 0.0)

    @property
    def share(self) -> float:
        """Of the places, how many agree."""
        return self.alike / self.places if self.places else 0.0


#: Of each of the two pictures, what is not its own; None where nothing is.
Hidden = tuple[NDArray[np.bool_] | None, NDArray[np.bool_] | None]


def agreement(first: Grey, second: Grey, onto: Map, *, inverted: bool, hidden: Hidden = (None, None)) -> Agreement:
    """Compare in the frame of the picture that shows less.

    Args:
        first, second: (H, W) grey levels.
        onto: from pixels of the second to pixels of the first.
        inverted: whether bright is to agree with dark.
        hidden: (H, W) of each: what is left out.
    """
    if abs(float(np.linalg.det(onto[:2, :2]))) < 1.0:  # the second shrinks in the first's frame: it shows less
        turned = _in_the_frame_of(
            second, first, np.asarray(np.linalg.inv(onto), dtype=np.float64), inverted, hidden[::-1]
        )
        return Agreement(turned.correlation, turned.alike, turned.places, turned.covers[::-1])
    return _in_the_frame_of(first, second, onto, inverted, hidden)


def _in_the_frame_of(first: Grey, second: Grey, onto: Map, inverted: bool, hidden: Hidden) -> Agreement:
    height, width = first.shape
    scale = SIDE / max(height, width)
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    laid = cv2.warpPerspective(second, onto, (width, height))
    covered = cv2.warpPerspective(_own(hidden[1], second.shape), onto, (width, height))
    if hidden[0] is not None:
        covered[hidden[0]] = 0
    inside = _inner(cv2.resize(covered, size, interpolation=cv2.INTER_AREA) > 250)
    covers = (float(inside.mean()), _seen_of(second, first, onto))
    if covers[0] < _OVERLAP:
        return Agreement(covers=covers)
    ours = cv2.resize(first, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    theirs = cv2.resize(laid, size, interpolation=cv2.INTER_AREA).astype(np.float32) * (-1.0 if inverted else 1.0)
    alike, places = _places(ours, theirs, inside)
    return Agreement(_correlation(ours, theirs, inside), alike, places, covers)


def _own(hidden: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> Grey:
    """255 where a picture shows something of its own."""
    own = np.full(shape, 255, dtype=np.uint8)
    if hidden is not None:
        own[hidden] = 0
    return own


def _seen_of(second: Grey, first: Grey, onto: Map) -> float:
    """Share of the second picture that lies inside of the first."""
    rows, columns = np.mgrid[0 : second.shape[0] : 8, 0 : second.shape[1] : 8]
    at = onto @ np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size)])
    x, y = at[0] / at[2], at[1] / at[2]
    return float(((x >= 0) & (x < first.shape[1]) & (y >= 0) & (y < first.shape[0])).mean())


def _places(ours: Floats, theirs: Floats, inside: NDArray[np.bool_]) -> tuple[float, float]:
    near = _Neighbourhood.of(inside, _PLACE_SIGMA)
    one, other = (values - near.mean(values) for values in (ours, theirs))
    both, first, second = (near.mean(each) for each in (one * other, one**2, other**2))
    local = both / np.sqrt((first + _FLAT**2) * (second + _FLAT**2))
    seen = (first > _SEEN**2) & inside, (second > _SEEN**2) & inside
    alike = seen[0] & seen[1] & (local > _ALIKE)
    return float(alike.sum()) / _PLACE_AREA, float((seen[0] | seen[1]).sum()) / _PLACE_AREA


def _correlation(ours: Floats, theirs: Floats, inside: NDArray[np.bool_]) -> float:
    ours, theirs = (_local_contrast(values) * inside for values in (ours, theirs))
    length = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    whole = float((ours * theirs).sum()) / length if length else 0.0
    return whole if _agreeing_share(ours, theirs) >= _SHARE else 0.0


def _agreeing_share(ours: Floats, theirs: Floats) -> float:
    """Share of the places with something to see where the neighbourhoods agree, too."""
    both, one, other = (cv2.GaussianBlur(each, (0, 0), _SIGMA) for each in (ours * theirs, ours**2, theirs**2))
    visible = np.maximum(one, other) > _VISIBLE
    agrees = both > _AGREES * np.sqrt(np.maximum(one * other, 1e-12))
    return float(agrees[visible].mean()) if visible.any() else 0.0


def _inner(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without the rim, which borders on nothing."""
    kernel = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.erode(inside.astype(np.uint8), kernel, borderValue=0) > 0)


def _local_contrast(values: Floats) -> Floats:
    centred = values - cv2.GaussianBlur(values, (0, 0), _SIGMA)
    spread = np.sqrt(cv2.GaussianBlur(centred * centred, (0, 0), _SIGMA) + _FLAT**2)
    return np.asarray(centred / spread, dtype=np.float32)


@dataclass(frozen=True)
class _Neighbourhood:
    """Means around every pixel, of the overlap alone: what lies beyond it is neither dark nor bright.

    Attributes:
        inside: (H, W) 1 in the overlap, else 0.
        weight: (H, W) how much of the neighbourhood lies in the overlap.
        sigma: of the neighbourhood, in pixels.
    """

    inside: Floats
    weight: Floats
    sigma: float

    @classmethod
    def of(cls, inside: NDArray[np.bool_], sigma: float) -> _Neighbourhood:
        mask = inside.astype(np.float32)
        weight = np.asarray(cv2.GaussianBlur(mask, (0, 0), sigma), dtype=np.float32)
        return cls(mask, np.maximum(weight, 1e-3), sigma)

    def mean(self, values: Floats) -> Floats:
        return np.asarray(cv2.GaussianBlur(values * self.inside, (0, 0), self.sigma) / self.weight, dtype=np.float32)
