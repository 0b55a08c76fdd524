"""Key points of a picture, and the map between two pictures that many of them agree on.

SIFT: Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", IJCV 2004. RootSIFT: Arandjelovic and
Zisserman, "Three things everyone should know to improve object retrieval", CVPR 2012. RANSAC: Fischler and Bolles 1981.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]
Map = NDArray[np.float64]

_POINTS = 400
_FEW_POINTS = 120
_CONTRAST, _LOW_CONTRAST = 0.015, 0.006
#: Blur before the search with the low contrast, in pixels: else it finds the ripples that JPEG leaves beside lines,
#: which two drawings in one frame share.
_LOW_BLUR = 1.5
_RATIO = 0.9
_RANSAC_PIXELS = 5.0
#: What a map with perspective may miss a match by, and how far it may be from the affine map it grows from.
_PERSPECTIVE_PIXELS, _NEAR = 4.0, 40.0
#: Matches from which a map with perspective is sought (four always fit), and the share of matches that fit the affine
#: map from which it is not.
_PERSPECTIVE_MATCHES, _SETTLED = 8, 0.7
_SCALES = (0.25, 4.0)
_ANISOTROPY = 2.5
#: How much the scale may differ between the corners of a picture seen in perspective.
_FORESHORTENING = 3.0
#: Matches closer than this are one match: a flashy corner gives many.
_CELL = 4.0
#: Fewest matches that can say anything: three always fit. A map is sought from a few more.
FEWEST, _WORTH_FITTING = 4, 6
_VARIANTS_TRIED = 2


@dataclass(frozen=True)
class Points:
    """Key points of one picture.

    Attributes:
        at: (P, 2) x and y in pixels.
        bins: (P, 128) SIFT histograms, 0..255.
    """

    at: Floats
    bins: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True)
class Fit:
    """A map that matches agree on.

    Attributes:
        inliers: distinct matches that fit the map.
        map: (3, 3) from pixels of the second picture to pixels of the first.
        variant: a key of `VARIANTS`.
    """

    inliers: int
    map: Map
    variant: str

    @property
    def inverted(self) -> bool:
        """Whether dark agrees with bright."""
        return "inverted" in self.variant


def _permutation(*, flip_rows: bool, flip_columns: bool, negate: bool) -> NDArray[np.int64]:
    """Where each of the 4 x 4 x 8 bins of a key point goes when the picture is mirrored or inverted."""
    bins = np.arange(128).reshape(4, 4, 8)
    bins = bins[::-1] if flip_rows else bins
    bins = bins[:, ::-1] if flip_columns else bins
    return (bins[:, :, (-np.arange(8)) % 8] if negate else bins).ravel().astype(np.int64)


#: Columns of a histogram run along the direction of its key point. Mirroring turns the other axis round, and the
#: sense of rotation; inverting turns the direction by 180 degrees, and so both axes.
VARIANTS: dict[str, NDArray[np.int64]] = {
    "plain": _permutation(flip_rows=False, flip_columns=False, negate=False),
    "mirrored": _permutation(flip_rows=True, flip_columns=False, negate=True),
    "inverted": _permutation(flip_rows=True, flip_columns=True, negate=False),
    "mirrored, inverted": _permutation(flip_rows=False, flip_columns=True, negate=True),
}


_TURNED = np.stack(list(VARIANTS.values()))
#: (4, 32) bins that the variants turn into each other: mirroring and inverting leave none where it is.
_ORBITS: NDArray[np.int64] = _TURNED[:, np.arange(128) == _TURNED.min(axis=0)]


class _Room(threading.local):
    """Where likenesses are written, one per thread: asking the system for it each time costs more than they do."""

    def __init__(self) -> None:
        self.flat = np.empty((6, _POINTS * _POINTS), dtype=np.float32)

    def tables(self, rows: int, columns: int) -> list[Floats]:
        """Six tables of that size. What was in them is lost."""
        return [each[: rows * columns].reshape(rows, columns) for each in self.flat]


_ROOM = _Room()


def find_points(grey: Grey) -> Points:
    """The strongest key points; where there are few, fainter ones, too."""
    found = _sift(grey, _CONTRAST)
    if len(found.at) >= _FEW_POINTS:
        return found
    return _sift(np.asarray(cv2.GaussianBlur(grey, (0, 0), _LOW_BLUR)).astype(np.uint8), _LOW_CONTRAST)


def _sift(grey: Grey, contrast: float) -> Points:
    keypoints, bins = cv2.SIFT.create(nfeatures=_POINTS, contrastThreshold=contrast).detectAndCompute(grey, None)
    if not keypoints:
        return Points(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    # The limit keeps all points that tie with the last one.
    at = np.array([point.pt for point in keypoints[:_POINTS]], dtype=np.float32)
    return Points(at, bins[:_POINTS].astype(np.uint8))


def _root(bins: NDArray[np.uint8]) -> Floats:
    values = bins.astype(np.float32)
    return np.asarray(np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1.0)), dtype=np.float32)


def fits(ours: Points, theirs: Points) -> list[Fit]:
    """A map for each of the variants with the most matches that have a fair share of them."""
    if min(len(ours), len(theirs)) < FEWEST:
        return []
    likeness = _likeness_in_all_variants(_root(ours.bins), _root(theirs.bins))
    matches = {name: _matches(each) for name, each in likeness.items()}
    most = max(len(pairs) for pairs in matches.values())
    by_count = sorted(matches, key=lambda name: -len(matches[name]))[:_VARIANTS_TRIED]
    tried = [name for name in by_count if len(matches[name]) >= max(_WORTH_FITTING, 0.6 * most)]
    found = (_fit(ours.at, theirs.at, matches[name], name) for name in tried)
    return [each for each in found if each is not None]


def plausible(onto: Map, height: int, width: int) -> bool:
    """Whether the map neither shrinks, enlarges, squeezes nor tilts a picture beyond what people do to pictures.

    Args:
        onto: from pixels of a picture.
        height, width: of that picture.
    """
    if not np.isfinite(onto).all():
        return False
    corners = np.array([(0.0, 0.0), (width, 0.0), (width, height), (0.0, height), (width / 2, height / 2)])
    local = [_linear_at(onto, *corner) for corner in corners]
    if any(each is None for each in local):
        return False
    values = np.array([np.linalg.svd(each, compute_uv=False) for each in local if each is not None])
    signs = {float(np.sign(_area(each))) for each in local if each is not None}
    areas = values.prod(axis=1)
    return bool(
        len(signs) == 1
        and values.min() >= _SCALES[0] / _FORESHORTENING
        and values.max() <= _SCALES[1] * _FORESHORTENING
        and values[-1].min() >= _SCALES[0]
        and values[-1].max() <= _SCALES[1]
        and values[-1].max() / values[-1].min() <= _ANISOTROPY
        and areas.max() / areas.min() <= _FORESHORTENING**2
    )


def _area(linear: Map) -> float:
    """Determinant; numpy's warns of what is nearly 0."""
    return float(linear[0, 0] * linear[1, 1] - linear[0, 1] * linear[1, 0])


def _linear_at(onto: Map, x: float, y: float) -> Map | None:
    """(2, 2) derivative of the map at a point; None where the point lies on or behind the horizon."""
    u, v, w = onto @ (x, y, 1.0)
    if w <= 0.05:
        return None
    rows = np.array([onto[0, :2] - u / w * onto[2, :2], onto[1, :2] - v / w * onto[2, :2]])
    return np.asarray(rows / w, dtype=np.float64)


def _likeness_in_all_variants(ours: Floats, theirs: Floats) -> dict[str, Floats]:
    """(P, Q) products of all histograms by variant, valid until the next call in this thread.

    The variants are a group: mirroring and inverting commute and undo themselves. In sums and differences over what
    they turn into each other, each variant changes signs alone, so that four products of 32 bins, added up with those
    signs, give what four products of 128 bins would.
    """
    even, odd, low, high, *spare = _ROOM.tables(len(ours), len(theirs))
    for one, other, out in zip(_by_sign(ours), _by_sign(theirs), (even, odd, low, high), strict=True):
        np.matmul(one, other.T, out=out)
    total, rest = np.add(even, low, out=spare[0]), np.subtract(even, low, out=spare[1])
    np.add(odd, high, out=even)
    np.subtract(odd, high, out=low)
    return {
        "plain": np.add(total, even, out=odd),
        "mirrored": np.subtract(total, even, out=high),
        "inverted": np.add(rest, low, out=total),
        "mirrored, inverted": np.subtract(rest, low, out=even),
    }


def _by_sign(values: Floats) -> tuple[Floats, ...]:
    """Four (P, 32) parts: what no variant changes, and what mirroring, inverting or only both together leave alone."""
    plain, mirrored, inverted, both = (values[:, bins] for bins in _ORBITS)
    kept, changed = plain + mirrored, plain - mirrored
    other_kept, other_changed = inverted + both, inverted - both
    parts = (kept + other_kept, changed + other_changed, kept - other_kept, changed - other_changed)
    return tuple(np.asarray(each / 2.0, dtype=np.float32) for each in parts)


def _matches(likeness: Floats) -> NDArray[np.int64]:
    """(M, 2) points that are each other's nearest, and clearly nearer than the second nearest.

    Args:
        likeness: (P, Q) products of the histograms of two pictures; changed.
    """
    best = likeness.argmax(axis=1)
    rows = np.arange(len(likeness))
    top = likeness[rows, best]
    mutual = likeness.argmax(axis=0)[best] == rows
    likeness[rows, best] = -1.0
    second = likeness.max(axis=1)
    clear = (1.0 - top) < _RATIO**2 * (1.0 - second)  # squared distances of unit vectors are 2 - 2 cos
    kept = np.flatnonzero(mutual & clear)
    return np.stack([kept, best[kept]], axis=1)


def _fit(ours: Floats, theirs: Floats, pairs: NDArray[np.int64], variant: str) -> Fit | None:
    source, target = theirs[pairs[:, 1]], ours[pairs[:, 0]]
    cv2.setRNGSeed(0)  # each thread draws from a generator of its own
    found, _ = cv2.estimateAffine2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=_RANSAC_PIXELS)
    affine = np.asarray(found, dtype=np.float64)
    if affine.shape != (2, 3) or not np.isfinite(affine).all():
        return None
    flat = _counted(np.vstack([affine, [0.0, 0.0, 1.0]]), source, target, _RANSAC_PIXELS, variant)
    settled = flat.inliers >= _PERSPECTIVE_MATCHES and flat.inliers >= _SETTLED * len(pairs)
    deep = None if settled else _with_perspective(flat, source, target)
    best = deep if deep is not None and deep.inliers > flat.inliers + 1 else flat
    return best if (np.linalg.det(best.map[:2, :2]) < 0) == ("mirrored" in variant) else None


def _with_perspective(flat: Fit, source: Floats, target: Floats) -> Fit | None:
    near = np.flatnonzero(_misses(flat.map, source, target) < _NEAR)
    if len(near) < _PERSPECTIVE_MATCHES:
        return None
    found, _ = cv2.findHomography(source[near], target[near], cv2.RANSAC, _PERSPECTIVE_PIXELS)
    onto = np.asarray(found, dtype=np.float64)
    if onto.shape != (3, 3) or not np.isfinite(onto).all():
        return None
    return _counted(onto, source, target, _PERSPECTIVE_PIXELS, flat.variant)


def _counted(onto: Map, source: Floats, target: Floats, pixels: float, variant: str) -> Fit:
    rows = np.flatnonzero(_misses(onto, source, target) < pixels)
    return Fit(min(_distinct(source[rows]), _distinct(target[rows])), onto, variant)


def _misses(onto: Map, source: Floats, target: Floats) -> Floats:
    at = np.column_stack([source, np.ones(len(source))]) @ onto.T
    with np.errstate(divide="ignore", invalid="ignore"):
        missed = np.linalg.norm(at[:, :2] / at[:, 2:] - target, axis=1)
    return np.asarray(np.nan_to_num(missed, nan=np.inf), dtype=np.float32)


def _distinct(at: Floats) -> int:
    cells = np.floor(at / _CELL).astype(np.int64)
    return len(np.unique((cells[:, 0] << 20) + cells[:, 1]))
