"""How many images one optimizer step sees, and how many of them fit into memory at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from automl_vision.models.memory import free_memory, is_out_of_memory

__all__ = ["EFFECTIVE_BATCHES", "LARGEST_BATCH", "MicroBatch", "effective_batch", "is_out_of_memory"]

#: Images per optimizer step, for fewer training images than this: small data need many steps, large data fewer.
EFFECTIVE_BATCHES = ((2_000, 32), (20_000, 64))
LARGEST_BATCH = 128


def effective_batch(n_train: int) -> int:
    """Images per optimizer step that go with `n_train` training images."""
    return next((size for limit, size in EFFECTIVE_BATCHES if n_train < limit), LARGEST_BATCH)


def _nothing() -> bool:
    return False


@dataclass
class MicroBatch:
    """Runs a step, in smaller parts once memory has proved too small for it.

    Attributes:
        size: images at once, >= 1; only ever halved.
        device: whose memory it is.
        release: gives up what else lies there, and says whether there was anything; asked before `size` is halved.
    """

    size: int
    device: torch.device
    release: Callable[[], bool] = _nothing

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
            free_memory(self.device)
