"""Make a tiny data set of drawn shapes, for a quick run in continuous integration and for tests.

    python examples/make_smoke_data.py smoke_data
    automl-vision search --data smoke_data --config configs/smoke.toml

Every class is one shape in one hue; place, size, shade and background vary from image to image.
Needs numpy and Pillow. The same arguments give the same pixels.
"""

from __future__ import annotations

import argparse
import colorsys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Shape -> where it is, given coordinates that run from -1 to 1 inside its box.
SHAPES: dict[str, Callable[[Plane, Plane], Mask]] = {
    "circle": lambda y, x: y**2 + x**2 <= 1,
    "square": lambda y, x: np.maximum(abs(y), abs(x)) <= 0.9,
    "triangle": lambda y, x: (abs(x) <= (y + 1) / 2) & (y <= 1),
    "cross": lambda y, x: (np.minimum(abs(y), abs(x)) <= 0.3) & (np.maximum(abs(y), abs(x)) <= 1),
    "ring": lambda y, x: abs(y**2 + x**2 - 0.7) <= 0.3,
    "diamond": lambda y, x: abs(y) + abs(x) <= 1,
    "stripes": lambda y, x: (np.sin(y * 9) > 0) & (np.maximum(abs(y), abs(x)) <= 1),
    "moon": lambda y, x: (y**2 + x**2 <= 1) & (y**2 + (x - 0.6) ** 2 > 0.7),
    "wedge": lambda y, x: (y**2 + x**2 <= 1) & ((y > 0) | (x > 0)),
    "bars": lambda y, x: (abs(abs(x) - 0.6) <= 0.25) & (abs(y) <= 1),
}


def make_smoke_data(
    out: Path, *, classes: int = 3, images: int = 7, size: int = 32, copies: int = 0, seed: int = 0
) -> list[Path]:
    """Write `out`/shape/0000.png ... and return the files, originals and copies.

    Args:
        out: folder to write to; made where it is missing.
        classes: 1 to 10.
        images: originals per class.
        size: side in pixels, at least 8.
        copies: mirrored, brightened copies per original, named 0000_aug_1.png ...
        seed: another seed gives other images of the same classes.
    """
    if not 1 <= classes <= len(SHAPES):
        raise ValueError(f"between 1 and {len(SHAPES)} classes can be drawn, got {classes=}")
    written: list[Path] = []
    for number, shape in enumerate(list(SHAPES)[:classes]):
        folder = out / shape
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(images):
            chance = np.random.default_rng((seed, number, index))
            original = draw(shape, hue=number * 0.37 % 1, size=size, chance=chance)
            pictures = {f"{index:04d}.png": original}
            pictures |= {f"{index:04d}_aug_{n}.png": _copy(original, chance) for n in range(1, copies + 1)}
            for name, pixels in pictures.items():
                Image.fromarray(pixels).save(folder / name)
                written.append(folder / name)
    return written


def draw(shape: str, *, hue: float, size: int, chance: np.random.Generator) -> NDArray[np.uint8]:
    """(size, size, 3) one picture of `shape` on a noisy grey ground."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    radius = chance.uniform(0.25, 0.4)
    top, left = chance.uniform(radius, 1 - radius, 2)
    mask = SHAPES[shape]((rows - top) / radius, (columns - left) / radius)
    colour = colorsys.hsv_to_rgb(hue, chance.uniform(0.7, 1.0), chance.uniform(0.6, 1.0))
    ground = chance.uniform(60, 160) + chance.normal(0, 10, (size, size, 3))
    picture = np.where(mask[..., None], 255 * np.array(colour), ground)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _copy(original: NDArray[np.uint8], chance: np.random.Generator) -> NDArray[np.uint8]:
    brighter = original[:, ::-1].astype(np.float64) * chance.uniform(0.7, 1.3)
    return np.clip(brighter, 0, 255).astype(np.uint8)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--classes", type=int, default=3, choices=range(1, len(SHAPES) + 1))
    parser.add_argument("--images", type=int, default=7, help="originals per class (default 7)")
    parser.add_argument("--size", type=int, default=32, help="side in pixels (default 32)")
    parser.add_argument("--copies", type=int, default=0, help="augmented copies per original (default 0)")
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    out = options.pop("out")
    print(f"{len(make_smoke_data(out, **options))} images under {out}")


if __name__ == "__main__":
    main()
