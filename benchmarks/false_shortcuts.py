"""How often shortcuts are found where there are none, and how often planted ones are missed.

    python benchmarks/false_shortcuts.py                    # 300 seeds of every setting
    python benchmarks/false_shortcuts.py --fashion /usr/share/datasets/fashion-mnist

Clean data: facts of files and pixels that have nothing to do with the class. An alarm there is a false one. Planted: a
share of the files of one class has a format that no other file has. With `--fashion`, real images that are all made
alike are looked at: all ten classes, and every pair of them; what is found there follows from the content.
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from automl_vision.report.shortcuts import FAMILIES, file_facts, find_shortcuts, pixel_facts

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from make_fashion import CLASS_NAMES, read_fashion

SETTINGS = ((2, 60), (2, 200), (2, 1000), (10, 200), (10, 1000))
SHARES = (1.0, 0.8, 0.5)


def clean_facts(n: int, rng: np.random.Generator) -> pd.DataFrame:
    """(n) rows of facts that have nothing to do with a class."""
    table = pd.DataFrame(
        {
            "format": rng.choice(["JPEG", "PNG"], n),
            "mode": rng.choice(["RGB", "L"], n),
            "frames": 1,
            "taken": np.where(rng.random(n) < 0.5, np.nan, 1e9),
            "exif_rotated": rng.random(n) < 0.2,
            "width": rng.integers(100, 800, n),
            "height": rng.integers(100, 800, n),
            "bytes": rng.integers(1_000, 100_000, n),
        }
    )
    names = (*FAMILIES["brightness"].columns, *FAMILIES["border"].columns)
    return pd.concat([file_facts(table), pd.DataFrame({name: rng.uniform(0, 255, n) for name in names})], axis=1)


def alarms(facts: pd.DataFrame, labels: NDArray[np.int64], classes: int, seed: int) -> dict[str, bool]:
    """Family -> whether it is an alarm."""
    names = [f"class {k}" for k in range(classes)]
    found = find_shortcuts(facts, labels, np.arange(len(labels)), names, seed)
    return {each["name"]: each["alarm"] for each in found["families"]}


def of_clean_data(seeds: int) -> None:
    print(
        "| classes | images | data sets with a false alarm | planted file type: found with 100, 80, 50 % of a class |"
    )
    print("|---|---|---|---|")
    for classes, n in SETTINGS:
        false, planted = 0, dict.fromkeys(SHARES, 0)
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            labels = rng.permutation(np.arange(n) % classes)
            false += any(alarms(clean_facts(n, rng), labels, classes, seed).values())
            for share in SHARES:
                facts = clean_facts(n, rng)
                facts["format"] = facts["format"].mask((labels == 0) & (rng.random(n) < share), "WEBP")
                planted[share] += alarms(facts, labels, classes, seed)["file_type"]
        shares = ", ".join(f"{planted[share] / seeds:.1%}" for share in SHARES)
        print(f"| {classes} | {n} | {false} of {seeds} | {shares} |", flush=True)


def of_fashion(source: Path, count: int = 2000) -> None:
    images, labels = read_fashion(source, "train")
    facts, classes = _image_facts(images[:count]), labels[:count].astype(np.int64)
    _tell("all ten classes", facts, classes)
    for pair in itertools.combinations(range(len(CLASS_NAMES)), 2):
        rows = np.isin(classes, pair)
        _tell(" / ".join(CLASS_NAMES[k] for k in pair), facts[rows], classes[rows])


def _tell(title: str, facts: pd.DataFrame, labels: NDArray[np.int64]) -> None:
    found = find_shortcuts(facts, labels, np.arange(len(labels)), CLASS_NAMES, 0)
    said = ", ".join(
        f"{each['name']} {each['balanced_accuracy']:.2f}{' ALARM' * each['alarm']}"
        for each in found["families"]
        if each["beyond_chance"]
    )
    print(f"{title} ({len(labels)} images): {said or 'nothing'}", flush=True)


def _image_facts(images: NDArray[np.uint8]) -> pd.DataFrame:
    sizes = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        sizes.append(len(stream.getvalue()))
    known = {"format": "PNG", "mode": "L", "frames": 1, "taken": np.nan, "exif_rotated": False}
    table = pd.DataFrame({"bytes": sizes, "height": images.shape[1], "width": images.shape[2], **known})
    return pd.concat([file_facts(table), pixel_facts(np.repeat(images[..., None], 3, axis=3))], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--fashion", type=Path)
    options = parser.parse_args()
    if options.fashion:
        of_fashion(options.fashion)
    else:
        of_clean_data(options.seeds)


if __name__ == "__main__":
    main()
