"""What the comparison keeps of one picture: grey levels at one size, and key points; in a few guises.

A copy may be changed so that the pictures as they are have little in common: filled corners and erased rectangles
(`bare` is without them), or grey levels that were turned upside down above a threshold, or spread evenly
(`GUISES`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from automl_vision.data.lineage.fills import Mask, find_fills, painted_over
from automl_vision.data.lineage.keypoints import Map, Points, find_points
from automl_vision.data.lineage.overlay import Bank, Contrast

Grey = NDArray[np.uint8]
#: What is compared of a picture: its grey levels, or what `GUISES` makes of them.
Guise = Literal["grey", "edges", "spread"]
GUISE_NAMES: tuple[Guise, ...] = get_args(Guise)

#: Sides up to which a picture is tiny, in pixels of the file.
TINY = 64
#: Key points below which a picture is plain: line art, a ball on white.
PLAIN = 40
#: Longer side in pixels at which pictures are compared; smaller pictures are enlarged to it.
SIDE = 256

#: Median of the absolute Laplacian above which a picture is noisy, at `SIDE`.
_NOISY = 9.0
#: Where a picture shows something small on an even ground: the size at which that is seen, the grey levels above the
#: ground, how much of the rim may not be ground, pixels kept around it, and when the part is worth cutting out.
_GLANCE, _ABOVE_GROUND, _BUSY_RIM, _MARGIN = 64, 20.0, 0.15, 1
_SMALL_PART, _SMALLEST_PART = 0.8, 24
#: Pixels of the median that takes the salt and pepper out of every picture before it is laid over another.
_MEDIAN = 3
#: Pixels of `calm` for one of the colours.
_COLOURS = 4
#: Blur in pixels before steps are measured, and the step that counts as much as all below it.
_EDGE_BLUR, _FAINT_EDGE = 1.0, 6.0
#: Blur in pixels before grey levels are spread, which would lift noise out of the dark.
_SPREAD_BLUR = 1.0


@dataclass(frozen=True)
class Picture:
    """One image in one guise.

    Attributes:
        calm: (H, W) grey levels, contrast-stretched, without noise; longer side `SIDE`.
        colours: (H / 4, W / 4, 3) what it shows in colour.
        points: its key points.
        smoothed: key points after smoothing, where it is noisy; else None.
        tiny: whether a side of the file is at most `TINY`.
        frame: height and width of the whole image at longer side `SIDE`.
        whole: (3, 3) from pixels of `calm` to pixels of the whole image at longer side `SIDE`: empty ground around
            what is shown has been cut off.
        hidden: (H, W) what is not its own and was painted over; None where nothing is.
        bare: the same without corners, rims and rectangles that augmentation may have filled; None where it has none.
    """

    calm: Grey
    colours: NDArray[np.uint8]
    points: Points
    smoothed: Points | None
    tiny: bool
    frame: tuple[float, float]
    whole: Map
    hidden: Mask | None = None
    bare: Picture | None = None
    _redrawn: dict[Guise, Picture] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def plain(self) -> bool:
        """Whether it has too few key points for its copies to be found by them."""
        return len(self.points) < PLAIN

    @cached_property
    def contrast(self) -> Contrast:
        """What `overlay` works on."""
        return Contrast.of(self.calm)

    def in_guise(self, name: Guise) -> Picture:
        """The same redrawn, without what augmentation may have filled; made once."""
        if name == "grey":
            return self
        if name not in self._redrawn:
            own = self.bare or self
            grey = GUISES[name](own.calm)
            self._redrawn[name] = replace(own, calm=grey, points=find_points(grey), smoothed=None)
        return self._redrawn[name]


def _edges(grey: Grey) -> Grey:
    """Its steps, however dark or bright what they part is."""
    smooth = cv2.GaussianBlur(grey, (0, 0), _EDGE_BLUR)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, *order, scale=0.25) for order in ((1, 0), (0, 1)))
    return _stretched(np.log1p(np.hypot(across, down) / _FAINT_EDGE) * np.float32(16.0))


def _spread(grey: Grey) -> Grey:
    """As many pixels at every grey level: what is dim comes out, and what was spread before changes little."""
    return _as_grey(cv2.equalizeHist(cv2.GaussianBlur(grey, (0, 0), _SPREAD_BLUR)))


GUISES: dict[Guise, Callable[[Grey], Grey]] = {"edges": _edges, "spread": _spread}


class Ground:
    """A picture that others are laid over: turned in every way once for all of them."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture

    @cached_property
    def bank(self) -> Bank:
        """Of the picture as it is."""
        return Bank.of(self.picture.contrast)

    @cached_property
    def bare(self) -> Ground:
        """Of what is its own."""
        return self if self.picture.bare is None else Ground(self.picture.bare)

    def in_guise(self, name: Guise) -> Ground:
        """Of the picture redrawn."""
        return self if name == "grey" else Ground(self.picture.in_guise(name))


def describe_picture(pixels: NDArray[np.uint8]) -> Picture:
    """Key points and grey levels of an image.

    Args:
        pixels: (H, W, 3) RGB, upright.
    """
    grey = _as_grey(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    fills = find_fills(pixels)
    if fills is None:
        return _described(pixels, grey, None, None)
    hidden = cv2.resize(fills.astype(np.uint8), grey.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return _described(pixels, grey, None, _described(pixels, painted_over(grey, hidden), hidden, None))


def _described(pixels: NDArray[np.uint8], full: Grey, hidden: Mask | None, bare: Picture | None) -> Picture:
    rows, columns = _shown(full)
    part = full[rows, columns]
    grey = _stretched(_resized(part))
    noisy = float(np.median(np.abs(cv2.Laplacian(grey, cv2.CV_32F)))) > _NOISY
    calm = _as_grey(cv2.GaussianBlur(cv2.medianBlur(grey, 5), (0, 0), 1.2) if noisy else cv2.medianBlur(grey, _MEDIAN))
    if hidden is not None:
        hidden = cv2.resize(hidden[rows, columns].astype(np.uint8), grey.shape[::-1], interpolation=cv2.INTER_AREA) > 0
    small = tuple(max(2, side // _COLOURS) for side in grey.shape[::-1])
    return Picture(
        calm,
        np.asarray(cv2.resize(pixels[rows, columns], small, interpolation=cv2.INTER_AREA), dtype=np.uint8),
        find_points(grey),
        find_points(calm) if noisy else None,
        min(full.shape) <= TINY,
        (full.shape[0] * SIDE / max(full.shape), full.shape[1] * SIDE / max(full.shape)),
        _to_whole(full.shape, part.shape, (columns.start, rows.start)),
        hidden,
        bare,
    )


def _to_whole(full: tuple[int, ...], part: tuple[int, ...], corner: tuple[int, int]) -> Map:
    """Centres of pixels lie at whole numbers."""
    ours, theirs = max(part) / SIDE, SIDE / max(full)
    shift = [(0.5 * ours + at) * theirs - 0.5 for at in corner]
    return np.array([[ours * theirs, 0.0, shift[0]], [0.0, ours * theirs, shift[1]], [0.0, 0.0, 1.0]])


def _shown(grey: Grey) -> tuple[slice, slice]:
    """Without the empty ground around what is shown, where that is small: a stamp on a sheet, a galaxy in the dark."""
    everything = slice(0, grey.shape[0]), slice(0, grey.shape[1])
    scale = _GLANCE / max(grey.shape)
    if scale * min(grey.shape) < 1:  # a strip
        return everything
    small = cv2.medianBlur(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), 3)
    rim = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    ground = float(np.median(rim))
    shown = np.abs(small.astype(np.float32) - ground) > _ABOVE_GROUND
    if not shown.any() or (np.abs(rim - ground) > _ABOVE_GROUND).mean() > _BUSY_RIM:
        return everything
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    top, left = (max(0, int((at[0] - _MARGIN) / scale)) for at in (rows, columns))
    bottom, right = (math.ceil((at[-1] + 1 + _MARGIN) / scale) for at in (rows, columns))  # as a mirror would cut
    part = grey[top:bottom, left:right]
    worth = part.size < _SMALL_PART * grey.size and min(part.shape) >= _SMALLEST_PART
    return (slice(top, bottom), slice(left, right)) if worth else everything


def _resized(grey: Grey) -> Grey:
    scale = SIDE / max(grey.shape)
    size = (max(8, round(grey.shape[1] * scale)), max(8, round(grey.shape[0] * scale)))
    return _as_grey(cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))


def _stretched(values: NDArray[np.uint8] | NDArray[np.float32]) -> Grey:
    """Grey levels from dark to bright, but for a hundredth at either end."""
    low, high = np.percentile(values, (1, 99))
    return _as_grey(np.clip((values - low) * (255.0 / max(high - low, 1.0)), 0, 255))


def _as_grey(values: NDArray[np.generic]) -> Grey:
    return np.asarray(values).astype(np.uint8)
