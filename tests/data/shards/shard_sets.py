"""Small data sets in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from automl_vision.config import Settings, load_settings
from automl_vision.data.preparation import Prepared
from automl_vision.data.shards.address import parse_address
from automl_vision.data.shards.plan import ShardSize
from automl_vision.pipeline import inspect, shard

PER_CLASS = 12


def settings(**overrides: Any) -> Settings:
    """Nothing is kept, copies are sought by names, one thread."""
    given = {name.replace("__", "."): value for name, value in overrides.items()}
    return load_settings(
        overrides={"data.lineage": "names", "machine.cache": False, "machine.threads": 1, "machine.seed": 3, **given}
    )


def pictures(root: Path, per_class: int = PER_CLASS) -> Path:
    """Two classes of JPEGs, a copy of one of them by its name, and a file that is none."""
    random = np.random.default_rng(0)
    for name in ("cat", "dög"):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            coarse = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((40, 32), Image.Resampling.BICUBIC).save(root / name / f"{number}.jpg")
    for number in range(per_class):
        with Image.open(root / "cat" / f"{number}.jpg") as image:
            image.rotate(3).save(root / "cat" / f"{number}_aug_1.png")
    (root / "cat" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    return root


def sharded(data: Path, out: Path, most_bytes: int = 12_000, most_images: int = 0, **overrides: Any) -> Path:
    """Write shards of at most so many bytes."""
    size = ShardSize(most_bytes, most_images)
    shard(data, settings(**overrides), parse_address(out, to_write=True), size)
    return out


def looked_at(data: Path | str, **overrides: Any) -> Prepared:
    """What `inspect` finds."""
    return inspect(Path(data), settings(**overrides))


def sets_of(prepared: Prepared) -> dict[str, set[str]]:
    """Set -> paths."""
    names = np.unique(prepared.split.name)
    return {str(name): {prepared.manifest.paths[row] for row in prepared.split.rows(name)} for name in names}


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of every file."""
    return {each.name: each.read_bytes() for each in sorted(folder.iterdir())}
