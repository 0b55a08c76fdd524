"""Training arms of benchmarks/speed.py: one network on the same pictures, trained by this project and by others.

An arm is called once per round and trains on a block of images; what it did before the first round (a store that is
built, workers that are started) is not timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from automl_vision.config import Settings
from automl_vision.data.preprocess import Preprocessing
from automl_vision.data.readers import read
from automl_vision.data.store import ImageStore, build_store
from automl_vision.models.backbones import backbone, statistics
from automl_vision.models.classifier import build_classifier
from automl_vision.runtime import Runtime
from automl_vision.training.augment import AUGMENTATIONS
from automl_vision.training.loop import Trainer, TrainingData
from automl_vision.training.recipe import Recipe

#: Trains on a block of images, and says how many they were.
Block = Callable[[], int]

#: Images that every epoch of a trainer ends with looking at, as few as there can be.
_VALIDATED = 2
_CLASSES = 10
_EPOCHS_ENOUGH = 100_000


@dataclass(frozen=True)
class Scene:
    """What is trained: a network at one input size, and how many images a block has.

    Attributes:
        backbone: a name of `models.backbones.BACKBONES`, or of timm.
        size: side of the input in pixels.
        batch: images per step.
        images: in a block.
    """

    backbone: str
    size: int
    batch: int = 32
    images: int = 256

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.backbone}@{self.size}"

    def with_blocks_of(self, images: int) -> Scene:
        """The same with other blocks, for a quick look."""
        return replace(self, batch=min(self.batch, images), images=images)

    @property
    def recipe(self) -> Recipe:
        """Plain training of the whole network, as every other loop trains it."""
        return Recipe(
            kind="finetune",
            backbone=self.backbone,
            resolution=self.size,
            pretrained=False,
            epochs=_EPOCHS_ENOUGH,
            batch_size=self.batch,
            schedule="constant",
            augment="light",
            ema=False,
            freeze_norm=False,
            head_from_probe=False,
        )


class Resident(Trainer):
    """The same step on one batch that is in the network's layout already: the limit of what the step can reach."""

    _held: tuple[torch.Tensor, torch.Tensor] | None = None

    def _batch(self, step: int, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self._held is None:
            images, targets = super()._batch(step, positions)
            self._held = super()._inputs(images), targets
        return self._held

    def _inputs(self, images: torch.Tensor) -> torch.Tensor:
        return images


class FromLoader(Trainer):
    """The same step on what torchvision's loader gives."""

    loader: DataLoader[Any]
    _coming: Iterator[Any]

    def _batch(self, step: int, _positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if step == 0:
            self._coming = iter(self.loader)
        images, labels = next(self._coming)
        device = self.runtime.device
        inputs = images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        return inputs, F.one_hot(labels.to(device), self.data.num_classes).float()

    def _inputs(self, images: torch.Tensor) -> torch.Tensor:
        return images


def store_of(folder: Path, scene: Scene, threads: int, cache: Path | None = None) -> ImageStore:
    """The pictures of `folder`, decoded in the sizes that training at the scene's size reads."""
    manifest = read(folder, Settings().data)
    wanted = AUGMENTATIONS[scene.recipe.augment].wanted_size(scene.size)
    return build_store(manifest, [scene.size, wanted], cache, threads)[0]


def trainer_of(kind: type[Trainer], scene: Scene, store: ImageStore, runtime: Runtime) -> Trainer:
    """A trainer for the first images of a store, a block of them to an epoch; labels are made up."""
    rows = torch.arange(min(scene.images, len(store)))
    rows = rows.repeat(math.ceil(scene.images / len(rows)))[: scene.images]
    labels = torch.arange(len(rows)) % _CLASSES
    held = torch.arange(_VALIDATED)
    data = TrainingData(store, rows, labels, held, labels[:_VALIDATED], _CLASSES)
    mean, std = statistics(backbone(scene.backbone))
    net = build_classifier(scene.backbone, _CLASSES, resolution=scene.size)
    preprocessing = Preprocessing(size=scene.size, mean=mean, std=std)
    return kind(scene.recipe, data, net, preprocessing, runtime, lambda _labels, scores: float(np.mean(scores[:, 0])))


def epochs_of(trainer: Trainer) -> Block:
    """An epoch of a trainer per call."""

    def block() -> int:
        return trainer.run_epoch().images

    return block


def loader_epochs(scene: Scene, folder: Path, store: ImageStore, runtime: Runtime, images: int) -> Block:
    """ImageFolder and DataLoader with a worker per core, and the same step."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    mean, std = statistics(backbone(scene.backbone))
    changes = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomResizedCrop(scene.size, scale=(0.6, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )
    some = scene.with_blocks_of(images)
    trainer = trainer_of(FromLoader, some, store, runtime)
    assert isinstance(trainer, FromLoader)
    pictures = torch.utils.data.Subset(ImageFolder(str(folder), changes), trainer.data.train_rows.tolist())
    trainer.loader = DataLoader(
        pictures,
        batch_size=scene.batch,
        shuffle=True,
        num_workers=runtime.threads,
        persistent_workers=True,
        pin_memory=runtime.device.type == "cuda",
    )
    return epochs_of(trainer)


def timm_steps(scene: Scene, runtime: Runtime) -> Block:
    """What timm's own benchmark trains: random images that are there, float32, its default layout and optimizer."""
    import timm
    from timm.optim._optim_factory import create_optimizer_v2

    net = timm.create_model(backbone(scene.backbone).timm_name, pretrained=False, num_classes=_CLASSES)
    net = net.to(runtime.device).train()
    optimizer = create_optimizer_v2(net, opt="sgd", lr=1e-4)
    images = torch.randn(scene.batch, 3, scene.size, scene.size, device=runtime.device)
    labels = torch.randint(_CLASSES, (scene.batch,), device=runtime.device)

    def block() -> int:
        steps = math.ceil(scene.images / scene.batch)
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(net(images), labels).backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
            optimizer.step()
        _wait(runtime)
        return steps * scene.batch

    return block


def _wait(runtime: Runtime) -> None:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)


def step_arms(scene: Scene, small: Path, large: Path, runtime: Runtime) -> dict[str, Block]:
    """All of them for one scene.

    Args:
        scene: what is trained.
        small, large: folders of 500-pixel and 3-megapixel photographs.
        runtime: device and threads.
    """
    store = store_of(small, scene, runtime.threads)
    return {
        "ours": epochs_of(trainer_of(Trainer, scene, store, runtime)),
        "resident": epochs_of(trainer_of(Resident, scene, store, runtime)),
        "timm": timm_steps(scene, runtime),
        "loader, 500 px": loader_epochs(scene, small, store, runtime, scene.images),
        "loader, 3 megapixels": loader_epochs(
            scene, large, store_of(large, scene, runtime.threads), runtime, scene.images // 4
        ),
    }
