"""How many images one optimizer step sees, and how many of them fit into memory at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from automl_vision.models.memory import free_memory, is_out_of_memory
from automl_vision.training.recipe import Recipe

__all__ = [
    "EFFECTIVE_BATCHES",
    "LARGEST_BATCH",
    "LearnedMemory",
    "MicroBatch",
    "StepMemory",
    "effective_batch",
    "is_out_of_memory",
    "largest_even_part",
]

#: Images per optimizer step, for fewer training images than this: small data need many steps, large data fewer.
EFFECTIVE_BATCHES = ((2_000, 32), (20_000, 64))
LARGEST_BATCH = 128
#: What a step is expected to take of the memory that is free, at most: estimates were .88 to 1.42 of what was taken.
MEMORY_SHARE = 0.85


def effective_batch(n_train: int) -> int:
    """Images per optimizer step that go with `n_train` training images."""
    return next((size for limit, size in EFFECTIVE_BATCHES if n_train < limit), LARGEST_BATCH)


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a training step takes besides the network, by the images that go through it at once.

    Attributes:
        fixed: however many they are.
        per_image: for each of them.
    """

    fixed: int
    per_image: int

    def __call__(self, images: int) -> int:
        """Bytes with so many images at once."""
        return self.fixed + images * self.per_image

    def plus(self, fixed: int) -> StepMemory:
        """The same with more fixed bytes."""
        return StepMemory(self.fixed + fixed, self.per_image)


def largest_even_part(images: int, at_most: int, memory: StepMemory, room: float) -> int:
    """Images at once: the largest part of `images` that takes no more than `room` bytes, all parts being even.

    Args:
        images: of one optimizer step, >= 1.
        at_most: images at once, >= 1.
        memory: what they take.
        room: bytes.

    Returns:
        the size of the larger parts, 0 where a single image takes more than `room`.
    """
    fitting = next((size for size in range(min(at_most, images), 0, -1) if memory(size) <= room), 0)
    return math.ceil(images / math.ceil(images / fitting)) if fitting else 0


@dataclass
class LearnedMemory:
    """What the trials of one run have found out about memory, by what they train."""

    _kept: dict[tuple[object, ...], StepMemory] = field(default_factory=dict)
    _fitted: dict[tuple[str, int], int] = field(default_factory=dict)

    def kept(self, recipe: Recipe, measure: Callable[[], StepMemory]) -> StepMemory:
        """What the passes of a step take; measured for the first trial of its kind."""
        kind = (
            recipe.backbone,
            recipe.resolution,
            recipe.freeze_stages,
            recipe.freeze_norm,  # what learns is neither folded nor in bfloat16
            recipe.head,
            recipe.drop_path > 0,
        )
        if kind not in self._kept:
            self._kept[kind] = measure()
        return self._kept[kind]

    def ran_out(self, recipe: Recipe, size: int) -> None:
        """Memory ran out in a step; from then on `size` images at once were tried."""
        key = (recipe.backbone, recipe.resolution)
        self._fitted[key] = min(size, self._fitted.get(key, size))

    def at_most(self, recipe: Recipe) -> int:
        """Images at once to begin with: those of the recipe, or as many as fitted where memory ran out before."""
        return min(recipe.batch_size, self._fitted.get((recipe.backbone, recipe.resolution), recipe.batch_size))


def _nothing() -> bool:
    return False


def _unheard(_size: int) -> None:
    """Nobody wants to know."""


@dataclass
class MicroBatch:
    """Runs a step, in smaller parts once memory has proved too small for it.

    Attributes:
        size: images at once, >= 1; it only ever gets smaller.
        device: whose memory it is.
        release: gives up what else lies there, and says whether there was anything; asked before `size` is halved.
        halved: told the new size.
    """

    size: int
    device: torch.device
    release: Callable[[], bool] = _nothing
    halved: Callable[[int], None] = _unheard

    def run(self, step: Callable[[int], torch.Tensor]) -> torch.Tensor:
        """`step(size)`; where memory runs out, again with half the size. The step must start from scratch.

        Raises:
            RuntimeError: a single image does not fit either.
        """
        while True:
            try:
                return step(self.size)
            except (RuntimeError, MemoryError) as error:
                released = is_out_of_memory(error) and self.release()
                if not released and (not is_out_of_memory(error) or self.size == 1):
                    raise
            # Outside of the handler: the traceback of the error would keep the activations alive.
            if not released:
                self.size = (self.size + 1) // 2
                self.halved(self.size)
            free_memory(self.device)

    def fit(self, images: int, memory: StepMemory, available: Callable[[], int | None]) -> int | None:
        """Make `size` fit before the first step; where it does not, what is not needed is given up first.

        Args:
            images: of one optimizer step.
            memory: what a step takes on top of what is in memory now.
            available: bytes that can be had, None where nobody tells; `size` stays then.

        Returns:
            bytes that are free where not even one image fits, else None.
        """
        if self._fits(images, memory, available()):
            return None
        self.give_up()
        free = available()
        if free is None or self._fits(images, memory, free):
            return None
        fitted = largest_even_part(images, self.size, memory, MEMORY_SHARE * free)
        self.size = fitted or self.size
        return None if fitted else free

    def give_up(self) -> None:
        """Free what is not needed."""
        self.release()
        free_memory(self.device)

    def _fits(self, images: int, memory: StepMemory, free: int | None) -> bool:
        return free is None or memory(min(self.size, images)) <= MEMORY_SHARE * free
