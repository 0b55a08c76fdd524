"""What a set of predictions is worth: one table of metrics, and the confusion behind them.

Every definition equals scikit-learn's. They are written again here because an interval needs each of them
thousands of times: a metric takes a whole batch of row weights and returns one figure per weighting, so a
bootstrap of 2,000 resamples is one call.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from automl_vision.errors import UsageError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Weighted = Callable[[Ints, Floats, Floats], Floats]
Need = Literal["rows", "two_classes", "every_class"]

#: Equal-width confidence bins of the expected calibration error.
CALIBRATION_BINS = 15

#: Imbalance (largest class over smallest) above which accuracy hides the small classes.
IMBALANCE_LIMIT = 3.0


@dataclass(frozen=True)
class Tally:
    """What F1, precision and recall are made of, for B weightings of the same rows.

    Attributes:
        hits: (B, C) weight of the rows of a class that were predicted as it.
        support: (B, C) weight of the rows of a class.
        predicted: (B, C) weight of the rows predicted as a class.
    """

    hits: Floats
    support: Floats
    predicted: Floats


@dataclass(frozen=True)
class Metric:
    """One figure of merit.

    Attributes:
        title: how people write it.
        weighted: (labels (N), probabilities (N, C), weights (B, N)) -> (B); NaN where undefined.
        needs: a key of `NEEDS`: what the labels must hold for the figure to exist.
        higher_is_better: direction.
        bounded: True where the figure lies in [0, 1].
        resamples_biased: True where resampling alone makes the figure larger, so that only the spread of the
            resamples says something.
        macro: True where every class counts the same, however few images it has.
    """

    title: str
    weighted: Weighted
    needs: Need = "rows"
    higher_is_better: bool = True
    bounded: bool = True
    resamples_biased: bool = False
    macro: bool = False

    @property
    def words(self) -> str:
        """The title as it stands inside a sentence: accuracy, macro F1, ROC AUC."""
        return self.title if self.title[:2].isupper() else self.title[:1].lower() + self.title[1:]

    def function(self, labels: Ints, probabilities: Floats) -> float | None:
        """The figure for labels (N) in 0..C-1 and probabilities (N, C); None where it is undefined."""
        if not NEEDS[self.needs](labels, probabilities.shape[1]):
            return None
        value = float(self.weighted(labels, probabilities, np.ones((1, len(labels))))[0])
        return None if np.isnan(value) else value


def confusion(labels: Ints, predicted: Ints, classes: int) -> Ints:
    """(C, C) counts; rows are the truth, columns what was predicted."""
    cells = labels.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def per_class(matrix: Ints) -> dict[str, Floats]:
    """Precision, recall, F1 and support (C each) of a confusion matrix. 0/0 is 0.0, as in scikit-learn."""
    hits, support, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return {
        "precision": ratio(hits, predicted),
        "recall": ratio(hits, support),
        "f1": ratio(2 * hits, support + predicted),
        "support": support.astype(np.float64),
    }


def tally(labels: Ints, predicted: Ints, classes: int, weights: Floats) -> Tally:
    """Count hits, support and predictions per class under each of the weights (B, N)."""
    right = np.flatnonzero(labels == predicted)
    return Tally(
        hits=_by_class(labels[right], weights[:, right], classes),
        support=_by_class(labels, weights, classes),
        predicted=_by_class(predicted, weights, classes),
    )


def ratio(numerator: NDArray[np.generic], denominator: NDArray[np.generic], empty: float = 0.0) -> Floats:
    """Element-wise numerator / denominator, and `empty` where the denominator is 0."""
    out = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), empty)
    np.divide(numerator, denominator, out=out, where=denominator != 0)
    return out


def mass_below(scores: Floats, mass: Floats) -> Floats:
    """(B, N) how much of the mass (B, N) scores below each row; ties count half."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    start = np.searchsorted(ordered, ordered, side="left")
    end = np.searchsorted(ordered, ordered, side="right")
    below = np.concatenate([np.zeros((len(mass), 1)), np.cumsum(mass[:, order], axis=1)], axis=1)
    out = np.empty_like(mass, dtype=np.float64)
    out[:, order] = (below[:, start] + below[:, end]) / 2
    return out


def auc_columns(classes: int) -> Sequence[int]:
    """Columns whose one-versus-rest curves are averaged: the positive class alone where there are two."""
    return [1] if classes == 2 else range(classes)


def confidence_bins(confidence: Floats) -> Ints:
    """(N) bin of each confidence: bin m holds (m / 15, (m + 1) / 15]."""
    raised = np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1
    return np.clip(raised, 0, CALIBRATION_BINS - 1)


def objective_for(class_counts: Sequence[int], setting: str = "auto") -> str:
    """Name of the metric that validation maximises.

    "auto" is macro_f1 where the largest class has over 3 times the images of the smallest, else accuracy.

    Raises:
        UsageError: the setting names no metric, or one that is minimised.
    """
    if setting == "auto":
        skewed = max(class_counts, default=0) > IMBALANCE_LIMIT * min(class_counts, default=0)
        return "macro_f1" if skewed else "accuracy"
    choices = [name for name, metric in METRICS.items() if metric.higher_is_better]
    if setting not in choices:
        near = difflib.get_close_matches(setting, choices, n=1)
        fix = f"did you mean {near[0]}?" if near else f"use auto or one of {', '.join(choices)}"
        raise UsageError("this is no objective", value=repr(setting), fix=fix)
    return setting


def _by_class(index: Ints, weights: Floats, classes: int) -> Floats:
    out = np.empty((len(weights), classes))
    for b, row in enumerate(weights):
        out[b] = np.bincount(index, row, classes)
    return out


def _tallied(labels: Ints, probabilities: Floats, weights: Floats) -> Tally:
    return tally(labels, probabilities.argmax(axis=1), probabilities.shape[1], weights)


def accuracy_of(counts: Tally) -> Floats:
    """(B) share of the weight that was predicted right."""
    return ratio(counts.hits.sum(axis=1), counts.support.sum(axis=1), np.nan)


def balanced_accuracy_of(counts: Tally) -> Floats:
    """(B) mean recall over the classes that occur."""
    recall = ratio(counts.hits, counts.support)
    return ratio(recall.sum(axis=1), (counts.support > 0).sum(axis=1), np.nan)


def macro_f1_of(counts: Tally) -> Floats:
    """(B) mean F1 over the classes that occur or were predicted."""
    both = counts.support + counts.predicted
    return ratio(ratio(2 * counts.hits, both).sum(axis=1), (both > 0).sum(axis=1), np.nan)


def macro_precision_of(counts: Tally) -> Floats:
    """(B) mean precision over the classes that occur or were predicted."""
    both = counts.support + counts.predicted
    return ratio(ratio(counts.hits, counts.predicted).sum(axis=1), (both > 0).sum(axis=1), np.nan)


def weighted_f1_of(counts: Tally) -> Floats:
    """(B) mean F1, weighted by support."""
    f1 = ratio(2 * counts.hits, counts.support + counts.predicted)
    return ratio((f1 * counts.support).sum(axis=1), counts.support.sum(axis=1), np.nan)


def binary_f1_of(counts: Tally) -> Floats:
    """(B) F1 of class index 1."""
    return ratio(2 * counts.hits[:, 1], counts.support[:, 1] + counts.predicted[:, 1])


def _from_tally(of: Callable[[Tally], Floats]) -> Weighted:
    return lambda labels, probabilities, weights: of(_tallied(labels, probabilities, weights))


def _roc_auc(labels: Ints, probabilities: Floats, weights: Floats) -> Floats:
    columns = auc_columns(probabilities.shape[1])
    areas = np.array([_column_auc(labels == k, probabilities[:, k], weights) for k in columns])
    defined = ~np.isnan(areas)
    # A resample may miss a class: the mean is then over the others, so that rare classes leave it a value.
    return ratio(np.where(defined, areas, 0.0).sum(axis=0), defined.sum(axis=0), np.nan)


def _column_auc(positive: NDArray[np.bool_], scores: Floats, weights: Floats) -> Floats:
    ours, others = weights * positive, weights * ~positive
    pairs = ours.sum(axis=1) * others.sum(axis=1)
    return ratio((ours * mass_below(scores, others)).sum(axis=1), pairs, np.nan)


def _log_loss(labels: Ints, probabilities: Floats, weights: Floats) -> Floats:
    tiny = np.finfo(np.float64).eps
    own = probabilities[np.arange(len(labels)), labels]
    loss = -np.log(np.clip(own, tiny, 1 - tiny))
    return ratio((weights * loss).sum(axis=1), weights.sum(axis=1), np.nan)


def _calibration_error(labels: Ints, probabilities: Floats, weights: Floats) -> Floats:
    confidence = probabilities.max(axis=1)
    surplus = confidence - (probabilities.argmax(axis=1) == labels)
    gaps = _by_class(confidence_bins(confidence), weights * surplus, CALIBRATION_BINS)
    return ratio(np.abs(gaps).sum(axis=1), weights.sum(axis=1), np.nan)


#: What the labels must hold for a metric to be defined.
NEEDS: dict[Need, Callable[[Ints, int], bool]] = {
    "rows": lambda labels, _: len(labels) > 0,
    "two_classes": lambda labels, classes: len(labels) > 0 and classes == 2,
    "every_class": lambda labels, classes: classes > 1 and bool((np.bincount(labels, minlength=classes) > 0).all()),
}

#: Figures that follow from the counts per class alone, so that one tally serves them all.
TALLY_METRICS: dict[str, Callable[[Tally], Floats]] = {
    "accuracy": accuracy_of,
    "balanced_accuracy": balanced_accuracy_of,
    "macro_f1": macro_f1_of,
    "weighted_f1": weighted_f1_of,
    "micro_f1": accuracy_of,  # with one label per image, a miss is one false positive and one false negative
    "binary_f1": binary_f1_of,
}

#: Of tables that are compared with published figures; no objective, and not in report.json.
MACRO_PRECISION = Metric("Macro precision", _from_tally(macro_precision_of), macro=True)

METRICS: dict[str, Metric] = {
    "accuracy": Metric("Accuracy", _from_tally(accuracy_of)),
    "balanced_accuracy": Metric("Balanced accuracy", _from_tally(balanced_accuracy_of), macro=True),
    "macro_f1": Metric("Macro F1", _from_tally(macro_f1_of), macro=True),
    "weighted_f1": Metric("Weighted F1", _from_tally(weighted_f1_of)),
    "micro_f1": Metric("Micro F1", _from_tally(accuracy_of)),
    "binary_f1": Metric("F1 of the second class", _from_tally(binary_f1_of), needs="two_classes"),
    "roc_auc": Metric("ROC AUC", _roc_auc, needs="every_class", macro=True),
    "log_loss": Metric("Log loss", _log_loss, higher_is_better=False, bounded=False),
    "ece": Metric("Calibration error (ECE)", _calibration_error, higher_is_better=False, resamples_biased=True),
}
