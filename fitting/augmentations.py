"""Copies as people make them: the operations of torchvision, OpenCV and Pillow, alone and in chains.

What is shipped as fitted is fitted on these. Every operation takes an upright RGB image and a generator that all its
chances come from, and gives an RGB image, in a few cases of another size. Strengths are drawn anew for every copy.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torchvision.transforms import v2

Rng = np.random.Generator
Operation = Callable[[Image.Image, Rng], Image.Image]
Pixels = NDArray[np.uint8]

#: Smallest side that an operation leaves, in pixels.
_SMALLEST = 24
_GREY = (128, 128, 128)


@dataclass(frozen=True)
class Augmentation:
    """One way to make a copy.

    Attributes:
        kind: "single" for one operation, "chain" for several in turn.
        apply: makes the copy.
        lossless: whether the copy holds every pixel of its original, so that nobody can tell which was first.
    """

    kind: Literal["single", "chain"]
    apply: Operation
    lossless: bool = False


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _image(values: NDArray[Any]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _signed(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high) * rng.choice([-1, 1]))


def _tv(transform: v2.Transform, image: Image.Image, rng: Rng) -> Image.Image:
    """A torchvision transform, which draws from torch's global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        made: Image.Image = transform(image)
    return made.convert("RGB")


def _transpose(turns: tuple[Image.Transpose, ...], image: Image.Image, rng: Rng) -> Image.Image:
    return image.transpose(turns[int(rng.integers(len(turns)))])


def _turned(
    image: Image.Image, rng: Rng, *, low: float, high: float, border: int, fill: tuple[int, ...]
) -> Image.Image:
    width, height = image.size
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), _signed(rng, low, high), 1.0)
    turned = cv2.warpAffine(
        _pixels(image), matrix, image.size, flags=_interpolation(rng), borderMode=border, borderValue=fill
    )
    return _image(turned)


def _interpolation(rng: Rng) -> int:
    return int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST]))


def _turned_expanded(image: Image.Image, rng: Rng) -> Image.Image:
    """By 5 to 40 degrees on a larger black canvas."""
    return image.rotate(_signed(rng, 5, 40), Image.Resampling.BICUBIC, expand=True)


def _turned_inside(image: Image.Image, rng: Rng) -> Image.Image:
    """By 5 to 30 degrees, cut to the largest upright frame of the old shape without corners."""
    angle = _signed(rng, 5, 30)
    width, height = image.size
    sine, cosine = abs(math.sin(math.radians(angle))), abs(math.cos(math.radians(angle)))
    share = min(width / (width * cosine + height * sine), height / (width * sine + height * cosine))
    inner = (max(_SMALLEST, int(width * share)), max(_SMALLEST, int(height * share)))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    turned = image.rotate(angle, Image.Resampling.BILINEAR)
    cut = turned.crop((left, top, left + inner[0], top + inner[1]))
    return cut.resize(image.size, Image.Resampling.BILINEAR) if rng.random() < 0.6 else cut


def _crop(image: Image.Image, rng: Rng, *, low: float, resized: bool) -> Image.Image:
    share = math.sqrt(rng.uniform(low, 0.9))
    width, height = max(_SMALLEST, round(image.width * share)), max(_SMALLEST, round(image.height * share))
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    cut = image.crop((left, top, left + width, top + height))
    return cut.resize(image.size, Image.Resampling.BILINEAR) if resized else cut


def _random_resized_crop(image: Image.Image, rng: Rng) -> Image.Image:
    """At least 30 % of the area, at the old size or as a square."""
    square = (min(image.size), min(image.size))
    size = square if rng.random() < 0.3 else (image.height, image.width)
    return _tv(v2.RandomResizedCrop(size, scale=(0.3, 1.0), ratio=(0.75, 1.333), antialias=True), image, rng)


def _moved(image: Image.Image, rng: Rng) -> Image.Image:
    """By 5 to 20 % of each side; black, nearest or mirrored beyond."""
    matrix = np.array([[1, 0, _signed(rng, 0.05, 0.2) * image.width], [0, 1, _signed(rng, 0.05, 0.2) * image.height]])
    border = int(rng.choice([cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT]))
    return _image(cv2.warpAffine(_pixels(image), matrix, image.size, borderMode=border))


def _sheared(image: Image.Image, rng: Rng) -> Image.Image:
    shear = math.tan(math.radians(_signed(rng, 5, 20)))
    matrix = np.array([[1, shear, -shear * image.height / 2], [0, 1, 0]])
    border = int(rng.choice([cv2.BORDER_CONSTANT, cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT]))
    return _image(cv2.warpAffine(_pixels(image), matrix, image.size, flags=_interpolation(rng), borderMode=border))


def _affine(image: Image.Image, rng: Rng) -> Image.Image:
    fill: Any = [0, 0, 255, 128][int(rng.integers(4))]
    transform = v2.RandomAffine(
        25, (0.1, 0.1), (0.8, 1.2), (-10, 10), interpolation=v2.InterpolationMode.BILINEAR, fill=fill
    )
    return _tv(transform, image, rng)


def _perspective(image: Image.Image, rng: Rng) -> Image.Image:
    return _tv(v2.RandomPerspective(rng.uniform(0.15, 0.45), p=1.0), image, rng)


def _elastic(image: Image.Image, rng: Rng) -> Image.Image:
    """Simard's distortion: smoothed noise moves every pixel by up to some 4 % of the side."""
    side = max(image.size)
    shape = (image.height, image.width)
    sigma, reach = side * rng.uniform(0.025, 0.06), side * rng.uniform(0.01, 0.035)
    moves = [cv2.GaussianBlur(rng.uniform(-1, 1, shape).astype(np.float32), (0, 0), sigma) for _ in range(2)]
    right, down = (move / max(float(np.abs(move).max()), 1e-6) * reach for move in moves)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    border = int(rng.choice([cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT_101]))
    return _image(cv2.remap(_pixels(image), x + right, y + down, cv2.INTER_LINEAR, borderMode=border))


def _brightness_contrast(image: Image.Image, rng: Rng) -> Image.Image:
    return _image(_pixels(image) * rng.uniform(0.65, 1.4) + rng.uniform(-45, 45))


def _brightness(image: Image.Image, rng: Rng) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(float(rng.choice([rng.uniform(0.5, 0.85), rng.uniform(1.15, 1.6)])))


def _contrast(image: Image.Image, rng: Rng) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(float(rng.choice([rng.uniform(0.5, 0.85), rng.uniform(1.15, 1.6)])))


def _gamma(image: Image.Image, rng: Rng) -> Image.Image:
    power = math.exp(_signed(rng, 0.2, 0.7))
    return _image(255.0 * (_pixels(image) / 255.0) ** power)


def _jitter(image: Image.Image, rng: Rng) -> Image.Image:
    return _tv(v2.ColorJitter(0.4, 0.4, 0.4, 0.08), image, rng)


def _hue(image: Image.Image, rng: Rng) -> Image.Image:
    shift = np.array([round(_signed(rng, 5, 30)), 0, 0])
    hsv = cv2.cvtColor(_pixels(image), cv2.COLOR_RGB2HSV).astype(np.int64) + shift
    hsv[..., 0] %= 180
    return _image(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB))


def _saturation(image: Image.Image, rng: Rng) -> Image.Image:
    return ImageEnhance.Color(image).enhance(float(rng.choice([rng.uniform(0.2, 0.7), rng.uniform(1.4, 2.2)])))


def _channel_shift(image: Image.Image, rng: Rng) -> Image.Image:
    return _image(_pixels(image) + rng.uniform(-35, 35, 3))


def _grey(image: Image.Image, _rng: Rng) -> Image.Image:
    return image.convert("L").convert("RGB")


def _invert(image: Image.Image, _rng: Rng) -> Image.Image:
    return ImageOps.invert(image)


def _posterize(image: Image.Image, rng: Rng) -> Image.Image:
    return ImageOps.posterize(image, int(rng.integers(2, 6)))


def _equalize(image: Image.Image, _rng: Rng) -> Image.Image:
    return ImageOps.equalize(image)


def _clahe(image: Image.Image, rng: Rng) -> Image.Image:
    lab = cv2.cvtColor(_pixels(image), cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(float(rng.uniform(1.5, 5)), (8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return _image(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def _autocontrast(image: Image.Image, rng: Rng) -> Image.Image:
    return ImageOps.autocontrast(image, cutoff=float(rng.choice([0.5, 1, 2, 5])))


def _sharpen(image: Image.Image, rng: Rng) -> Image.Image:
    if rng.random() < 0.5:
        return ImageEnhance.Sharpness(image).enhance(float(rng.uniform(1.8, 4)))
    return image.filter(ImageFilter.UnsharpMask(float(rng.uniform(1, 3)), int(rng.integers(80, 250)), 2))


def _gaussian_blur(image: Image.Image, rng: Rng) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.6, 3.0))))


def _median_blur(image: Image.Image, rng: Rng) -> Image.Image:
    return _image(cv2.medianBlur(_pixels(image), int(rng.choice([3, 5, 7]))))


def _motion_blur(image: Image.Image, rng: Rng) -> Image.Image:
    length = int(rng.choice([5, 7, 9, 13]))
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1.0 / length
    middle = (length / 2 - 0.5, length / 2 - 0.5)
    turned = cv2.warpAffine(kernel, cv2.getRotationMatrix2D(middle, rng.uniform(0, 180), 1.0), (length, length))
    return _image(cv2.filter2D(_pixels(image), -1, turned / turned.sum()))


def _gaussian_noise(image: Image.Image, rng: Rng) -> Image.Image:
    shape = (image.height, image.width, 3 if rng.random() < 0.7 else 1)
    return _image(_pixels(image) + rng.normal(0, rng.uniform(6, 30), shape))


def _speckle(image: Image.Image, rng: Rng) -> Image.Image:
    return _image(_pixels(image) * (1 + rng.normal(0, rng.uniform(0.08, 0.25), (image.height, image.width, 3))))


def _salt_and_pepper(image: Image.Image, rng: Rng) -> Image.Image:
    pixels = _pixels(image).copy()
    share = rng.uniform(0.005, 0.05)
    drawn = rng.random(pixels.shape[:2])
    pixels[drawn < share / 2] = 0
    pixels[drawn > 1 - share / 2] = 255
    return _image(pixels)


def _jpeg(image: Image.Image, rng: Rng) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(10, 51)))
    return Image.open(buffer, formats=("JPEG",)).convert("RGB")


def _downscale(image: Image.Image, rng: Rng) -> Image.Image:
    """Smaller and back, or kept small."""
    share = rng.uniform(0.3, 0.7)
    small = (max(_SMALLEST, round(image.width * share)), max(_SMALLEST, round(image.height * share)))
    if rng.random() < 0.3:
        return image.resize(small, Image.Resampling.LANCZOS)
    return image.resize(small, Image.Resampling.BILINEAR).resize(image.size, _resampling(rng))


def _resampling(rng: Rng) -> Image.Resampling:
    kinds = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    return kinds[int(rng.integers(len(kinds)))]


def _squash(image: Image.Image, rng: Rng) -> Image.Image:
    """One side by 60 to 85 %."""
    shares = rng.permutation([rng.uniform(0.6, 0.85), 1.0])
    size = (max(_SMALLEST, round(image.width * shares[0])), max(_SMALLEST, round(image.height * shares[1])))
    return image.resize(size, Image.Resampling.BICUBIC)


def _cutout(image: Image.Image, rng: Rng, *, holes: int) -> Image.Image:
    """Black, grey, white or mean rectangles, or noise."""
    pixels = _pixels(image).copy()
    fills: list[Any] = [0, 0, 128, 255, pixels.mean(axis=(0, 1)), "noise"]
    fill = fills[int(rng.integers(len(fills)))]
    for _ in range(holes):
        share = rng.uniform(0.15, 0.45, 2) / math.sqrt(holes)
        width, height = max(4, int(image.width * share[0])), max(4, int(image.height * share[1]))
        left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
        what = rng.integers(0, 256, (height, width, 3)) if isinstance(fill, str) else fill
        pixels[top : top + height, left : left + width] = what
    return _image(pixels)


def _watermark(image: Image.Image, rng: Rng) -> Image.Image:
    """Letters, half see-through, somewhere."""
    pixels = _pixels(image)
    layer = pixels.copy()
    text = "".join(chr(65 + int(each)) for each in rng.integers(0, 26, int(rng.integers(4, 12))))
    scale = image.width / 220 * rng.uniform(0.6, 1.4)
    at = (int(image.width * rng.uniform(0, 0.4)), int(image.height * rng.uniform(0.15, 0.95)))
    colour = [(255, 255, 255), (0, 0, 0), (255, 0, 0)][int(rng.integers(3))]
    cv2.putText(layer, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, max(1, round(2 * scale)), cv2.LINE_AA)
    share = rng.uniform(0.35, 0.9)
    return _image(layer * share + pixels * (1 - share))


def _pad(image: Image.Image, rng: Rng) -> Image.Image:
    """Black, white, grey, nearest or mirrored rims of 4 to 15 %; or a square with bars."""
    if rng.random() < 0.3 and image.width != image.height:
        fill = [(0, 0, 0), (255, 255, 255), _GREY][int(rng.integers(3))]
        return ImageOps.pad(image, (max(image.size),) * 2, color=fill)
    borders = [(cv2.BORDER_CONSTANT, 0), (cv2.BORDER_CONSTANT, 255), (cv2.BORDER_CONSTANT, 128)]
    borders += [(cv2.BORDER_REPLICATE, 0), (cv2.BORDER_REFLECT, 0), (cv2.BORDER_REFLECT_101, 0)]
    kind, value = borders[int(rng.integers(len(borders)))]
    x, y = max(2, int(image.width * rng.uniform(0.04, 0.15))), max(2, int(image.height * rng.uniform(0.04, 0.15)))
    return _image(cv2.copyMakeBorder(_pixels(image), y, y, x, x, kind, value=(value,) * 3))


def _zoom_out(image: Image.Image, rng: Rng) -> Image.Image:
    """55 to 90 % of the size on a canvas of the old size."""
    share = rng.uniform(0.55, 0.9)
    small = image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.BILINEAR)
    fill = [(0, 0, 0), (0, 0, 0), (255, 255, 255), _GREY][int(rng.integers(4))]
    canvas = Image.new("RGB", image.size, fill)
    room = (image.width - small.width, image.height - small.height)
    at = (room[0] // 2, room[1] // 2) if rng.random() < 0.5 else (int(rng.integers(room[0] + 1)), 0)
    canvas.paste(small, at)
    return canvas


def _chain(steps: tuple[tuple[Operation, float], ...]) -> Operation:
    """Each step with its chance; where none is drawn, the first is taken."""
    return partial(_run_chain, steps)


def _run_chain(steps: tuple[tuple[Operation, float], ...], image: Image.Image, rng: Rng) -> Image.Image:
    drawn = [step for step, chance in steps if rng.random() < chance] or [steps[0][0]]
    for step in drawn:
        image = step(image, rng)
    return image


def _tv_composed(make: Callable[[tuple[int, int]], v2.Transform], image: Image.Image, rng: Rng) -> Image.Image:
    return _tv(make((image.height, image.width)), image, rng)


_FLIP, _FLOP = (Image.Transpose.FLIP_LEFT_RIGHT,), (Image.Transpose.FLIP_TOP_BOTTOM,)
_QUARTERS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)

_hflip: Operation = partial(_transpose, _FLIP)
_vflip: Operation = partial(_transpose, _FLOP)
_rot90: Operation = partial(_transpose, _QUARTERS)
_rot_black: Operation = partial(_turned, low=8, high=40, border=cv2.BORDER_CONSTANT, fill=(0, 0, 0))
_rot_white: Operation = partial(_turned, low=8, high=40, border=cv2.BORDER_CONSTANT, fill=(255, 255, 255))
_rot_reflect: Operation = partial(_turned, low=8, high=40, border=cv2.BORDER_REFLECT_101, fill=(0, 0, 0))
_rot_nearest: Operation = partial(_turned, low=8, high=40, border=cv2.BORDER_REPLICATE, fill=(0, 0, 0))
_rot_any: Operation = partial(_turned, low=40, high=180, border=cv2.BORDER_CONSTANT, fill=(0, 0, 0))
_keras_zoom: Operation = partial(_crop, low=0.55, resized=True)

AUGMENTATIONS: dict[str, Augmentation] = {
    "hflip": Augmentation("single", _hflip, lossless=True),
    "vflip": Augmentation("single", _vflip, lossless=True),
    "rot90": Augmentation("single", _rot90, lossless=True),
    "rotate_black": Augmentation("single", _rot_black),
    "rotate_white": Augmentation("single", _rot_white),
    "rotate_reflect": Augmentation("single", _rot_reflect),
    "rotate_nearest": Augmentation("single", _rot_nearest),
    "rotate_any": Augmentation("single", _rot_any),
    "rotate_expand": Augmentation("single", _turned_expanded),
    "rotate_inside": Augmentation("single", _turned_inside),
    "crop": Augmentation("single", partial(_crop, low=0.4, resized=False)),
    "crop_resized": Augmentation("single", partial(_crop, low=0.4, resized=True)),
    "random_resized_crop": Augmentation("single", _random_resized_crop),
    "shift": Augmentation("single", _moved),
    "shear": Augmentation("single", _sheared),
    "affine": Augmentation("single", _affine),
    "perspective": Augmentation("single", _perspective),
    "elastic": Augmentation("single", _elastic),
    "brightness": Augmentation("single", _brightness),
    "contrast": Augmentation("single", _contrast),
    "brightness_contrast": Augmentation("single", _brightness_contrast),
    "gamma": Augmentation("single", _gamma),
    "color_jitter": Augmentation("single", _jitter),
    "hue": Augmentation("single", _hue),
    "saturation": Augmentation("single", _saturation),
    "channel_shift": Augmentation("single", _channel_shift),
    "grey": Augmentation("single", _grey),
    "invert": Augmentation("single", _invert, lossless=True),
    "posterize": Augmentation("single", _posterize),
    "equalize": Augmentation("single", _equalize),
    "clahe": Augmentation("single", _clahe),
    "autocontrast": Augmentation("single", _autocontrast),
    "sharpen": Augmentation("single", _sharpen),
    "gaussian_blur": Augmentation("single", _gaussian_blur),
    "median_blur": Augmentation("single", _median_blur),
    "motion_blur": Augmentation("single", _motion_blur),
    "gaussian_noise": Augmentation("single", _gaussian_noise),
    "speckle": Augmentation("single", _speckle),
    "salt_and_pepper": Augmentation("single", _salt_and_pepper),
    "jpeg": Augmentation("single", _jpeg),
    "downscale": Augmentation("single", _downscale),
    "squash": Augmentation("single", _squash),
    "cutout": Augmentation("single", partial(_cutout, holes=1)),
    "coarse_dropout": Augmentation("single", partial(_cutout, holes=6)),
    "watermark": Augmentation("single", _watermark),
    "pad": Augmentation("single", _pad),
    "zoom_out": Augmentation("single", _zoom_out),
    "chain_torchvision": Augmentation(
        "chain", _chain(((_random_resized_crop, 1.0), (_hflip, 0.5), (_jitter, 0.8), (_grey, 0.1)))
    ),
    "chain_trivial": Augmentation("chain", partial(_tv_composed, lambda _size: v2.TrivialAugmentWide())),
    "chain_randaugment": Augmentation("chain", partial(_tv_composed, lambda _size: v2.RandAugment(2, 9))),
    "chain_augmix": Augmentation("chain", partial(_tv_composed, lambda _size: v2.AugMix())),
    "chain_keras": Augmentation(
        "chain", _chain(((_rot_nearest, 1.0), (_moved, 0.6), (_sheared, 0.5), (_keras_zoom, 0.5), (_hflip, 0.5)))
    ),
    "chain_flip_rotate_colour": Augmentation("chain", _chain(((_rot_black, 1.0), (_hflip, 0.5), (_jitter, 1.0)))),
    "chain_albumentations": Augmentation(
        "chain",
        _chain(((_brightness_contrast, 0.7), (_hflip, 0.5), (_rot_reflect, 0.7), (_gaussian_blur, 0.3), (_clahe, 0.3))),
    ),
    "chain_crop_noise_jpeg": Augmentation(
        "chain", _chain(((_keras_zoom, 1.0), (_hflip, 0.5), (_gaussian_noise, 1.0), (_jpeg, 0.7)))
    ),
    "chain_perspective_colour_blur": Augmentation(
        "chain", _chain(((_perspective, 1.0), (_jitter, 1.0), (_gaussian_blur, 0.6)))
    ),
    "chain_roboflow": Augmentation(
        "chain",
        _chain(
            (
                (_hflip, 0.5),
                (_rot90, 0.5),
                (_keras_zoom, 0.6),
                (_rot_black, 0.6),
                (_brightness, 0.6),
                (_gaussian_blur, 0.4),
                (_salt_and_pepper, 0.5),
            )
        ),
    ),
    "chain_augmentor": Augmentation(
        "chain", _chain(((_turned_inside, 0.8), (_keras_zoom, 0.5), (_hflip, 0.5), (_vflip, 0.3), (_elastic, 0.4)))
    ),
}


def augment(name: str, image: Image.Image, rng: Rng) -> Image.Image:
    """One copy of `image`, an RGB picture, by the row `name` of `AUGMENTATIONS`."""
    return AUGMENTATIONS[name].apply(image, rng).convert("RGB")
