"""How many augmented copies are found by what they show, and how many strangers are taken for copies.

    apt-get download tuxpaint-stamps-default dataset-fashion-mnist   # Debian packages; unpack with dpkg-deb -x
    python benchmarks/copies.py --pictures stamps/usr/share/tuxpaint/stamps --originals 150
    python benchmarks/copies.py --fashion /usr/share/datasets/fashion-mnist --originals 150

Makes a folder of originals, 60 % of them with copies, all under random names; looks at it as `data.lineage = "full"`
does; and compares the groups with the truth. The pictures, the pipelines and their strengths are ours, not yours.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from automl_vision.config import load_settings
from automl_vision.data.preparation import Prepared
from automl_vision.pipeline import inspect
from make_fashion import read_fashion

Rng = np.random.Generator
Operation = Callable[[Image.Image, Rng], Image.Image]

#: Longer side of the pictures in pixels.
SIDE = 320
#: Share of the originals that have copies, and how many each of them has.
AUGMENTED, COPIES = 0.6, 4


def hflip(image: Image.Image, _rng: Rng) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def rot90(image: Image.Image, rng: Rng) -> Image.Image:
    turns = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    return image.transpose(turns[int(rng.integers(3))])


def crop(image: Image.Image, rng: Rng) -> Image.Image:
    """40 to 80 % of the area, at the original size."""
    side = float(np.sqrt(rng.uniform(0.4, 0.8)))
    width, height = round(image.width * side), round(image.height * side)
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.resize(image.size, Image.Resampling.BILINEAR, (left, top, left + width, top + height))


def jitter(image: Image.Image, rng: Rng) -> Image.Image:
    """Brightness, contrast and saturation by up to 40 %, hue by up to 10 %."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(float(rng.uniform(0.6, 1.4)))
    hue, saturation, value = image.convert("HSV").split()
    turned = Image.fromarray(np.asarray(hue) + np.uint8(int(rng.integers(-25, 26)) % 256))
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def blur(image: Image.Image, rng: Rng) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 2.0)) * max(image.size) / SIDE))


def noise(image: Image.Image, rng: Rng) -> Image.Image:
    values = np.asarray(image) + rng.normal(0, rng.uniform(10, 30), np.asarray(image).shape)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def grey(image: Image.Image, _rng: Rng) -> Image.Image:
    return image.convert("L").convert("RGB")


def invert(image: Image.Image, _rng: Rng) -> Image.Image:
    return Image.fromarray(255 - np.asarray(image))


def rotate30(image: Image.Image, rng: Rng) -> Image.Image:
    """By up to 30 degrees; black corners."""
    return image.rotate(float(rng.uniform(10, 30)) * float(rng.choice([-1, 1])), Image.Resampling.BILINEAR)


def perspective(image: Image.Image, rng: Rng) -> Image.Image:
    """Each corner moves inwards by up to 20 % of the side; black outside."""
    width, height = image.size
    here = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=float)
    inwards = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * (width, height)
    there = here + inwards * rng.uniform(0, 0.2, (4, 2))
    rows = [[x, y, 1, 0, 0, 0, -u * x, -u * y] for (x, y), (u, _) in zip(there, here, strict=True)]
    rows += [[0, 0, 0, x, y, 1, -v * x, -v * y] for (x, y), (_, v) in zip(there, here, strict=True)]
    solved = np.linalg.solve(np.array(rows), np.concatenate([here[:, 0], here[:, 1]]))
    return image.transform(image.size, Image.Transform.PERSPECTIVE, solved.tolist(), Image.Resampling.BILINEAR)


def cutout(image: Image.Image, rng: Rng) -> Image.Image:
    """A black rectangle of a third of each side."""
    size = (image.width // 3, image.height // 3)
    at = (int(rng.integers(image.width - size[0])), int(rng.integers(image.height - size[1])))
    covered = image.copy()
    covered.paste((0, 0, 0), (*at, at[0] + size[0], at[1] + size[1]))
    return covered


#: Name -> operations in turn, and the JPEG quality that the copy is saved with.
PIPELINES: dict[str, tuple[tuple[Operation, ...], int]] = {
    "hflip": ((hflip,), 92),
    "rot90": ((rot90,), 92),
    "crop": ((crop,), 92),
    "jitter": ((jitter,), 92),
    "blur": ((blur,), 92),
    "noise": ((noise,), 92),
    "grey": ((grey,), 92),
    "invert": ((invert,), 92),
    "jpeg30": ((), 30),
    "rotate30": ((rotate30,), 92),
    "perspective": ((perspective,), 92),
    "cutout": ((cutout,), 92),
    "chain: flip, rotate, jitter": ((hflip, rotate30, jitter), 92),
    "chain: crop, flip, noise, jpeg50": ((crop, hflip, noise), 50),
    "chain: perspective, jitter, blur": ((perspective, jitter, blur), 92),
}


@dataclass(frozen=True)
class Truth:
    """What was made: file name -> number of the original, and -> pipeline ("" for originals)."""

    source: dict[str, int]
    pipeline: dict[str, str]


def read_pictures(folder: Path, count: int, rng: Rng, without: str = "") -> dict[str, Image.Image]:
    """`count` pictures of at least 90 px on a white ground, longer side at most `SIDE`; no path has `without` in it."""
    files = sorted(each for each in folder.rglob("*") if each.suffix.lower() in (".png", ".jpg", ".jpeg"))
    files = [each for each in files if not without or without not in str(each.relative_to(folder))]
    found: dict[str, Image.Image] = {}
    for at in rng.permutation(len(files)).tolist():
        if len(found) == count:
            break
        with Image.open(files[at]) as opened:
            image = opened.convert("RGBA")
        if min(image.size) >= 90:
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            picture = Image.alpha_composite(white, image).convert("RGB")
            picture.thumbnail((SIDE, SIDE))
            found[str(files[at].relative_to(folder))] = picture
    return found


def read_garments(folder: Path, count: int, rng: Rng) -> dict[str, Image.Image]:
    """`count` Fashion-MNIST images."""
    images, labels = read_fashion(folder, "t10k")
    chosen = rng.permutation(len(images))[:count].tolist()
    return {f"{labels[at]}/{at}": Image.fromarray(np.asarray(images[at])).convert("RGB") for at in chosen}


def write_set(originals: Sequence[Image.Image], folder: Path, rng: Rng, *, copies: int) -> Truth:
    """Write originals and copies as JPEG under random names, in two classes that mean nothing."""
    truth = Truth({}, {})
    names = list(PIPELINES)
    augmented = set(rng.permutation(len(originals))[: round(AUGMENTED * len(originals))].tolist())
    for number, image in enumerate(originals):
        _write(image, folder, truth, number, "", 93, rng)
        for name in rng.choice(names, copies, replace=False).tolist() if number in augmented else ():
            operations, quality = PIPELINES[name]
            copy = image
            for operation in operations:
                copy = operation(copy, rng)
            _write(copy, folder, truth, number, name, quality, rng)
    return truth


def _write(image: Image.Image, folder: Path, truth: Truth, source: int, pipeline: str, quality: int, rng: Rng) -> None:
    name = f"{'ab'[source % 2]}/{rng.bytes(6).hex()}.jpg"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    image.save(folder / name, quality=quality)
    truth.source[name], truth.pipeline[name] = source, pipeline


def figures(prepared: Prepared, truth: Truth, names: Sequence[str]) -> dict[str, Any]:
    """What was found of what was made."""
    paths = prepared.manifest.paths
    group = prepared.audit.lineage.group
    source = np.array([truth.source[path] for path in paths])
    pipeline = np.array([truth.pipeline[path] for path in paths])
    is_copy = pipeline != ""
    home = {int(source[row]): int(group[row]) for row in np.flatnonzero(~is_copy)}
    joined = np.array([home[int(each)] == g for each, g in zip(source, group, strict=True)])
    single = is_copy & ~np.char.startswith(pipeline, "chain")
    test = prepared.split.rows("test")
    trained = {int(source[row]) for name in ("train", "val") for row in prepared.split.rows(name)}
    return {
        "originals": len(home),
        "copies": int(is_copy.sum()),
        "copies_found_single": _share(joined[single]),
        "copies_found_chain": _share(joined[is_copy & ~single]),
        "per_pipeline": {name: _share(joined[pipeline == name]) for name in PIPELINES},
        "originals_joined_to_others": _joined_to_others(source, group, ~is_copy),
        "joined": _joined_names(prepared, source, names),
        "originals_eligible": _share(prepared.audit.eligible[~is_copy]),
        "test_files": len(test),
        "copies_among_test_files": _share(is_copy[test]),
        "test_files_with_sibling_in_train_or_val": _share(np.array([int(source[row]) in trained for row in test])),
    }


def _share(found: NDArray[np.bool_]) -> list[float]:
    """Percent, and of how many."""
    return [round(100.0 * float(found.mean()), 1) if len(found) else 0.0, len(found)]


def _joined_to_others(source: NDArray[np.int64], group: NDArray[np.int64], original: NDArray[np.bool_]) -> list[float]:
    """Originals whose group holds images of another original; natural near-duplicates among the pictures count."""
    sources = {int(g): len(np.unique(source[group == g])) for g in np.unique(group)}
    return _share(np.array([sources[int(g)] > 1 for g in group[original]]))


def _joined_names(prepared: Prepared, source: NDArray[np.int64], names: Sequence[str]) -> list[str]:
    """Pairs of originals that were joined, for a reader to judge: are they strangers, or the same drawing twice?"""
    links = (link for link in prepared.audit.lineage.links if source[link.first] != source[link.second])
    return sorted(f"{names[source[each.first]]} + {names[source[each.second]]}: {each.score:.1f}" for each in links)


def main() -> None:
    """Make the set, look at it, print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder of pictures")
    parser.add_argument("--without", default="", help="leave out pictures with this in their path: symbols")
    parser.add_argument("--fashion", type=Path, help="folder of Debian's dataset-fashion-mnist")
    parser.add_argument("--originals", type=int, default=150)
    parser.add_argument("--copies", type=int, default=COPIES, help="of each original that has any; 0: originals alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="write the set here and keep it")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    if args.pictures:
        originals = read_pictures(args.pictures, args.originals, rng, args.without)
    elif args.fashion:
        originals = read_garments(args.fashion, args.originals, rng)
    else:
        parser.error("give --pictures or --fashion")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch) / "set"
        truth = write_set(list(originals.values()), folder, rng, copies=args.copies)
        settings = load_settings(overrides={"data.lineage": "full", "machine.cache": False})
        started = time.monotonic()
        prepared = inspect(folder, settings)
        seconds = time.monotonic() - started
    result = figures(prepared, truth, list(originals))
    result |= {"seconds": round(seconds, 1), "images_per_second": round(len(truth.source) / seconds, 1)}
    print(json.dumps({"machine": platform.processor() or platform.machine(), "seed": args.seed, **result}, indent=1))


if __name__ == "__main__":
    main()
