"""torchvision's transforms, version 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leaky_sets.pipeline import Change, Kind, Picture, Pipeline, Rng, seed_from

LIBRARY = "torchvision"
MODULE = "torchvision"
#: (the module `transforms.v2`, the picture) -> a transform.
Build = Callable[[Any, Picture], Any]


def _training_side(picture: Picture) -> int:
    """224 px, as in the tutorials; smaller pictures are not enlarged."""
    return min(224, *picture.size)


_SINGLE: dict[str, Build] = {
    "hflip": lambda v2, _: v2.RandomHorizontalFlip(1.0),
    "rotation_black": lambda v2, _: v2.RandomRotation(30, v2.InterpolationMode.BILINEAR),
    "rotation_any": lambda v2, _: v2.RandomRotation(180, v2.InterpolationMode.BILINEAR, expand=True),
    "random_crop": lambda v2, image: v2.RandomCrop((round(0.75 * image.height), round(0.75 * image.width))),
    "random_resized_crop": lambda v2, image: v2.RandomResizedCrop(_training_side(image), scale=(0.25, 1.0)),
    "affine": lambda v2, _: v2.RandomAffine(15, (0.1, 0.1), (0.8, 1.2), 10, v2.InterpolationMode.BILINEAR),
    "perspective": lambda v2, _: v2.RandomPerspective(0.4, 1.0),
    "elastic": lambda v2, image: v2.ElasticTransform(60.0 * _relative(image), 6.0 * _relative(image)),
    "pad": lambda v2, image: v2.Pad(max(image.size) // 6),
    "color_jitter": lambda v2, _: v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
    "channel_permutation": lambda v2, _: v2.RandomChannelPermutation(),
    "grayscale": lambda v2, _: v2.Grayscale(3),
    "invert": lambda v2, _: v2.RandomInvert(1.0),
    "solarize": lambda v2, _: v2.RandomSolarize(128, 1.0),
    "posterize": lambda v2, _: v2.RandomPosterize(3, 1.0),
    "equalize": lambda v2, _: v2.RandomEqualize(1.0),
    "sharpness": lambda v2, _: v2.RandomAdjustSharpness(3.0, 1.0),
    "gaussian_blur": lambda v2, image: v2.GaussianBlur(_odd(13 * _relative(image)), (0.5, 2.5 * _relative(image))),
    "erasing": lambda v2, _: v2.Compose([v2.PILToTensor(), v2.RandomErasing(1.0), v2.ToPILImage()]),
    "jpeg_30": lambda v2, _: v2.JPEG((25, 35)),
}

_CHAIN: dict[str, Build] = {
    # "Getting started with transforms v2"; the crop goes down to 8 % of the area.
    "getting_started": lambda v2, image: v2.Compose(
        [v2.RandomResizedCrop(_training_side(image)), v2.RandomHorizontalFlip()]
    ),
    "trivial_augment": lambda v2, _: v2.Compose([v2.RandomHorizontalFlip(), v2.TrivialAugmentWide()]),
    "rand_augment": lambda v2, _: v2.Compose([v2.RandomHorizontalFlip(), v2.RandAugment()]),
    "flip_rotation_jitter": lambda v2, _: v2.Compose(
        [v2.RandomHorizontalFlip(), v2.RandomRotation(20), v2.ColorJitter(0.2, 0.2, 0.2, 0.05)]
    ),
    "simclr": lambda v2, image: v2.Compose(
        [
            v2.RandomResizedCrop(_training_side(image), scale=(0.2, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(_odd(23 * _relative(image)), (0.1, 2.0))], 0.5),
        ]
    ),
}


def _relative(image: Picture) -> float:
    """Strengths in pixels are for pictures of 320 px; on smaller ones they would leave nothing."""
    return max(0.2, min(1.0, max(image.size) / 320))


def _odd(size: float) -> int:
    return 2 * int(size / 2) + 1


def _change(build: Build) -> Change:
    def change(picture: Picture, rng: Rng) -> Picture:
        import torch
        from torchvision.transforms import v2

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_from(rng))
            changed: Picture = build(v2, picture)(picture)
        return changed.convert("RGB")

    return change


def _rows(kind: Kind, table: dict[str, Build]) -> list[Pipeline]:
    return [Pipeline(operation, LIBRARY, kind, _change(build)) for operation, build in table.items()]


PIPELINES = (*_rows("single", _SINGLE), *_rows("chain", _CHAIN))
