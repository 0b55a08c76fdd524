"""Which labels look wrong: confident learning on probabilities of models that did not see the image.

Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", Journal of Artificial
Intelligence Research 2021, https://arxiv.org/abs/1911.00068: a class is believed of an image where its probability is
at least what images with that label get on average. Images of which another class than their own is believed, the
off-diagonal of the confident joint, are the suspects; they are ranked by the normalised margin. A suspect is to be
looked at, and nothing is done to it: a hard image of a class that the model does not know well looks the same.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_vision.spreadsheet import disarmed

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Suspects that label_suspects.csv lists at most, and pictures that the page shows.
LISTED, PICTURED = 1000, 24

COLUMNS = ("path", "label", "suggested", "probability", "probability_of_label", "margin", "set", "group", "role")


@dataclass(frozen=True)
class Suspects:
    """Images whose label looks wrong, the most suspicious first.

    Attributes:
        rows: (S) indices into what was ranked.
        suggested: (S) class that is believed instead.
        margin: (S) probability of the label minus that of the most probable other class, ascending, in -1..1.
        thresholds: (C) probability from which on each class is believed; NaN of classes that no image is labelled with.
    """

    rows: Ints
    suggested: Ints
    margin: Floats
    thresholds: Floats

    def __len__(self) -> int:
        return len(self.rows)


def find_suspects(labels: Ints, probabilities: Floats) -> Suspects:
    """Rank the labels that look wrong.

    Args:
        labels: (N) class indices below C.
        probabilities: (N, C), each row from a model that was fitted without it and without copies of it.

    Raises:
        ValueError: shapes that disagree, or probabilities that are not finite.
    """
    if probabilities.ndim != 2 or len(labels) != len(probabilities):
        raise ValueError(f"shapes disagree: {labels.shape=}, {probabilities.shape=}")
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities must be finite")
    at = np.arange(len(labels))
    thresholds = _thresholds(labels, probabilities)
    # A class that no label names is never believed: comparing with NaN is False.
    believed = np.where(probabilities >= thresholds, probabilities, -1.0)
    winner = np.asarray(believed.argmax(axis=1), dtype=np.int64)
    suspect = np.flatnonzero((believed[at, winner] >= 0) & (winner != labels))
    margin = _margin(labels, probabilities)
    ranked = suspect[np.argsort(margin[suspect], kind="stable")]
    return Suspects(ranked, winner[ranked], margin[ranked], thresholds)


def _thresholds(labels: Ints, probabilities: Floats) -> Floats:
    """(C) mean probability of each class over the images that are labelled with it."""
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, probabilities[np.arange(len(labels)), labels], minlength=classes)
    means = np.full(classes, np.nan)
    means[counts > 0] = sums[counts > 0] / counts[counts > 0]
    return means


def _margin(labels: Ints, probabilities: Floats) -> Floats:
    at = np.arange(len(labels))
    others = probabilities.copy()
    others[at, labels] = -np.inf
    return np.asarray(probabilities[at, labels] - others.max(axis=1, initial=-np.inf), dtype=np.float64)


@dataclass(frozen=True)
class Checked:
    """Images whose labels were checked.

    Attributes:
        paths, sets, roles: (N) path in the data, name of the set, "original", "copy" or "unsure".
        labels: (N) class indices.
        groups: (N) lineage groups.
        probabilities: (N, C) from models that did not see the group.
        class_names: (C).
    """

    paths: Sequence[str]
    sets: Sequence[str]
    roles: Sequence[str]
    labels: Ints
    groups: Ints
    probabilities: Floats
    class_names: Sequence[str]


def suspect_rows(checked: Checked, found: Suspects) -> list[dict[str, Any]]:
    """The first `LISTED` suspects as plain types, keys as in `COLUMNS`, and `row`, the index into `checked`."""
    pairs = zip(found.rows[:LISTED].tolist(), found.suggested.tolist(), found.margin.tolist(), strict=False)
    return [_row(checked, row, suggested, margin) for row, suggested, margin in pairs]


def _row(checked: Checked, row: int, suggested: int, margin: float) -> dict[str, Any]:
    chances, label = checked.probabilities[row], int(checked.labels[row])
    return {
        "row": row,
        "path": checked.paths[row],
        "label": checked.class_names[label],
        "suggested": checked.class_names[suggested],
        "probability": round(float(chances[suggested]), 4),
        "probability_of_label": round(float(chances[label]), 4),
        "margin": round(margin, 4),
        "set": checked.sets[row],
        "group": int(checked.groups[row]),
        "role": checked.roles[row],
    }


def one_of_each_group(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first suspect of every group, with `alike`: how many more of its group are suspects."""
    by_group: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_group.setdefault(row["group"], []).append(row)
    return [{**first, "alike": len(others)} for first, *others in by_group.values()]


def suspects_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """label_suspects.csv: `COLUMNS`, one line per suspect, the most suspicious first."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = (row[name] for name in COLUMNS)
        writer.writerow([disarmed(cell) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue()
