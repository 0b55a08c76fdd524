"""One rival of benchmarks/duel.py as a program: train within a budget that covers the imports, or test what it left.

python benchmarks/run_rival.py train fastai --data DIR --out model.pt --budget 60
python benchmarks/run_rival.py test model.pt --data OTHERS
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from automl_vision.cli.process import settle_process
from automl_vision.runtime import PROCESS_START, make_runtime

if TYPE_CHECKING:
    from rival_recipes import Task

#: Seconds to write the checkpoint and to leave.
RESERVE = 1.0


def _task(options: argparse.Namespace, size: int, deadline: float) -> Task:
    """The images of a folder of class folders, sorted by class and name."""
    import numpy as np
    import torch
    from PIL import Image

    from rival_recipes import CANVAS, Task

    names = tuple(sorted(each.name for each in options.data.iterdir() if each.is_dir()))
    files = [(file, label) for label, name in enumerate(names) for file in sorted((options.data / name).iterdir())]
    side = round(CANVAS * size)
    opened = (
        Image.open(file, formats=("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")).convert("RGB")
        for file, _ in files
    )
    pixels = [np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)) for image in opened]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor([label for _, label in files])
    return Task(images, labels, names, size, make_runtime(options.device), deadline, options.seed, options.freeze_norm)


def _train(options: argparse.Namespace) -> None:
    import torch

    from rival_recipes import RECIPES

    task = _task(options, options.size, PROCESS_START + options.budget - RESERVE)
    shipped = RECIPES[options.recipe](task)
    about = {**shipped.about, "recipe": options.recipe, "size": options.size, "classes": list(task.class_names)}
    torch.save({"weights": shipped.weights, "about": about}, options.out)
    print(json.dumps(about))


def _test(options: argparse.Namespace) -> None:
    import torch

    from automl_vision.models.classifier import placed
    from rival_recipes import FastaiHead, accuracy, network

    content = torch.load(options.model, weights_only=True)  # noqa: TID251 - of peers, by a bare script
    task = _task(options, content["about"]["size"], math.inf)
    if list(task.class_names) != content["about"]["classes"]:
        raise ValueError(f"other classes than the model's, got {task.class_names}")
    net = network(task)
    if content["about"]["recipe"] == "fastai":
        net.head = FastaiHead(net.head.in_features, len(task.class_names))  # type: ignore[arg-type]
    net.load_state_dict(content["weights"])
    print(json.dumps({"accuracy": accuracy(placed(net, task.runtime.device), task), "n": len(task.labels)}))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    settle_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="train within the budget and write a checkpoint")
    train.set_defaults(run=_train)
    train.add_argument("recipe", help="a name of rival_recipes.RECIPES")
    train.add_argument("--out", type=Path, required=True)
    train.add_argument("--budget", type=float, required=True, help="seconds, start-up included")
    train.add_argument("--size", type=int, default=96, help="side of the input in pixels")
    test = commands.add_parser("test", help="accuracy of a checkpoint")
    test.set_defaults(run=_test)
    test.add_argument("model", type=Path)
    for each in (train, test):
        each.add_argument("--data", type=Path, required=True, help="folder of class folders")
        each.add_argument("--seed", type=int, default=0)
        each.add_argument("--device", default="auto")
        each.add_argument("--freeze-norm", action="store_true", help="keep the statistics of batch norm as pretrained")
    options = parser.parse_args(arguments)
    options.run(options)


if __name__ == "__main__":
    main()
