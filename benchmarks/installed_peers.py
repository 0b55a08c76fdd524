"""fastai and the Trainer of Hugging Face in benchmarks/speed.py: run by the Python of an environment that has them.

    uv venv --python 3.11 peers
    uv pip install --python peers fastai==2.8.12 transformers==5.23.0 accelerate==1.15.0 timm==1.0.31
    PEERS_PYTHON=peers/bin/python python benchmarks/speed.py --only P PF

Says `ready` once it is, then trains an epoch for every line that it reads and says how many images that were. Tuned as
their users would: a loader worker per core that stays alive, the batch of the other arms, nothing else in an epoch
than training. Imports nothing of this project.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

#: Trains an epoch.
Epoch = Callable[[], object]


def _fastai(options: argparse.Namespace) -> Epoch:
    from fastai.data.transforms import Normalize, get_image_files, parent_label
    from fastai.learner import Learner
    from fastai.vision.augment import FlipItem, RandomResizedCrop
    from fastai.vision.data import ImageDataLoaders

    files = sorted(get_image_files(options.data))[: options.images]
    loaders = ImageDataLoaders.from_path_func(
        str(options.data),
        files,
        parent_label,
        valid_pct=1 / len(files),
        item_tfms=[RandomResizedCrop(options.size, min_scale=0.6), FlipItem()],
        batch_tfms=[Normalize.from_stats(options.mean, options.std)],
        bs=options.batch,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        device=torch.device(options.device),
    )
    net = timm.create_model(options.backbone, num_classes=loaders.c).to(memory_format=torch.channels_last)
    learner = Learner(loaders, net, loss_func=nn.CrossEntropyLoss())
    return lambda: _quietly(lambda: learner.fit(1))


def _quietly(work: Callable[[], object]) -> None:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123 - a device
        work()


class _WithLoss(nn.Module):
    """What the Trainer wants of a network: keyword arguments in, loss and logits out."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.loss = nn.CrossEntropyLoss()

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.net(pixel_values.contiguous(memory_format=torch.channels_last))
        return {"loss": self.loss(scores, labels), "logits": scores}


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """A folder of classes as rows with the names that the Trainer wants."""

    def __init__(self, folder: ImageFolder, count: int) -> None:
        self._folder = folder
        self._count = min(count, len(folder))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> dict[str, Any]:
        pixels, label = self._folder[row]
        return {"pixel_values": pixels, "labels": label}


def _hugging_face(options: argparse.Namespace) -> Epoch:
    from transformers import Trainer, TrainingArguments

    changes = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomResizedCrop(options.size, scale=(0.6, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(options.mean, options.std),
        ]
    )
    folder = ImageFolder(str(options.data), changes)
    net = timm.create_model(options.backbone, num_classes=len(folder.classes)).to(memory_format=torch.channels_last)
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        num_train_epochs=1,
        per_device_train_batch_size=options.batch,
        dataloader_num_workers=options.workers,
        dataloader_persistent_workers=options.workers > 0,
        use_cpu=options.device == "cpu",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        learning_rate=1e-4,
    )
    trainer = Trainer(model=_WithLoss(net), args=arguments, train_dataset=_Rows(folder, options.images))
    return lambda: _quietly(trainer.train)


PEERS: dict[str, Callable[[argparse.Namespace], Epoch]] = {"fastai": _fastai, "hugging_face": _hugging_face}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--data", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--backbone", required=True, help="timm's name")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--images", type=int, required=True, help="in an epoch, at most")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--mean", type=float, nargs=3, default=(0.485, 0.456, 0.406))
    parser.add_argument("--std", type=float, nargs=3, default=(0.229, 0.224, 0.225))
    options = parser.parse_args(arguments)
    epoch = PEERS[options.peer](options)
    print("ready", flush=True)
    for _ in sys.stdin:
        epoch()
        print(options.images, flush=True)


if __name__ == "__main__":
    main()
