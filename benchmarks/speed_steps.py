"""Training arms of benchmarks/speed.py: one network on the same pictures, trained by this project and by others.

An arm is called once per round and trains on a block of images; what it did before the first round (a store that is
built, workers that are started) is not timed.
"""

from __future__ import annotations

import atexit
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from automl_vision.config import Settings
from automl_vision.data.preprocess import Preprocessing
from automl_vision.data.readers import read
from automl_vision.data.store import ImageStore, build_store
from automl_vision.models.backbones import backbone, statistics
from automl_vision.models.classifier import build_classifier
from automl_vision.models.device_images import on_device
from automl_vision.runtime import Runtime
from automl_vision.training.augment import AUGMENTATIONS
from automl_vision.training.compiling import StepCompiler
from automl_vision.training.loop import Trainer, TrainingData
from automl_vision.training.recipe import Recipe

#: The program of the other loops.
PEERS = Path(__file__).resolve().parent / "installed_peers.py"

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
        keeps_statistics: whether batch norm keeps its statistics, as recipes of this project have it unless told
            otherwise; others train them.
    """

    backbone: str
    size: int
    batch: int = 32
    images: int = 256
    keeps_statistics: bool = True

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.backbone}@{self.size}"

    def with_blocks_of(self, images: int) -> Scene:
        """The same with other blocks, for a quick look."""
        return replace(self, batch=min(self.batch, images), images=images)

    @property
    def trains_statistics(self) -> Scene:
        """The same, in this point as other loops train it."""
        return replace(self, keeps_statistics=False)

    @property
    def recipe(self) -> Recipe:
        """Plain training of the whole network."""
        return Recipe(
            kind="finetune",
            backbone=self.backbone,
            resolution=self.size,
            pretrained=False,
            epochs=_EPOCHS_ENOUGH,
            batch_size=self.batch,
            schedule="constant",
            layer_decay=1.0,
            augment="light",
            ema=False,
            freeze_norm=self.keeps_statistics,
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


def trainer_of(
    kind: type[Trainer], scene: Scene, store: ImageStore, runtime: Runtime, compiler: StepCompiler | None = None
) -> Trainer:
    """A trainer for the first images of a store, a block of them to an epoch; labels are made up.

    On a GPU the images lie where a search would lay them.
    """
    few = torch.arange(min(scene.images, len(store)))
    rows = few.repeat(math.ceil(scene.images / len(few)))[: scene.images]
    labels = torch.arange(len(rows)) % _CLASSES
    held = torch.arange(_VALIDATED)
    source = on_device(store, (few,), runtime.device)
    data = TrainingData(source, rows, labels, held, labels[:_VALIDATED], _CLASSES)
    mean, std = statistics(backbone(scene.backbone))
    net = build_classifier(scene.backbone, _CLASSES, resolution=scene.size)
    preprocessing = Preprocessing(size=scene.size, mean=mean, std=std)
    return kind(scene.recipe, data, net, preprocessing, runtime, _first_scores, None, compiler)


def _first_scores(_labels: NDArray[np.int64], scores: NDArray[np.float32]) -> float:
    return float(np.mean(scores[:, 0]))


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


def other_loop(name: str, python: str, scene: Scene, pictures: Path, runtime: Runtime) -> Block:
    """An epoch per call of a loop of benchmarks/installed_peers.py, in a process that ends with this one."""
    mean, std = statistics(backbone(scene.backbone))
    options = {
        "--data": pictures,
        "--backbone": backbone(scene.backbone).timm_name,
        "--size": scene.size,
        "--batch": scene.batch,
        "--images": scene.images,
        "--workers": runtime.threads,
        "--device": runtime.device,
    }
    words = [str(word) for pair in options.items() for word in pair]
    words += ["--mean", *map(str, mean), "--std", *map(str, std)]
    process = subprocess.Popen(
        [python, str(PEERS), name, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    atexit.register(process.kill)

    def answer() -> str:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        if not said:
            raise RuntimeError(f"{name} ended with {process.wait()}; run benchmarks/installed_peers.py by hand")
        return said

    def epoch() -> int:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        return int(answer())

    if answer() != "ready":
        raise RuntimeError(f"{name} is not ready")
    return epoch


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
        "ours, statistics trained": epochs_of(trainer_of(Trainer, scene.trains_statistics, store, runtime)),
        "resident": epochs_of(trainer_of(Resident, scene, store, runtime)),
        "timm": other_loop("timm", sys.executable, scene, small, runtime),
        "loader, 500 px": loader_epochs(scene, small, store, runtime, scene.images),
        "loader, 3 megapixels": loader_epochs(
            scene, large, store_of(large, scene, runtime.threads), runtime, scene.images // 4
        ),
    }
