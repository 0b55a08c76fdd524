"""Laying one picture over another without key points: for plain, tiny, noisy and blurred ones.

Local contrast at a few dozen pixels is correlated for every turn, scale, shift and mirroring at once (cross-correlation
by FFT); the best places are refined by maximising the enhanced correlation coefficient (Evangelidis and Psarakis,
"Parametric Image Alignment Using Enhanced Correlation Coefficient Maximization", TPAMI 2008). What comes out are maps,
not verdicts: two strangers have a best place, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]
#: (3, 3) homogeneous map from pixels of the second picture to pixels of the first.
Map = NDArray[np.float64]

#: Longer side in pixels of what is searched and of what is refined, and the neighbourhoods that are normalised away.
_COARSE, _COARSE_SIGMA = 32, 3.0
_FINE, _FINE_SIGMA = 64, 5.0
_CANVAS = 64
_TURNS = 24
_SCALES = (0.62, 0.8, 1.0, 1.25, 1.6)
#: Grey levels below which local contrast is taken for noise.
_FLAT = 4.0
#: Places that are refined, and the least correlation there that is worth it.
_PLACES, _WORTH = 4, 0.2
_STEPS, _ENOUGH = 25, 1e-4


@dataclass(frozen=True)
class Contrast:
    """Local contrast of one picture at two sizes.

    Attributes:
        coarse: longer side `_COARSE`.
        fine: longer side `_FINE`.
        scale: pixels of `coarse` and of `fine` per pixel of the picture.
    """

    coarse: Floats
    fine: Floats
    scale: tuple[float, float]

    @classmethod
    def of(cls, grey: Grey) -> Contrast:
        """From (H, W) grey levels."""
        side = max(grey.shape)
        return cls(
            _local_contrast(grey, _COARSE, _COARSE_SIGMA),
            _local_contrast(grey, _FINE, _FINE_SIGMA),
            (_COARSE / side, _FINE / side),
        )


@dataclass(frozen=True)
class Bank:
    """One picture turned, scaled and mirrored in every way.

    Attributes:
        spectra: (T, canvas, canvas / 2 + 1) of each version.
        norms: (T) of each version.
        contrast: of the picture.
    """

    spectra: NDArray[np.complex64]
    norms: Floats
    contrast: Contrast

    @classmethod
    def of(cls, contrast: Contrast) -> Bank:
        """Turn the picture; some milliseconds and 4 MB, so worth keeping while it is laid under several others."""
        turned = _turns()
        field = contrast.coarse
        middle = _middle(field)
        versions = np.empty((len(turned), _CANVAS, _CANVAS), dtype=np.float32)
        for version, linear in zip(versions, turned, strict=True):
            affine = np.column_stack([linear, _CENTRE - linear @ middle])
            cv2.warpAffine(field, affine, (_CANVAS, _CANVAS), dst=version)
        norms = np.sqrt((versions**2).sum(axis=(1, 2)))
        return cls(scipy.fft.rfft2(versions, axes=(1, 2)), norms, contrast)


_CENTRE = np.array([(_CANVAS - 1) / 2.0, (_CANVAS - 1) / 2.0])


@dataclass(frozen=True)
class Place:
    """One way to lay the second picture over the first.

    Attributes:
        map: from pixels of the second to pixels of the first.
        inverted: whether dark agrees with bright.
    """

    map: Map
    inverted: bool


def places(first: Bank, second: Contrast) -> list[Place]:
    """The few ways to lay the second picture over the first that fit best, refined."""
    found = [_place(first.contrast, second, *each) for each in _peaks(first, second)]
    refined = (refine(first.contrast, second, each, perspective=False) for each in found)
    return [each for each in refined if each is not None]


def refine(first: Contrast, second: Contrast, place: Place, *, perspective: bool) -> Place | None:
    """The same place, fitted to the pixels; None where the pictures do not hold on to each other.

    Args:
        first, second: the pictures.
        place: roughly right.
        perspective: let parallels meet; else the map stays affine.
    """
    ours, theirs = _scaling(first.scale[1]), _scaling(second.scale[1])
    start = (theirs @ np.linalg.inv(place.map) @ np.linalg.inv(ours)).astype(np.float32)
    start /= start[2, 2]
    kind = cv2.MOTION_HOMOGRAPHY if perspective else cv2.MOTION_AFFINE
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _STEPS, _ENOUGH)
    try:
        _, found = cv2.findTransformECC(
            templateImage=first.fine,
            inputImage=-second.fine if place.inverted else second.fine,
            warpMatrix=start if perspective else np.ascontiguousarray(start[:2]),
            motionType=kind,
            criteria=criteria,
            inputMask=None,
            gaussFiltSize=1,
        )
    except cv2.error:  # how OpenCV says that it lost hold
        return None
    whole = found if perspective else np.vstack([found, [0.0, 0.0, 1.0]])
    if not np.isfinite(whole).all() or abs(np.linalg.det(whole)) < 1e-6:
        return None
    back = np.linalg.inv(ours) @ np.linalg.inv(whole.astype(np.float64)) @ theirs
    return Place(back / back[2, 2], place.inverted)


@cache
def _turns() -> NDArray[np.float64]:
    """(T, 2, 2) linear parts: mirrored or not, every turn, every scale."""
    angles = 2.0 * np.pi * np.arange(_TURNS) / _TURNS
    cos, sin = np.cos(angles), np.sin(angles)
    rotations = np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1)
    mirrored = rotations @ np.diag([-1.0, 1.0])
    both = np.concatenate([rotations, mirrored])
    return np.concatenate([scale * both for scale in _SCALES])


def _peaks(first: Bank, second: Contrast) -> list[tuple[int, int, int, bool]]:
    """Version, shift in x and y, and whether inverted, of the highest correlations."""
    field = second.coarse
    height, width = field.shape
    top, left = (_CANVAS - height) // 2, (_CANVAS - width) // 2
    canvas = np.zeros((_CANVAS, _CANVAS), dtype=np.float32)
    canvas[top : top + height, left : left + width] = field
    spectrum = np.conj(scipy.fft.rfft2(canvas))
    correlation = scipy.fft.irfft2(first.spectra * spectrum, s=canvas.shape, axes=(1, 2)).reshape(len(first.norms), -1)
    length = first.norms * float(np.linalg.norm(field)) + 1e-6
    at = np.concatenate([correlation.argmax(axis=1), correlation.argmin(axis=1)])
    version = np.tile(np.arange(len(length)), 2)
    height_of = np.abs(correlation[version, at]) / length[version]
    best = np.argsort(-height_of, kind="stable")[:_PLACES]
    shifts = [divmod(int(at[each]), _CANVAS) for each in best]
    return [
        (int(version[each]), _signed(x), _signed(y), bool(each >= len(length)))
        for each, (y, x) in zip(best, shifts, strict=True)
        if height_of[each] >= _WORTH
    ]


def _place(first: Contrast, second: Contrast, version: int, x: int, y: int, inverted: bool) -> Place:
    field = second.coarse
    corner = np.array([(_CANVAS - field.shape[1]) // 2, (_CANVAS - field.shape[0]) // 2])
    back = np.linalg.inv(_turns()[version])
    moved = corner + np.array([x, y])
    shift = back @ (moved - _CENTRE) + _middle(first.coarse)
    coarse = np.vstack([np.column_stack([back, shift]), [0.0, 0.0, 1.0]])
    return Place(np.linalg.inv(_scaling(first.scale[0])) @ coarse @ _scaling(second.scale[0]), inverted)


def _scaling(scale: float) -> Map:
    """Pixels to pixels of the same picture in another size: centres of pixels lie at whole numbers."""
    shift = 0.5 * scale - 0.5
    return np.array([[scale, 0.0, shift], [0.0, scale, shift], [0.0, 0.0, 1.0]])


def _middle(field: Floats) -> NDArray[np.float64]:
    return np.array([(field.shape[1] - 1) / 2.0, (field.shape[0] - 1) / 2.0])


def _signed(shift: int) -> int:
    return shift - _CANVAS if shift >= _CANVAS // 2 else shift


def _local_contrast(grey: Grey, side: int, sigma: float) -> Floats:
    scale = side / max(grey.shape)
    size = (max(8, round(grey.shape[1] * scale)), max(8, round(grey.shape[0] * scale)))
    smooth = cv2.GaussianBlur(grey, (0, 0), 0.35 / scale) if scale < 1 else grey
    values = cv2.resize(smooth, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    centred = values - cv2.GaussianBlur(values, (0, 0), sigma)
    spread = np.sqrt(cv2.GaussianBlur(centred * centred, (0, 0), sigma) + _FLAT**2)
    return np.asarray(centred / spread, dtype=np.float32)
