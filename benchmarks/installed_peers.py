"""Other loops in benchmarks/speed.py, each a process as its users start it: fastai, the Trainer of Hugging Face, timm.

fastai and the Trainer are run by the Python of an environment that has them, timm by the one that runs the benchmark.

    uv venv --python 3.11 peers
    uv pip install --python peers fastai==2.8.12 transformers==5.23.0 accelerate==1.15.0 timm==1.0.31
    PEERS_PYTHON=peers/bin/python python benchmarks/speed.py --only P PF

One call of `fit` or `train` of very many epochs, which stops after each: it says how many images that was, and goes on
once it has read a line; `ready` comes first. Tuned as their users would: a loader worker per core that stays alive
where the library keeps it (fastai starts new ones for every epoch), and the batch of the other arms. An epoch of fastai
ends with validating one image. Imports nothing of this project.
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

_EPOCHS_ENOUGH = 100_000


def _stop(images: int) -> None:
    """Say that an epoch of so many images is done, and wait to be called again; ends the program where nobody calls."""
    print(images, file=sys.__stdout__, flush=True)
    if not sys.stdin.readline():
        os._exit(0)


class _Files(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """The first files of a folder of classes, again and again until there are enough."""

    def __init__(self, options: argparse.Namespace) -> None:
        changes = v2.Compose(
            [
                v2.ToImage(),
                v2.RandomResizedCrop(options.size, scale=(0.6, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(options.mean, options.std),
            ]
        )
        self._folder = ImageFolder(str(options.data), changes)
        self._count = int(options.images)
        self.classes = len(self._folder.classes)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        pixels, label = self._folder[row % len(self._folder)]
        return pixels, label


def _network(options: argparse.Namespace, classes: int) -> nn.Module:
    net: nn.Module = timm.create_model(options.backbone, num_classes=classes)
    return net.to(memory_format=torch.channels_last)


def _fastai(options: argparse.Namespace) -> None:
    from fastai.callback.core import Callback
    from fastai.data.transforms import Normalize, get_image_files, parent_label
    from fastai.learner import Learner
    from fastai.vision.augment import FlipItem, RandomResizedCrop
    from fastai.vision.data import ImageDataLoaders

    class Seen(Callback):  # type: ignore[misc]  # fastai has no types
        """Counts what is trained on, and stops after each epoch."""

        def before_epoch(self) -> None:
            self.images = 0

        def after_batch(self) -> None:
            self.images += len(self.xb[0]) if self.training else 0

        def after_epoch(self) -> None:
            _stop(self.images)

    files = sorted(get_image_files(options.data))
    files = (files * (options.images // len(files) + 1))[: options.images + 1]
    loaders = ImageDataLoaders.from_path_func(
        str(options.data),
        files,
        parent_label,
        valid_pct=1 / len(files),
        item_tfms=[RandomResizedCrop(options.size, min_scale=0.6), FlipItem()],
        batch_tfms=[Normalize.from_stats(options.mean, options.std)],
        bs=options.batch,
        num_workers=options.workers,
        device=torch.device(options.device),
    )
    learner = Learner(loaders, _network(options, loaders.c), loss_func=nn.CrossEntropyLoss(), cbs=[Seen()])
    learner.fit(_EPOCHS_ENOUGH)


class _WithLoss(nn.Module):
    """What the Trainer wants of a network: keyword arguments in, loss and logits out."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.loss = nn.CrossEntropyLoss()

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        scores = self.net(pixel_values.contiguous(memory_format=torch.channels_last))
        return {"loss": self.loss(scores, labels), "logits": scores}


def _named(rows: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
    """A batch under the names that the Trainer gives to the network."""
    return {"pixel_values": torch.stack([row[0] for row in rows]), "labels": torch.tensor([row[1] for row in rows])}


def _hugging_face(options: argparse.Namespace) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Seen(TrainerCallback):  # type: ignore[misc, unused-ignore]  # without the library its base has no type
        """Stops after each epoch; none of its images is left out."""

        def on_epoch_end(self, *_state: Any, **_more: Any) -> None:
            _stop(options.images)

    files = _Files(options)
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        num_train_epochs=_EPOCHS_ENOUGH,
        per_device_train_batch_size=options.batch,
        dataloader_num_workers=options.workers,
        dataloader_persistent_workers=options.workers > 0,
        use_cpu=options.device == "cpu",
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        learning_rate=1e-4,
    )
    net = _WithLoss(_network(options, files.classes))
    trainer = Trainer(model=net, args=arguments, train_dataset=files, data_collator=_named, callbacks=[Seen()])
    trainer.train()


def _timm(options: argparse.Namespace) -> None:
    """What timm's own benchmark trains: random images that are there, float32, its default layout and optimizer."""
    from timm.optim._optim_factory import create_optimizer_v2

    net = timm.create_model(options.backbone, num_classes=10).to(options.device).train()
    optimizer = create_optimizer_v2(net, opt="sgd", lr=1e-4)
    images = torch.randn(options.batch, 3, options.size, options.size, device=options.device)
    labels = torch.randint(10, (options.batch,), device=options.device)
    steps = -(-options.images // options.batch)
    while True:
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if options.device != "cpu":
            torch.cuda.synchronize()
        _stop(steps * options.batch)


PEERS: dict[str, Callable[[argparse.Namespace], None]] = {
    "fastai": _fastai,
    "hugging_face": _hugging_face,
    "timm": _timm,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--data", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--backbone", required=True, help="timm's name")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--images", type=int, required=True, help="in an epoch")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--mean", type=float, nargs=3, default=(0.485, 0.456, 0.406))
    parser.add_argument("--std", type=float, nargs=3, default=(0.229, 0.224, 0.225))
    options = parser.parse_args(arguments)
    print("ready", flush=True)
    if sys.stdin.readline():
        with contextlib.redirect_stdout(sys.stderr):  # tables of progress
            PEERS[options.peer](options)


if __name__ == "__main__":
    main()
