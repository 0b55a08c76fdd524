"""Recorded runs made up for tests."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recorded_runs import HORIZON, RecordedRun, RecordedSet

RATES = (1e-5, 1e-4, 1e-3, 1e-2)
CONFIG: dict[str, Any] = {
    "amp": 1,
    "batch_size": 32,
    "drop": 0.0,
    "stoch_norm": 0,
    "pct_to_freeze": 0.0,
    "smoothing": 0.0,
    "layer_decay": -1.0,
    "weight_decay": 1e-4,
    "warmup_epochs": 0,
    "cat:model:edgenext_small": 1,
    "cat:model:convnext_small_384_in22ft1k": 0,
    "cat:opt:adamw": 1,
    "cat:opt:sgd": 0,
}


def recorded_run(key: str, accuracy: Sequence[float], *, seconds: float = 100.0, **traits: Any) -> RecordedRun:
    known = {"backbone": "edgenext_small.usi_in1k", "optimizer": "adamw", "learning_rate": 1e-4, **traits}
    return RecordedRun(key, known, 0, np.asarray(accuracy, float), np.full(len(accuracy), seconds))


def recorded_set(runs: Sequence[RecordedRun], name: str = "made_up", images: int = 1_000) -> RecordedSet:
    return RecordedSet(name, images, tuple(runs))


def rising(final: float, *, speed: float = 0.3, epochs: int = HORIZON) -> list[float]:
    """A curve that nears `final` percent."""
    return [final * (1 - np.exp(-speed * (epoch + 1))) for epoch in range(epochs)]


def write_folder(folder: Path, names: Sequence[str], configs: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """A folder as `read_sets` expects it: per set a run for each of `RATES`, the best at 1e-4, and a linear probe."""
    rows = [{"run": f"{name}{rate}", **CONFIG, "lr": rate} for name in names for rate in RATES]
    rows += [{"run": f"{name}probe", **CONFIG, "lr": 1.0} for name in names]
    rows = [{**row, **(configs or {}).get(str(row["run"]), {})} for row in rows]
    with (folder / "configs.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for offset, name in enumerate(names):
        finals = dict(zip(RATES, (30.0, 90.0 - offset, 60.0, 10.0), strict=True))
        runs = {
            f"{name}{rate}": {"accuracy": rising(final), "seconds": [600.0 + 1e3 * rate] * HORIZON}
            for rate, final in finals.items()
        }
        runs[f"{name}probe"] = {"accuracy": [99.0], "seconds": [1.0]}
        content = {"name": name, "images": 1_000, "classes": 9, "runs": runs}
        (folder / f"{name}.json").write_text(json.dumps(content), "utf-8")
    return folder
