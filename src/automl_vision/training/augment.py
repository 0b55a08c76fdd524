"""Augmentation of whole batches on their device, with parameters of its own for every image.

Parameters are drawn on the CPU from a generator that the caller keys by (seed, epoch, step), so that every
device sees the same crops, and for the whole batch, so that each of several processes that share it sees them too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from automl_vision.models.image_source import resize
from automl_vision.training.each_image import each_image
from automl_vision.training.operations import OPERATIONS, sample
from automl_vision.training.randomness import Draws
from automl_vision.training.recipe import Recipe

Bounds = tuple[float, float]

#: Shares of the area, and aspect ratios, of a random crop.
_AREA: Bounds = (0.6, 1.0)
_ASPECT: Bounds = (4 / 5, 5 / 4)
#: The same of an erased rectangle (Zhong et al. 2020).
_ERASED_AREA: Bounds = (0.02, 1 / 3)
_ERASED_ASPECT: Bounds = (0.3, 3.3)

#: RandAugment (Cubuk et al. 2020): how many operations an image gets, and how strong they are, of 30.
_OPERATIONS_PER_IMAGE = 2
_MAGNITUDE = 9 / 30
#: Its range of each operation as a share of the one that strengths are told in; 1 where it is not here.
_RANGES = {
    "shear_x": 0.3 / 0.99,
    "shear_y": 0.3 / 0.99,
    "translate_x": 150 / 331 / (32 / 224),
    "translate_y": 150 / 331 / (32 / 224),
    "rotate": 30 / 135,
    "brightness": 0.9 / 0.99,
    "colour": 0.9 / 0.99,
    "contrast": 0.9 / 0.99,
    "sharpness": 0.9 / 0.99,
    "posterize": 4 / 6,
}

#: Largest rotation in degrees, shear, logarithm of the scale, and shift as a share of the side, either way.
_ROTATION, _SHEAR, _LOG_SCALE, _SHIFT = 15.0, 0.15, math.log(1.25), 0.1

#: (B, 3, P, P) uint8, output side S, draws for each -> (B, 3, S, S) uint8.
Frame = Callable[[torch.Tensor, int, Draws], torch.Tensor]
#: (B, 3, S, S) uint8, draws for each -> the same shape; may change its input.
Change = Callable[[torch.Tensor, Draws], torch.Tensor]


def _resized(batch: torch.Tensor, size: int, _draws: Draws) -> torch.Tensor:
    return resize(batch, size)


def _random_crop(batch: torch.Tensor, size: int, draws: Draws) -> torch.Tensor:
    boxes = crop_boxes(draws, batch.shape[-1])
    return _crop_by_slices(batch, boxes, size) if batch.device.type == "cpu" else _crop_by_grid(batch, boxes, size)


def _warped(batch: torch.Tensor, size: int, draws: Draws) -> torch.Tensor:
    """Rotation, shear, scale and translation in one map; what comes in from outside is the image, mirrored."""
    drawn = draws.uniform(5) * 2 - 1
    angle, scale = math.radians(_ROTATION) * drawn[0], torch.exp(_LOG_SCALE * drawn[1])
    cosine, sine, shear = angle.cos() / scale, angle.sin() / scale, _SHEAR * drawn[2]
    rows = [cosine, shear * cosine - sine, 2 * _SHIFT * drawn[3], sine, shear * sine + cosine, 2 * _SHIFT * drawn[4]]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3).to(batch.device)
    warped = sample(resize(batch, size).float(), theta, size, "reflection")
    return warped.round_().clamp_(0, 255).to(torch.uint8)


def _unchanged(images: torch.Tensor, _draws: Draws) -> torch.Tensor:
    return images


def _trivial(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    """TrivialAugment, wide (Mueller and Hutter 2021): one random operation of random strength per image."""
    choice = draws.integers(len(OPERATIONS))
    strength = draws.uniform()
    return _operated(images, choice, strength, _signs(draws))


def _random_pair(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    """RandAugment (Cubuk et al. 2020): random operations one after the other, all of one magnitude."""
    strengths = torch.tensor([min(1.0, _MAGNITUDE * _RANGES.get(name, 1.0)) for name in OPERATIONS])
    for _ in range(_OPERATIONS_PER_IMAGE):
        choice = draws.integers(len(OPERATIONS))
        images = _operated(images, choice, strengths[choice], _signs(draws))
    return images


@dataclass(frozen=True)
class Augmentation:
    """One way to vary training images.

    Attributes:
        frame: cuts or warps a batch to its size.
        change: what is done to the batch then.
        margin: stored pixels that it wants per output pixel, so that crops are not enlarged.
        flips: whether the flips and turns of a recipe belong to it.
    """

    frame: Frame
    change: Change = _unchanged
    margin: float = 1.0
    flips: bool = True

    def wanted_size(self, resolution: int) -> int:
        """Side in pixels to fetch for an output of side `resolution`."""
        return math.ceil(resolution * self.margin)


#: name -> augmentation.
AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(_resized, flips=False),
    "light": Augmentation(_random_crop, margin=1.15),
    "trivial": Augmentation(_random_crop, _trivial, margin=1.15),
    "randaugment": Augmentation(_random_crop, _random_pair, margin=1.15),
    "geometric": Augmentation(_warped),
}


def mirrors(recipe: Recipe) -> bool:
    """Whether a recipe shows images mirrored left-right: only then is a mirror image what a network has learnt."""
    return AUGMENTATIONS[recipe.augment].flips and recipe.horizontal_flip


def augmented(
    batch: torch.Tensor,
    size: int,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    of: int | None = None,
    rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """What a recipe makes of a batch: framed, flipped, changed, erased; the batch stays as it is.

    Args:
        batch: (B, 3, P, P) uint8.
        size: side S of the output in pixels.
        recipe: says what is done.
        generator: on the CPU; decides every draw.
        of: images of the batch that these are a part of; None where they are the whole.
        rows: (B) int64, their places in it.

    Returns:
        (B, 3, S, S) uint8 on the device of `batch`.
    """
    way = AUGMENTATIONS[recipe.augment]
    draws = Draws(generator, len(batch) if of is None else of, rows)
    images = way.frame(batch, size, draws)
    if way.flips:
        images = _flipped(images, recipe, draws)
    return _erased(way.change(images, draws), recipe.erasing, draws)


def crop_boxes(draws: Draws, side: int) -> torch.Tensor:
    """(n, 4) int64: top, left, height, width inside a square of `side` pixels."""
    return _boxes(draws.uniform(4), side, _AREA, _ASPECT)


def rectangles(boxes: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 4) boxes (top, left, height, width) as (B, 1, size, size) masks."""
    places = torch.arange(size, device=boxes.device)
    top, left, height, width = (part.unsqueeze(1) for part in boxes.unbind(1))
    rows, columns = (places >= top) & (places < top + height), (places >= left) & (places < left + width)
    return (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)


def _boxes(draws: torch.Tensor, side: int, areas: Bounds, aspects: Bounds) -> torch.Tensor:
    """(4, B) draws in [0, 1) as boxes with these shares of the area and aspect ratios (width to height)."""
    area = areas[0] + (areas[1] - areas[0]) * draws[0]
    aspect = torch.exp(math.log(aspects[0]) + math.log(aspects[1] / aspects[0]) * draws[1])
    height = ((area / aspect).sqrt() * side).round().clamp(1, side)
    width = ((area * aspect).sqrt() * side).round().clamp(1, side)
    top = (draws[2] * (side - height + 1)).floor()
    left = (draws[3] * (side - width + 1)).floor()
    return torch.stack([top, left, height, width], dim=1).long()


def _crop_by_slices(batch: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    """The CPU's 8-bit kernel is ten times faster than sampling a grid."""
    out = torch.empty((len(batch), batch.shape[1], size, size), dtype=torch.uint8, memory_format=torch.channels_last)
    places = boxes.tolist()

    def cut(index: int) -> None:
        top, left, height, width = places[index]
        view = batch[index : index + 1, :, top : top + height, left : left + width]
        out[index : index + 1] = F.interpolate(view, (size, size), mode="bilinear", antialias=True)

    each_image(cut, len(batch))
    return out


def _crop_by_grid(batch: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    side = batch.shape[-1]
    top, left, height, width = (boxes / side).to(batch.device, torch.float32).unbind(1)
    theta = torch.zeros(len(batch), 2, 3, device=batch.device)
    theta[:, 0, 0], theta[:, 1, 1] = width, height
    theta[:, 0, 2], theta[:, 1, 2] = 2 * left + width - 1, 2 * top + height - 1
    return sample(batch.float(), theta, size, "border").round_().clamp_(0, 255).to(torch.uint8)


def _flipped(images: torch.Tensor, recipe: Recipe, draws: Draws) -> torch.Tensor:
    """Each symmetry of the recipe for half of the images, quarter turns for three in four; in place."""
    for wanted, axis in ((recipe.horizontal_flip, 3), (recipe.vertical_flip, 2)):
        if wanted:
            rows = (draws.uniform() < 0.5).nonzero().squeeze(1)
            _change_some(images, rows, partial(torch.flip, dims=(axis,)))
    turns = draws.integers(4) if recipe.quarter_turns else torch.zeros(0)
    for count in (1, 2, 3):
        rows = (turns == count).nonzero().squeeze(1)
        _change_some(images, rows, partial(torch.rot90, k=count, dims=(2, 3)))
    return images


def _change_some(images: torch.Tensor, rows: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Some of the images through a change that keeps their shape, in place."""
    if images.device.type == "cpu":  # one by one each stays in the cache, and no index is needed
        places = rows.tolist()

        def change_one(number: int) -> None:
            one = images[places[number]].unsqueeze(0)
            one.copy_(change(one))

        each_image(change_one, len(places))
        return
    here = rows.to(images.device)
    images[here] = change(images[here])


def _signs(draws: Draws) -> torch.Tensor:
    return draws.integers(2) * 2.0 - 1


def _operated(images: torch.Tensor, choice: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """Each image through the operation of its choice; in place."""
    for index, operation in enumerate(OPERATIONS.values()):
        rows = (choice == index).nonzero().squeeze(1)
        if len(rows) == 0:
            continue
        here = rows.to(images.device)
        changed = operation(images[here].float(), strength[rows].to(images.device), sign[rows].to(images.device))
        images[here] = changed.round_().clamp_(0, 255).to(torch.uint8)
    return images


def _erased(images: torch.Tensor, share: float, draws: Draws) -> torch.Tensor:
    """Random erasing (Zhong et al. 2020): a rectangle of one random colour, in this share of the images."""
    if not share:
        return images
    size = images.shape[-1]
    spared = draws.uniform() >= share
    boxes = _boxes(draws.uniform(4), size, _ERASED_AREA, _ERASED_ASPECT)
    boxes[spared] = 0
    colours = draws.integers(256, 3, 1, 1, dtype=torch.uint8)
    return torch.where(rectangles(boxes.to(images.device), size), colours.to(images.device), images)
