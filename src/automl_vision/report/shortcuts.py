"""Whether the class can be told without looking at what a picture shows.

A network takes the easiest way. Where all cats are PNG files from one camera and all dogs JPEGs from another, it learns
the camera, and a test set of the same files praises it for that (Geirhos et al., "Shortcut learning in deep neural
networks", Nature Machine Intelligence 2020, https://arxiv.org/abs/2004.07780). So one shallow tree for each family of
such facts tries to name the class, by cross-validation; its balanced accuracy is held against what the same answers
reach with shuffled labels. It says that there is an easy way, and not that the model takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from automl_vision.models.probe import deal_folds

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

FOLDS = 5
#: Rows below which nothing is said, and rows of one class below which that class is left out.
FEWEST_ROWS, FEWEST_PER_CLASS = 40, FOLDS
#: A family is beyond chance where it is so many standard deviations of shuffled labels above it.
STANDARD_ERRORS = 4.0
#: Depth of a tree, and the share of the rows that a leaf has at least: it cannot learn single files by heart.
DEPTH, LEAF_SHARE, LEAF_ROWS = 6, 0.005, 5
#: Classes that a sentence describes: those that differ from the others at least this much, in the share of the one that
#: differs most.
TOLD_CLASSES, TOLD_SHARE = 2, 0.5


@dataclass(frozen=True)
class Family:
    """Facts of one kind.

    Attributes:
        title: what people call it.
        columns: of the table of facts that is given.
        limit: share of the way from chance (0) to always right (1) from which on it is worth a warning. What a picture
            shows cannot change how its file was made, but it does change brightness and size of a file: trousers and
            T-shirts of Fashion-MNIST are told apart by either with .82 on this scale, so that more is asked for there.
    """

    title: str
    columns: tuple[str, ...]
    limit: float


FAMILIES: dict[str, Family] = {
    "file_type": Family("file type", ("format", "mode", "frames"), 0.10),
    "camera": Family("camera data", ("camera_time", "turned_by_camera"), 0.10),
    "dimensions": Family("width and height", ("width", "height", "aspect"), 0.25),
    "file_size": Family("file size", ("bytes", "bytes_per_pixel"), 0.85),
    "brightness": Family("brightness", ("brightness", "contrast"), 0.85),
    "border": Family("border of the picture", ("border_red", "border_green", "border_blue", "border_variation"), 0.85),
}
#: All of the families together; it asks for most, because it adds up what each may take from the content.
ALL = "all together"
ALL_LIMIT = 0.90

#: How facts are named in a sentence, and how a number of theirs is written.
_WORDS: dict[str, tuple[str, str]] = {
    "format": ("format", "{}"),
    "mode": ("colour mode", "{}"),
    "frames": ("frames", "{:.0f}"),
    "camera_time": ("time of the photograph in its EXIF data", "{}"),
    "turned_by_camera": ("turned by its EXIF data", "{}"),
    "width": ("width", "{:.0f} px"),
    "height": ("height", "{:.0f} px"),
    "aspect": ("width over height", "{:.2f}"),
    "bytes": ("file size", "{:,.0f} bytes"),
    "bytes_per_pixel": ("bytes per pixel", "{:.2f}"),
    "brightness": ("brightness", "{:.0f} of 255"),
    "contrast": ("contrast", "{:.0f} of 255"),
    "border_red": ("red of the border", "{:.0f} of 255"),
    "border_green": ("green of the border", "{:.0f} of 255"),
    "border_blue": ("blue of the border", "{:.0f} of 255"),
    "border_variation": ("variation within the border", "{:.0f} of 255"),
}


def file_facts(table: pd.DataFrame) -> pd.DataFrame:
    """What files are like, from rows of `data.facts.FACT_COLUMNS`: the columns of the first four families."""
    width, height = table["width"].to_numpy(np.float64), table["height"].to_numpy(np.float64)
    size = table["bytes"].to_numpy(np.float64)
    return pd.DataFrame(
        {
            "format": table["format"].to_numpy(dtype=object),
            "mode": table["mode"].to_numpy(dtype=object),
            "frames": table["frames"].to_numpy(np.float64),
            "camera_time": np.where(np.isnan(table["taken"].to_numpy(np.float64)), "no", "yes"),
            "turned_by_camera": np.where(table["exif_rotated"].to_numpy(dtype=np.bool_), "yes", "no"),
            "width": width,
            "height": height,
            "aspect": width / np.maximum(height, 1),
            "bytes": size,
            "bytes_per_pixel": size / np.maximum(width * height, 1),
        }
    )


def pixel_facts(squares: NDArray[np.uint8]) -> pd.DataFrame:
    """(n, side, side, 3) decoded squares: brightness, contrast, and colour and variation of the outermost sixteenth."""
    values = squares.astype(np.float32)
    grey = values.mean(axis=3)
    ring = np.zeros(squares.shape[1:3], dtype=np.bool_)
    wide = max(1, squares.shape[1] // 16)
    ring[:wide] = ring[-wide:] = True
    ring[:, :wide] = ring[:, -wide:] = True
    border = values[:, ring]
    red, green, blue = border.mean(axis=1).T
    return pd.DataFrame(
        {
            "brightness": grey.mean(axis=(1, 2)),
            "contrast": grey.std(axis=(1, 2)),
            "border_red": red,
            "border_green": green,
            "border_blue": blue,
            "border_variation": border.mean(axis=2).std(axis=1),
        }
    )


def find_shortcuts(
    facts: pd.DataFrame,
    labels: Ints,
    groups: Ints,
    class_names: Sequence[str],
    seed: int,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """How well each family of facts names the class.

    Args:
        facts: (n) rows, columns of `FAMILIES`; numbers, or text for what has no order.
        labels: (n) class indices.
        groups: (n) the first row of each group is looked at: the others are no further evidence.
        class_names: (C).
        seed: deals the rows to folds.
        should_stop: asked before each family; the rest is then left out.

    Returns:
        `measured`; then `images`, `classes` (that were looked at), `chance`, `families`: a list of {`name`, `title`,
        `balanced_accuracy`, `chance_high` (what shuffled labels hardly reach), `limit` (the balanced accuracy from
        which on it is an alarm), `alarm`, `told`: sentences on what the classes look like}; and `alarms`, how many. Or
        `measured` False and the `reason`.
    """
    rows = _looked_at(labels, groups)
    if len(rows) < FEWEST_ROWS or len(np.unique(labels[rows])) < 2:
        return {
            "measured": False,
            "reason": f"there are only {len(rows)} independent images in classes of {FEWEST_PER_CLASS} and more",
        }
    facts = facts.iloc[rows].reset_index(drop=True)
    present, place = np.unique(labels[rows], return_inverse=True)
    targets = place.astype(np.int64)
    names = [class_names[label] for label in present]
    fold = deal_folds(targets, np.arange(len(targets)), FOLDS, seed)
    found: list[dict[str, Any]] = []
    for name, family in _with_all(facts).items():
        if should_stop and should_stop():
            break
        found.append(_judged(name, family, facts, targets, fold, names))
    if not found:
        return {"measured": False, "reason": "its time was over before it began"}
    return {
        "measured": True,
        "images": len(rows),
        "classes": len(present),
        "chance": 1 / len(present),
        "families": found,
        "left_out": len(FAMILIES) + 1 - len(found),
        "alarms": sum(each["alarm"] for each in found),
    }


def _looked_at(labels: Ints, groups: Ints) -> Ints:
    """The first row of each group, of classes that have enough of them."""
    _, first = np.unique(groups, return_index=True)
    rows = np.sort(first)
    counts = np.bincount(labels[rows], minlength=int(labels.max(initial=0)) + 1)
    return np.asarray(rows[counts[labels[rows]] >= FEWEST_PER_CLASS], dtype=np.int64)


def _with_all(facts: pd.DataFrame) -> dict[str, Family]:
    known = {name: family for name, family in FAMILIES.items() if set(family.columns) <= set(facts.columns)}
    together = tuple(column for family in known.values() for column in family.columns)
    return {**known, "all": Family(ALL, together, ALL_LIMIT)}


def _judged(
    name: str, family: Family, facts: pd.DataFrame, targets: Ints, fold: Ints, names: Sequence[str]
) -> dict[str, Any]:
    chance = 1 / len(names)
    features = _encoded(facts[list(family.columns)])
    figure = highest = chance
    if (features != features[0]).any():
        predicted = _held_out(features, targets, fold)
        figure = balanced_accuracy(targets, predicted, len(names))
        highest += STANDARD_ERRORS * error_of_chance(targets, predicted, len(names))
    limit = chance + family.limit * (1 - chance)
    alarm = figure > highest and figure >= limit
    return {
        "name": name,
        "title": family.title,
        "balanced_accuracy": figure,
        "chance_high": highest,
        "limit": limit,
        "beyond_chance": bool(figure > highest),
        "alarm": bool(alarm),
        "told": _told(facts[list(family.columns)], targets, names) if alarm else [],
    }


def _encoded(facts: pd.DataFrame) -> Floats:
    """(n, F) numbers: a column per value of what has no order."""
    numbers = [name for name in facts if pd.api.types.is_numeric_dtype(facts[name])]
    words = [name for name in facts if name not in numbers]
    parts = [facts[numbers].to_numpy(np.float64)]
    parts += [np.stack([facts[name] == each for each in sorted(set(facts[name]))], axis=1) for name in words]
    return np.concatenate([part.astype(np.float64) for part in parts], axis=1)


def _held_out(features: Floats, targets: Ints, fold: Ints) -> Ints:
    """(n) class that a tree names which was fitted to the other folds."""
    from sklearn.tree import DecisionTreeClassifier  # a second of imports that only this needs

    predicted = np.zeros(len(targets), dtype=np.int64)
    leaf = max(LEAF_ROWS, round(LEAF_SHARE * len(targets)))
    for k in np.unique(fold):
        seen = fold != k
        tree = DecisionTreeClassifier(max_depth=DEPTH, min_samples_leaf=leaf, class_weight="balanced", random_state=0)
        predicted[~seen] = tree.fit(features[seen], targets[seen]).predict(features[~seen])
    return predicted


def balanced_accuracy(targets: Ints, predicted: Ints, classes: int) -> float:
    """Mean over the classes of the share of their rows that is named right; every class has rows."""
    right = np.bincount(targets[targets == predicted], minlength=classes)
    return float((right / np.bincount(targets, minlength=classes)).mean())


def error_of_chance(targets: Ints, predicted: Ints, classes: int) -> float:
    """Standard deviation of the balanced accuracy of these answers over all orders of the labels.

    Hoeffding, "A combinatorial central limit theorem", Annals of Mathematical Statistics 1951: the mean is 1 / C, and
    the variance follows from how many rows each class has and how often it is named.
    """
    n, support = len(targets), np.bincount(targets, minlength=classes)
    named = np.bincount(predicted, minlength=classes)
    return float(np.sqrt((named * (1 - named / n) / support).sum() / (n - 1)) / classes)


def _told(facts: pd.DataFrame, targets: Ints, names: Sequence[str]) -> list[str]:
    """The classes that are told apart best, one sentence each, by the fact that does it."""
    described = [
        (*_described(str(column), facts[column], targets == target), target)
        for column in facts
        for target in range(len(names))
    ]
    strongest = max(strength for strength, _, _ in described)
    best: dict[int, str] = {}
    for strength, sentence, target in sorted(described, key=lambda each: -each[0]):
        if strength >= TOLD_SHARE * strongest:
            best.setdefault(target, f"class {names[target]}: {sentence}")
    return list(best.values())[:TOLD_CLASSES]


def _described(column: str, values: pd.Series[Any], own: NDArray[np.bool_]) -> tuple[float, str]:
    """How far a class is from the others in one fact (0..1), and that in words."""
    words, form = _WORDS[column]
    if pd.api.types.is_numeric_dtype(values):
        numbers = values.to_numpy(np.float64)
        mine, theirs = (form.format(np.median(numbers[rows])) for rows in (own, ~own))
        return _separation(numbers, own), f"median {words} {mine}, of the others {theirs}"
    shares = [
        (float((values[own] == each).mean()), float((values[~own] == each).mean()), each)
        for each in sorted(set(values))
    ]
    here, there, each = max(shares, key=lambda share: share[0] - share[1])
    what = f"{words} {each or 'unknown'}"
    return here - there, f"{what} in {100 * here:.0f} % of its files, in {100 * there:.0f} % of the others"


def _separation(values: Floats, own: NDArray[np.bool_]) -> float:
    """How far the area under the ROC curve is from chance, 0..1."""
    from scipy.stats import rankdata

    n, others = int(own.sum()), int((~own).sum())
    area = (rankdata(values)[own].sum() - n * (n + 1) / 2) / (n * others)
    return float(abs(2 * area - 1))


def shortcut_warnings(found: Mapping[str, Any] | None) -> list[str]:
    """One sentence per alarm; all together only where no family alone is one."""
    if not found or not found["measured"]:
        return []
    alarms = [each for each in found["families"] if each["alarm"]]
    single = [each for each in alarms if each["name"] != "all"]
    return [_warning(each, found["chance"]) for each in single or alarms]


def _warning(family: Mapping[str, Any], chance: float) -> str:
    by_what = "file type, size, brightness and border" if family["name"] == "all" else family["title"]
    told = f" ({'; '.join(family['told'])})" if family["told"] else ""
    figures = f"{100 * family['balanced_accuracy']:.1f} % (chance: {100 * chance:.1f} %)"
    return (
        f"A shortcut may be in the data: from {by_what} alone, without what the picture shows, the class can be told "
        f"with a balanced accuracy of {figures}{told}. The model may have learned that, and the test figure would not "
        "tell."
    )
