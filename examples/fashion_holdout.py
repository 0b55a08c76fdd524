"""Write other Fashion-MNIST originals as class folders: a second opinion on a model that the example trained.

    python examples/fashion_holdout.py /usr/share/datasets/fashion-mnist holdout
    automl-vision evaluate runs/NAME/model.pt --data holdout

The images come from the test file of Debian's `dataset-fashion-mnist`; `examples/fashion` was taken from its
train file, and images whose pixels occur anywhere in the train file are left out. So the model has seen none.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from PIL import Image

from make_fashion import CLASS_NAMES, read_fashion


def write_holdout(source: Path, out: Path, *, count: int = 2000, seed: int = 0) -> int:
    """Write `count` images, evenly over the classes, under `out`/class. Returns how many were written."""
    images, labels = read_fashion(source, "t10k")
    known = {image.tobytes() for image in read_fashion(source, "train")[0]}
    left = {name: count // 10 + (index < count % 10) for index, name in enumerate(CLASS_NAMES)}
    order = list(range(len(labels)))
    random.Random(seed).shuffle(order)
    written = 0
    for row in order:
        label = CLASS_NAMES[labels[row]]
        if left[label] and images[row].tobytes() not in known:
            left[label] -= 1
            written += 1
            folder = out / label
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[row]).save(folder / f"{row:06d}.png")
    return written


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of the four idx files")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--count", type=int, default=2000, help="images in all (default 2000, at most about 9900)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    written = write_holdout(options.source, options.out, count=options.count, seed=options.seed)
    print(f"{written} images under {options.out}")


if __name__ == "__main__":
    main()
