"""Which training images an epoch shows, in which order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from automl_vision.training.randomness import epoch_order, keyed_generator


@dataclass(frozen=True)
class Sampling:
    """One way to draw the images of an epoch.

    Attributes:
        order: (n) class indices, seed, epoch -> (n) positions; a function of these alone.
        power: images of a class are shown in proportion to their number, raised to this power.
    """

    order: Callable[[torch.Tensor, int, int], torch.Tensor]
    power: float

    def shares(self, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
        """(C) share of each class in an epoch; a class without images counts as if it had one, so that none is 0."""
        counts = torch.bincount(labels, minlength=num_classes).clamp_min(1) ** self.power
        return counts / counts.sum()


def _shuffled(labels: torch.Tensor, seed: int, epoch: int) -> torch.Tensor:
    return epoch_order(len(labels), seed, epoch)


def _balanced(labels: torch.Tensor, seed: int, epoch: int) -> torch.Tensor:
    """Square-root sampling (Mahajan et al. 2018): images of rare classes come more often, with replacement."""
    weights = torch.bincount(labels).float().rsqrt()[labels]
    generator = keyed_generator("balanced", seed, epoch)
    return torch.multinomial(weights, len(labels), replacement=True, generator=generator)


#: name -> sampling.
SAMPLINGS: dict[str, Sampling] = {
    "shuffled": Sampling(_shuffled, power=1.0),
    "balanced": Sampling(_balanced, power=0.5),
}
