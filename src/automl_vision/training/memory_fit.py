"""How many images at once memory is expected to have room for, before the first step."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from automl_vision.models.classifier import Classifier
from automl_vision.models.inference import fastest_training
from automl_vision.models.memory import MoreThanAllowed, available_bytes, left_of_share, saved_bytes
from automl_vision.runtime import Runtime
from automl_vision.training.batch_size import LearnedMemory, MicroBatch, StepMemory
from automl_vision.training.failures import TooLittleMemory
from automl_vision.training.optimizers import KEPT_PER_WEIGHT
from automl_vision.training.randomness import seeded_globals
from automl_vision.training.recipe import Recipe


@dataclass(frozen=True)
class MemoryFit:
    """Looks at memory for one trainer.

    Attributes:
        recipe, classifier, optimizer, runtime: what is trained, how and where; the classifier in training mode.
        size: side of the input in pixels.
        learned: what trials before it found out about memory, to which this adds.
    """

    recipe: Recipe
    classifier: Classifier
    optimizer: torch.optim.Optimizer
    size: int
    runtime: Runtime
    learned: LearnedMemory

    def fit(self, micro_batch: MicroBatch) -> None:
        """Make the micro-batch as large as memory is expected to have room for.

        Raises:
            TooLittleMemory: a single image is not expected to fit.
        """
        recipe, available = self.recipe, self._available()
        if available is None:
            return
        try:
            memory = self.step_memory(available, micro_batch)
        except MoreThanAllowed:
            raise TooLittleMemory(
                f"{self._one_image} needs more than the {_gigabytes(available)} that are free"
            ) from None
        free = micro_batch.fit(recipe.effective_batch, memory, self._available)
        if free is not None:
            needed = _gigabytes(memory(1))
            raise TooLittleMemory(f"{self._one_image} needs about {needed} of memory, and {_gigabytes(free)} are free")

    def _available(self) -> int | None:
        """Bytes that this process may still take: what is free, within its share of all; None where nobody tells."""
        device = self.runtime.device
        free = available_bytes(device)
        return None if free is None else int(min(free, left_of_share(device, self.runtime.share)))

    @property
    def _one_image(self) -> str:
        return f"training {self.recipe.backbone} at {self.recipe.resolution} px on one image at a time"

    def step_memory(self, available: int, micro_batch: MicroBatch) -> StepMemory:
        """What a step adds to what is in memory: its passes, gradients, the optimizer's tensors, and pixels."""
        recipe = self.recipe
        kept = self.learned.kept(recipe, lambda: self._kept_for_backward(available, micro_batch))
        trained = sum(each.nbytes for each in self.classifier.parameters() if each.requires_grad)
        tensors = 1 if self.optimizer.state else 1 + KEPT_PER_WEIGHT[recipe.optimizer]  # a resumed one has its own
        return kept.plus(tensors * trained + recipe.effective_batch * 3 * self.size**2)

    def _kept_for_backward(self, at_most: int, micro_batch: MicroBatch) -> StepMemory:
        """Measured on one image and on two, which tells what does not depend on their number.

        Raises:
            MoreThanAllowed: one image needs more than `at_most` bytes.
        """
        try:
            one = self._passes(1, at_most)
        except MoreThanAllowed:
            micro_batch.give_up()  # kept images may have been in its way
            one = self._passes(1, self._available() or at_most)
        try:
            per_image = self._passes(2, at_most) - one
        except MoreThanAllowed:
            per_image = one
        return StepMemory(one - per_image, per_image)

    def _passes(self, images: int, at_most: int) -> int:
        """Bytes that the forward and the backward pass of so many images need."""
        device = self.runtime.device
        blank = torch.zeros((images, 3, self.size, self.size), device=device).to(memory_format=torch.channels_last)
        with seeded_globals(device, "memory"), fastest_training(self.classifier, self.size, self.runtime):
            return saved_bytes(self.classifier, lambda: self.classifier(blank), at_most)


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"
