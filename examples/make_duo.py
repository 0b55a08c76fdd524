"""Make a data set of two classes in which every original has augmented copies.

    python examples/make_duo.py data/duo

The originals are clothes of `examples/fashion`, under their own names: `long` are coats and dresses, `short` are
pullovers and shirts. The copies are made here, by the operations and under the file names of `make_fashion.py`. Needs
numpy and Pillow. The same arguments give the same names and pixels.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
from PIL import Image

from make_fashion import augment, copy_name

FASHION = Path(__file__).parent / "fashion"
CLASSES = {"long": ("coat", "dress"), "short": ("pullover", "shirt")}
TOOLS = ("augmentor", "albumentations")


def make_duo(out: Path, *, copies: int = 2, seed: int = 0) -> int:
    """Write `out`/long and `out`/short, each original with so many copies; returns how many files."""
    chance = random.Random(seed)
    written = 0
    for label, kinds in CLASSES.items():
        (out / label).mkdir(parents=True, exist_ok=True)
        for file in (file for kind in kinds for file in originals(kind)):
            image = np.asarray(Image.open(file, formats=("PNG",)))
            tool = chance.choice(TOOLS)
            pictures = {file.name: image}
            pictures |= {
                copy_name(tool, label, file.stem, number, chance): augment(image, chance)
                for number in range(1, copies + 1)
            }
            for name, pixels in pictures.items():
                Image.fromarray(pixels).save(out / label / name, optimize=True)
            written += len(pictures)
    return written


def originals(kind: str) -> list[Path]:
    """The originals of one kind of clothes of `examples/fashion`: their names are numbers and nothing else."""
    return sorted(file for file in (FASHION / kind).glob("*.png") if file.stem.isdigit())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--copies", type=int, default=2, help="augmented copies per original (default 2)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{make_duo(options.out, copies=options.copies, seed=options.seed)} images under {options.out}")


if __name__ == "__main__":
    main()
