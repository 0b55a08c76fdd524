"""Comparing candidates on the validation images: paired, and with groups, not images, as pieces of evidence.

The standard error of a difference comes from the influence that each image has on the figure (Hampel 1974; for F1 the
derivative of 2 hits / (support + predicted)): summed over groups, their spread is that of the difference. It needs no
resampling, so it can be asked after every trial.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from automl_vision.metrics import TALLY_METRICS, ratio, tally

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: What the arithmetic of floats may add to a difference that is exactly one standard error.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Gain:
    """What one candidate has over another.

    Attributes:
        value: difference of the objective.
        standard_error: of that difference; infinite where there is one group only.
    """

    value: float
    standard_error: float

    def exceeds(self, errors: float) -> bool:
        """Whether it is positive, and more than so many standard errors."""
        return self.value > _ROUNDING and self.value > errors * self.standard_error * (1 + _ROUNDING)

    def to_dict(self) -> dict[str, float | None]:
        """Plain types, ready for JSON."""
        error = self.standard_error if math.isfinite(self.standard_error) else None
        return {"gain": self.value, "standard_error": error}


@dataclass(frozen=True)
class Judge:
    """The validation images.

    Attributes:
        labels: (N) class index.
        groups: (N) rows of one group are one piece of evidence.
        num_classes: C.
        objective: a key of `INFLUENCES`.
    """

    labels: Ints
    groups: Ints
    num_classes: int
    objective: str

    def score(self, predicted: Ints) -> float:
        """The objective of predictions (N)."""
        counts = tally(self.labels, predicted, self.num_classes, np.ones((1, len(self.labels))))
        return float(TALLY_METRICS[self.objective](counts)[0])

    def gain(self, predicted: Ints, over: Ints) -> Gain:
        """What predictions (N) have over others of the same images."""
        influence = INFLUENCES[self.objective]
        difference = influence(self.labels, predicted, self.num_classes) - influence(
            self.labels, over, self.num_classes
        )
        _, member = np.unique(self.groups, return_inverse=True)
        sums = np.bincount(member, weights=difference)
        count = len(sums)
        error = math.sqrt(count / (count - 1) * float((sums**2).sum())) if count > 1 else math.inf
        return Gain(self.score(predicted) - self.score(over), error)


def _of_accuracy(labels: Ints, predicted: Ints, _classes: int) -> Floats:
    right = (labels == predicted).astype(np.float64)
    return np.asarray((right - right.mean()) / len(right))


def _of_balanced_accuracy(labels: Ints, predicted: Ints, classes: int) -> Floats:
    right = (labels == predicted).astype(np.float64)
    support = np.bincount(labels, minlength=classes)
    recall = ratio(np.bincount(labels, weights=right, minlength=classes), support)
    return np.asarray((right - recall[labels]) / (support[labels] * (support > 0).sum()))


def _of_macro_f1(labels: Ints, predicted: Ints, classes: int) -> Floats:
    right = (labels == predicted).astype(np.float64)
    both = np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)
    f1 = ratio(2 * np.bincount(labels, weights=right, minlength=classes), both)
    own = (2 * right - f1[labels]) / both[labels]
    said = f1[predicted] / both[predicted]
    return np.asarray((own - said) / (both > 0).sum())


#: objective -> (labels (N), predicted (N), C) to (N): what the figure would gain per unit of weight on each row.
INFLUENCES: dict[str, Callable[[Ints, Ints, int], Floats]] = {
    "accuracy": _of_accuracy,
    "balanced_accuracy": _of_balanced_accuracy,
    "macro_f1": _of_macro_f1,
}
