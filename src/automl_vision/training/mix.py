"""Mixing pairs of training images and their labels, within a batch and on its device.

What is drawn comes from a generator that the caller keys by (seed, epoch, step).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.training.augment import rectangles

#: Parameters of the Beta distribution that shares are drawn from, as the papers set them.
_MIXUP_ALPHA, _CUTMIX_ALPHA = 0.2, 1.0

#: (B, 3, S, S) uint8, (B, 3, S, S) partner of each, generator -> (B, 3, S, S) uint8, (B) share of the first in it.
Mix = Callable[[torch.Tensor, torch.Tensor, np.random.Generator], tuple[torch.Tensor, torch.Tensor]]


def _mixup(images: torch.Tensor, partners: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixup (Zhang et al. 2018): both images faded into each other."""
    shares = _on_device(rng.beta(_MIXUP_ALPHA, _MIXUP_ALPHA, len(images)), images)
    faded = torch.lerp(partners.float(), images.float(), shares.view(-1, 1, 1, 1))
    return faded.round_().to(torch.uint8), shares


def _cutmix(
    images: torch.Tensor, partners: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """CutMix (Yun et al. 2019): a rectangle of the other image; the share is that of the pixels that stay."""
    count, size = len(images), images.shape[-1]
    side = np.sqrt(1 - rng.beta(_CUTMIX_ALPHA, _CUTMIX_ALPHA, count)) * size
    centre = rng.random((2, count)) * size
    first = np.clip(np.round(centre - side / 2), 0, size)
    last = np.clip(np.round(centre + side / 2), 0, size)
    boxes = torch.from_numpy(np.stack([*first, *(last - first)], axis=1)).long()
    pasted = (boxes[:, 2] * boxes[:, 3]).float() / size**2
    mask = rectangles(boxes.to(images.device), size)
    return torch.where(mask, partners, images), (1 - pasted).to(images.device)


#: name -> mix; None leaves images as they are.
MIXES: dict[str, Mix | None] = {"none": None, "mixup": _mixup, "cutmix": _cutmix}


def mixed(
    images: torch.Tensor, targets: torch.Tensor, mix: str, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each image of a batch mixed with another one of it, drawn at random; both inputs stay as they are.

    Args:
        images: (B, 3, S, S) uint8.
        targets: (B, C) probabilities of the classes.
        mix: a name of `MIXES`.
        rng: decides every draw.

    Returns:
        images and targets of the same shapes.
    """
    change = MIXES[mix]
    if change is None:
        return images, targets
    partner = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    changed, shares = change(images, images[partner], rng)
    return changed, torch.lerp(targets[partner], targets, shares.unsqueeze(1))


def _on_device(values: NDArray[np.float64], images: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values).to(images.device, torch.float32)
