"""Folders of handwritten digits, some of them for judging alone; and small searches on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from stages import find_command
from timed_process import Ended, run_timed

#: Grey levels of the data are 0 to 16.
_LEVELS = 16
#: Side in pixels to which the 8 x 8 pixels are enlarged.
SIDE = 32
#: Two fine-tunes at 32 px from weights that come with the package, until they learn no more: after three epochs two
#: models of the same images differ by up to 50 points, and what other images cost cannot be told.
LEARNED = (
    *("--trials", "2", "--resolutions", "32"),
    *("--backbones", "efficientnet_lite0", "--offline", "--device", "cpu", "--lineage", "names", "--quiet"),
)
_PATIENCE = 1800.0


@dataclass(frozen=True)
class Digits:
    """Pictures and their labels.

    Attributes:
        pictures: (N, 8, 8) levels 0 to 16.
        labels: (N) 0 to 9.
    """

    pictures: np.ndarray
    labels: np.ndarray


def dealt(seed: int, each: int) -> tuple[Digits, Digits]:
    """So many of each digit, drawn by `seed`, and all others."""
    bunch = load_digits()
    order = np.random.default_rng(seed).permutation(len(bunch.target))
    ours = np.concatenate([order[bunch.target[order] == label][:each] for label in range(10)])
    others = np.setdiff1d(order, ours)
    return Digits(bunch.images[ours], bunch.target[ours]), Digits(bunch.images[others], bunch.target[others])


def picture(levels: np.ndarray) -> Image.Image:
    """One digit, (32, 32) grey."""
    small = Image.fromarray(np.rint(levels * 255 / _LEVELS).astype(np.uint8))
    return small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def write(digits: Digits, folder: Path) -> list[Path]:
    """A JPEG for each, in class folders; their paths."""
    paths = []
    for number, (levels, label) in enumerate(zip(digits.pictures, digits.labels.tolist(), strict=True)):
        path = folder / str(label) / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(levels).convert("RGB").save(path, quality=92)
        paths.append(path)
    return paths


def search(data: Path, out: Path, options: Sequence[str] = (), before: Sequence[str] = ()) -> Ended:
    """The command; `before` is put in front of it."""
    cache = ("--cache-dir", str(out.with_name(f"{out.name}-cache")))
    words = ("search", "--data", str(data), "--out", str(out), *LEARNED, *cache, *options)
    return run_timed([*before, find_command(), *words], _PATIENCE)


def right(model: Path, judged: Path, out: Path, named: Mapping[str, str] | None = None) -> list[bool]:
    """Whether the model is right about each image of class folders, in the order of their paths.

    Args:
        model: its file.
        judged: the folder.
        out: where the predictions are written.
        named: class of the model -> its folder, where they differ.

    Raises:
        RuntimeError: an image is not answered.
    """
    words = ("predict", str(model), str(judged), "--format", "jsonl", "--out", str(out), "--device", "cpu")
    ended = run_timed([find_command(), *words], _PATIENCE)
    if ended.code != 0:
        raise RuntimeError(f"predict ended with {ended.code}: {ended.err[-500:]}")
    rows = sorted((json.loads(line) for line in out.read_text("utf-8").splitlines()), key=lambda row: row["path"])
    folders = named or {}
    return [folders.get(row["label"], row["label"]) == Path(row["path"]).parent.name for row in rows]


def points_lost(before: Sequence[bool], after: Sequence[bool]) -> tuple[float, float]:
    """By how many points of accuracy the second is worse on the same images, and the standard error of that."""
    differ = 100 * (np.array(before, dtype=np.float64) - np.array(after, dtype=np.float64))
    return float(differ.mean()), float(differ.std(ddof=1) / np.sqrt(len(differ)))
