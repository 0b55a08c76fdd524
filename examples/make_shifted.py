"""Divide `examples/fashion` into pictures to train on and pictures that look as if another camera had taken them.

    python examples/make_shifted.py data/shifted      # data/shifted/here, data/shifted/elsewhere

Two thirds of the originals are `here`, as they are. The others are `elsewhere`: out of focus, in flat light on a dark
grey ground instead of a black one, with noise. No original is in both. Needs numpy and Pillow. The same seed gives the
same pixels.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from make_fashion import CLASS_NAMES, Pixels

FASHION = Path(__file__).parent / "fashion"
#: Share of the contrast that is left, grey level of the darkest pixel, noise in grey levels.
_CONTRAST, _GROUND, _NOISE = 0.8, 20, 6


def make_shifted(out: Path, *, seed: int = 0) -> tuple[int, int]:
    """Write `out`/here and `out`/elsewhere with the ten classes in each; returns how many files each has."""
    chance = random.Random(seed)
    noise = np.random.default_rng(seed)
    counts = {"here": 0, "elsewhere": 0}
    for label in CLASS_NAMES:
        files = sorted(file for file in (FASHION / label).glob("*.png") if file.stem.isdigit())
        elsewhere = set(chance.sample(files, len(files) // 3))
        for file in files:
            image = np.asarray(Image.open(file, formats=("PNG",)))
            place = "elsewhere" if file in elsewhere else "here"
            folder = out / place / label
            folder.mkdir(parents=True, exist_ok=True)
            pixels = taken_elsewhere(image, noise) if file in elsewhere else image
            Image.fromarray(pixels).save(folder / file.name)
            counts[place] += 1
    return counts["here"], counts["elsewhere"]


def taken_elsewhere(image: Pixels, noise: np.random.Generator) -> Pixels:
    """(H, W) the picture blurred over 3 x 3 pixels, with less contrast, a lighter ground and noise."""
    flat = _GROUND + _CONTRAST * _blurred(image.astype(np.float64))
    return np.clip(np.rint(flat + noise.normal(0, _NOISE, image.shape)), 0, 255).astype(np.uint8)


def _blurred(image: NDArray[np.float64]) -> NDArray[np.float64]:
    padded = np.pad(image, 1, mode="edge")
    height, width = image.shape
    shifted = [padded[row : row + height, column : column + width] for row in range(3) for column in range(3)]
    mean: NDArray[np.float64] = np.mean(shifted, axis=0)
    return mean


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    here, elsewhere = make_shifted(options.out, seed=options.seed)
    print(f"{here} images under {options.out / 'here'}, {elsewhere} under {options.out / 'elsewhere'}")


if __name__ == "__main__":
    main()
