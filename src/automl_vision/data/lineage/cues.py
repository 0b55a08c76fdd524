"""What tells an original from its copies: cues of single images, and of one image laid over another.

No cue decides anything; `originals` weighs them. Augmenting leaves traces: it fills corners and rims, erases, blurs,
adds noise, maps many colours to one, shows a part of what the original shows. Most of these can only be seen against
the other images of the group, so that the cues of a pair are directed: what does the first owe to the second?
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from automl_vision.data.decode import FileSignature
from automl_vision.data.lineage.picture import SIDE, Picture
from automl_vision.data.lineage.registration import Registration

Floats = NDArray[np.float32]
Affine = NDArray[np.float64]

#: Longer side in pixels at which pictures are laid over each other.
OVERLAID = 128
#: Side of the middle of a large picture that is looked at pixel by pixel.
_MIDDLE = 768
#: Deviation of grey levels in a neighbourhood below which it is flat, and above which it shows something.
_FLAT, _TEXTURED = 2.5, 9.0
#: Share of a frame below which something uncovered is only the blur of the rim.
_RIM = 0.01
#: Cells along each side in which colours are averaged.
_CELLS = 24
#: Cells that a regression of colours needs.
_FEWEST_CELLS = 40
#: Displacement of the corners, as a share of the side, up to which two frames are the same one.
_ALIGNED = 0.025


@dataclass(frozen=True)
class Sample:
    """What the cues need of one image.

    Attributes:
        picture: its key points.
        small: (h, w, 3) RGB, longer side `OVERLAID`.
        detail: (h, w) logarithm of the energy of the finest details around each pixel of `small`.
        flat: (h, w) deviation of grey levels around each pixel of `small`.
        single: its own cues, in the order of `originals.SINGLE`.
        writer: signature of the program that wrote the file.
        size: width and height.
    """

    picture: Picture
    small: Floats
    detail: Floats
    flat: Floats
    single: NDArray[np.float64]
    writer: str
    size: tuple[int, int]


def sample(pixels: NDArray[np.uint8], picture: Picture, signature: FileSignature, size_in_bytes: int) -> Sample:
    """The cues of one image.

    Args:
        pixels: (H, W, 3) RGB, upright.
        picture: the same, described for registration.
        signature: of its file.
        size_in_bytes: of its file.
    """
    height, width = pixels.shape[:2]
    scale = OVERLAID / max(height, width)
    shape = (max(4, round(width * scale)), max(4, round(height * scale)))
    small = _floats(cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))
    grey = _floats(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    finest = _band(grey, 0.0, 0.7)
    detail = cv2.resize(finest, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    small_grey = _floats(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
    own = _single(pixels, grey, finest, small, signature, size_in_bytes)
    return Sample(
        picture,
        small,
        np.log(cv2.GaussianBlur(_floats(detail), (0, 0), 1.5) + 0.3),
        _deviation(small_grey),
        own,
        signature.writer,
        (width, height),
    )


def _floats(values: NDArray[np.generic]) -> Floats:
    return np.asarray(values, dtype=np.float32)


def _blurred(values: Floats, sigma: float) -> Floats:
    return _floats(cv2.GaussianBlur(values, (0, 0), sigma)) if sigma else values


def _band(grey: Floats, fine: float, coarse: float) -> Floats:
    return _floats(np.abs(_blurred(grey, fine) - _blurred(grey, coarse)))


def _deviation(grey: Floats) -> Floats:
    mean, square = cv2.blur(grey, (5, 5)), cv2.blur(grey * grey, (5, 5))
    return _floats(np.sqrt(np.maximum(_floats(square) - _floats(mean) ** 2, 0)))


def _single(
    pixels: NDArray[np.uint8],
    grey: Floats,
    finest: Floats,
    small: Floats,
    signature: FileSignature,
    size_in_bytes: int,
) -> NDArray[np.float64]:
    height, width = grey.shape
    top, left = max(0, (height - _MIDDLE) // 2), max(0, (width - _MIDDLE) // 2)
    rows, columns = slice(top, top + _MIDDLE), slice(left, left + _MIDDLE)
    middle, fine = grey[rows, columns], finest[rows, columns]
    coarser = _band(middle, 1.0, 2.0)
    bits = 8.0 * size_in_bytes / (height * width)
    lightness = small.mean(axis=2)
    return np.array(
        [
            np.log(height * width),
            np.log((fine.mean() + 0.1) / (coarser.mean() + 0.1)),
            np.log((coarser.mean() + 0.1) / (lightness.std() + 1.0)),
            np.log(_noise(middle) + 0.3),
            _blocks(grey[: 8 * (height // 8), : 8 * (width // 8)]),
            _gaps(pixels[rows, columns]),
            np.log(_clipped(pixels[rows, columns]) + 0.003),
            np.log(_specks(pixels[rows, columns]) + 0.0005),
            np.log(float((small.max(axis=2) - small.min(axis=2)).mean()) + 1.0),
            float(lightness.mean()) / 64.0,
            np.log(float(lightness.std()) + 2.0),
            _flat_rim(lightness),
            np.log(signature.step + 1.0),
            float(signature.step == 0),
            np.log(bits),
            float(signature.camera),
        ]
    )


def _noise(grey: Floats) -> float:
    """Deviation of the noise in grey levels: the flattest fifth of the neighbourhoods (after Immerkær 1996)."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6.0
    energy = cv2.blur(np.abs(cv2.filter2D(grey, -1, kernel)), (8, 8))[4::8, 4::8]
    return float(np.percentile(energy, 20)) * 1.25 if energy.size else 0.0


def _blocks(grey: Floats) -> float:
    """How much steps between the blocks of 8 that JPEG codes exceed those within them."""
    if min(grey.shape) < 24:
        return 0.0
    total = []
    for steps in (np.abs(np.diff(grey, axis=1)).mean(axis=0), np.abs(np.diff(grey, axis=0)).mean(axis=1)):
        phases = np.array([steps[phase::8].mean() for phase in range(8)])
        total.append(np.log((phases[7] + 0.2) / (np.median(phases[:7]) + 0.2)))
    return float(np.mean(total))


def _gaps(pixels: NDArray[np.uint8]) -> float:
    """Roughness of the histograms: stretching leaves gaps, equalising and posterising spikes."""
    rough = []
    for channel in range(3):
        counts = np.bincount(pixels[..., channel].ravel(), minlength=256)[1:255].astype(np.float64)
        inner = np.abs(counts[1:-1] - (counts[:-2] + counts[2:]) / 2).sum()
        rough.append(inner / max(counts.sum(), 1.0))
    return float(np.log(np.mean(rough) + 0.02))


def _clipped(pixels: NDArray[np.uint8]) -> float:
    """Share of values at either end, beyond what lies next to them."""
    counts = np.bincount(pixels.ravel(), minlength=256) / max(pixels.size, 1)
    return float(max(counts[0] - counts[1], 0) + max(counts[255] - counts[254], 0))


def _specks(pixels: NDArray[np.uint8]) -> float:
    """Share of pixels that are far from everything around them."""
    return float((np.abs(pixels.astype(np.int16) - cv2.medianBlur(pixels, 3)).max(axis=2) > 70).mean())


def _flat_rim(lightness: Floats) -> float:
    """Share of the rim of one pixel that is as its neighbours are."""
    rim = np.concatenate([lightness[0], lightness[-1], lightness[:, 0], lightness[:, -1]])
    return float((np.abs(np.diff(rim)) < 1.0).mean())


def pair_cues(first: Sample, second: Sample, found: Registration) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cues of (first, second) and of (second, first), in the order of `originals.PAIR`.

    Args:
        first, second: two images.
        found: how the second is laid over the first; its map must be known.

    Raises:
        ValueError: no map was found.
    """
    if found.map is None:
        raise ValueError("pictures that were not laid over each other have no cues in common")
    half = OVERLAID / SIDE
    affine = _affine(found.map, second) * np.array([[1, 1, half], [1, 1, half]])
    inverse = np.asarray(cv2.invertAffineTransform(affine), dtype=np.float64)
    mutual = _mutual(first, second, affine, found)
    ours, theirs = _directed(first, second, affine), _directed(second, first, inverse)
    return np.concatenate([ours, mutual]), np.concatenate([theirs, mutual])


def _affine(full: NDArray[np.float64], second: Sample) -> Affine:
    """(2, 3) the map of a plane as it is around the middle of the picture."""
    height, width = (side * SIDE / OVERLAID for side in second.small.shape[:2])
    here = np.array([(0.25, 0.25), (0.75, 0.25), (0.25, 0.75)]) * (width, height)
    there = np.c_[here, np.ones(3)] @ full.T
    mapped = there[:, :2] / there[:, 2:]
    return np.asarray(cv2.getAffineTransform(here.astype(np.float32), mapped.astype(np.float32)), dtype=np.float64)


def _mutual(first: Sample, second: Sample, affine: Affine, found: Registration) -> NDArray[np.float64]:
    linear = affine[:, :2] * np.array([-1.0 if "mirrored" in found.variant else 1.0, 1.0])
    turn = np.degrees(np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))
    large, small = np.linalg.svd(linear, compute_uv=False)
    height, width = second.small.shape[:2]
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)]) @ affine[:, :2].T + affine[:, 2]
    ours = np.array([(0, 0), first.small.shape[1::-1]], dtype=float)
    spread = np.abs(np.stack([corners.min(axis=0), corners.max(axis=0)]) - ours).max() / OVERLAID
    off_axis = abs((turn + 45.0) % 90.0 - 45.0) / 15.0
    misfit = float(min(max(spread, off_axis * 0.1) / _ALIGNED / 4.0, 1.0))
    return np.array(
        [
            found.correlation,
            np.log(found.score + 1.0),
            float("mirrored" in found.variant),
            min(abs(turn) / 45.0, 1.0),
            float("inverted" in found.variant),
            misfit,
            np.log(large / small),
            float(min(np.abs(first.small.mean(axis=(0, 1)) - second.small.mean(axis=(0, 1))).mean() / 20.0, 3.0)),
        ]
    )


def _directed(ours: Sample, theirs: Sample, affine: Affine) -> NDArray[np.float64]:
    height, width = ours.small.shape[:2]
    laid = _laid(theirs.small, affine, width, height, cv2.BORDER_REPLICATE)
    white = np.full(theirs.small.shape[:2], 255, np.float32)
    reached = _laid(white, affine, width, height, cv2.BORDER_CONSTANT)
    kernel = np.ones((3, 3), np.uint8)
    inside = cv2.erode((reached > 250).astype(np.uint8), kernel) > 0
    beyond = cv2.dilate((reached > 5).astype(np.uint8), kernel, iterations=2) == 0
    more, flat, own = _uncovered(ours, theirs, affine, beyond, laid)
    there = _laid(theirs.flat, affine, width, height, cv2.BORDER_REPLICATE)
    smooth = inside & (ours.flat < _FLAT) & (there > _TEXTURED)
    erased = float(cv2.erode(smooth.astype(np.uint8), kernel).mean())
    sharper = ours.detail - _laid(theirs.detail, affine, width, height, cv2.BORDER_REPLICATE)
    gain = np.log((ours.flat[inside].mean() + 1) / (there[inside].mean() + 1)) if inside.any() else 0.0
    return np.array(
        [
            more,
            flat,
            own,
            erased,
            _unexplained(ours.small, laid, inside),
            (float(sharper[inside].mean()) - gain) if inside.any() else 0.0,
        ]
    )


def _laid(values: Floats, affine: Affine, width: int, height: int, border: int) -> Floats:
    return _floats(cv2.warpAffine(values, affine, (width, height), flags=cv2.INTER_LINEAR, borderMode=border))


def _uncovered(
    ours: Sample, theirs: Sample, affine: Affine, beyond: NDArray[np.bool_], laid: Floats
) -> tuple[float, float, float]:
    """Shares of the frame that the other does not reach: where it shows something, where it is filled flat against
    what is beside it, and where it continues what the other shows, mirrored or repeated."""
    share = float(beyond.mean())
    if share < _RIM:
        return 0.0, 0.0, 0.0
    height, width = beyond.shape
    flat = beyond & (ours.flat < _FLAT)
    filled = float(flat.mean()) * _stands_out(ours.small, flat)
    textured = float((beyond & (ours.flat >= _FLAT)).mean())
    mirrored = _laid(theirs.small, affine, width, height, cv2.BORDER_REFLECT_101)
    like = max(_likeness(ours.small[beyond], mirrored[beyond]), _likeness(ours.small[beyond], laid[beyond]))
    own = textured * max(like - 0.3, 0.0) / 0.7
    return textured - own, filled, own


def _stands_out(small: Floats, flat: NDArray[np.bool_]) -> float:
    """Share of the neighbourhood of a flat region that differs from it: a ground goes on, a fill ends."""
    region = flat.astype(np.uint8)
    ring = (cv2.dilate(region, np.ones((9, 9), np.uint8)) > 0) & (cv2.dilate(region, np.ones((5, 5), np.uint8)) == 0)
    if not flat.any() or not ring.any():
        return 0.0
    colour = np.median(small[flat], axis=0)
    return float((np.abs(small[ring] - colour).max(axis=1) > 20).mean())


def _likeness(ours: Floats, theirs: Floats) -> float:
    """Correlation of grey levels."""
    one, other = ours.mean(axis=1), theirs.mean(axis=1)
    one, other = one - one.mean(), other - other.mean()
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / length if length > 1e-3 else 0.0


def _unexplained(ours: Floats, theirs: Floats, inside: NDArray[np.bool_]) -> float:
    """Logarithm of what is left of our colours, in grey levels, after the best quadratic map of theirs."""
    weight = cv2.resize(inside.astype(np.float32), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    kept = weight > 0.8
    if int(kept.sum()) < _FEWEST_CELLS:
        return float(np.log(8.0))
    mine, other = (
        _floats(cv2.resize(each, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA))[kept] / 255.0
        for each in (ours, theirs)
    )
    terms = np.concatenate(
        [np.ones((len(other), 1), np.float32), other, other**2, other * np.roll(other, 1, axis=1)], axis=1
    )
    gram = terms.T @ terms + 1e-3 * np.eye(terms.shape[1], dtype=np.float32)
    left = mine - terms @ np.linalg.solve(gram, terms.T @ mine)
    return float(np.log(255.0 * np.sqrt((left**2).mean()) + 1.0))
