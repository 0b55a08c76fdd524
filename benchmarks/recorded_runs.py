"""Recorded fine-tunes: their traits, and accuracy and seconds after each epoch.

A folder holds `NAME.json` per data set: `name`, `images`, and `runs`: {run: {"accuracy": [% after epoch 1, 2, ...],
"seconds": [of each epoch]}}; and `configs.csv`: `run`, and a column per hyperparameter; columns `cat:NAME:VALUE` are
one-hot. They come from the "Extended" records of Quick-Tune (Arango et al., ICLR 2024; github.com/rapanti/quicktune,
BSD-3-Clause). `recorded_backbones.csv` tells the networks' names in timm today, their multiply-adds as counted by torch
on timm 1.0.31, and the ImageNet accuracy that timm's results-imagenet.csv states at their input size.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_vision.search.prior import Trait, rate_at_reference

BACKBONES = Path(__file__).with_name("recorded_backbones.csv")
#: Networks below it spend their time elsewhere than in multiply-adds; in 1e9.
SMALL_GMACS = 3.0
#: Runs of a single epoch are linear probes, and no fine-tunes.
FEWEST_EPOCHS = 2
#: Epochs that all runs were planned for; some ended earlier, since their time was over.
HORIZON = 50

Config = Mapping[str, str]


@dataclass(frozen=True)
class RecordedRun:
    """One fine-tune.

    Attributes:
        key: its number in the records.
        traits: what a prior may know it by, before it runs.
        warm_up: epochs with a rising learning rate.
        accuracy: (E) percent on the validation images after each epoch.
        seconds: (E) of each epoch.
    """

    key: str
    traits: Mapping[str, Trait]
    warm_up: int
    accuracy: NDArray[np.float64]
    seconds: NDArray[np.float64]

    @property
    def best(self) -> float:
        """Accuracy of the best epoch, in percent."""
        return float(self.accuracy.max())


@dataclass(frozen=True)
class RecordedSet:
    """All runs on one data set.

    Attributes:
        name: of the data set.
        images: how many it has.
        runs: at least two.
    """

    name: str
    images: int
    runs: tuple[RecordedRun, ...]

    def regret(self, accuracy: float) -> float:
        """How far `accuracy` is from that of the best run, on a scale where the worst run has 1."""
        values = [run.best for run in self.runs]
        return (max(values) - accuracy) / (max(values) - min(values))

    @property
    def worst(self) -> float:
        """Best accuracy of the worst run, in percent: where a search begins."""
        return min(run.best for run in self.runs)


def read_sets(folder: Path) -> tuple[RecordedSet, ...]:
    """The recorded sets of a folder, by name.

    Raises:
        FileNotFoundError: `configs.csv` is not there, or no set.
    """
    with BACKBONES.open(encoding="utf-8", newline="") as file:
        backbones = {row["recorded"]: row for row in csv.DictReader(file)}
    with (folder / "configs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    traits = {row["run"]: (_traits(row, backbones), int(float(row["warmup_epochs"]))) for row in rows}
    sets = tuple(_read(file, traits) for file in sorted(folder.glob("*.json")))
    if not sets:
        raise FileNotFoundError(f"no recorded set (*.json) in {folder}")
    return sets


def _read(file: Path, traits: Mapping[str, tuple[dict[str, Trait], int]]) -> RecordedSet:
    values = json.loads(file.read_text("utf-8"))
    runs = tuple(
        RecordedRun(key, *traits[key], np.asarray(curve["accuracy"], float), np.asarray(curve["seconds"], float))
        for key, curve in values["runs"].items()
        if len(curve["accuracy"]) >= FEWEST_EPOCHS
    )
    return RecordedSet(values["name"], int(values["images"]), runs)


def _traits(row: Config, backbones: Mapping[str, Mapping[str, Any]]) -> dict[str, Trait]:
    recorded, optimizer, batch = _chosen(row, "model"), _chosen(row, "opt"), float(row["batch_size"])
    known = backbones.get(recorded)
    of_backbone: dict[str, Trait] = {"backbone": recorded}
    if known:
        gmacs = float(known["gmacs"])
        size = "small" if gmacs < SMALL_GMACS else "large"
        top1 = float(known["imagenet_top1"])
        of_backbone = {"backbone": known["timm"], "imagenet_top1": top1, "gmacs": gmacs, "size": size}
    return {
        **of_backbone,
        "optimizer": optimizer,
        "learning_rate": rate_at_reference(float(row["lr"]), batch, optimizer),
        "weight_decay": float(row["weight_decay"]),
        "batch_size": batch,
        "mixed_precision": "yes" if float(row["amp"]) else "no",
        "dropout": float(row["drop"]),
        "stochastic_norm": "yes" if float(row["stoch_norm"]) else "no",
        "frozen_share": float(row["pct_to_freeze"]),
        "label_smoothing": float(row["smoothing"]),
        "layer_decay": float(row["layer_decay"]) if float(row["layer_decay"]) > 0 else 1.0,
    }


def _chosen(row: Config, name: str) -> str:
    """The value of a one-hot hyperparameter; empty where none is marked."""
    prefix = f"cat:{name}:"
    marked = (column for column, value in row.items() if column.startswith(prefix) and float(value))
    return next(marked, prefix).removeprefix(prefix)
