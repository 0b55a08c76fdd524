"""What each threshold of confidence does, on validation and on test, for the slider of the page.

A threshold is chosen on validation; the test set says what it is worth. Choosing it where the test figure is best would
be a look at the test set, so that the page shows both and says which is for choosing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_vision.report.intervals import grouped_share
from automl_vision.report.predictions import Predictions

Floats = NDArray[np.float64]

#: Thresholds of the slider: hundredths, and thousandths near 1, where calibrated models have many of their answers.
THRESHOLDS = (*(round(k / 100, 2) for k in range(99)), *(round(0.99 + k / 1000, 3) for k in range(10)))
#: Classes up to which the slider also says what becomes of each.
CLASSES = 30
#: Share of right answers on validation at whose threshold the slider stands at first.
START = 0.95
#: Rows of the table that needs no script.
FIXED = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


def by_threshold(validation: Predictions, test: Predictions) -> dict[str, Any]:
    """Counts for every threshold.

    Returns:
        `thresholds` (T); `validation` and `test`, each {`n`: images, `answered` (T), `right` (T), `low` (T), `high`
        (T): 95 % interval of the accuracy of what is answered, by groups as every figure, None where nothing is;
        `per_class`: None above `CLASSES`, else `n` (C) images of each class, `answered` (T, C) and `right` (T, C)}.
    """
    return {
        "thresholds": list(THRESHOLDS),
        "validation": _counts(validation),
        "test": _counts(test),
    }


def _counts(predictions: Predictions) -> dict[str, Any]:
    confidence = predictions.probabilities.max(axis=1, initial=0.0)
    right = predictions.predicted == predictions.labels
    at = np.searchsorted(THRESHOLDS, confidence, side="right") - 1  # the last threshold that lets an image pass
    classes = len(predictions.class_names)
    answered = _passing(at, predictions.labels, classes)
    correct = _passing(at[right], predictions.labels[right], classes)
    bounds = _bounds(predictions.groups, at, right)
    return {
        "n": len(predictions),
        "answered": answered.sum(axis=1).tolist(),
        "right": correct.sum(axis=1).tolist(),
        "low": [_short(low) for low, _ in bounds],
        "high": [_short(high) for _, high in bounds],
        "per_class": _per_class(predictions, answered, correct) if classes <= CLASSES else None,
    }


def _bounds(
    groups: NDArray[np.int64], at: NDArray[np.int64], right: NDArray[np.bool_]
) -> list[tuple[float | None, float | None]]:
    """(T) interval of the accuracy of what is answered; images of one group are one piece of evidence."""
    names, member = np.unique(groups, return_inverse=True)
    answered, correct = np.zeros(len(names)), np.zeros(len(names))
    bounds: list[tuple[float | None, float | None]] = []
    for k in reversed(range(len(THRESHOLDS))):  # lower thresholds let more pass
        passing = at == k
        np.add.at(answered, member[passing], 1.0)
        np.add.at(correct, member[passing], right[passing].astype(np.float64))
        bounds.append(grouped_share(correct, answered) if answered.any() else (None, None))
    return bounds[::-1]


def _passing(at: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(T, C) images of each class at or above each threshold."""
    counts = np.zeros((len(THRESHOLDS), classes), dtype=np.int64)
    np.add.at(counts, (at, labels), 1)
    return np.asarray(counts[::-1].cumsum(axis=0)[::-1])


def _per_class(
    predictions: Predictions, answered: NDArray[np.int64], correct: NDArray[np.int64]
) -> dict[str, list[Any]]:
    n = np.bincount(predictions.labels, minlength=len(predictions.class_names))
    return {"n": n.tolist(), "answered": answered.tolist(), "right": correct.tolist()}


def _short(bound: float | None) -> float | None:
    return None if bound is None else round(bound, 4)


def fixed_rows(found: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Some thresholds with what they do on both sets, for a page without a script."""
    if not found:
        return []
    places = [found["thresholds"].index(each) for each in FIXED if each in found["thresholds"]]
    return [
        {"threshold": found["thresholds"][k], **{name: _at(found[name], k) for name in ("validation", "test")}}
        for k in places
    ]


def slider_start(report: Mapping[str, Any]) -> int:
    """Where the slider stands at first: at the threshold that reaches 95 % on validation, if any does."""
    targets = (report.get("abstention") or {}).get("targets", [])
    wanted = [row["threshold"] for row in targets if row["target"] == START and row["threshold"] is not None]
    return int(np.searchsorted(THRESHOLDS, wanted[0])) if wanted and wanted[0] <= THRESHOLDS[-1] else 0


def _at(counts: Mapping[str, Any], k: int) -> dict[str, Any]:
    answered, n = counts["answered"][k], counts["n"]
    return {
        "n": answered,
        "coverage": answered / n if n else 0.0,
        "accuracy": counts["right"][k] / answered if answered else None,
        "low": counts["low"][k],
        "high": counts["high"][k],
    }
