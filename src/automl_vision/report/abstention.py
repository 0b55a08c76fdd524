"""What is gained by not answering where the model is unsure: coverage and accuracy by threshold.

Chow, "On optimum recognition error and reject tradeoff", IEEE Transactions on Information Theory 1970: of all ways to
leave out a share of the images, leaving out those of the least probability costs the fewest right answers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from automl_vision.report.intervals import grouped_share
from automl_vision.report.predictions import Predictions
from automl_vision.report.thresholds import by_threshold

#: Points of the curve: shares of images that are answered.
COVERAGES = tuple(round(1 - 0.05 * k, 2) for k in range(20))
#: Shares of right answers for which a threshold is named.
TARGETS = (0.9, 0.95, 0.99)


def abstention(validation: Predictions, test: Predictions) -> dict[str, Any]:
    """The curve on validation, and thresholds that reach `TARGETS` there, with what they do on the test set.

    Returns:
        `curve`: list of {threshold, coverage, accuracy}, from all images to few; `targets`: list of {target, threshold,
        validation, test}, the last two {n, coverage, accuracy, low, high} with the interval of the accuracy by groups,
        and None where no threshold reaches the target; `by_threshold`: see `thresholds.by_threshold`.
    """
    return {
        "curve": [_point(validation, _threshold_for(validation, coverage)) for coverage in COVERAGES],
        "targets": [_target(validation, test, target) for target in TARGETS],
        "by_threshold": by_threshold(validation, test),
    }


def _threshold_for(predictions: Predictions, coverage: float) -> float:
    """The probability that this share of the images has at least; 0 for all of them."""
    sure = np.sort(predictions.probabilities.max(axis=1))[::-1]
    wanted = max(round(coverage * len(sure)), 1)
    return 0.0 if wanted == len(sure) else float(sure[wanted - 1])


def _point(predictions: Predictions, threshold: float) -> dict[str, float]:
    counted = _counted(predictions, threshold)
    return {"threshold": threshold, "coverage": counted["coverage"], "accuracy": counted["accuracy"]}


def _target(validation: Predictions, test: Predictions, target: float) -> dict[str, Any]:
    threshold = _lowest(validation, target)
    if threshold is None:
        return {"target": target, "threshold": None, "validation": None, "test": None}
    return {
        "target": target,
        "threshold": threshold,
        "validation": _counted(validation, threshold),
        "test": _counted(test, threshold),
    }


def _lowest(predictions: Predictions, target: float) -> float | None:
    """The lowest threshold from which on the images that are answered are right often enough."""
    sure = predictions.probabilities.max(axis=1)
    order = np.argsort(-sure, kind="stable")
    right = (predictions.predicted == predictions.labels)[order]
    shares = right.cumsum() / np.arange(1, len(right) + 1)
    ordered = sure[order]
    whole = np.append(ordered[1:] < ordered[:-1], True)  # equal probabilities are answered together
    reached = np.flatnonzero((shares >= target) & whole)
    if not len(reached):
        return None
    return 0.0 if reached[-1] == len(right) - 1 else float(ordered[reached[-1]])


def _counted(predictions: Predictions, threshold: float) -> dict[str, Any]:
    answered = predictions.probabilities.max(axis=1) >= threshold
    n = int(answered.sum())
    correct = (predictions.predicted == predictions.labels)[answered].astype(np.float64)
    right = int(correct.sum())
    _, member = np.unique(predictions.groups[answered], return_inverse=True)
    hits, rows = np.bincount(member, weights=correct), np.bincount(member)
    low, high = grouped_share(hits.astype(np.float64), rows.astype(np.float64))
    coverage = n / len(predictions) if len(predictions) else 0.0
    return {"n": n, "coverage": coverage, "accuracy": right / n if n else None, "low": low, "high": high}
