"""How many of the first suspects have a label that was made wrong on purpose?

    python benchmarks/label_errors.py /usr/share/datasets/fashion-mnist
    python benchmarks/label_errors.py /usr/share/datasets/fashion-mnist --images 1000 --share 0.1 --seeds 3

The argument is the folder that Debian's package `dataset-fashion-mnist` installs. Each round draws images, moves a
share of them into the folder of another class, runs `search` on the folders as a user would, and reads
label_suspects.csv. Wrong labels that the split dealt to the test set are nobody's to find: the check sees training and
validation alone. Labels that were wrong before count as false alarms, so that the figure is a lower bound.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import automl_vision

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from make_fashion import CLASS_NAMES, read_fashion

FIRST = 50


@dataclass(frozen=True)
class Round:
    """What one round found: planted errors that could be found, suspects, and how many of both."""

    planted: int
    suspects: int
    found: int
    first: int
    named: int
    seconds: float

    def line(self) -> str:
        """A row of the table."""
        first = min(FIRST, self.suspects)
        cells = (
            f"{self.planted}",
            f"{self.suspects}",
            f"{self.first} of {first} ({self.first / max(first, 1):.2f})",
            f"{self.found / max(self.planted, 1):.2f}",
            f"{self.named / max(self.found, 1):.2f}",
            f"{self.seconds:.2f}",
        )
        return "| " + " | ".join(cells) + " |"


def plant(source: Path, folder: Path, count: int, share: float, seed: int) -> dict[str, str]:
    """Write `count` images into class folders, a share of them into a wrong one; gives file name -> true class."""
    images, labels = read_fashion(source, "train")
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(images), count, replace=False)
    wrong = set(rng.choice(count, round(share * count), replace=False).tolist())
    truth: dict[str, str] = {}
    for at, row in enumerate(drawn.tolist()):
        label = int(labels[row])
        given = (label + int(rng.integers(1, len(CLASS_NAMES)))) % len(CLASS_NAMES) if at in wrong else label
        file = folder / CLASS_NAMES[given] / f"{row:05d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[row]).save(file)
        if at in wrong:
            truth[file.name] = CLASS_NAMES[label]
    return truth


def measure(source: Path, count: int, share: float, budget: str | None, seed: int) -> Round:
    """One round."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "images"
        truth = plant(source, folder, count, share, seed)
        given = {"trials": 1, "epochs": 1} if budget is None else {}
        run = automl_vision.search(folder, budget, out=Path(scratch) / "run", seed=seed, **given)
        if not run.report["label_check"]["measured"]:
            sys.exit(f"labels were not checked: {run.report['label_check']['reason']}")
        with (run.path / "label_suspects.csv").open(encoding="utf-8", newline="") as file:
            suspects = list(csv.DictReader(file))
        with (run.path / "split.csv").open(encoding="utf-8", newline="") as file:
            checked = {Path(row["path"]).name for row in csv.DictReader(file) if row["split"] in ("train", "val")}
    hits = [(Path(row["path"]).name, row["suggested"]) for row in suspects]
    found = [(name, suggested) for name, suggested in hits if name in truth]
    return Round(
        planted=len(checked & truth.keys()),
        suspects=run.report["label_check"]["suspects"],
        found=len(found),
        first=sum(name in truth for name, _ in hits[:FIRST]),
        named=sum(truth[name] == suggested for name, suggested in found),
        seconds=run.report["label_check"]["seconds"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--budget", help="of each search; without one, one recipe is trained for one epoch")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    print(f"| planted | suspects | planted among the first {FIRST} | found of planted | true class named | seconds |")
    print("|---|---|---|---|---|---|")
    for seed in range(options.seeds):
        print(measure(options.source, options.images, options.share, options.budget, seed).line(), flush=True)


if __name__ == "__main__":
    main()
