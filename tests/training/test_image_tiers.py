"""Wherever decoded images lie, a training step sees the same batch: it depends on (seed, epoch, step) alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from late_transfer import LateTransfer
from PIL import Image

from automl_vision.config import DataSettings
from automl_vision.data import plane_cache
from automl_vision.data.manifest import Manifest
from automl_vision.data.preprocess import Preprocessing
from automl_vision.data.readers import read
from automl_vision.data.store import build_store
from automl_vision.models.classifier import build_classifier
from automl_vision.models.device_images import DeviceImages
from automl_vision.models.image_source import ImageSource
from automl_vision.models.prefetched_images import PrefetchedImages
from automl_vision.runtime import Runtime
from automl_vision.training.loop import Trainer, TrainingData
from automl_vision.training.recipe import Recipe

SIZES = (32, 40)
COUNT = 21
PREPROCESSING = Preprocessing(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
RECIPE = Recipe(
    kind="finetune",
    backbone="test_efficientnet",
    resolution=32,
    epochs=2,
    batch_size=8,
    learning_rate=1e-3,
    layer_decay=1.0,
    mix="cutmix",
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("tiers")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        file = root / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)).save(file)
    return read(root, DataSettings())


def file_tier(manifest: Manifest, cache: Path, _patch: pytest.MonkeyPatch) -> ImageSource:
    store, _ = build_store(manifest, SIZES, cache, 1)
    assert store.notes == ()
    return store


def device_tier(manifest: Manifest, cache: Path, patch: pytest.MonkeyPatch) -> ImageSource:
    store = file_tier(manifest, cache, patch)
    return DeviceImages(store, torch.arange(0, COUNT - 5), torch.device("cpu"), 10**9)  # those that are trained on


def without_disk(manifest: Manifest, cache: Path, patch: pytest.MonkeyPatch, memory: int, note: str) -> ImageSource:
    def full(*_arguments: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    patch.setattr(os, "posix_fallocate", full)
    patch.setattr(plane_cache, "available_memory", lambda: memory)
    store, _ = build_store(manifest, SIZES, cache, 1)
    assert store.notes[0].startswith(note)
    return store


def memory_tier(manifest: Manifest, cache: Path, patch: pytest.MonkeyPatch) -> ImageSource:
    return without_disk(manifest, cache, patch, 10**9, "decoded images are held in memory")


def undecoded_tier(manifest: Manifest, cache: Path, patch: pytest.MonkeyPatch) -> ImageSource:
    return without_disk(manifest, cache, patch, 0, "images are decoded whenever they are asked for")


def prefetched_tier(manifest: Manifest, cache: Path, patch: pytest.MonkeyPatch) -> ImageSource:
    return PrefetchedImages(file_tier(manifest, cache, patch), LateTransfer())


def host_tier(manifest: Manifest, cache: Path, patch: pytest.MonkeyPatch) -> ImageSource:
    """As on a GPU that has room for nothing."""
    return DeviceImages(prefetched_tier(manifest, cache, patch), torch.arange(COUNT), torch.device("cpu"), 0)


TIERS = {
    "device": device_tier,
    "prefetched": prefetched_tier,
    "host": host_tier,
    "memory": memory_tier,
    "undecoded": undecoded_tier,
}


class Watched(Trainer):
    """Remembers what each step learned from."""

    def __init__(self, source: ImageSource, cpu: Runtime, **changes: Any) -> None:
        rows = torch.arange(COUNT)
        data = TrainingData(source, rows[:-5], rows[:-5] % 2, rows[-5:], rows[-5:] % 2, 2)
        net = build_classifier(RECIPE.backbone, 2, resolution=32, drop_path=0.0, seed=0)
        super().__init__(
            replace(RECIPE, **changes), data, net, PREPROCESSING, cpu, lambda _labels, scores: float(scores.mean())
        )
        self.batches: list[tuple[torch.Tensor, torch.Tensor]] = []

    def _gradients(self, step: int, images: torch.Tensor, targets: torch.Tensor, size: int, whole: int) -> torch.Tensor:
        self.batches.append((images.clone(), targets.clone()))
        return super()._gradients(step, images, targets, size, whole)

    def trained(self) -> Watched:
        while not self.finished:
            self.run_epoch()
        return self


@pytest.fixture
def expected(manifest: Manifest, tmp_path: Path, cpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    yield Watched(file_tier(manifest, tmp_path / "cache", monkeypatch), cpu).trained()


@pytest.mark.parametrize("tier", TIERS)
def test_every_tier_gives_the_same_batches(
    tier: str, expected: Watched, manifest: Manifest, tmp_path: Path, cpu: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Watched(TIERS[tier](manifest, tmp_path / "another cache", monkeypatch), cpu).trained()
    assert len(found.batches) == len(expected.batches) == 4
    for mine, theirs in zip(found.batches, expected.batches, strict=True):
        assert torch.equal(mine[0], theirs[0])
        assert torch.equal(mine[1], theirs[1])
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    assert not torch.equal(expected.batches[0][0], expected.batches[2][0])  # another epoch, another batch


class Foreseen:
    """A source that remembers what it was told to expect, and what it was asked for."""

    sizes = SIZES

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[int, ...], int]] = []

    def plane_for(self, size: int) -> int:
        return next((each for each in self.sizes if each >= size), SIZES[-1])

    def expect(self, rows: torch.Tensor, size: int) -> None:
        if len(rows):
            self.told.append(("expect", tuple(rows.tolist()), size))

    def fetch(self, rows: torch.Tensor, size: int) -> torch.Tensor:
        self.told.append(("fetch", tuple(rows.tolist()), size))
        generator = torch.Generator().manual_seed(int(rows.sum()))
        images = torch.randint(0, 256, (len(rows), size, size, 3), dtype=torch.uint8, generator=generator)
        return images.permute(0, 3, 1, 2)


def test_batches_are_expected_two_steps_before_and_just_as_they_come(cpu: Runtime) -> None:
    source = Foreseen()
    Watched(source, cpu, batch_size=4).run_epoch()
    fetched = [(rows, size) for what, rows, size in source.told if what == "fetch"][:4]
    begun = [what for what, *_ in source.told[:6]]
    assert begun == ["expect", "fetch", "expect", "fetch", "fetch", "fetch"]
    assert [(rows, size) for what, rows, size in source.told if what == "expect"] == fetched[2:]
