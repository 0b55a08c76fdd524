"""An image source in memory, for tests that need no store."""

from __future__ import annotations

import torch

from automl_vision.models.image_source import resize


class MemorySource:
    """An image source over one uint8 tensor."""

    def __init__(self, images: torch.Tensor, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes
        self.planes = {size: resize(images, size).contiguous(memory_format=torch.channels_last) for size in sizes}

    def plane_for(self, size: int) -> int:
        return next((each for each in self.sizes if each >= size), self.sizes[-1])

    def fetch(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        return self.planes[size][rows].contiguous(memory_format=torch.channels_last)
