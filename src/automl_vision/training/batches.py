"""The images of one step: fetched, augmented and mixed, on the device.

All of it depends on (seed, epoch, step) only. Where several ranks share a batch, each draws for the whole batch and
keeps its own part, so that an image looks the same whoever makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from automl_vision.models.image_source import ImageSource, expect
from automl_vision.training.augment import AUGMENTATIONS, augmented
from automl_vision.training.mix import Mixing
from automl_vision.training.randomness import keyed_generator, keyed_seed
from automl_vision.training.ranks import Ranks
from automl_vision.training.recipe import Recipe

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class TrainingData:
    """The rows one candidate is trained and judged on.

    Attributes:
        source: where the images are.
        train_rows: (n) int64, rows of `source`.
        train_labels: (n) int64, class indices.
        val_rows: (m) int64.
        val_labels: (m) int64.
        num_classes: C.
        blocks: (N) shard of every row of `source`, where images are read from shards and the order in which they are
            trained on goes by shards; else None.
    """

    source: ImageSource
    train_rows: torch.Tensor
    train_labels: torch.Tensor
    val_rows: torch.Tensor
    val_labels: torch.Tensor
    num_classes: int
    blocks: torch.Tensor | None = None


@dataclass(frozen=True)
class Batches:
    """Makes what one rank trains on.

    Attributes:
        data: the rows.
        recipe: says how images are changed.
        size: side S of the input in pixels.
        device: where to.
        ranks: who shares each batch.
    """

    data: TrainingData
    recipe: Recipe
    size: int
    device: torch.device
    ranks: Ranks

    def expect(self, batches: Sequence[torch.Tensor]) -> None:
        """Have images of later steps read from a disk while the device computes; (B) positions in `train_rows`."""
        plane = self._plane
        for positions in batches:
            mine = self.ranks.part(len(positions))
            expect(self.data.source, self.data.train_rows[positions[mine.start : mine.stop]], plane)

    def make(self, epoch: int, step: int, positions: torch.Tensor) -> Batch:
        """This rank's part of a batch; (n, 3, S, S) uint8 and (n, C) probabilities of the classes, on the device.

        Args:
            epoch: counted from 1.
            step: counted from 0.
            positions: (B) of the whole batch in `train_rows`.
        """
        seed = self.recipe.seed
        generator = keyed_generator("augment", seed, epoch, step)
        mixing = Mixing(self.recipe.mix, len(positions), np.random.default_rng(keyed_seed("mix", seed, epoch, step)))
        if self.ranks.alone:
            return self._whole(positions, generator, mixing)
        return self._part(positions, generator, mixing)

    @property
    def _plane(self) -> int:
        return self.data.source.plane_for(AUGMENTATIONS[self.recipe.augment].wanted_size(self.size))

    def _whole(self, positions: torch.Tensor, generator: torch.Generator, mixing: Mixing) -> Batch:
        images = augmented(self._pixels(positions), self.size, self.recipe, generator)
        targets = self._targets(positions)
        if mixing.partner is None:
            return images, targets
        partner = mixing.partner.to(self.device)
        return mixing(images, images[partner], targets, targets[partner])

    def _part(self, positions: torch.Tensor, generator: torch.Generator, mixing: Mixing) -> Batch:
        """The images that this rank needs: its own, and those that they are mixed with, wherever these belong."""
        mine = self.ranks.part(len(positions))
        own = torch.arange(mine.start, mine.stop)
        if not len(own):
            return torch.zeros((0, 3, self.size, self.size), dtype=torch.uint8, device=self.device), self._targets(own)
        needed = own if mixing.partner is None else torch.unique(torch.cat([own, mixing.partner[own]]))
        pixels = self._pixels(positions[needed])
        images = augmented(pixels, self.size, self.recipe, generator, of=len(positions), rows=needed)
        targets = self._targets(positions[needed])
        if mixing.partner is None:
            return images, targets
        places = torch.searchsorted(needed, own).to(self.device)
        partners = torch.searchsorted(needed, mixing.partner[own]).to(self.device)
        return mixing(images[places], images[partners], targets[places], targets[partners], own)

    def _pixels(self, positions: torch.Tensor) -> torch.Tensor:
        pixels = self.data.source.fetch(self.data.train_rows[positions], self._plane)
        return pixels.to(self.device, non_blocking=True)

    def _targets(self, positions: torch.Tensor) -> torch.Tensor:
        labels = self.data.train_labels[positions].to(self.device, non_blocking=True)
        return F.one_hot(labels, self.data.num_classes).float()
