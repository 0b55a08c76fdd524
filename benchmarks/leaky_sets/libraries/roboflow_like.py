"""What Roboflow's export offers, with the ranges that it proposes: written anew, for it runs on their machines only.

Here, too, what people do without a library: text over a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from leaky_sets.pipeline import Change, Picture, Pipeline, Rng

LIBRARY = "Roboflow-like"
MODULE = "PIL"


def flip(picture: Picture, rng: Rng) -> Picture:
    """Left and right, or top and bottom."""
    ways = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM)
    return picture.transpose(ways[int(rng.integers(2))])


def rot90(picture: Picture, rng: Rng) -> Picture:
    """Clockwise, counter-clockwise, or upside down."""
    ways = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    return picture.transpose(ways[int(rng.integers(3))])


def crop(picture: Picture, rng: Rng) -> Picture:
    """0 to 20 % of each side are cut off; the rest is enlarged to the old size."""
    kept = 1 - float(rng.uniform(0, 0.2))
    width, height = picture.width * kept, picture.height * kept
    left, top = float(rng.uniform(0, picture.width - width)), float(rng.uniform(0, picture.height - height))
    box = (left, top, left + width, top + height)
    return picture.resize(picture.size, Image.Resampling.BILINEAR, box)


def rotation(picture: Picture, rng: Rng) -> Picture:
    """Up to 15 degrees either way; black corners."""
    return picture.rotate(float(rng.uniform(-15, 15)), Image.Resampling.BICUBIC)


def shear(picture: Picture, rng: Rng) -> Picture:
    """Up to 10 degrees along each axis; black corners."""
    across, down = np.tan(np.deg2rad(rng.uniform(-10, 10, 2))).tolist()
    data = (1, across, -across * picture.height / 2, down, 1, -down * picture.width / 2)
    return picture.transform(picture.size, Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)


def grey(picture: Picture, _rng: Rng) -> Picture:
    """Without colour."""
    return picture.convert("L").convert("RGB")


def hue(picture: Picture, rng: Rng) -> Picture:
    """Turned by up to 25 degrees."""
    turned, saturation, value = picture.convert("HSV").split()
    by = np.uint8(round(float(rng.uniform(-25, 25)) / 360 * 256) % 256)
    return Image.merge("HSV", (Image.fromarray(np.asarray(turned) + by), saturation, value)).convert("RGB")


def saturation(picture: Picture, rng: Rng) -> Picture:
    """By up to 25 % either way."""
    return ImageEnhance.Color(picture).enhance(float(rng.uniform(0.75, 1.25)))


def brightness(picture: Picture, rng: Rng) -> Picture:
    """By up to 25 % either way."""
    return ImageEnhance.Brightness(picture).enhance(float(rng.uniform(0.75, 1.25)))


def exposure(picture: Picture, rng: Rng) -> Picture:
    """Gamma of up to 25 % either way."""
    values = np.asarray(picture) / 255.0
    return _picture(255.0 * values ** (1 / float(rng.uniform(0.75, 1.25))))


def blur(picture: Picture, rng: Rng) -> Picture:
    """Up to 2.5 px, at 640 px; less on smaller pictures."""
    return picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 2.5)) * min(1.0, max(picture.size) / 480)))


def noise(picture: Picture, rng: Rng) -> Picture:
    """Up to 5 % of the pixels become black or white."""
    values = np.array(picture)
    struck = rng.random(values.shape[:2]) < rng.uniform(0.01, 0.05)
    values[struck] = 255 * rng.integers(0, 2, (int(struck.sum()), 1))
    return Image.fromarray(values)


def cutout(picture: Picture, rng: Rng) -> Picture:
    """Three black boxes with a tenth of each side, to five with a quarter."""
    covered = picture.copy()
    share = float(rng.uniform(0.1, 0.25))
    width, height = max(1, round(picture.width * share)), max(1, round(picture.height * share))
    for _ in range(int(rng.integers(3, 6))):
        left, top = int(rng.integers(picture.width - width + 1)), int(rng.integers(picture.height - height + 1))
        covered.paste((0, 0, 0), (left, top, left + width, top + height))
    return covered


def watermark(picture: Picture, rng: Rng) -> Picture:
    """Half-transparent text across the middle."""
    layer = Image.new("L", picture.size, 0)
    text, corner = "SAMPLE 2024", (0.1 * picture.width, float(rng.uniform(0.3, 0.6)) * picture.height)
    ImageDraw.Draw(layer).text(corner, text, fill=int(rng.integers(110, 180)), font_size=max(8, picture.width // 9))
    return Image.composite(Image.new("RGB", picture.size, (255, 255, 255)), picture, layer)


def stretch(picture: Picture, _rng: Rng) -> Picture:
    """To a square, as its preprocessing does if it is not told otherwise."""
    side = max(picture.size)
    return picture.resize((side, side), Image.Resampling.BILINEAR)


def _picture(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Picture:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _chained(changes: Sequence[Change], picture: Picture, rng: Rng) -> Picture:
    """Each with a chance of three quarters: an export draws a strength for each, some of them next to nothing."""
    for change in changes:
        if rng.random() < 0.75:
            picture = change(picture, rng)
    return picture


_SINGLE: tuple[Change, ...] = (
    *(flip, rot90, crop, rotation, shear, grey, hue, saturation, brightness, exposure, blur, noise, cutout),
    *(watermark, stretch),
)
_CHAIN: dict[str, tuple[Change, ...]] = {
    "export_geometry": (flip, rot90, crop, rotation, shear),
    "export_colour": (flip, grey, hue, saturation, brightness, exposure, blur, noise),
    "export_usual": (flip, crop, rotation, brightness, blur),
    "export_everything": (
        *(flip, rot90, crop, rotation, shear, hue, saturation, brightness, exposure, blur, noise, cutout),
    ),
}

PIPELINES = (
    *(Pipeline(change.__name__, LIBRARY, "single", change) for change in _SINGLE),
    *(Pipeline(name, LIBRARY, "chain", partial(_chained, changes)) for name, changes in _CHAIN.items()),
)
