"""Data on disk as `inspect` sees them, small and quick: decoded, with what comparing pictures would have told."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from automl_vision.config import DataSettings, MachineSettings, Settings
from automl_vision.data.facts import Compared
from automl_vision.data.preparation import Prepared, decode, prepare_to_look, read_manifest

#: (path, path, whether it is the same picture, score)
Told = tuple[str, str, bool, float]


@dataclass(frozen=True)
class Inspected:
    """What `inspect` returned, and what it looked at."""

    prepared: Prepared
    settings: DataSettings

    def row(self, path: str) -> int:
        return self.prepared.manifest.paths.index(path)


def write_image(file: Path, seed: int, size: tuple[int, int] = (24, 18)) -> Path:
    """A picture of its own, as PNG whatever it is called."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    with file.open("wb") as handle:
        Image.fromarray(pixels).save(handle, "PNG")
    return file


def write_folder(root: Path, classes: Sequence[str] = ("cat", "dog"), images: int = 6, seed: int = 0) -> Path:
    """Class folders of different pictures `0.png`, `1.png` ..."""
    for number, name in enumerate(classes):
        for each in range(images):
            write_image(root / name / f"{each}.png", seed=seed + 1000 * number + each)
    return root


def write_leaky(root: Path) -> Path:
    """`train` and `test` folders; `test/cat/same.png` is `train/cat/0.png`."""
    write_folder(root / "train", images=8)
    write_folder(root / "test", images=3, seed=100)
    shutil.copy(root / "train" / "cat" / "0.png", root / "test" / "cat" / "same.png")
    return root


def write_troubled(root: Path) -> Path:
    """Cats and dogs with a copy by its name, one picture under two labels, and two files that cannot be read."""
    write_folder(root, images=10)
    write_image(root / "cat" / "0_hflip.png", seed=500)
    shutil.copy(root / "cat" / "1.png", root / "dog" / "twin.png")
    (root / "dog" / "cut.png").write_bytes((root / "dog" / "0.png").read_bytes()[:200])
    (root / "dog" / "page.png").write_text("<html>404")
    return root


def inspected(root: Path, told: Sequence[Told] | None = None, **counted: int) -> Inspected:
    """Decode, check and deal; `told` is what comparing the pictures found, None where they were not compared."""
    data = DataSettings(lineage="names" if told is None else "full")
    settings = replace(Settings(), data=data, machine=replace(MachineSettings(), cache=False))
    manifest = read_manifest(root, settings)
    store, facts = decode(manifest, settings, (32,), 1)
    if told is not None:
        facts = replace(facts, compared=_compared(manifest.paths, told, counted))
    return Inspected(prepare_to_look(manifest, facts, store, settings), data)


def _compared(paths: tuple[str, ...], told: Sequence[Told], counted: dict[str, int]) -> Compared:
    pairs = [sorted((paths.index(first), paths.index(second))) for first, second, *_ in told]
    return Compared(
        pairs=np.array(pairs, dtype=np.int64).reshape(-1, 2),
        score=np.array([score for *_, score in told], dtype=np.float64),
        same=np.array([same for _, _, same, _ in told], dtype=np.bool_),
        detail=("registered plain: 20 points",) * len(told),
        **counted,
    )
