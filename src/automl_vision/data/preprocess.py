"""The one preprocessing of validation, test, prediction, serving and exports."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from automl_vision.data.pixel_room import room_for

if TYPE_CHECKING:
    import torch

#: How an image becomes a square: "squash" takes the whole of it, whatever its aspect; "middle" takes the largest square
#: in its middle, so that nothing is out of shape and the ends of the longer side are not seen.
SQUASH, MIDDLE = "squash", "middle"
RESIZES = (SQUASH, MIDDLE)
INTERPOLATIONS: dict[str, Image.Resampling] = {"bilinear": Image.Resampling.BILINEAR}
SIZE_RANGE = (8, 4096)

#: Sides below which no JPEG is decoded at a fraction of its size: so many times the side of the largest square, and so
#: many pixels at least, which is several times the side that a picture is recognised by (`fingerprint.SIDE`).
DRAFT_MARGIN, LEAST_DECODE_SIDE = 2, 256
_LARGEST_DECODE_SIDE = 65_535  # no JPEG has a longer one

#: Bytes that a thumbnail should not exceed, and the JPEG qualities that are tried for it.
THUMBNAIL_BYTES = 10_000
_QUALITIES = (82, 60, 35, 15)
#: Longer side in pixels up to which a thumbnail is kept without loss: in so few, what JPEG adds would be seen.
TINY_SIDE = 64

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """From decoded pixels to what a network takes.

    Attributes:
        size: side of the square input in pixels, within `SIZE_RANGE`.
        mean, std: per RGB channel, for pixels scaled to 0..1; std above 0.
        resize: "squash": the whole image is resized to the square, whatever its aspect; "middle": the largest square in
            its middle is, see `middle_box`.
        interpolation: "bilinear", antialiased.
        decode_side: pixels that no side of a JPEG falls below when it is decoded at a fraction of its size, see
            `decode.jpeg_scale`; 0: images are decoded wholly.

    Raises:
        ValueError: a value is out of range, or of another type.
    """

    size: int
    mean: Channels
    std: Channels
    resize: str = SQUASH
    interpolation: str = "bilinear"
    decode_side: int = 0

    def __post_init__(self) -> None:
        low, high = SIZE_RANGE
        if type(self.size) is not int or not low <= self.size <= high:
            raise ValueError(f"size must be a whole number from {low} to {high}, got size={self.size!r}")
        object.__setattr__(self, "mean", _channels("mean", self.mean, -10.0, 10.0))
        object.__setattr__(self, "std", _channels("std", self.std, 1e-3, 10.0))
        if self.resize not in RESIZES:
            raise ValueError(f"resize must be one of {RESIZES}, got resize={self.resize!r}")
        known = tuple(INTERPOLATIONS)
        if self.interpolation not in known:
            raise ValueError(f"interpolation must be one of {known}, got interpolation={self.interpolation!r}")
        side = self.decode_side
        low, high = LEAST_DECODE_SIDE, _LARGEST_DECODE_SIDE
        if type(side) is not int or not (side == 0 or low <= side <= high):
            raise ValueError(f"decode_side must be 0 or from {low} to {high}, got decode_side={side!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain types only: fits JSON and a model file."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`, for values of unknown origin.

        What was written before there was a `decode_side` was decoded wholly.

        Raises:
            ValueError: a key is missing or unknown, or a value is of the wrong type or out of range.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"preprocessing must be a table, got {type(values).__name__}")
        known = {each.name for each in fields(cls)}
        wrong = sorted(map(str, known.symmetric_difference({"decode_side", *values})))
        if wrong:
            raise ValueError(f"preprocessing must have exactly the keys {sorted(known)}; differs in {wrong}")
        return cls(**values)


def _channels(name: str, values: object, low: float, high: float) -> Channels:
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise ValueError(f"{name} must be three numbers, got {name}={values!r}")
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:  # NaN is in no range
            raise ValueError(f"{name} must be three numbers from {low:g} to {high:g}, got {name}={values!r}")
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def decode_side_of(sizes: Sequence[int]) -> int:
    """The side below which no JPEG is decoded where squares of these sides are made of it; for `Preprocessing`."""
    return max(DRAFT_MARGIN * max(sizes), LEAST_DECODE_SIDE)


def middle_box(width: int, height: int) -> tuple[int, int, int]:
    """The largest square in the middle of an image: left, top and side, in whole pixels.

    What is left over of the longer side is halved and rounded down: an odd pixel is cut off at the right or at the
    bottom.
    """
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side


def square(pixels: NDArray[np.uint8], size: int, resize: str = SQUASH) -> NDArray[np.uint8]:
    """The image, or its middle, resized to a square, antialiased bilinear.

    Args:
        pixels: (H, W, 3) uint8, upright.
        size: side in pixels.
        resize: one of `RESIZES`.

    Returns:
        (size, size, 3) uint8.
    """
    return squares(pixels, (size,), resize)[0]


def squares(pixels: NDArray[np.uint8], sizes: Sequence[int], resize: str = SQUASH) -> tuple[NDArray[np.uint8], ...]:
    """One `square` per size, each from the image and never from another square."""
    return squares_and_whole(pixels, sizes, (), resize)[0]


def squares_and_whole(
    pixels: NDArray[np.uint8], sizes: Sequence[int], whole: Sequence[int], resize: str = SQUASH
) -> tuple[tuple[NDArray[np.uint8], ...], tuple[NDArray[np.uint8], ...]]:
    """One `square` per size, and one of the whole image per size of `whole`, whatever `resize` says.

    Raises:
        ValueError: `resize` is not one of `RESIZES`.
    """
    if resize not in RESIZES:
        raise ValueError(f"resize must be one of {RESIZES}, got {resize=}")
    with room_for(pixels.shape[0] * pixels.shape[1]):
        image = Image.fromarray(np.ascontiguousarray(pixels))
        # Cut before it is resized: no pixel beside the middle has a share in it.
        shown = image.crop(_middle_edges(*image.size)) if resize == MIDDLE else image
        return _resized(shown, sizes), _resized(image, whole)


def _resized(image: Image.Image, sizes: Sequence[int]) -> tuple[NDArray[np.uint8], ...]:
    method = INTERPOLATIONS["bilinear"]
    # No reducing_gap: the two-step shortcut gives other pixels, and these are what every export has to match.
    resized = (image.resize((size, size), method, reducing_gap=None) for size in sizes)
    return tuple(np.array(each, dtype=np.uint8) for each in resized)


def _middle_edges(width: int, height: int) -> tuple[int, int, int, int]:
    left, top, side = middle_box(width, height)
    return left, top, left + side, top + side


def thumbnail(pixels: NDArray[np.uint8], side: int) -> tuple[str, bytes]:
    """A small picture for a page, with its aspect kept and never enlarged.

    Args:
        pixels: (H, W, 3) uint8.
        side: the longer side at most, in pixels.

    Returns:
        media type, and the bytes of the file: a lossless PNG of tiny images, at most 13 kB; else a JPEG, at most
        `THUMBNAIL_BYTES` wherever its quality can be lowered so far.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) <= TINY_SIDE:
        return "image/png", _saved(image, "PNG")
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    for quality in _QUALITIES:
        data = _saved(image, "JPEG", quality=quality)
        if len(data) <= THUMBNAIL_BYTES:
            break
    return "image/jpeg", data


def fitted(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The image with its longer side at most `side` pixels, its aspect kept, never enlarged: (H, W, 3) uint8."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=None)
    return np.array(image, dtype=np.uint8)


def stretched(values: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """What was measured on a square, (S, S), laid over an image of (height, width): the inverse of `square`."""
    return np.array(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 as the bytes of a PNG file."""
    return _saved(Image.fromarray(np.ascontiguousarray(pixels)), "PNG")


def _saved(image: Image.Image, kind: str, **options: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def normalize(batch: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(pixel / 255 - mean) / std per channel.

    Args:
        batch: (B, 3, H, W) uint8, fastest in channels_last memory format.
        mean, std: (3) per channel, for pixels scaled to 0..1.

    Returns:
        (B, 3, H, W) float32 in channels_last memory format, on the device of `batch`.
    """
    import torch

    count, channels, height, width = batch.shape
    scale = torch.tensor([1.0 / (255.0 * s) for s in std], dtype=torch.float32)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32)
    # One long row per image line, so that the per-channel factors are contiguous: 4 times as fast as
    # broadcasting over a last dimension of 3.
    lines = batch.permute(0, 2, 3, 1).reshape(count, height, width * channels).to(torch.float32)
    lines = lines.mul_(scale.repeat(width).to(batch.device)).add_(shift.repeat(width).to(batch.device))
    return lines.view(count, height, width, channels).permute(0, 3, 1, 2)
