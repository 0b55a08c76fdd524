"""Averages of weights, and statistics of batch norm that belong to them."""

from __future__ import annotations

import numpy as np
import torch
from memory_source import MemorySource
from torch import nn

from automl_vision.data.preprocess import Preprocessing, normalize
from automl_vision.models.classifier import build_classifier
from automl_vision.models.image_source import resized_batches
from automl_vision.models.soup import average, measure_statistics, share_statistics
from automl_vision.runtime import Runtime

PREPARED = Preprocessing(32, (0.5,) * 3, (0.5,) * 3)


def test_each_tensor_is_the_mean_and_counts_are_those_of_the_first() -> None:
    first = {"w": torch.tensor([1.0, 2.0]), "h": torch.tensor([1.0]).half(), "n": torch.tensor(3)}
    second = {"w": torch.tensor([3.0, 0.0]), "h": torch.tensor([2.0]).half(), "n": torch.tensor(9)}
    mean = average([first, second])
    assert mean["w"].tolist() == [2.0, 1.0]
    assert (mean["h"].dtype, mean["h"].item()) == (torch.float16, 1.5)
    assert mean["n"].item() == 3
    assert first["w"].tolist() == [1.0, 2.0]


def test_a_soup_of_one_is_that_one() -> None:
    state = build_classifier("resnet18", 3, resolution=32, seed=0).state_dict()
    again = average([state])
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_frozen_statistics_are_shared_and_trained_ones_are_not() -> None:
    state = build_classifier("resnet18", 3, resolution=32, seed=0).state_dict()
    other = build_classifier("resnet18", 3, resolution=32, seed=1).state_dict()
    assert share_statistics([state, other])
    changed = {name: tensor + 1 if name.endswith("running_var") else tensor for name, tensor in other.items()}
    assert not share_statistics([state, changed])
    assert share_statistics([{"w": torch.ones(1)}, {"w": torch.zeros(1)}])


def test_measured_statistics_are_those_of_the_images(source: MemorySource, cpu: Runtime) -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    net[0].running_mean.fill_(99.0)  # type: ignore[operator, union-attr] # a tensor
    rows = torch.arange(12)
    measure_statistics(net, resized_batches(source, rows, 32, 6), PREPARED, cpu)
    images = normalize(source.fetch(rows, 32), PREPARED.mean, PREPARED.std)
    assert np.allclose(net[0].running_mean, images.mean(dim=(0, 2, 3)), atol=1e-4)  # type: ignore[arg-type] # a tensor
    variances = torch.stack([part.var(dim=(0, 2, 3)) for part in images.split(6)]).mean(dim=0)
    assert np.allclose(net[0].running_var, variances, atol=1e-4)  # type: ignore[arg-type] # a tensor
    assert net[0].momentum == 0.1
    assert not any(module.training for module in net.modules())
