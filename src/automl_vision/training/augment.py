"""Augmentation of whole batches on their device, with parameters of its own for every image.

Parameters are drawn on the CPU from a generator that the caller keys by (seed, epoch, step), so that every
device sees the same crops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from automl_vision.models.image_source import resize

#: Shares of the area, and aspect ratios, of a random crop.
_AREA = (0.6, 1.0)
_ASPECT = (4 / 5, 5 / 4)

#: (B, 3, P, P) uint8, output side S, generator -> (B, 3, S, S) uint8.
Transform = Callable[[torch.Tensor, int, torch.Generator], torch.Tensor]
#: (B, 3, S, S) float in 0..255, (B) strength in [0, 1], (B) sign -1 or 1 -> the same shape.
Operation = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Augmentation:
    """One way to vary training images.

    Attributes:
        transform: what is done to a batch.
        margin: stored pixels that it wants per output pixel, so that crops are not enlarged.
    """

    transform: Transform
    margin: float

    def wanted_size(self, resolution: int) -> int:
        """Side in pixels to fetch for an output of side `resolution`."""
        return math.ceil(resolution * self.margin)


def _none(batch: torch.Tensor, size: int, _generator: torch.Generator) -> torch.Tensor:
    return resize(batch, size)


def _light(batch: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    boxes = crop_boxes(len(batch), batch.shape[-1], generator)
    return _flip(_crop(batch, boxes, size), generator)


def _trivial(batch: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """TrivialAugment, wide (Mueller and Hutter 2021): one random operation of random strength per image."""
    images = _light(batch, size, generator)
    choice = torch.randint(len(OPERATIONS), (len(batch),), generator=generator)
    strength = torch.rand(len(batch), generator=generator)
    sign = torch.randint(2, (len(batch),), generator=generator) * 2.0 - 1
    for index, operation in enumerate(OPERATIONS.values()):
        rows = (choice == index).nonzero().squeeze(1)
        if len(rows) == 0:
            continue
        here = rows.to(images.device)
        changed = operation(images[here].float(), strength[rows].to(images.device), sign[rows].to(images.device))
        images[here] = changed.round_().clamp_(0, 255).to(torch.uint8)
    return images


#: name -> augmentation.
AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(_none, margin=1.0),
    "light": Augmentation(_light, margin=1.15),
    "trivial": Augmentation(_trivial, margin=1.15),
}


def mirrors(name: str) -> bool:
    """Whether an augmentation shows images mirrored: only then is a mirror image what a network has learnt."""
    return AUGMENTATIONS[name].transform is not _none


def crop_boxes(count: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 4) int64: top, left, height, width inside a square of `side` pixels."""
    draws = torch.rand(4, count, generator=generator)
    area = _AREA[0] + (_AREA[1] - _AREA[0]) * draws[0]
    aspect = torch.exp(math.log(_ASPECT[0]) + math.log(_ASPECT[1] / _ASPECT[0]) * draws[1])
    height = ((area / aspect).sqrt() * side).round().clamp(1, side)
    width = ((area * aspect).sqrt() * side).round().clamp(1, side)
    top = (draws[2] * (side - height + 1)).floor()
    left = (draws[3] * (side - width + 1)).floor()
    return torch.stack([top, left, height, width], dim=1).long()


def _crop(batch: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    return _crop_by_slices(batch, boxes, size) if batch.device.type == "cpu" else _crop_by_grid(batch, boxes, size)


def _crop_by_slices(batch: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    """The CPU's 8-bit kernel is ten times faster than sampling a grid."""
    out = torch.empty((len(batch), batch.shape[1], size, size), dtype=torch.uint8, memory_format=torch.channels_last)
    for index, (top, left, height, width) in enumerate(boxes.tolist()):
        view = batch[index : index + 1, :, top : top + height, left : left + width]
        out[index : index + 1] = F.interpolate(view, (size, size), mode="bilinear", antialias=True)
    return out


def _crop_by_grid(batch: torch.Tensor, boxes: torch.Tensor, size: int) -> torch.Tensor:
    side = batch.shape[-1]
    top, left, height, width = (boxes / side).to(batch.device, torch.float32).unbind(1)
    theta = torch.zeros(len(batch), 2, 3, device=batch.device)
    theta[:, 0, 0], theta[:, 1, 1] = width, height
    theta[:, 0, 2], theta[:, 1, 2] = 2 * left + width - 1, 2 * top + height - 1
    return _sample(batch.float(), theta, size, "border").round_().clamp_(0, 255).to(torch.uint8)


def _sample(images: torch.Tensor, theta: torch.Tensor, size: int, padding: str) -> torch.Tensor:
    grid = F.affine_grid(theta, [len(images), images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def _flip(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    rows = (torch.rand(len(batch), generator=generator) < 0.5).nonzero().squeeze(1).to(batch.device)
    batch[rows] = batch[rows].flip(3)
    return batch


def _affine(images: torch.Tensor, entries: dict[tuple[int, int], torch.Tensor]) -> torch.Tensor:
    """Resample with the identity map changed in `entries`; grey shows where nothing was."""
    theta = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    for (row, column), values in entries.items():
        theta[:, row, column] = values
    return _sample(images - 128, theta, images.shape[-1], "zeros") + 128


def _shear_x(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    return _affine(images, {(0, 1): 0.99 * strength * sign})


def _shear_y(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    return _affine(images, {(1, 0): 0.99 * strength * sign})


def _translate_x(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    return _affine(images, {(0, 2): 2 * 32 / 224 * strength * sign})


def _translate_y(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    return _affine(images, {(1, 2): 2 * 32 / 224 * strength * sign})


def _rotate(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    angle = math.radians(135) * strength * sign
    cosine, sine = angle.cos(), angle.sin()
    return _affine(images, {(0, 0): cosine, (0, 1): -sine, (1, 0): sine, (1, 1): cosine})


def _grey(images: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def _blend(images: torch.Tensor, other: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    """From `other` (factor 0) over the image itself (1) to its exaggeration (2)."""
    return torch.lerp(other.expand_as(images), images, (1 + 0.99 * strength * sign).view(-1, 1, 1, 1))


def _brightness(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    return _blend(images, torch.zeros_like(images), strength, sign)


def _colour(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    return _blend(images, _grey(images), strength, sign)


def _contrast(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    return _blend(images, _grey(images).mean(dim=(2, 3), keepdim=True), strength, sign)


def _sharpness(images: torch.Tensor, strength: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    kernel = torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]], device=images.device) / 13
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    smooth = F.conv2d(padded, kernel.expand(images.shape[1], 1, 3, 3), groups=images.shape[1])
    return _blend(images, smooth, strength, sign)


def _posterize(images: torch.Tensor, strength: torch.Tensor, _sign: torch.Tensor) -> torch.Tensor:
    bits = 8 - (6 * strength).round()
    step = torch.exp2(8 - bits).view(-1, 1, 1, 1)
    return (images / step).floor() * step


def _solarize(images: torch.Tensor, strength: torch.Tensor, _sign: torch.Tensor) -> torch.Tensor:
    threshold = (255 * (1 - strength)).view(-1, 1, 1, 1)
    return torch.where(images >= threshold, 255 - images, images)


def _autocontrast(images: torch.Tensor, _strength: torch.Tensor, _sign: torch.Tensor) -> torch.Tensor:
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    stretched = (images - low) * 255 / (high - low).clamp_min(1)
    return torch.where(high > low, stretched, images)


def _equalize(images: torch.Tensor, _strength: torch.Tensor, _sign: torch.Tensor) -> torch.Tensor:
    """Each channel's grey levels spread evenly, through its cumulative histogram."""
    levels = images.flatten(2).long()
    ones = torch.ones_like(levels, dtype=torch.float32)
    histogram = torch.zeros(*levels.shape[:2], 256, device=images.device).scatter_add_(2, levels, ones)
    below = histogram.cumsum(dim=2)
    first = below.gather(2, levels.amin(dim=2, keepdim=True))
    spread = (below - first) * 255 / (levels.shape[2] - first).clamp_min(1)
    return spread.gather(2, levels).view_as(images)


def _identity(images: torch.Tensor, _strength: torch.Tensor, _sign: torch.Tensor) -> torch.Tensor:
    return images


#: What TrivialAugment chooses from.
OPERATIONS: dict[str, Operation] = {
    "identity": _identity,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": _rotate,
    "brightness": _brightness,
    "colour": _colour,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
