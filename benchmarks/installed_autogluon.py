"""AutoGluon MultiModal itself in benchmarks/duel.py: run by the Python of an environment that has it.

    uv venv --python 3.11 autogluon
    uv pip install --python autogluon autogluon.multimodal==1.6.3
    autogluon/bin/python benchmarks/installed_autogluon.py train --data DIR --hub HUB --out MODEL --budget 60
    autogluon/bin/python benchmarks/installed_autogluon.py test MODEL --data OTHERS

Its own defaults are kept, but for what its user has to choose: the backbone, and the size of its input. `HUB` is a
local cache of the hub, as benchmarks/hub_cache.py lays it out; nothing is downloaded. Imports nothing of this project.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_START = time.monotonic()
#: Seconds of the budget that it is not told of: after its time limit it still compares checkpoints and saves.
RESERVE = 4.0


def _table(folder: Path) -> pd.DataFrame:
    """The images of a folder of class folders, sorted by class and name."""
    import pandas as pd

    files = sorted(file for file in folder.glob("*/*") if file.is_file())
    return pd.DataFrame({"image": [str(file) for file in files], "label": [file.parent.name for file in files]})


def _gpus(device: str) -> int:
    """How many it may use; -1 for all that there are."""
    return 0 if device == "cpu" else -1


def _train(options: argparse.Namespace) -> dict[str, float]:
    os.environ |= {"HF_HOME": str(options.hub), "HF_HUB_OFFLINE": "1"}
    from autogluon.multimodal import MultiModalPredictor

    table = _table(options.data)
    predictor = MultiModalPredictor(label="label", path=str(options.out), verbosity=0, enable_progress_bar=False)
    chosen = {
        "model.names": ["timm_image"],
        "model.timm_image.checkpoint_name": options.backbone,
        "model.timm_image.image_size": options.size,
        "env.num_gpus": _gpus(options.device),
    }
    limit = options.budget - (time.monotonic() - _START) - RESERVE
    predictor.fit(table, hyperparameters=chosen, time_limit=max(1, int(limit)), seed=options.seed)
    return {"time_limit": int(limit), "size": options.size}


def _test(options: argparse.Namespace) -> dict[str, float]:
    from autogluon.multimodal import MultiModalPredictor

    table = _table(options.data)
    predictor = MultiModalPredictor.load(str(options.model), verbosity=0)
    predictor.set_num_gpus(_gpus(options.device))
    told = predictor.predict(table)
    return {"accuracy": float((told == table["label"]).mean()), "n": len(table)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="train within the budget and write a folder")
    train.set_defaults(run=_train)
    train.add_argument("--hub", type=Path, required=True, help="HF_HOME with the weights")
    train.add_argument("--out", type=Path, required=True)
    train.add_argument("--budget", type=float, required=True, help="seconds, start-up included")
    train.add_argument("--backbone", default="tf_efficientnet_lite0.in1k", help="timm's name")
    train.add_argument("--size", type=int, default=96, help="side of the input in pixels")
    train.add_argument("--seed", type=int, default=0)
    test = commands.add_parser("test", help="accuracy of what was trained")
    test.set_defaults(run=_test)
    test.add_argument("model", type=Path)
    for each in (train, test):
        each.add_argument("--data", type=Path, required=True, help="folder of class folders")
        each.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args(arguments)
    with contextlib.redirect_stdout(sys.stderr):  # where its progress bars go, which it shows whatever it is told
        told = options.run(options)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
