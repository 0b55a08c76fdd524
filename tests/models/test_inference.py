from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from automl_vision.data.preprocess import Preprocessing, normalize
from automl_vision.models.classifier import build_classifier
from automl_vision.models.features import OutOfTime, extract_features
from automl_vision.models.image_source import ImageSource, resized_batches
from automl_vision.models.inference import fastest_training, logits, prepare, softmax
from automl_vision.models.memory import is_out_of_memory
from automl_vision.runtime import Runtime

PREPROCESSING = Preprocessing(size=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


class Hungry(nn.Module):
    """Mean colours; runs out of memory above a number of images."""

    def __init__(self, limit: int, message: str = "[enforce fail] DefaultCPUAllocator: not enough memory") -> None:
        super().__init__()
        self.limit, self.message, self.sizes = limit, message, []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        if len(images) > self.limit:
            raise RuntimeError(self.message)
        return images.mean(dim=(2, 3))


def batches(source: ImageSource, size: int = 32, batch_size: int = 12) -> list[torch.Tensor]:
    return list(resized_batches(source, torch.arange(12), size, batch_size))


def test_normalising_is_the_textbook_formula() -> None:
    batch = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    mean = torch.tensor(PREPROCESSING.mean).view(1, 3, 1, 1)
    std = torch.tensor(PREPROCESSING.std).view(1, 3, 1, 1)
    got = normalize(batch, PREPROCESSING.mean, PREPROCESSING.std)
    assert torch.allclose(got, (batch / 255 - mean) / std, atol=1e-5)
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_that_does_not_fit_is_halved(source: ImageSource, cpu: Runtime) -> None:
    hungry, sated = Hungry(limit=3), Hungry(limit=12)
    got = logits(hungry, batches(source), PREPROCESSING, cpu)
    assert np.array_equal(got, logits(sated, batches(source), PREPROCESSING, cpu))
    assert hungry.sizes == [12, 6, 3, 3, 6, 3, 3]


def test_a_single_image_that_does_not_fit_is_an_error(source: ImageSource, cpu: Runtime) -> None:
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        logits(Hungry(limit=0), batches(source), PREPROCESSING, cpu)


def test_other_errors_are_not_taken_for_memory(source: ImageSource, cpu: Runtime) -> None:
    net = Hungry(limit=3, message="shapes do not match")
    with pytest.raises(RuntimeError, match="shapes"):
        logits(net, batches(source), PREPROCESSING, cpu)
    assert net.sizes == [12]


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("x"), RuntimeError("MPS backend out of memory")]
)
def test_memory_errors_of_every_allocator_are_known(error: BaseException) -> None:
    assert is_out_of_memory(error)


def test_the_head_on_features_gives_the_logits(source: ImageSource, cpu: Runtime) -> None:
    classifier = build_classifier("test_resnet", 3, resolution=32)
    rows = torch.tensor([3, 1, 7])
    done: list[int] = []
    features = extract_features(
        classifier.backbone, source, rows, PREPROCESSING, cpu, batch_size=2, progress=done.append
    )
    assert done == [2, 3]
    with torch.no_grad():
        expected = classifier.head(torch.from_numpy(features)).numpy()
    got = logits(classifier, resized_batches(source, rows, 32, 3), PREPROCESSING, cpu)
    assert np.allclose(got, expected, atol=1e-5)
    assert softmax(got).sum(axis=1) == pytest.approx(1)


def test_features_stop_when_told(source: ImageSource, cpu: Runtime) -> None:
    net = Hungry(limit=12)
    with pytest.raises(OutOfTime, match="2 of 12"):
        extract_features(net, source, torch.arange(12), PREPROCESSING, cpu, batch_size=2, should_stop=lambda: True)
    assert net.sizes == [2]


def test_a_size_between_planes_is_resized(source: ImageSource) -> None:
    assert batches(source, size=36)[0].shape == (12, 3, 36, 36)
    assert batches(source, size=64)[0].shape == (12, 3, 64, 64)


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        (nn.BatchNorm2d(4).eval(), torch.bfloat16),
        (nn.BatchNorm2d(4), torch.float32),
        (nn.GroupNorm(1, 4), torch.float32),
    ],
)
def test_a_cpu_trains_in_bfloat16_only_where_statistics_are_kept(norm: nn.Module, expected: torch.dtype) -> None:
    runtime = Runtime(torch.device("cpu"), None, 1, training_dtype="bfloat16")
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), norm)
    prepare(net, 8, runtime)
    types: list[torch.dtype] = []
    net[0].register_forward_hook(lambda _module, _inputs, output: types.append(output.dtype))
    with fastest_training(net, 8, runtime):
        net(torch.zeros(2, 3, 8, 8))
    assert types == [expected]


def test_a_large_batch_gets_the_scores_of_a_small_one(cpu: Runtime) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten())
    nn.init.normal_(net[1].running_mean)
    images = torch.randint(256, (40, 3, 8, 8), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    together = logits(net, [images], PREPROCESSING, cpu)
    assert np.allclose(together, logits(net, images.split(4), PREPROCESSING, cpu), atol=1e-5)
