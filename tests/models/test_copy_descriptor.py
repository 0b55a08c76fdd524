from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from automl_vision.models.copy_descriptor import describer
from automl_vision.runtime import Runtime

RUNTIME = Runtime(torch.device("cpu"), None, threads=1)


class Pictures:
    """Two pictures of boxes, and the first one mirrored."""

    sizes = (64,)

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        made = [
            np.kron(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8)) for _ in range(2)
        ]
        stacked = np.stack([*made, made[0][:, ::-1]])
        self._pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2)

    def plane_for(self, size: int) -> int:
        return 64

    def fetch(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        return self._pixels[rows]


def test_a_mirrored_picture_is_nearer_than_another_and_time_is_kept() -> None:
    told: list[int] = []
    describe = describer(Pictures(), RUNTIME, told.append)
    assert describe is not None
    features = describe(np.arange(3), math.inf)
    assert features is not None
    assert features.shape == (3, 1280 + 2 * 112)
    assert np.linalg.norm(features, axis=1) == pytest.approx(np.sqrt(2), rel=1e-4)
    assert features[0] @ features[2] > features[0] @ features[1]
    assert told == [3]


def test_no_weights_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl_vision.models.copy_descriptor.find_weights", lambda *_, **__: None)
    assert describer(Pictures(), RUNTIME) is None
