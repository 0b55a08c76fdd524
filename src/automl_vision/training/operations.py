"""Operations on images that augmentation policies choose from, each with a strength and a sign per image.

Strengths are shares of the widest ranges that are in use, those of TrivialAugment (Mueller and Hutter 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

#: (B, 3, S, S) float in 0..255, (B) strength in [0, 1], (B) sign -1 or 1 -> the same shape.
Operation = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def sample(images: torch.Tensor, theta: torch.Tensor, size: int, padding: str) -> torch.Tensor:
    """Images seen through an affine map.

    Args:
        images: (B, C, P, P) float.
        theta: (B, 2, 3), from places in the output to places in the input, both from -1 to 1.
        size: side of the output in pixels.
        padding: what shows where nothing was, as `grid_sample` names it.

    Returns:
        (B, C, size, size).
    """
    grid = F.affine_grid(theta, [len(images), images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def _affine(images: torch.Tensor, entries: dict[tuple[int, int], torch.Tensor]) -> torch.Tensor:
    """Resample with the identity map changed in `entries`; grey shows where nothing was."""
    theta = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
    for (row, column), values in entries.items():
        theta[:, row, column] = values
    return sample(images - 128, theta, images.shape[-1], "zeros") + 128


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


#: What policies choose from.
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
