"""Write handwritten digits as class folders, from the copy that scikit-learn carries.

    python examples/make_digits.py data/digits

1,797 pictures of 8 x 8 grey pixels (the test part of the UCI ML hand-written digits, by E. Alpaydin and C. Kaynak), of
which the first so many of each digit are taken. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

#: Grey levels of the data are 0 to 16.
_LEVELS = 16


def make_digits(out: Path, *, images: int = 60) -> int:
    """Write `out`/0/0000.png ..., `images` of each digit; returns how many files."""
    digits = load_digits()
    written = 0
    for label in range(10):
        folder = out / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        for row in np.flatnonzero(digits.target == label)[:images]:
            pixels = np.rint(digits.images[row] * 255 / _LEVELS).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{row:04d}.png")
            written += 1
    return written


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--images", type=int, default=60, help="images per digit (default 60)")
    options = parser.parse_args()
    print(f"{make_digits(options.out, images=options.images)} images under {options.out}")


if __name__ == "__main__":
    main()
