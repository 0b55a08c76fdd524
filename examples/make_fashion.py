"""Make the example data set: class folders of small photographs, with augmented copies mixed in.

    python examples/make_fashion.py /usr/share/datasets/fashion-mnist

The argument is the folder that Debian's package `dataset-fashion-mnist` installs (MIT licence, (c) 2017
Zalando SE). Needs numpy and Pillow. The same seed gives the same names and the same pixels.
"""

from __future__ import annotations

import argparse
import gzip
import math
import random
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]  # (28, 28)
Operation = Callable[[NDArray[np.float64], random.Random], NDArray[np.float64]]

CLASS_NAMES = (
    "t_shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle_boot",
)


def read_fashion(source: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(N, 28, 28) images and (N) labels of `part`, "train" or "t10k"."""
    with gzip.open(source / f"{part}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(source / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images, labels


def flip(image: NDArray[np.float64], _: random.Random) -> NDArray[np.float64]:
    """Left becomes right."""
    return image[:, ::-1]


def turn(image: NDArray[np.float64], chance: random.Random) -> NDArray[np.float64]:
    """Up to 15 degrees either way."""
    return _warp(image, angle=math.radians(chance.uniform(-15, 15)))


def zoom(image: NDArray[np.float64], chance: random.Random) -> NDArray[np.float64]:
    """85 to 115 % of the size."""
    return _warp(image, scale=chance.uniform(0.85, 1.15))


def shift(image: NDArray[np.float64], chance: random.Random) -> NDArray[np.float64]:
    """Up to three pixels in each direction; what comes in is black."""
    return _warp(image, move=(chance.uniform(-3, 3), chance.uniform(-3, 3)))


def brighten(image: NDArray[np.float64], chance: random.Random) -> NDArray[np.float64]:
    """60 to 140 % of the brightness."""
    return image * chance.uniform(0.6, 1.4)


def add_noise(image: NDArray[np.float64], chance: random.Random) -> NDArray[np.float64]:
    """Gaussian noise of 8 to 16 grey levels."""
    draw = np.random.default_rng(chance.getrandbits(32))
    return image + draw.normal(0, chance.uniform(8, 16), image.shape)


OPERATIONS: tuple[Operation, ...] = (flip, turn, zoom, shift, brighten, add_noise)


def _warp(
    image: NDArray[np.float64],
    *,
    angle: float = 0.0,
    scale: float = 1.0,
    move: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float64]:
    """Turn, scale and move about the centre; bilinear in plain numpy, so that no library changes a pixel."""
    side = image.shape[0]
    centre = (side - 1) / 2
    rows, columns = np.mgrid[0:side, 0:side] - centre
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    source_rows = cosine * rows - sine * columns + centre - move[0]
    source_columns = sine * rows + cosine * columns + centre - move[1]
    padded = np.pad(image, 1)
    top = np.clip(np.floor(source_rows), -1, side - 1).astype(int)
    left = np.clip(np.floor(source_columns), -1, side - 1).astype(int)
    down, right = np.clip(source_rows - top, 0, 1), np.clip(source_columns - left, 0, 1)
    upper = padded[top + 1, left + 1] * (1 - right) + padded[top + 1, left + 2] * right
    lower = padded[top + 2, left + 1] * (1 - right) + padded[top + 2, left + 2] * right
    blended: NDArray[np.float64] = upper * (1 - down) + lower * down
    return blended


def augment(image: Pixels, chance: random.Random) -> Pixels:
    """A copy of `image` after two or three different operations."""
    changed = image.astype(np.float64)
    for operation in chance.sample(OPERATIONS, chance.choice((2, 3))):
        changed = operation(changed, chance)
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def copy_name(tool: str, label: str, original: str, number: int, chance: random.Random) -> str:
    """File name of copy `number` of `original` (a stem), as `tool` would write it."""
    if tool == "augmentor":
        return f"{label}_original_{original}.png_{uuid.UUID(int=chance.getrandbits(128), version=4)}.png"
    return f"{original}_aug_{number}.png"


def choose(images: NDArray[np.uint8], labels: NDArray[np.uint8], per_class: int, seed: int) -> dict[str, list[int]]:
    """Class name -> sorted rows of `images`, `per_class` each; no two chosen images have equal pixels."""
    order = list(range(len(labels)))
    random.Random(seed).shuffle(order)
    chosen: dict[str, list[int]] = {name: [] for name in CLASS_NAMES}
    seen: set[bytes] = set()
    for row in order:
        rows = chosen[CLASS_NAMES[labels[row]]]
        pixels = images[row].tobytes()
        if len(rows) < per_class and pixels not in seen:
            seen.add(pixels)
            rows.append(row)
    return {name: sorted(rows) for name, rows in chosen.items()}


def make_fashion(source: Path, out: Path, *, originals: int = 60, seed: int = 0) -> int:
    """Write the data set under `out`, a third of the originals with copies; returns how many files."""
    images, labels = read_fashion(source, "train")
    chance = random.Random(seed)
    written = 0
    for label, rows in choose(images, labels, originals, seed).items():
        folder = out / label
        folder.mkdir(parents=True, exist_ok=True)
        copied = set(chance.sample(rows, len(rows) // 3))
        for row in rows:
            files = {f"{row:06d}.png": images[row]}
            if row in copied:
                files |= _copies(images[row], label, f"{row:06d}", chance)
            for name, pixels in files.items():
                Image.fromarray(pixels).save(folder / name, optimize=True)
            written += len(files)
    return written


def _copies(image: Pixels, label: str, original: str, chance: random.Random) -> dict[str, Pixels]:
    tool = chance.choice(("augmentor", "albumentations"))
    numbers = range(1, chance.choice((1, 2)) + 1)
    return {copy_name(tool, label, original, n, chance): augment(image, chance) for n in numbers}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of the four idx files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "fashion")
    parser.add_argument("--originals", type=int, default=60, help="originals per class (default 60)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    count = make_fashion(options.source, options.out, originals=options.originals, seed=options.seed)
    print(f"{count} images under {options.out}")


if __name__ == "__main__":
    main()
