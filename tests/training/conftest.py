from __future__ import annotations

import pytest
import torch

from automl_vision.models.image_source import resize
from automl_vision.runtime import Runtime


class MemorySource:
    """An image source over one uint8 tensor."""

    def __init__(self, images: torch.Tensor, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes
        self.planes = {size: resize(images, size).contiguous(memory_format=torch.channels_last) for size in sizes}

    def plane_for(self, size: int) -> int:
        return next((each for each in self.sizes if each >= size), self.sizes[-1])

    def fetch(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        return self.planes[size][rows].contiguous(memory_format=torch.channels_last)


@pytest.fixture
def cpu() -> Runtime:
    return Runtime(device=torch.device("cpu"), amp_dtype=None, threads=1)


@pytest.fixture
def source() -> MemorySource:
    images = torch.randint(0, 256, (12, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return MemorySource(images, (32, 40))
