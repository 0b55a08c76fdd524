"""Small trainings, alone or by several ranks: what each rank is started with, and what comes of it."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from memory_source import MemorySource

from automl_vision.data.preprocess import Preprocessing
from automl_vision.models.classifier import build_classifier
from automl_vision.runtime import Runtime
from automl_vision.training.loop import Trainer, TrainingData
from automl_vision.training.ranks import ALONE, OVER, RankLost, Ranks, RanksDiffer
from automl_vision.training.recipe import Recipe

RECIPE = Recipe(
    kind="finetune",
    backbone="test_efficientnet",
    resolution=32,
    epochs=2,
    batch_size=8,
    optimizer="sgd",
    learning_rate=0.1,
    layer_decay=1.0,
    ema=False,
)
CPU = Runtime(torch.device("cpu"), None, 1)


def data(train: int = 27, val: int = 11) -> TrainingData:
    """Noise with a brighter corner by class; the last batch of eight has three images."""
    drawn = torch.Generator().manual_seed(1)
    rows = torch.arange(train + val)
    images = torch.randint(0, 200, (train + val, 3, 40, 40), dtype=torch.uint8, generator=drawn)
    for label in range(3):
        images[label::3, label, :20, :20] = 255
    source = MemorySource(images, (32, 40))
    return TrainingData(source, rows[:train], rows[:train] % 3, rows[train:], rows[train:] % 3, 3)


def trainer(changes: Mapping[str, Any], ranks: Ranks = ALONE) -> Trainer:
    """A trainer whose recipe is changed; "train" is the number of its images."""
    own = dict(changes)
    images = data(own.pop("train", 27), own.pop("val", 11))
    recipe = dataclasses.replace(RECIPE, **own)
    net = build_classifier(recipe.backbone, 3, resolution=32, drop_path=recipe.drop_path, seed=recipe.seed)
    preprocessing = Preprocessing(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    return Trainer(recipe, images, net, preprocessing, CPU, accuracy, ranks=ranks)


def accuracy(labels: Any, said: Any) -> float:
    return float(np.mean(said.argmax(1) == labels))


def outcome(trained: Trainer) -> dict[str, Any]:
    """Train to the end; weights, validation probabilities, and figures of every epoch."""
    results = []
    while not trained.finished:
        result = trained.run_epoch()
        results.append([result.train_loss, result.val_loss, result.score, float(result.images)])
    return {
        "weights": trained.last_weights(),
        "probabilities": torch.from_numpy(trained.probabilities),
        "results": torch.tensor(results),
    }


def by_ranks(
    folder: Path, size: int, variants: Mapping[str, Mapping[str, Any]], codes: Sequence[int] = ()
) -> dict[str, dict[str, Any]]:
    """Outcomes of all variants, each trained by `size` processes; those of every rank are in `folder`."""
    task = folder / "task.json"
    task.write_text(json.dumps(variants))
    port = free_port()
    started = [start(rank, size, port, task) for rank in range(size)]
    ends = [each.wait(480) for each in started]
    assert ends == list(codes or [0] * size), [file.read_text()[-2000:] for file in sorted(folder.glob("*.log"))]
    return {name: torch.load(folder / f"{name}.0.pt", weights_only=True) for name in variants}


def start(rank: int, size: int, port: int, task: Path) -> subprocess.Popen[bytes]:
    """One rank, as torchrun would start it."""
    group = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {**os.environ, **{name: str(value) for name, value in group.items()}, "OMP_NUM_THREADS": "1"}
    paths = [str(Path(__file__).parent), *sys.path]
    with (task.parent / f"rank{rank}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, __file__, str(task)],
            env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def main(arguments: Sequence[str]) -> None:
    task = Path(arguments[0])
    torch.set_num_threads(1)
    ranks = Ranks.join(CPU.device)
    for name, changes in json.loads(task.read_text()).items():
        fault = changes.pop("fault", "none")
        own = trainer(changes, ranks)
        if not ranks.first:
            FAULTS[fault](own)
        came = _came_of(own)
        torch.save(came, task.parent / f"{name}.{ranks.rank}.pt")
        if "error" in came:
            return  # nobody is left to leave together with
    ranks.leave()


def _came_of(own: Trainer) -> dict[str, Any]:
    started = time.monotonic()
    try:
        if own.ranks.first:
            came = outcome(own)
            own.ranks.say(OVER)
            return came
        own.follow()
        return {"weights": own.last_weights(), "epoch": torch.tensor(own.epoch)}
    except (RankLost, RanksDiffer) as error:
        said = [type(error).__name__, str(error)]
        return {"error": said, "seconds": time.monotonic() - started, "steps": own.state()["so_far"]["steps"]}


def _differs(own: Trainer) -> None:
    with torch.no_grad():
        own.classifier.head.bias[0] += 1e-6


def _dies(own: Trainer) -> None:
    """In the forward pass of the second step."""
    passes: list[int] = []

    def die(_module: Any, given: Any) -> None:
        passes.append(len(given[0]))
        if len(passes) > 3:  # two of them look at memory
            os._exit(9)

    own.classifier.register_forward_pre_hook(die)


def _nothing(own: Trainer) -> None:
    """As it is to be."""


FAULTS: dict[str, Callable[[Trainer], None]] = {"none": _nothing, "differs": _differs, "dies": _dies}


if __name__ == "__main__":
    main(sys.argv[1:])
