from __future__ import annotations

import pytest
import torch
from memory_source import MemorySource

from automl_vision.runtime import Runtime


@pytest.fixture
def cpu() -> Runtime:
    return Runtime(device=torch.device("cpu"), amp_dtype=None, threads=1)


@pytest.fixture
def source() -> MemorySource:
    images = torch.randint(0, 256, (12, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return MemorySource(images, (32, 40))
