"""Are two pictures the same one? Laid over each other by their key points, do they agree?

Descriptors of whole images say which pictures resemble each other; they cannot say which are copies. Registration
can: local features are matched, an affine map that many matches agree on is sought, the one picture is laid over the
other with it, and the two must correlate where they overlap. The score is the product of both: distinct matches that
fit the map, times the correlation. Merely similar pictures give few matches that fit, or a map under which they differ.

SIFT: Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", IJCV 2004. RootSIFT: Arandjelovic and
Zisserman, "Three things everyone should know to improve object retrieval", CVPR 2012. RANSAC: Fischler and Bolles 1981.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]

#: Score from which two pictures count as the same one.
SAME = 8.0
#: The same where a picture is tiny: key points of 28 pixels are few and alike.
SAME_TINY = 14.0
#: Score from which two pictures may be the same one: neither may then be a test image.
PERHAPS = 3.0
#: Sides up to which a picture is tiny, in pixels of the file.
TINY = 64

#: Key points below which most copies of a picture are missed: line art, a ball on white.
PLAIN = 40

#: Longer side in pixels at which key points are sought; smaller pictures are enlarged to it.
SIDE = 256
_POINTS = 400
_FEW_POINTS = 120
_CONTRAST, _LOW_CONTRAST = 0.015, 0.006
#: Blur before the search with the low contrast, in pixels: else it finds the ripples that JPEG leaves beside lines,
#: which two drawings in one frame share.
_LOW_BLUR = 1.5
_RATIO = 0.9
_RANSAC_PIXELS = 5.0
_SCALES = (0.25, 4.0)
_ANISOTROPY = 2.5
#: Matches closer than this are one match: a flashy corner gives many.
_CELL = 4.0
#: Fewest matches that can say anything: three always fit.
_FEWEST = 4
#: Side in pixels at which overlaid pictures are correlated, and the neighbourhood that is normalised away.
_OVERLAY, _SIGMA = 96, 5.0
#: Grey levels below which local contrast is taken for noise.
_FLAT = 2.0
#: Least share of the frame that must overlap, and least correlation there.
_OVERLAP, _CORRELATION = 0.04, 0.25
#: Least share of the overlap in which the pictures agree by themselves: a watermark that two strangers share gives
#: many matches, and a map under which all the rest differs. What counts as agreeing, and as having something to see.
_AGREEMENT, _AGREES, _VISIBLE = 0.5, 0.3, 0.1
#: The least correlation of tiny pictures: two shirts laid over each other agree in most places.
_CORRELATION_TINY = 0.85
#: Median of the absolute Laplacian above which a picture is noisy, at `SIDE`.
_NOISY = 9.0


@dataclass(frozen=True)
class Points:
    """Key points of one picture.

    Attributes:
        at: (P, 2) x and y in pixels of `Picture.grey`.
        bins: (P, 128) SIFT histograms, 0..255.
    """

    at: Floats
    bins: NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """What registration keeps of one image.

    Attributes:
        grey: (H, W) contrast-stretched, longer side `SIDE`.
        points: its key points.
        smoothed: key points after smoothing, where it is noisy; else None.
        tiny: whether a side of the file is at most `TINY`.
    """

    grey: Grey
    points: Points
    smoothed: Points | None
    tiny: bool

    @property
    def plain(self) -> bool:
        """Whether it has too few key points for its copies to be found."""
        return len(self.points.at) < PLAIN


@dataclass(frozen=True)
class Registration:
    """How well one picture can be laid over another.

    Attributes:
        inliers: distinct matches that fit the map.
        correlation: of the local contrasts where they overlap, -1..1.
        variant: a key of `VARIANTS`: "plain", "mirrored", "inverted" or "mirrored, inverted".
        tiny: whether one of them is tiny.
        affine: (2, 3) maps pixels of the second's `Picture.grey` to the first's; None where no map was found.
    """

    inliers: int = 0
    correlation: float = 0.0
    variant: str = "plain"
    tiny: bool = False
    affine: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)

    @property
    def score(self) -> float:
        """Distinct matches times correlation; 0 where they do not correlate."""
        least = _CORRELATION_TINY if self.tiny else _CORRELATION
        return self.inliers * self.correlation if self.correlation >= least else 0.0

    @property
    def same(self) -> bool:
        """Whether this is one picture."""
        return self.score > (SAME_TINY if self.tiny else SAME)

    @property
    def perhaps(self) -> bool:
        """Whether it may be one picture. Of tiny ones nobody can tell, so that they are not asked."""
        return not self.tiny and self.score >= PERHAPS

    @property
    def detail(self) -> str:
        """One line for people."""
        return f"registered {self.variant}: {self.inliers} points, correlation {self.correlation:.2f}"


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


def describe_picture(pixels: NDArray[np.uint8]) -> Picture:
    """Key points of an image.

    Args:
        pixels: (H, W, 3) RGB, upright.
    """
    height, width = pixels.shape[:2]
    grey = _stretched(_resized(_as_grey(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))))
    noisy = float(np.median(np.abs(cv2.Laplacian(grey, cv2.CV_32F)))) > _NOISY
    smoothed = _points(_as_grey(cv2.GaussianBlur(cv2.medianBlur(grey, 5), (0, 0), 1.2))) if noisy else None
    return Picture(grey, _points(grey), smoothed, min(height, width) <= TINY)


def register(first: Picture, second: Picture) -> Registration:
    """Lay the second picture over the first, mirrored and inverted where that fits better."""
    found = _register_points(first, second, first.points, second.points)
    if found.same or (first.smoothed is None and second.smoothed is None):
        return found
    again = _register_points(first, second, first.smoothed or first.points, second.smoothed or second.points)
    return max(found, again, key=lambda each: each.score)


def _resized(grey: Grey) -> Grey:
    scale = SIDE / max(grey.shape)
    size = (max(8, round(grey.shape[1] * scale)), max(8, round(grey.shape[0] * scale)))
    return _as_grey(cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))


def _stretched(grey: Grey) -> Grey:
    low, high = np.percentile(grey, (1, 99))
    return _as_grey(np.clip((grey - low) * (255.0 / max(high - low, 1.0)), 0, 255))


def _as_grey(values: NDArray[np.generic]) -> Grey:
    return np.asarray(values).astype(np.uint8)


def _points(grey: Grey) -> Points:
    found = _sift(grey, _CONTRAST)
    if len(found.at) >= _FEW_POINTS:
        return found
    return _sift(_as_grey(cv2.GaussianBlur(grey, (0, 0), _LOW_BLUR)), _LOW_CONTRAST)


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


def _register_points(first: Picture, second: Picture, ours: Points, theirs: Points) -> Registration:
    """The best of the variants that have a fair share of the most matches."""
    tiny = first.tiny or second.tiny
    if min(len(ours.at), len(theirs.at)) < _FEWEST:
        return Registration(tiny=tiny)
    root, other = _root(ours.bins), _root(theirs.bins)
    matches = {name: _matches(root, other[:, order]) for name, order in VARIANTS.items()}
    most = max(len(pairs) for pairs in matches.values())
    tried = [name for name, pairs in matches.items() if len(pairs) >= max(_FEWEST, 0.6 * most)]
    found = [_fit(first, second, ours.at, theirs.at, matches[name], name, tiny) for name in tried]
    return max(found, key=lambda each: each.score, default=Registration(tiny=tiny))


def _matches(ours: Floats, theirs: Floats) -> NDArray[np.int64]:
    """(M, 2) points that are each other's nearest, and clearly nearer than the second nearest."""
    likeness = ours @ theirs.T
    best = likeness.argmax(axis=1)
    rows = np.arange(len(ours))
    top = likeness[rows, best]
    mutual = likeness.argmax(axis=0)[best] == rows
    likeness[rows, best] = -1.0
    second = likeness.max(axis=1)
    clear = (1.0 - top) < _RATIO**2 * (1.0 - second)  # squared distances of unit vectors are 2 - 2 cos
    kept = np.flatnonzero(mutual & clear)
    return np.stack([kept, best[kept]], axis=1)


def _fit(
    first: Picture, second: Picture, ours: Floats, theirs: Floats, pairs: NDArray[np.int64], variant: str, tiny: bool
) -> Registration:
    source, target = theirs[pairs[:, 1]], ours[pairs[:, 0]]
    cv2.setRNGSeed(0)  # each thread draws from a generator of its own
    found, fits = cv2.estimateAffine2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=_RANSAC_PIXELS)
    affine = np.asarray(found, dtype=np.float64)
    if affine.shape != (2, 3) or not _plausible(affine, mirrored="mirrored" in variant):
        return Registration(variant=variant, tiny=tiny)
    rows = np.flatnonzero(fits.ravel())
    inliers = min(_distinct(source[rows]), _distinct(target[rows]))
    if inliers < _FEWEST:
        return Registration(inliers, 0.0, variant, tiny)
    correlation = _correlation(first.grey, second.grey, affine)
    return Registration(inliers, -correlation if "inverted" in variant else correlation, variant, tiny, affine)


def _plausible(affine: NDArray[np.float64], *, mirrored: bool) -> bool:
    """Whether the map neither shrinks, enlarges nor squeezes beyond what people do to pictures."""
    linear = affine[:, :2]
    if not np.isfinite(affine).all() or (np.linalg.det(linear) < 0) != mirrored:
        return False
    large, small = np.linalg.svd(linear, compute_uv=False)
    return bool(small >= _SCALES[0] and large <= _SCALES[1] and large / small <= _ANISOTROPY)


def _distinct(at: Floats) -> int:
    return len(np.unique(np.floor(at / _CELL).astype(np.int64), axis=0))


def _correlation(first: Grey, second: Grey, affine: NDArray[np.float64]) -> float:
    """Correlation of local contrasts in the frame of the picture that shows less, 0 where they hardly overlap."""
    if abs(float(np.linalg.det(affine[:, :2]))) < 1.0:  # the second shrinks in the first's frame: it shows less
        first, second, affine = second, first, np.asarray(cv2.invertAffineTransform(affine), dtype=np.float64)
    height, width = first.shape
    size = _overlay_size(height, width)
    laid = cv2.warpAffine(second, affine, (width, height))
    covered = cv2.warpAffine(np.full_like(second, 255), affine, (width, height))
    inside = _inner(cv2.resize(covered, size, interpolation=cv2.INTER_AREA) > 250)
    if inside.mean() < _OVERLAP:
        return 0.0
    ours = _local_contrast(cv2.resize(first, size, interpolation=cv2.INTER_AREA)) * inside
    theirs = _local_contrast(cv2.resize(laid, size, interpolation=cv2.INTER_AREA)) * inside
    length = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    whole = float((ours * theirs).sum()) / length if length else 0.0
    return whole if _agreement(ours, theirs, np.sign(whole)) >= _AGREEMENT else 0.0


def _agreement(ours: Floats, theirs: Floats, sign: float) -> float:
    """Share of the places with something to see where the neighbourhoods agree, too."""
    both, one, other = (cv2.GaussianBlur(each, (0, 0), _SIGMA) for each in (ours * theirs, ours**2, theirs**2))
    visible = np.maximum(one, other) > _VISIBLE
    agrees = sign * both > _AGREES * np.sqrt(np.maximum(one * other, 1e-12))
    return float(agrees[visible].mean()) if visible.any() else 0.0


def _overlay_size(height: int, width: int) -> tuple[int, int]:
    scale = _OVERLAY / max(height, width)
    return max(8, round(width * scale)), max(8, round(height * scale))


def _inner(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without the rim, which borders on nothing."""
    kernel = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.erode(inside.astype(np.uint8), kernel, borderValue=0) > 0)


def _local_contrast(grey: NDArray[np.generic]) -> Floats:
    values = np.asarray(grey).astype(np.float32)
    centred = values - cv2.GaussianBlur(values, (0, 0), _SIGMA)
    spread = np.sqrt(cv2.GaussianBlur(centred * centred, (0, 0), _SIGMA) + _FLAT**2)
    return np.asarray(centred / spread, dtype=np.float32)
