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


#: Shards from which the images of neighbouring steps come, about.
SHARDS_AT_ONCE = 4


def in_blocks(order: torch.Tensor, blocks: torch.Tensor, seed: int, epoch: int) -> torch.Tensor:
    """The images of an epoch in another order, in which those of a block (a shard) are near each other.

    The blocks come in a random order, and each is spread at random over `SHARDS_AT_ONCE` of them, its own place and
    those after it: at any time about so many are in use, and a new one begins whenever one ends. It is a shuffle with
    a window, made a function of the seed and the epoch: nothing is held, and any step can be begun with.

    Args:
        order: (n) positions, as a sampling drew them.
        blocks: (N) number of the block of each position.
        seed, epoch: another order for each.
    """
    generator = keyed_generator("blocks", seed, epoch)
    numbers, inverse = torch.unique(blocks, return_inverse=True)
    place = torch.randperm(len(numbers), generator=generator)[inverse[order]]
    spread = torch.rand(len(order), generator=generator, dtype=torch.float64) * SHARDS_AT_ONCE
    return order[torch.argsort(place + spread, stable=True)]


#: name -> sampling.
SAMPLINGS: dict[str, Sampling] = {
    "shuffled": Sampling(_shuffled, power=1.0),
    "balanced": Sampling(_balanced, power=0.5),
}
