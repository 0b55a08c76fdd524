"""What choosing the best of several candidates added to its validation figure.

BBC-CV (Tsamardinos, Greasidou and Borboudakis, "Bootstrapping the out-of-sample predictions for efficient and accurate
cross-validation", Machine Learning 107, 2018): groups are drawn with replacement, a candidate is chosen on those that
were drawn and scored on those that were not. No candidate is trained again. The mean of these scores is what the
procedure "choose the best of these" is worth on new images; their percentiles are its interval, which is wider than it
need be because each score rests on about 37 % of the images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from automl_vision.metrics import TALLY_METRICS, Tally
from automl_vision.report.intervals import group_weights, wilson

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

RESAMPLES = 1000
FEWEST_RESAMPLES = 200
#: Candidates times images times resamples that take about 2 seconds; above, there are fewer resamples.
MOST_CELLS = 300_000_000
#: CPU seconds of each; measured, see docs/LOG.md.
CELL_SECONDS = 5.4e-9


def corrected_for_choice(
    objective: str, labels: Ints, groups: Ints, predicted: Ints, num_classes: int, *, seed: int = 0
) -> dict[str, Any]:
    """The figure of the best of K candidates, corrected for their having been compared on the same images.

    Args:
        objective: a key of `TALLY_METRICS`.
        labels: (N) class index.
        groups: (N) rows of one group are drawn together.
        predicted: (K, N) class that each candidate gives each row; of equals, the first is chosen.
        num_classes: C.
        seed: of the draws.

    Returns:
        `candidates`, `resamples`, and `value`, `low`, `high` with a 95 % interval; None where no resample leaves a
        group out.
    """
    resamples = int(np.clip(MOST_CELLS // max(predicted.size, 1), FEWEST_RESAMPLES, RESAMPLES))
    drawn = [
        _scored_outside(objective, labels, predicted, num_classes, weights)
        for weights in group_weights(groups, resamples, seed)
    ]
    scores = np.concatenate(drawn) if drawn else np.zeros(0)
    scores = scores[np.isfinite(scores)]
    about = {"candidates": len(predicted), "resamples": len(scores)}
    if not len(scores):
        return {**about, "value": None, "low": None, "high": None}
    low, high = np.quantile(scores, [0.025, 0.975])
    if low == high:  # all right, or all wrong: as many independent successes as there are groups
        low, high = wilson(low * (count := len(np.unique(groups))), count)
    return {**about, "value": float(scores.mean()), "low": float(low), "high": float(high)}


def _scored_outside(objective: str, labels: Ints, predicted: Ints, num_classes: int, weights: Floats) -> Floats:
    """(B) score, on the rows of weight 0, of the candidate that is best on the others; NaN where there are none."""
    outside = (weights == 0).astype(np.float64)
    inside = np.stack(list(_scores(objective, labels, predicted, num_classes, weights)))
    best = inside.argmax(axis=0)
    scores = np.full(len(weights), np.nan)
    for k in np.unique(best).tolist():
        chosen = np.flatnonzero((best == k) & outside.any(axis=1))
        if len(chosen):
            (scores[chosen],) = _scores(objective, labels, predicted[[k]], num_classes, outside[chosen])
    return scores


def _scores(objective: str, labels: Ints, predicted: Ints, num_classes: int, weights: Floats) -> Iterator[Floats]:
    """For each of (K, N) candidates (B): its figure under each of the weights (B, N)."""
    columns = np.ascontiguousarray(weights.T)
    support = _by_class(labels, columns, num_classes)
    for said in predicted:
        right = np.flatnonzero(said == labels)
        hits = _by_class(labels[right], columns[right], num_classes)
        yield TALLY_METRICS[objective](Tally(hits, support, _by_class(said, columns, num_classes)))


def _by_class(index: Ints, columns: Floats, num_classes: int) -> Floats:
    """(B, C) sums of the weights (n, B) of the rows of each class."""
    n = len(index)
    pick = csr_matrix((np.ones(n), (index, np.arange(n))), shape=(num_classes, n))
    return np.asarray((pick @ columns).T)
