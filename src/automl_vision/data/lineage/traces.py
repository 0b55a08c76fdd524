"""Traces of augmentation in a single picture: what no camera, and hardly a hand, would have left.

A picture that was turned, sheared or tilted leaves wedges of one colour at the frame; one that was moved repeats its
last row or column, or mirrors what lies beside it. Each detector is made to be silent: a trace that it misses costs
nothing here, and a false alarm takes an original from the test set.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from automl_vision.data.lineage.fills import step_at

Pixels = NDArray[np.uint8]

#: Longer side in pixels at which traces are sought.
_SIDE = 192
#: Smallest side of a picture, in pixels, that is looked at.
_SMALLEST = 48
#: Grey levels within which a fill has one colour; JPEG moves it.
_FILL = 10
#: Shares of the frame that a fill may take; white is the ground of most drawings.
_LEAST_FILLED, _MOST_FILLED, _MOST_WHITE = 0.008, 0.55, 0.25
_WHITE, _BLACK = 240, 12
#: Share of a fill that must be of exactly one colour, give or take `_EXACT` grey levels: skies are not.
_EVEN, _EXACT = 0.6, 3
#: Share of the fill by which it may deviate from straight edges.
_CROOKED = 0.14
#: Degrees from which an edge is tilted, and shares of the longer side from which it counts.
_TILTED, _EDGE = 2.5, 0.07
#: Pixels within which an edge lies on the frame, and degrees within which edges are parallel.
_RIM, _PARALLEL = 2, 5.0
#: Pixels by which an outline may deviate from a polygon.
_CORNER = 2.5
#: Grey levels that the picture must differ by along the fill, on average: the ground of a drawing fades, a fill ends.
_STEP = 24.0
#: Widths of strips at the frame that may be repeated or mirrored, as shares of the side.
_STRIPS = (0.04, 0.3)
#: Deviation of grey levels that a strip must have to say anything.
_TEXTURED = 12.0
#: Difference of mirrored strips, in deviations of what they show.
_UNLIKE = 0.12
#: Share of neighbours along a line that differ by that many grey levels: stripes and grounds repeat by themselves.
_BUSY, _BUSY_STEP = 0.25, 6


def traces(pixels: Pixels) -> tuple[str, ...]:
    """What in a picture looks made by augmentation, one line each; empty for most originals.

    Args:
        pixels: (H, W, 3) RGB, upright.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < _SMALLEST:
        return ()
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return tuple(words for words, found in DETECTORS.items() if found(small))


def wedges(small: Pixels) -> bool:
    """Whether corners of one colour cut the picture to a convex shape with straight, tilted edges."""
    corners = small[[1, 1, -2, -2], [1, -2, 1, -2]].astype(np.int16)
    alike = np.abs(corners[:, None] - corners).max(axis=2) <= _FILL
    firsts = [at for at in range(4) if alike[at].sum() > 1 and not alike[at, :at].any()]
    return any(_cut_by(small, corners[at]) for at in firsts)


def _cut_by(small: Pixels, colour: NDArray[np.int16]) -> bool:
    fill = _reached_from_corners(np.abs(small.astype(np.int16) - colour).max(axis=2) <= _FILL)
    share = float(fill.mean())
    most = _MOST_WHITE if int(colour.min()) > _WHITE else _MOST_FILLED
    if not _LEAST_FILLED <= share <= most or not _even(small, fill):
        return False
    content = cv2.morphologyEx((~fill).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))  # ringing of JPEG
    outlines, _ = cv2.findContours(content, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return False
    hull = cv2.convexHull(np.concatenate(outlines))
    polygon = cv2.approxPolyDP(hull, _CORNER, True)[:, 0].astype(np.int32)
    drawn = cv2.fillConvexPoly(np.zeros_like(content), polygon, 1)
    if float((drawn != content).sum()) > _CROOKED * float(fill.sum()):
        return False
    black = int(colour.max()) < _BLACK
    return (
        _edges_are_cuts(polygon, content.shape, black=black) and step_at(small.astype(np.int16), fill, colour) > _STEP
    )


def _even(small: Pixels, fill: NDArray[np.bool_]) -> bool:
    inner = cv2.erode(fill.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    values = small[inner].astype(np.int16)
    if not len(values):
        return False
    return bool((np.abs(values - np.median(values, axis=0)).max(axis=1) <= _EXACT).mean() >= _EVEN)


def _reached_from_corners(like: NDArray[np.bool_]) -> NDArray[np.bool_]:
    _, regions = cv2.connectedComponents(like.astype(np.uint8), connectivity=4)
    at = {int(regions[row, column]) for row in (1, -2) for column in (1, -2)} - {0}
    return np.isin(regions, list(at))


def _edges_are_cuts(polygon: NDArray[np.int32], shape: tuple[int, ...], *, black: bool) -> bool:
    """Whether tilted edges as a parallelogram has them cut the shape, and the rest of it lies on the frame.

    On black, which is nobody's paper, any quadrilateral will do: a tilted plane reaches the frame nowhere.
    """
    height, width = shape[:2]
    edges = np.roll(polygon, -1, axis=0) - polygon
    lengths = np.hypot(edges[:, 0], edges[:, 1])
    angles = np.degrees(np.arctan2(edges[:, 1], edges[:, 0]))
    tilted = np.abs((angles + 45.0) % 90.0 - 45.0) >= _TILTED
    ends = np.stack([polygon, np.roll(polygon, -1, axis=0)])
    size = np.array([width - 1, height - 1])
    framed = np.asarray((ends <= _RIM).all(axis=0) | (ends >= size - _RIM).all(axis=0)).any(axis=1)
    cuts = ~framed & tilted & (lengths >= _EDGE * max(height, width))
    perimeter = 2.0 * (height + width)
    if black and len(polygon) == 4 and cuts.sum() >= 2:
        return True
    stray = float(lengths[~framed & ~cuts].sum())
    on_frame = float(lengths[framed].sum())
    return _of_parallelogram(angles[cuts]) and on_frame >= 0.15 * perimeter and stray <= 0.03 * perimeter


def _of_parallelogram(angles: NDArray[np.float64]) -> bool:
    """Two to four edges: two that are parallel or at right angles, or at most two of each of two directions."""
    if not 2 <= len(angles) <= 4:
        return False
    apart = np.abs((angles[:, None] - angles + 90.0) % 180.0 - 90.0)
    parallel = apart <= _PARALLEL
    if len(angles) == 2:
        return bool(parallel[0, 1] or apart[0, 1] >= 90.0 - _PARALLEL)
    return bool((parallel.sum(axis=1) <= 2).all() and len(np.unique(parallel, axis=0)) == 2)


def repeated(small: Pixels) -> bool:
    """Whether the last rows or columns on a side are one and the same."""
    return any(_repeats(side) for side in _sides(small))


def _repeats(strip: NDArray[np.int16]) -> bool:
    """Lines from the frame inwards: the first ones equal, and full of what the next ones are full of."""
    count = max(4, int(_STRIPS[0] * len(strip)) + 1)
    busy = np.abs(np.diff(strip[0], axis=0)).max(axis=1) > _BUSY_STEP
    if float(strip[0].std(axis=0).mean()) < _TEXTURED or float(busy.mean()) < _BUSY:
        return False
    steps = np.abs(np.diff(strip[: int(_STRIPS[1] * len(strip)) + count], axis=0)).mean(axis=(1, 2))
    return bool(steps[: count - 1].max() < 1.5 and np.median(steps[count:]) > 4.0)


def mirrored(small: Pixels) -> bool:
    """Whether a strip at a side is the mirror image of the next one."""
    grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.float32)
    return any(_mirrors(side) for side in (grey, grey[::-1], grey.T, grey.T[::-1]))


def _mirrors(grey: NDArray[np.float32]) -> bool:
    """Lines from the frame inwards: the outermost, where mirrored, comes again."""
    low, high = max(5, int(_STRIPS[0] * len(grey))), int(_STRIPS[1] * len(grey))
    few = grey[: 2 * high + 1, ::4]
    outermost = np.abs(few[0] - few).mean(axis=1) / max(float(few[0].std()), 1.0)
    for last in (np.flatnonzero(outermost[2 * low - 1 :] < 2 * _UNLIKE) + 2 * low - 1).tolist():
        width = (last + 1) // 2
        outer, inner = grey[:width], grey[last + 1 - width : last + 1][::-1]
        texture = min(float(outer.std(axis=0).mean()), float(outer.std(axis=1).mean()))
        if texture > _TEXTURED and float(np.abs(outer - inner).mean()) < _UNLIKE * texture:
            return True
    return False


def _sides(small: Pixels) -> list[NDArray[np.int16]]:
    """The picture with each of its sides first."""
    values = small.astype(np.int16)
    return [values, values[::-1], values.transpose(1, 0, 2), values[:, ::-1].transpose(1, 0, 2)]


DETECTORS: dict[str, Callable[[Pixels], bool]] = {
    "wedges of one colour cut it to a tilted frame": wedges,
    "the last lines at a side repeat each other": repeated,
    "a strip at a side mirrors the next one": mirrored,
}
