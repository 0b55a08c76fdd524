"""Mixing pairs of training images and their labels, within a batch and on its device.

What is drawn comes from a generator that the caller keys by (seed, epoch, step).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from automl_vision.training.augment import rectangles

#: Parameters of the Beta distribution that shares are drawn from, as the papers set them.
_MIXUP_ALPHA, _CUTMIX_ALPHA = 0.2, 1.0

#: (n, 3, S, S) uint8, (n, 3, S, S) partner of each, draws for each -> (n, 3, S, S) uint8, (n) share of the first in it.
Mix = Callable[[torch.Tensor, torch.Tensor, "_Numbers"], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class _Numbers:
    """Drawn for all images of a batch, so that each gets the same wherever it is; `rows` (n) are here, None for all."""

    rng: np.random.Generator
    count: int
    rows: NDArray[np.int64] | None

    def beta(self, alpha: float) -> NDArray[np.float64]:
        """(n) from the symmetric Beta distribution."""
        return self._here(self.rng.beta(alpha, alpha, self.count))

    def uniform(self, lead: int) -> NDArray[np.float64]:
        """(lead, n) in [0, 1)."""
        return self._here(self.rng.random((lead, self.count)))

    def _here(self, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        return drawn if self.rows is None else drawn[..., self.rows]


def _mixup(images: torch.Tensor, partners: torch.Tensor, numbers: _Numbers) -> tuple[torch.Tensor, torch.Tensor]:
    """Mixup (Zhang et al. 2018): both images faded into each other."""
    shares = _on_device(numbers.beta(_MIXUP_ALPHA), images)
    faded = torch.lerp(partners.float(), images.float(), shares.view(-1, 1, 1, 1))
    return faded.round_().to(torch.uint8), shares


def _cutmix(images: torch.Tensor, partners: torch.Tensor, numbers: _Numbers) -> tuple[torch.Tensor, torch.Tensor]:
    """CutMix (Yun et al. 2019): a rectangle of the other image; the share is that of the pixels that stay."""
    size = images.shape[-1]
    side = np.sqrt(1 - numbers.beta(_CUTMIX_ALPHA)) * size
    centre = numbers.uniform(2) * size
    first = np.clip(np.round(centre - side / 2), 0, size)
    last = np.clip(np.round(centre + side / 2), 0, size)
    boxes = torch.from_numpy(np.stack([*first, *(last - first)], axis=1)).long()
    pasted = (boxes[:, 2] * boxes[:, 3]).float() / size**2
    mask = rectangles(boxes.to(images.device), size)
    return torch.where(mask, partners, images), (1 - pasted).to(images.device)


#: name -> mix; None leaves images as they are.
MIXES: dict[str, Mix | None] = {"none": None, "mixup": _mixup, "cutmix": _cutmix}


class Mixing:
    """Who is mixed with whom in one batch, and how.

    Args:
        mix: a name of `MIXES`.
        count: images B of the batch.
        rng: decides every draw.

    Attributes:
        partner: (B) int64, the place of the image that each one is mixed with; None where images stay as they are.
    """

    def __init__(self, mix: str, count: int, rng: np.random.Generator) -> None:
        self._change = MIXES[mix]
        self._count = count
        self._rng = rng
        self.partner = None if self._change is None else torch.from_numpy(rng.permutation(count))

    def __call__(
        self,
        images: torch.Tensor,
        partners: torch.Tensor,
        targets: torch.Tensor,
        partner_targets: torch.Tensor,
        rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix; to be called once, and only where there are partners. All inputs stay as they are.

        Args:
            images, partners: (n, 3, S, S) uint8.
            targets, partner_targets: (n, C) probabilities of the classes.
            rows: (n) int64, places of the images in the batch; None where these are all of it.

        Returns:
            images and targets of the same shapes.
        """
        if self._change is None:
            raise ValueError("nothing is mixed in this batch")
        numbers = _Numbers(self._rng, self._count, None if rows is None else rows.numpy())
        changed, shares = self._change(images, partners, numbers)
        return changed, torch.lerp(partner_targets, targets, shares.unsqueeze(1))


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
    mixing = Mixing(mix, len(images), rng)
    if mixing.partner is None:
        return images, targets
    partner = mixing.partner.to(images.device)
    return mixing(images, images[partner], targets, targets[partner])


def _on_device(values: NDArray[np.float64], images: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values).to(images.device, torch.float32)
