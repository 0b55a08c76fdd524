"""What augmentation lays over a picture: corners and rims of one colour, and erased rectangles.

Such a fill has hard edges which are nothing of the picture's own. They draw key points, stretch the contrast, and
disagree with whatever lies under them in the original. So they are found, and painted over with what is around them.
A picture may really be framed in black, or show a black square: the comparison therefore sees it both ways.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

#: Longer side in pixels at which fills are sought.
_SIDE = 160
#: Smallest side of a picture, in pixels, that is looked at.
_SMALLEST = 48
#: Grey levels within which a fill has one colour; JPEG moves it. Most of it is within `_EXACT` of one: skies are not.
_FILL, _EXACT, _EVEN = 10, 3, 0.6
#: Share of the rim that must have the colour before it is worth a look.
_ON_RIM = 0.03
#: Shares of the frame that a fill at the rim may take.
_LEAST, _MOST = 0.008, 0.9
#: How far the rest may deviate from a convex shape, as a share of it and of the fill, and how many corners that may
#: have.
_CROOKED, _CROOKED_FILL, _CORNERS = 0.05, 0.2, 8
#: Pixels by which its outline may deviate from a polygon, and within which an edge lies on the frame.
_CORNER, _RIM = 2.5, 2
#: Degrees within which edges are parallel.
_PARALLEL = 6.0
#: Grey levels that the picture must differ by along the fill, on average: the ground of a drawing fades, a fill ends.
_STEP = 24.0
#: Black: nobody's paper, so that what it cuts to may have any convex shape.
_BLACK = 12
#: Erased rectangles: grey levels across three pixels, across all of it, and between its channels; the least and most of
#: the frame; the least side in pixels; how much of its bounding rectangle it must fill.
_FLAT, _SPREAD, _NEUTRAL = 6, 10, 8
_LEAST_ERASED, _MOST_ERASED, _LEAST_SIDE, _FULL = 0.003, 0.45, 5, 0.9
#: What erases: black, grey, white.
_ERASERS = ((0, 14), (110, 132), (241, 255))
#: Pixels at `_SIDE` by which a fill is widened: its edges are blurred.
_MARGIN = 2

_AROUND = np.ones((3, 3), np.uint8)


def find_fills(pixels: Pixels) -> Mask | None:
    """(h, w) where a picture is filled, longer side at most 160 pixels; None where it is not.

    Args:
        pixels: (H, W, 3) RGB.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < _SMALLEST:
        return None
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    found = _at_the_rim(small) | _erased(small)
    if not found.any():
        return None
    wider = cv2.dilate(found.astype(np.uint8), _AROUND, iterations=_MARGIN) > 0
    return None if wider.mean() > _MOST else np.asarray(wider)


def painted_over(grey: Pixels, hidden: Mask) -> Pixels:
    """The picture where it is hidden as a smooth continuation of what is around (push and pull over a pyramid).

    Args:
        grey: (H, W) grey levels.
        hidden: (H, W).
    """
    values, known = grey.astype(np.float32), (~hidden).astype(np.float32)
    levels = [(values * known, known)]
    while levels[-1][1].min() <= 0 and max(levels[-1][1].shape) > 1:
        half = tuple((side + 1) // 2 for side in levels[-1][1].shape[::-1])
        levels.append((_shrunk(levels[-1][0], half), _shrunk(levels[-1][1], half)))
    smooth = levels[-1][0] / np.maximum(levels[-1][1], 1e-6)
    for total, weight in reversed(levels[:-1]):
        larger = cv2.resize(smooth, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        trust = np.minimum(weight * 4.0, 1.0)
        smooth = np.asarray(total / np.maximum(weight, 1e-6) * trust + larger * (1.0 - trust), dtype=np.float32)
    return np.where(hidden, smooth, values).clip(0, 255).astype(np.uint8)


def _shrunk(values: Floats, size: tuple[int, ...]) -> Floats:
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def _at_the_rim(small: Pixels) -> Mask:
    values = small.astype(np.int16)
    found = np.zeros(small.shape[:2], dtype=np.bool_)
    for colour in _colours_at_the_rim(values):
        rest = _rest(values, colour)
        if rest is not None:
            found |= rest == 0
    return found


def _colours_at_the_rim(values: NDArray[np.int16]) -> list[NDArray[np.int16]]:
    """Those in the corners and in the middle of the sides that the rim has more of."""
    rim = np.concatenate([values[1], values[-2], values[:, 1], values[:, -2]])
    rows, columns = (np.array([1, side // 2, side - 2]) for side in values.shape[:2])
    colours: list[NDArray[np.int16]] = []
    for colour in values[np.ix_(rows, columns)].reshape(9, 3)[[0, 1, 2, 3, 5, 6, 7, 8]]:
        off = np.abs(rim - colour).max(axis=1)
        like = off <= _FILL
        new = all(np.abs(colour - other).max() > _FILL for other in colours)
        if new and like.mean() >= _ON_RIM and (off[like] <= _EXACT).mean() >= _EVEN:
            colours.append(colour)
    return colours


def _rest(values: NDArray[np.int16], colour: NDArray[np.int16]) -> NDArray[np.uint8] | None:
    """(h, w) 1 inside of the convex shape that a fill of this colour leaves; None where it leaves no such shape."""
    fill = _reached_from_rim(np.abs(values - colour).max(axis=2) <= _FILL)
    if not _LEAST <= float(fill.mean()) <= _MOST or step_at(values, fill, colour) < _STEP:
        return None
    content = cv2.morphologyEx((~fill).astype(np.uint8), cv2.MORPH_OPEN, _AROUND)  # ringing of JPEG
    outlines, _ = cv2.findContours(content, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return None
    hull = cv2.convexHull(np.concatenate(outlines))
    shape = cv2.fillConvexPoly(np.zeros_like(content), hull.astype(np.int32), 1)
    if float((shape != content).sum()) > min(_CROOKED * float(shape.sum()), _CROOKED_FILL * float(fill.sum())):
        return None
    polygon = cv2.approxPolyDP(hull, _CORNER, True)[:, 0].astype(np.int32)
    is_frame = int(colour.max()) <= _BLACK or _of_two_directions(polygon, content.shape)
    return np.asarray(shape, dtype=np.uint8) if len(polygon) <= _CORNERS and is_frame else None


def _reached_from_rim(like: Mask) -> Mask:
    _, regions = cv2.connectedComponents(like.astype(np.uint8), connectivity=4)
    at = np.unique(np.concatenate([regions[1], regions[-2], regions[:, 1], regions[:, -2]]))
    return np.isin(regions, at[at > 0])


def step_at(values: NDArray[np.int16], fill: Mask, colour: NDArray[np.int16]) -> float:
    """Grey levels by which a picture differs from the colour of a fill beside it, on average; 0 where nothing is.

    Args:
        values: (h, w, 3) RGB.
        fill: (h, w).
        colour: (3) of the fill.
    """
    region = fill.astype(np.uint8)
    near, far = (cv2.dilate(region, np.ones((side, side), np.uint8)) > 0 for side in (5, 9))
    ring = far & ~near
    return float(np.abs(values[ring] - colour).max(axis=1).mean()) if ring.any() else 0.0


def _of_two_directions(polygon: NDArray[np.int32], shape: tuple[int, ...]) -> bool:
    """Whether the edges that do not lie on the frame are those of a parallelogram."""
    edges = np.roll(polygon, -1, axis=0) - polygon
    lengths = np.hypot(edges[:, 0], edges[:, 1])
    ends = np.stack([polygon, np.roll(polygon, -1, axis=0)])
    last = np.array([shape[1] - 1, shape[0] - 1])
    framed = np.asarray((ends <= _RIM).all(axis=0) | (ends >= last - _RIM).all(axis=0)).any(axis=1)
    angles = np.degrees(np.arctan2(edges[:, 1], edges[:, 0]))[~framed & (lengths > 2 * _CORNER)]
    apart = np.abs((angles[:, None] - angles + 90.0) % 180.0 - 90.0) <= _PARALLEL
    return len(angles) > 0 and len(np.unique(apart, axis=0)) <= 2 and bool((apart.sum(axis=1) <= 2).all())


def _erased(small: Pixels) -> Mask:
    """Rectangles of one black, grey or white."""
    height, width = small.shape[:2]
    grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    even = (cv2.dilate(grey, _AROUND) - cv2.erode(grey, _AROUND)) <= _FLAT
    neutral = small.max(axis=2) - small.min(axis=2) <= _NEUTRAL
    eraser = np.any([(grey >= low) & (grey <= high) for low, high in _ERASERS], axis=0)
    count, regions, told, _ = cv2.connectedComponentsWithStats(
        (even & neutral & eraser).astype(np.uint8), connectivity=4
    )
    found = np.zeros((height, width), dtype=np.uint8)
    least, most = _LEAST_ERASED * height * width, _MOST_ERASED * height * width
    for region in range(1, count):
        left, top, wide, high, area = (int(each) for each in told[region])
        sides = (left <= 1) + (top <= 1) + (left + wide >= width - 1) + (top + high >= height - 1)
        if least <= area <= most and min(wide, high) >= _LEAST_SIDE and sides < 3:
            box = _rectangle(grey, regions == region)
            if box is not None:
                cv2.fillConvexPoly(found, box, 1)
    return np.asarray(found > 0)


def _rectangle(grey: Pixels, region: Mask) -> NDArray[np.int32] | None:
    """(4, 2) corners, a little outside; None where the region is none, or not even."""
    outline, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    middle, (wide, high), turn = cv2.minAreaRect(outline[0])
    if float(region.sum()) < _FULL * (wide + 1) * (high + 1) or int(np.ptp(grey[region])) > _SPREAD:
        return None
    return cv2.boxPoints((middle, (wide + 3, high + 3), turn)).astype(np.int32)
