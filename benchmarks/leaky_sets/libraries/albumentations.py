"""albumentations, in the last version that its authors released under the MIT licence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from leaky_sets.pipeline import Change, Kind, Picture, Pipeline, Rng, seed_from

LIBRARY = "albumentations"
MODULE = "albumentations"
#: OpenCV's numbers for what comes in at the border.
_CONSTANT, _REPLICATE, _REFLECT = 0, 1, 4
#: (the module, the picture) -> transforms in turn.
Build = Callable[[Any, Picture], list[Any]]


_SINGLE: dict[str, Build] = {
    "vflip": lambda a, _: [a.VerticalFlip(p=1)],
    "transpose": lambda a, _: [a.Transpose(p=1)],
    "rot90": lambda a, _: [a.Rotate((90, 90), p=1)],
    "rotate_reflect": lambda a, _: [a.Rotate((-45, 45), border_mode=_REFLECT, p=1)],
    "rotate_nearest": lambda a, _: [a.Rotate((-30, 30), border_mode=_REPLICATE, p=1)],
    "safe_rotate": lambda a, _: [a.SafeRotate((-90, 90), border_mode=_CONSTANT, p=1)],
    "shift_scale_rotate": lambda a, _: [
        a.Affine(
            scale=(0.9, 1.1),
            translate_percent=(-0.0625, 0.0625),
            rotate=(-45, 45),
            border_mode=_REFLECT,
            p=1,
        )
    ],
    "crop": lambda a, image: [a.RandomCrop(round(0.7 * image.height), round(0.7 * image.width), p=1)],
    "grid_distortion": lambda a, _: [a.GridDistortion(p=1)],
    "optical_distortion": lambda a, _: [a.OpticalDistortion((-0.3, 0.3), p=1)],
    "elastic": lambda a, image: [a.ElasticTransform(alpha=0.3 * max(image.size), sigma=0.05 * max(image.size), p=1)],
    "perspective": lambda a, _: [a.Perspective(p=1)],
    "brightness_contrast": lambda a, _: [a.RandomBrightnessContrast(0.3, 0.3, p=1)],
    "gamma": lambda a, _: [a.RandomGamma((60, 160), p=1)],
    "hue_saturation": lambda a, _: [a.HueSaturationValue(p=1)],
    "rgb_shift": lambda a, _: [a.RGBShift(p=1)],
    "channel_shuffle": lambda a, _: [a.ChannelShuffle(p=1)],
    "to_sepia": lambda a, _: [a.ToSepia(p=1)],
    "clahe": lambda a, _: [a.CLAHE(p=1)],
    "motion_blur": lambda a, _: [a.MotionBlur((3, 9), p=1)],
    "gauss_noise": lambda a, _: [a.GaussNoise(p=1)],
    "iso_noise": lambda a, _: [a.ISONoise(p=1)],
    "salt_and_pepper": lambda a, _: [a.SaltAndPepper(p=1)],
    "image_compression": lambda a, _: [a.ImageCompression(quality_range=(20, 40), p=1)],
    "downscale": lambda a, _: [a.Downscale(scale_range=(0.25, 0.5), p=1)],
    "coarse_dropout": lambda a, _: [a.CoarseDropout(p=1)],
    "random_shadow": lambda a, _: [a.RandomShadow(p=1)],
    "random_fog": lambda a, _: [a.RandomFog(p=1)],
    "squash": lambda a, image: [a.Resize(min(224, *image.size), min(224, *image.size), p=1)],
}

_CHAIN: dict[str, Build] = {
    # The first example of the documentation; it crops 256 px from photographs of 400 and more.
    "quick_start": lambda a, image: [
        a.RandomCrop(round(0.64 * image.height), round(0.64 * image.width)),
        a.HorizontalFlip(p=0.5),
        a.RandomBrightnessContrast(p=0.2),
    ],
    "classification": lambda a, image: [
        a.RandomResizedCrop((min(224, *image.size),) * 2, scale=(0.5, 1.0)),
        a.HorizontalFlip(p=0.5),
        a.Affine(scale=(0.95, 1.05), translate_percent=(-0.05, 0.05), rotate=(-15, 15), border_mode=_REFLECT, p=0.5),
        a.RGBShift(15, 15, 15, p=0.5),
        a.RandomBrightnessContrast(p=0.5),
    ],
    # The "strong" chain that notebooks hand on.
    "strong": lambda a, _: [
        a.RandomRotate90(),
        a.HorizontalFlip(),
        a.Transpose(),
        a.GaussNoise(p=0.2),
        a.OneOf([a.MotionBlur(p=0.2), a.MedianBlur(blur_limit=3, p=0.1), a.Blur(blur_limit=3, p=0.1)], p=0.2),
        a.Affine(scale=(0.8, 1.2), translate_percent=(-0.0625, 0.0625), rotate=(-45, 45), border_mode=_REFLECT, p=0.2),
        a.OneOf([a.OpticalDistortion(p=0.3), a.GridDistortion(p=0.1)], p=0.2),
        a.OneOf([a.CLAHE(2), a.Sharpen(), a.Emboss(), a.RandomBrightnessContrast()], p=0.3),
        a.HueSaturationValue(p=0.3),
    ],
    "flip_crop_dropout": lambda a, image: [
        a.HorizontalFlip(p=0.5),
        a.RandomSizedCrop((round(0.6 * min(image.size)), min(image.size)), (image.height, image.width), p=0.8),
        a.ColorJitter(p=0.5),
        a.CoarseDropout(p=0.5),
    ],
}


def _change(build: Build) -> Change:
    def change(picture: Picture, rng: Rng) -> Picture:
        import albumentations

        compose = albumentations.Compose(build(albumentations, picture), seed=seed_from(rng))
        return Image.fromarray(compose(image=np.array(picture))["image"]).convert("RGB")

    return change


def _rows(kind: Kind, table: dict[str, Build]) -> list[Pipeline]:
    return [Pipeline(operation, LIBRARY, kind, _change(build)) for operation, build in table.items()]


PIPELINES = (*_rows("single", _SINGLE), *_rows("chain", _CHAIN))
