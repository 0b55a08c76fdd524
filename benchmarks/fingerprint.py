"""How often a copy of an image is recognised by its fingerprint, and how often a stranger is.

    apt-get download openclipart-png tuxpaint-stamps-default stellarium-data   # unpack with dpkg-deb -x
    python benchmarks/fingerprint.py --pictures openclipart-png tuxpaint-stamps-default stellarium-data --count 700

Every picture is looked up among all others (what is found there is listed, for a look: collections hold true copies),
and copies of a part of them among all.
"""

from __future__ import annotations

import argparse
import io
import json
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from automl_vision.data.decode import open_rgb
from automl_vision.data.fingerprint import SIDE, orientations, picture_hash
from automl_vision.data.preprocess import square
from automl_vision.errors import ImageReadError

#: Larger pictures are left out, to keep it short.
MOST_PIXELS = 3_000_000
#: Share of the pictures of which copies are made.
COPIED = 0.25
DISTANCES = range(9)


def saved(image: Image.Image, form: str, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, form, quality=quality)
    return Image.open(file, formats=[form]).convert("RGB")


def scaled(image: Image.Image, factor: float) -> Image.Image:
    size = (max(8, round(image.width * factor)), max(8, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BILINEAR)


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((int(0.03 * width), int(0.03 * height), int(0.97 * width), int(0.97 * height)))


OPERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 90": lambda image: saved(image, "JPEG", 90),
    "JPEG 50": lambda image: saved(image, "JPEG", 50),
    "WebP 60": lambda image: saved(image, "WEBP", 60),
    "half the size": lambda image: scaled(image, 0.5),
    "a quarter of the size": lambda image: scaled(image, 0.25),
    "half the size, JPEG 70": lambda image: saved(scaled(image, 0.5), "JPEG", 70),
    "mirrored, half the size": lambda image: scaled(image, 0.5).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned, JPEG 70": lambda image: saved(image.transpose(Image.Transpose.ROTATE_90), "JPEG", 70),
    "20 % brighter": lambda image: image.point(lambda value: min(255, int(value * 1.2))),
    "3 % cut off each side": cropped,
}


def hashed(image: Image.Image) -> int | None:
    text = picture_hash(square(np.asarray(image), SIDE))
    return int(text, 16) if text else None


def look(file: Path) -> tuple[int | None, dict[str, int | None]] | None:
    """The hash of a picture, and those of its copies where there are any."""
    try:
        pixels = open_rgb(file).pixels
    except ImageReadError:
        return None
    if pixels.shape[0] * pixels.shape[1] > MOST_PIXELS:
        return None
    image = Image.fromarray(pixels)
    copied = random.Random(file.name).random() < COPIED
    return hashed(image), {name: hashed(make(image)) for name, make in OPERATIONS.items()} if copied else {}


def distances(value: int, others: NDArray[np.uint64]) -> NDArray[np.int64]:
    """To each of the others, the smallest over all ways to mirror and turn."""
    views = np.array(list(orientations(value)), dtype=np.uint64)
    return np.asarray(np.bitwise_count(views[:, None] ^ others[None, :]).min(axis=0), dtype=np.int64)


def measure(folders: Sequence[Path], count: int) -> dict[str, Any]:
    files: list[Path] = []
    for folder in folders:
        here = sorted(file for file in folder.rglob("*") if file.suffix.lower() in {".png", ".jpg", ".jpeg"})
        random.Random(0).shuffle(here)
        files += here[:count]
    with ThreadPoolExecutor(2) as pool:
        looked = list(pool.map(look, files))
    known = [(file, *each) for file, each in zip(files, looked, strict=True) if each is not None]
    telling = [(file, value) for file, value, _ in known if value is not None]
    hashes = np.array([value for _, value in telling], dtype=np.uint64)
    pairs = []
    for at, (_, value) in enumerate(telling):
        near = distances(value, hashes[:at])
        pairs += [(int(near[other]), at, int(other)) for other in np.flatnonzero(near <= DISTANCES[-1])]
    recall: dict[str, list[int]] = {name: [] for name in OPERATIONS}
    for _, original, copies in known:
        for name, copy in copies.items():
            if original is not None:
                far = 99 if copy is None else int(distances(copy, np.array([original], dtype=np.uint64))[0])
                recall[name].append(far)
    return {
        "pictures": len(known),
        "with a hash": len(telling),
        "of folders": {
            folder.name: [
                sum(file.is_relative_to(folder) for file, _ in telling),
                sum(file.is_relative_to(folder) for file, *_ in known),
            ]
            for folder in folders
        },
        "pictures with another within": {
            far: len({at for distance, *both in pairs if distance <= far for at in both}) for far in DISTANCES
        },
        "copies within": {
            name: {"n": len(found)} | {far: float(np.mean(np.array(found) <= far)) for far in DISTANCES}
            for name, found in recall.items()
        },
        "pairs": [(far, str(telling[one][0]), str(telling[other][0])) for far, one, other in sorted(pairs)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, nargs="+", required=True)
    parser.add_argument("--count", type=int, default=700, help="pictures of each folder")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.pictures, arguments.count), indent=1))


if __name__ == "__main__":
    main()
