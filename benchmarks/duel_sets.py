"""Folders of training and test images for benchmarks/duel.py.

    data/train/CLASS    what every arm may train on
    data/test/CLASS     two images of each class: without a test set of its own `search` would take one from `train`
    others/CLASS        the test images, on which no arm is judged more than once

No two of the three folders share an image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from make_fashion import CLASS_NAMES, read_fashion

#: Where Debian's package puts it.
FASHION = Path("/usr/share/datasets/fashion-mnist")
#: The digits come as 8 x 8 pixels, which no camera gives.
_DIGIT_SIDE = 32
#: Images of each class that `search` gets as its own test set.
_OWN_TEST = 2


@dataclass(frozen=True)
class Pool:
    """What images are drawn from.

    Attributes:
        pixels: (N, H, W) uint8.
        labels: (N) class indices.
        class_names: C names.
        for_test: (N) True for images that only test folders may hold; where there are none, any image may.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    for_test: NDArray[np.bool_]


@dataclass(frozen=True)
class Folders:
    """What `write_folders` wrote."""

    data: Path
    others: Path


def _digits() -> Pool:
    from sklearn.datasets import load_digits

    small = load_digits()
    images = [Image.fromarray(np.uint8(image * 255 / 16)).resize((_DIGIT_SIDE,) * 2) for image in small.images]
    pixels = np.stack([np.asarray(image) for image in images])
    names = tuple(f"digit_{digit}" for digit in range(10))
    return Pool(pixels, small.target.astype(np.int64), names, np.zeros(len(pixels), dtype=bool))


def _fashion() -> Pool:
    parts = [read_fashion(FASHION, part) for part in ("train", "t10k")]
    pixels = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts]).astype(np.int64)
    first = _first_of_equals(pixels)
    for_test = np.arange(len(pixels)) >= len(parts[0][0])
    return Pool(pixels[first], labels[first], CLASS_NAMES, for_test[first])


def _first_of_equals(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Rows without those whose pixels are those of an earlier row."""
    seen: dict[bytes, int] = {}
    for row, image in enumerate(pixels):
        seen.setdefault(image.tobytes(), row)
    return np.array(list(seen.values()))


#: name -> the images; both have ten classes of about equal size.
POOLS: dict[str, Callable[[], Pool]] = {"digits": _digits, "fashion": _fashion}


def write_folders(pool: Pool, out: Path, *, size: int, test: int, seed: int) -> Folders:
    """Draw and write one data set.

    Args:
        pool: what to draw from.
        out: folder to make.
        size: training images in all, evenly over the classes.
        test: images in `others` at most, evenly over the classes.
        seed: another seed draws other images into all three folders.

    Raises:
        ValueError: the pool is too small.
    """
    order = np.random.default_rng([seed, size]).permutation(len(pool.labels))
    separate = bool(pool.for_test.any())
    for label, name in enumerate(pool.class_names):
        mine = order[pool.labels[order] == label]
        trainable = mine[~pool.for_test[mine]] if separate else mine
        wanted = _share(size, label, len(pool.class_names))
        if len(trainable) < wanted + _OWN_TEST:
            raise ValueError(f"class {name} has {len(trainable)} images, {wanted + _OWN_TEST} are wanted")
        rest = mine[pool.for_test[mine]] if separate else trainable[wanted + _OWN_TEST :]
        parts = {
            out / "data" / "train": trainable[:wanted],
            out / "data" / "test": trainable[wanted : wanted + _OWN_TEST],
            out / "others": rest[: _share(test, label, len(pool.class_names))],
        }
        for folder, rows in parts.items():
            _write(pool, rows, folder / name)
    return Folders(out / "data", out / "others")


def _share(total: int, place: int, places: int) -> int:
    return total // places + (place < total % places)


def _write(pool: Pool, rows: NDArray[np.int64], folder: Path) -> None:
    folder.mkdir(parents=True)
    for row in rows.tolist():
        Image.fromarray(pool.pixels[row]).save(folder / f"{row:06d}.png")
