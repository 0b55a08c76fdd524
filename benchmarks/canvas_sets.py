"""Sets of images that are not square, for benchmarks/canvas.py.

    python benchmarks/canvas_sets.py garments OUT/garments /usr/share/datasets/fashion-mnist
    python benchmarks/canvas_sets.py clipart OUT/clipart unpacked/usr/share/openclipart/png
    python benchmarks/canvas_sets.py tiles OUT/tiles PHOTOGRAPHS

writes `OUT/<set>/train/CLASS` and `OUT/<set>/test/CLASS`. No picture, tile or garment is in both.

    garments   Fashion-MNIST (Debian's dataset-fashion-mnist): garments of 28 pixels, enlarged and tinted, on generated
               grounds of 4:3, 3:2 and 16:9, upright and lying, near the middle; the test images are the set's own
    clipart    Debian's openclipart-png, unpacked: drawings as they are, shrunk; the class is the upper folder, and
               what is nearly square is left out
    tiles      photographs cut into rectangles from 9:16 to 16:9 that share no pixel; the class is the photograph

None of the three is what users have: garments are small pictures made large, drawings are no photographs, and tiles
are told apart by texture and colour. What they have in common is that shapes differ from image to image.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from automl_vision.data.decode import open_rgb
from automl_vision.errors import ImageReadError
from make_fashion import CLASS_NAMES, read_fashion
from photographs import noise

#: Width to height of the grounds that garments lie on; each also upright.
_GROUNDS = (4 / 3, 3 / 2, 16 / 9)
#: Shorter side in pixels of a ground, and the share of it that a garment takes.
_GROUND_SIDE, _GARMENT_SHARE = (140, 221), (0.6, 0.95)
#: Brightness of a garment's pixels, of 255, from which on the ground is not seen through them.
_OPAQUE = 40
#: Upper folders of drawings that are drawn in series, or that say nothing of what they show.
_NO_CLASSES = frozenset({"shapes", "special", "unsorted", "buttons", "logos"})
#: Longer side to the shorter one from which on a drawing is not square.
_NOT_SQUARE = 1.1
#: Drawings of a class: fewer are left out, more are not taken.
_FEWEST, _MOST = 40, 400
#: Longer side of a stored drawing, and of a photograph that is cut; in pixels.
_DRAWING_SIDE, _PHOTOGRAPH_SIDE = 320, 2560
#: Of the JPEGs that garments and tiles are stored in.
_QUALITY = 92
#: Heights of the rows of tiles in pixels, and how many of them a photograph gives.
_TILE_HEIGHT, _TILES = (110, 221), 130


@dataclass(frozen=True)
class Example:
    """One image of a set.

    Attributes:
        label: name of its class.
        image: not square.
        test: whether it is to be tested on.
    """

    label: str
    image: Image.Image
    test: bool


def garments(source: Path, rng: np.random.Generator, most: int) -> Iterator[Example]:
    """At most `most` of the garments to train on and as many of those to test on, each on a ground of its own."""
    for part in ("train", "t10k"):
        images, labels = read_fashion(source, part)
        for row in rng.permutation(len(images))[:most]:
            yield Example(CLASS_NAMES[labels[row]], _on_a_ground(images[row], rng), test=part == "t10k")


def _on_a_ground(garment: NDArray[np.uint8], rng: np.random.Generator) -> Image.Image:
    side = int(rng.integers(*_GROUND_SIDE))
    longer = round(side * rng.choice(_GROUNDS))
    width, height = (side, longer) if rng.random() < 0.5 else (longer, side)
    ground = _coloured(np.clip(0.5 + 0.25 * noise(width, height, rng), 0, 1), rng)
    size = round(side * rng.uniform(*_GARMENT_SHARE))
    enlarged = np.asarray(Image.fromarray(garment).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
    left, top = (round(float(rng.triangular(0, room / 2, room))) for room in (width - size, height - size))
    place = (slice(top, top + size), slice(left, left + size))
    opaque = np.clip(enlarged / _OPAQUE, 0, 1)[..., None]
    ground[place] = (1 - opaque) * ground[place] + opaque * _coloured(enlarged / 255, rng)
    return Image.fromarray(ground.round().astype(np.uint8))


def _coloured(brightness: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """(H, W) in 0..1 as (H, W, 3) in 0..255, between two random colours."""
    dark, light = rng.uniform(0, 140, 3), rng.uniform(115, 255, 3)
    return np.asarray(dark + (light - dark) * brightness[..., None])


def clipart(source: Path, rng: np.random.Generator, most: int) -> Iterator[Example]:
    """At most `most` drawings, two thirds of them to be tested on."""
    by_class: dict[str, list[Path]] = {}
    for file in sorted(source.rglob("*.png")):
        by_class.setdefault(file.relative_to(source).parts[0], []).append(file)
    classes = {name: files for name, files in by_class.items() if name not in _NO_CLASSES}
    limit = min(_MOST, math.ceil(most / max(len(classes), 1)))
    for name, files in classes.items():
        drawings = list(islice(_drawings([files[at] for at in rng.permutation(len(files))]), limit))
        if len(drawings) >= _FEWEST:
            yield from (Example(name, drawing, test=at >= len(drawings) / 3) for at, drawing in enumerate(drawings))


def _drawings(files: list[Path]) -> Iterator[Image.Image]:
    """Those that are not square; no two have equal pixels."""
    seen: set[bytes] = set()
    for file in files:
        try:
            image = Image.fromarray(open_rgb(file).pixels)
        except ImageReadError as error:
            print(f"left out: {file.name}: {error}")
            continue
        if max(image.size) < _NOT_SQUARE * min(image.size):
            continue
        image.thumbnail((_DRAWING_SIDE, _DRAWING_SIDE), Image.Resampling.LANCZOS)
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            yield image


def tiles(source: Path, rng: np.random.Generator, most: int) -> Iterator[Example]:
    """At most `most` tiles, three quarters of them to be tested on."""
    photographs = sorted(file for file in source.iterdir() if file.is_file())
    limit = min(_TILES, math.ceil(most / max(len(photographs), 1)))
    for file in photographs:
        image = Image.fromarray(open_rgb(file).pixels)
        image.thumbnail((_PHOTOGRAPH_SIDE, _PHOTOGRAPH_SIDE), Image.Resampling.LANCZOS)
        boxes = list(_boxes(image.width, image.height, rng))
        for at, place in enumerate(rng.permutation(len(boxes))[:limit]):
            yield Example(file.stem, image.crop(boxes[place]), test=at % 4 > 0)


def _boxes(width: int, height: int, rng: np.random.Generator) -> Iterator[tuple[int, int, int, int]]:
    """Rows of random height, each cut at random widths: boxes (left, top, right, bottom) that share no pixel."""
    top = 0
    while (bottom := top + int(rng.integers(*_TILE_HEIGHT))) <= height:
        left = 0
        while (right := left + round((bottom - top) * math.exp(rng.uniform(*np.log([9 / 16, 16 / 9]))))) <= width:
            yield left, top, right, bottom
            left = right
        top = bottom


@dataclass(frozen=True)
class Kind:
    """How a set is made: its images drawn from a folder, at most so many, and the kind of file they are stored in."""

    examples: Callable[[Path, np.random.Generator, int], Iterator[Example]]
    ending: str


SETS: dict[str, Kind] = {
    "garments": Kind(garments, ".jpg"),
    "clipart": Kind(clipart, ".png"),
    "tiles": Kind(tiles, ".jpg"),
}


def write_set(name: str, source: Path, out: Path, *, most: int, seed: int = 0) -> int:
    """Write one of `SETS`; the number of images.

    Args:
        name: of the set.
        source: what it is drawn from.
        out: a folder to make.
        most: images at most; of garments, in each of the two parts.
        seed: of everything random.

    Raises:
        FileExistsError: `out` is there.
    """
    out.mkdir(parents=True)
    number, kind = 0, SETS[name]
    for number, example in enumerate(kind.examples(source, np.random.default_rng(seed), most), start=1):
        folder = out / ("test" if example.test else "train") / example.label
        folder.mkdir(parents=True, exist_ok=True)
        example.image.save(folder / f"{number:06d}{kind.ending}", quality=_QUALITY)  # PNG keeps all anyway
    return number


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("source", type=Path, help="what the images are drawn from")
    parser.add_argument("--most", type=int, default=10_000, help="images at most; of garments, in each part")
    options = parser.parse_args(arguments)
    print(f"{write_set(options.set, options.source, options.out, most=options.most):,} images in {options.out}")


if __name__ == "__main__":
    main()
