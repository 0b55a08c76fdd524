"""How far a figure from a finite test set can be trusted.

A proportion of independent images gets Wilson's score interval (Wilson, JASA 1927). Everything else is
resampled: whole groups are drawn with replacement, because two images of one object are not two pieces of
evidence.

The plain percentile interval of that bootstrap does not keep its promise for averages over classes.
Resampling loses small classes and so pulls macro-F1 down once more than the sample already did: with 100
classes and 500 images a "95 %" percentile interval held the truth in 36 % of the draws, and near 100 % it
is far too narrow. Figures in [0, 1] therefore take bias and standard error from the bootstrap and put them
into Wilson's interval as an effective sample size p (1 - p) / se^2, as is done for clustered surveys (Korn
and Graubard, Survey Methodology 1998; Dean and Pagano, JSSAM 2015), around the bias-corrected figure (Efron
and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 10). `benchmarks/interval_coverage.py` measures what
comes of it; where most classes have one test image or none, no interval of macro-F1 holds. Log loss, which
has no upper bound, keeps percentiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from scipy.stats import t as student

from automl_vision.metrics import (
    METRICS,
    TALLY_METRICS,
    Metric,
    Tally,
    auc_columns,
    mass_below,
    ratio,
    tally,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Interval = tuple[float, float]

RESAMPLES = 2000

#: Cells of the largest block of row weights in memory at once (16 MB).
_BLOCK_CELLS = 2_000_000


@dataclass(frozen=True)
class Sample:
    """Labelled predictions and which of their rows hang together.

    Attributes:
        labels: (N) class index.
        probabilities: (N, C).
        groups: (N) rows of one group are one piece of evidence.
    """

    labels: Ints
    probabilities: Floats
    groups: Ints

    @property
    def independent(self) -> bool:
        """True where every row is a group of its own."""
        return len(np.unique(self.groups)) == len(self.groups)


@dataclass(frozen=True)
class Spread:
    """What the bootstrap says of figures: how far off they are on average, and how much they vary.

    Attributes:
        bias: mean over the resamples minus the figure.
        error: standard error.
    """

    bias: Floats
    error: Floats


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion. `n` may be an effective, fractional sample size; n = 0 gives (0, 1)."""
    if n <= 0:
        return 0.0, 1.0
    share = successes / n
    low, high = _score_bounds(np.array([share]), np.array([n], dtype=np.float64), confidence)
    return (0.0 if successes <= 0 else float(low[0])), (1.0 if successes >= n else float(high[0]))


def grouped_share(hits: Floats, rows: Floats, confidence: float = 0.95) -> Interval:
    """Score interval of sum(hits) / sum(rows) where rows of one group are one piece of evidence.

    The variance of the ratio is that of the sums of its groups, linearised (Cochran, Sampling Techniques, 3rd edition
    1977, chapter 6), and goes into Wilson's interval as an effective sample size with Student's quantile for as many
    groups (Korn and Graubard 1998). Where all groups agree there is no variance to see, and each counts as one. Where a
    few groups are wrong as a whole and a test set may by chance have none of them, no interval can know.

    Args:
        hits: (G) right answers of each group.
        rows: (G) answers of each group; groups without any do not count. With one row each it is `wilson`.
    """
    hits, rows = hits[rows > 0], rows[rows > 0]
    n, groups = float(rows.sum()), len(rows)
    if groups == n:
        return wilson(float(hits.sum()), n, confidence)
    share = float(hits.sum()) / n
    off = hits - share * rows
    error = (
        math.sqrt(groups / (groups - 1) * float((off**2).sum())) / n * _few(groups, confidence) if groups > 1 else 0.0
    )
    spread = Spread(bias=np.zeros(1), error=np.array([error]))
    low, high = score_interval(np.array([share]), spread, np.array([n]), np.array([float(groups)]), confidence)
    return float(low[0]), float(high[0])


def _few(groups: int, confidence: float) -> float:
    """By how much a standard error from so few groups has to be larger: Student's quantile over the normal one."""
    tail = (1 + confidence) / 2
    return float(student.ppf(tail, groups - 1)) / NormalDist().inv_cdf(tail)


def cluster_bootstrap(
    metric: str | Metric,
    labels: Ints,
    probabilities: Floats,
    groups: Ints,
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of a metric from resampling whole groups; the module docstring says how.

    Where every resample gives the same figure (all right, all wrong, one group), a bounded metric gets
    Wilson's interval for as many independent successes as there are groups; where classes count equally, for
    C^2 / sum(1 / groups of a class), the size that gives the variance of a mean of class rates.

    Args:
        metric: a name of `METRICS`, or a metric.
        labels: (N), probabilities: (N, C), groups: (N) any integers.

    Returns:
        (low, high), around the figure itself; (nan, nan) where the metric is undefined, or unbounded and
        without two groups.
    """
    chosen = METRICS[metric] if isinstance(metric, str) else metric
    value = chosen.function(labels, probabilities)
    if value is None:
        return math.nan, math.nan
    sample = Sample(labels, probabilities, groups)
    figures = np.concatenate(
        [chosen.weighted(labels, probabilities, weights) for weights in group_weights(groups, resamples, seed)]
    )
    return interval_from_resamples(chosen, value, figures, sample, confidence)


def metric_intervals(
    names: Sequence[str],
    sample: Sample,
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of several metrics from one set of resamples; those that are undefined are left out.

    Accuracy, micro-F1 and binary F1 of independent rows are proportions, or maps of one, and get Wilson.
    ROC AUC gets the standard error of its placements (DeLong 1988; over groups: Obuchowski 1997).
    """
    values = {name: METRICS[name].function(sample.labels, sample.probabilities) for name in names}
    intervals: dict[str, Interval] = {}
    drawn: list[str] = []
    for name, value in values.items():
        closed_form = _closed_form(name, sample)
        if value is not None and closed_form:
            intervals[name] = closed_form(value, sample, confidence)
        elif value is not None:
            drawn.append(name)
    for name, figures in _figures(drawn, sample, resamples, seed).items():
        value = values[name]
        assert value is not None  # noqa: S101 - only defined metrics are drawn
        intervals[name] = interval_from_resamples(METRICS[name], value, figures, sample, confidence)
    return intervals


def interval_from_resamples(
    metric: Metric, value: float, figures: Floats, sample: Sample, confidence: float
) -> Interval:
    """Interval of a figure from what its resamples gave (NaN: undefined there, left out)."""
    kept = figures[~np.isnan(figures)]
    if metric.resamples_biased:
        return _centred_percentiles(kept, value, sample, confidence)
    if not metric.bounded:
        return _percentiles(kept, sample, confidence)
    varies = len(kept) > 1
    spread = Spread(
        bias=np.array([kept.mean() - value if varies else 0.0]),
        error=np.array([kept.std(ddof=1) if varies else 0.0]),
    )
    sizes = np.array([float(len(sample.labels))]), np.array([_independent_size(metric, sample)])
    low, high = score_interval(np.array([value]), spread, *sizes, confidence)
    return float(low[0]), float(high[0])


def score_interval(
    value: Floats, spread: Spread, rows: Floats, still: Floats, confidence: float = 0.95
) -> tuple[Floats, Floats]:
    """Wilson's interval with the bias and the effective sample size of a bootstrap, widened to hold `value`.

    Args:
        value: (K) figures in [0, 1].
        rows: (K) images behind each figure: the effective size is never above it.
        still: (K) sample size where the resamples do not vary.
    """
    moves = spread.error > 1e-12
    centre = np.clip(np.where(moves, value - spread.bias, value), 0.0, 1.0)
    size = np.minimum(ratio(centre * (1 - centre), spread.error**2, np.inf), rows)
    size = np.where(moves & (size > 0), size, still)
    low, high = _score_bounds(centre, size, confidence)
    return np.minimum(low, value), np.maximum(high, value)


def group_weights(groups: Ints, resamples: int, seed: int) -> Iterator[Floats]:
    """Blocks (b, N) of how often each row is in a resample of whole groups; `resamples` rows in all."""
    names, member = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_CELLS // max(1, len(groups)))
    for start in range(0, resamples, block):
        drawn = rng.integers(0, len(names), size=(min(block, resamples - start), len(names)))
        counts = np.array([np.bincount(row, minlength=len(names)) for row in drawn], dtype=np.float64)
        yield counts[:, member]


def class_intervals(
    sample: Sample, *, resamples: int = RESAMPLES, confidence: float = 0.95, seed: int = 0
) -> dict[str, tuple[Floats, Floats]]:
    """(low (C), high (C)) of each class's precision, recall and F1.

    Independent rows: Wilson. F1 is 2 J / (1 + J) with J = hits / (truly or supposedly of the class), a
    proportion, so its interval is Wilson's for J under the same map. Rows in groups: the bootstrap over
    groups.
    """
    counts = _tally(sample, np.ones((1, len(sample.labels))))
    if sample.independent:
        return {name: rule(counts, confidence) for name, rule in _CLASS_WILSON.items()}
    spreads = _class_spreads(sample, resamples, seed)
    in_groups = _class_groups(sample)
    return {
        name: score_interval(
            _CLASS_RATES[name](counts)[0],
            spreads[name],
            _CLASS_ROWS[name](counts)[0],
            in_groups[name],
            confidence,
        )
        for name in _CLASS_RATES
    }


@dataclass(frozen=True)
class Comparison:
    """One classifier against another on the same images.

    Attributes:
        difference: figure of the first minus figure of the second.
        low, high: 95 % interval of the difference.
        p_value: exact sign test over groups on which was right more often (McNemar's where rows are groups).
    """

    difference: float
    low: float
    high: float
    p_value: float


def compare(
    metric: str,
    sample: Sample,
    other: Floats,
    *,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """The sample's probabilities against `other` (N, C), paired: both are scored on the same resamples."""
    chosen = METRICS[metric]
    value = chosen.weighted(sample.labels, sample.probabilities, np.ones((1, len(sample.labels))))
    value -= chosen.weighted(sample.labels, other, np.ones((1, len(sample.labels))))
    differences = np.concatenate(
        [
            chosen.weighted(sample.labels, sample.probabilities, weights)
            - chosen.weighted(sample.labels, other, weights)
            for weights in group_weights(sample.groups, resamples, seed)
        ]
    )
    low, high = paired_interval(float(value[0]), differences, confidence)
    return Comparison(difference=float(value[0]), low=low, high=high, p_value=sign_test(sample, other))


def paired_interval(difference: float, resampled: Floats, confidence: float = 0.95) -> Interval:
    """Interval of a difference of two figures in [0, 1] from what it is on resamples that both share."""
    centre = 2 * difference - float(np.nanmean(resampled))
    reach = _z(confidence) * float(np.nanstd(resampled, ddof=1))
    return max(-1.0, min(centre - reach, difference)), min(1.0, max(centre + reach, difference))


def paired_proportions(
    both: int, only_first: int, only_second: int, neither: int, confidence: float = 0.95
) -> Interval:
    """Interval of the difference of two proportions of the same n independent rows (Newcombe 1998, paired, method 10).

    Unlike resampling it says something where no row tells the two apart. n = 0 gives (-1, 1).
    """
    n = both + only_first + only_second + neither
    if not n:
        return -1.0, 1.0
    first, second = both + only_first, both + only_second
    a, b = first / n, second / n
    (a_low, a_high), (b_low, b_high) = wilson(first, n, confidence), wilson(second, n, confidence)
    agreement = float(both * neither - only_first * only_second)
    agreement = max(agreement - n / 2, 0.0) if agreement > 0 else agreement
    margins = first * (n - first) * second * (n - second)
    correlation = agreement / math.sqrt(margins) if margins else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))

    return a - b - reach(a - a_low, b_high - b), a - b + reach(a_high - a, b - b_low)


def sign_test(sample: Sample, other: Floats) -> float:
    """Two-sided exact p-value that the sample's probabilities and `other` (N, C) are right equally often."""
    gained = (sample.probabilities.argmax(axis=1) == sample.labels).astype(np.int64)
    gained -= other.argmax(axis=1) == sample.labels
    _, member = np.unique(sample.groups, return_inverse=True)
    net = np.bincount(member, weights=gained)
    better, worse = int((net > 0).sum()), int((net < 0).sum())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def difference_interval(first: tuple[float, float, float], second: tuple[float, float, float]) -> tuple[float, float]:
    """Interval of first - second, two independent (value, low, high) (Newcombe 1998, method 10)."""
    (a, a_low, a_high), (b, b_low, b_high) = first, second
    return a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _score_bounds(share: Floats, n: Floats, confidence: float) -> tuple[Floats, Floats]:
    square = _z(confidence) ** 2
    n = np.asarray(n, dtype=np.float64)
    known = np.maximum(n, 1e-12)
    middle = (share + square / (2 * known)) / (1 + square / known)
    inside = share * (1 - share) / known + square / (4 * known**2)
    reach = np.sqrt(square * inside) / (1 + square / known)
    low, high = np.maximum(middle - reach, 0.0), np.minimum(middle + reach, 1.0)
    return np.where(n > 0, low, 0.0), np.where(n > 0, high, 1.0)


def _percentiles(figures: Floats, sample: Sample, confidence: float) -> Interval:
    if len(np.unique(sample.groups)) < 2 or not len(figures):
        return math.nan, math.nan
    low, high = np.quantile(figures, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def _centred_percentiles(figures: Floats, value: float, sample: Sample, confidence: float) -> Interval:
    """The spread of the resamples around their own mean, laid around `value`; within [0, 1]."""
    low, high = _percentiles(figures, sample, confidence)
    shift = value - float(figures.mean()) if len(figures) else 0.0
    return max(low + shift, 0.0), min(high + shift, 1.0)


def _independent_size(metric: Metric, sample: Sample) -> float:
    if not metric.macro:
        return float(len(np.unique(sample.groups)))
    pairs = np.unique(np.stack([sample.labels, sample.groups]), axis=1)
    counts = np.bincount(pairs[0])
    counts = counts[counts > 0]
    return float(len(counts) ** 2 / (1 / counts).sum())


def _accuracy_wilson(value: float, sample: Sample, confidence: float) -> Interval:
    n = len(sample.labels)
    return wilson(round(value * n), n, confidence)


def _auc_interval(value: float, sample: Sample, confidence: float) -> Interval:
    influence = np.zeros(len(sample.labels))
    columns = auc_columns(sample.probabilities.shape[1])
    for column in columns:
        influence += _auc_influence(sample.labels == column, sample.probabilities[:, column]) / len(columns)
    _, member = np.unique(sample.groups, return_inverse=True)
    sums = np.bincount(member, weights=influence)
    groups = max(2, len(sums))
    error = math.sqrt(groups / (groups - 1) * float((sums**2).sum())) / len(influence)
    spread = Spread(bias=np.zeros(1), error=np.array([error]))
    still = np.array([_independent_size(METRICS["roc_auc"], sample)])
    low, high = score_interval(np.array([value]), spread, np.array([float(len(influence))]), still, confidence)
    return float(low[0]), float(high[0])


def _auc_influence(positive: NDArray[np.bool_], scores: Floats) -> Floats:
    n_positive, n = int(positive.sum()), len(positive)
    below = mass_below(scores, np.stack([positive, ~positive]).astype(np.float64))
    won = np.where(positive, below[1] / (n - n_positive), 1 - below[0] / n_positive)
    area = won[positive].mean()
    return np.asarray(won - area) * np.where(positive, n / n_positive, n / (n - n_positive))


#: Metrics whose interval needs no resampling: always, or only where rows are independent.
_ALWAYS_CLOSED: dict[str, Callable[[float, Sample, float], Interval]] = {"roc_auc": _auc_interval}
_INDEPENDENT_CLOSED: dict[str, Callable[[float, Sample, float], Interval]] = {
    "accuracy": _accuracy_wilson,
    "micro_f1": _accuracy_wilson,
    "binary_f1": lambda _, sample, confidence: _second_class_f1(sample, confidence),
}


def _closed_form(name: str, sample: Sample) -> Callable[[float, Sample, float], Interval] | None:
    return _ALWAYS_CLOSED.get(name) or (_INDEPENDENT_CLOSED.get(name) if sample.independent else None)


def _second_class_f1(sample: Sample, confidence: float) -> Interval:
    low, high = _f1_wilson(_tally(sample, np.ones((1, len(sample.labels)))), confidence)
    return float(low[1]), float(high[1])


def _tally(sample: Sample, weights: Floats) -> Tally:
    classes = sample.probabilities.shape[1]
    return tally(sample.labels, sample.probabilities.argmax(axis=1), classes, weights)


def _figures(names: Sequence[str], sample: Sample, resamples: int, seed: int) -> dict[str, Floats]:
    if not names:
        return {}
    blocks: dict[str, list[Floats]] = {name: [] for name in names}
    for weights in group_weights(sample.groups, resamples, seed):
        counts = _tally(sample, weights)
        for name in names:
            if name in TALLY_METRICS:
                blocks[name].append(TALLY_METRICS[name](counts))
            else:
                blocks[name].append(METRICS[name].weighted(sample.labels, sample.probabilities, weights))
    return {name: np.concatenate(parts) for name, parts in blocks.items()}


def _union(counts: Tally) -> Floats:
    return counts.support + counts.predicted - counts.hits


_CLASS_RATES: dict[str, Callable[[Tally], Floats]] = {
    "precision": lambda c: ratio(c.hits, c.predicted),
    "recall": lambda c: ratio(c.hits, c.support),
    "f1": lambda c: ratio(2 * c.hits, c.support + c.predicted),
}
_CLASS_ROWS: dict[str, Callable[[Tally], Floats]] = {
    "precision": lambda c: c.predicted,
    "recall": lambda c: c.support,
    "f1": _union,
}


def _rate_wilson(hits: Floats, rows: Floats, confidence: float) -> tuple[Floats, Floats]:
    share = ratio(hits, rows)
    low, high = _score_bounds(share, rows, confidence)
    return np.minimum(low, share), np.maximum(high, share)


def _f1_wilson(counts: Tally, confidence: float) -> tuple[Floats, Floats]:
    low, high = _rate_wilson(counts.hits[0], _union(counts)[0], confidence)
    value = _CLASS_RATES["f1"](counts)[0]
    return np.minimum(2 * low / (1 + low), value), np.maximum(2 * high / (1 + high), value)


_CLASS_WILSON: dict[str, Callable[[Tally, float], tuple[Floats, Floats]]] = {
    "precision": lambda c, confidence: _rate_wilson(c.hits[0], c.predicted[0], confidence),
    "recall": lambda c, confidence: _rate_wilson(c.hits[0], c.support[0], confidence),
    "f1": _f1_wilson,
}


def _class_spreads(sample: Sample, resamples: int, seed: int) -> dict[str, Spread]:
    classes = sample.probabilities.shape[1]
    sums = {name: np.zeros((3, classes)) for name in _CLASS_RATES}
    values = _tally(sample, np.ones((1, len(sample.labels))))
    for weights in group_weights(sample.groups, resamples, seed):
        counts = _tally(sample, weights)
        for name, rate in _CLASS_RATES.items():
            present = _CLASS_ROWS[name](counts) > 0
            off = np.where(present, rate(counts) - rate(values), 0.0)
            sums[name] += [present.sum(axis=0), off.sum(axis=0), (off**2).sum(axis=0)]
    return {name: _spread(*total) for name, total in sums.items()}


def _spread(n: Floats, total: Floats, squares: Floats) -> Spread:
    bias = ratio(total, n)
    variance = np.maximum(ratio(squares - n * bias**2, np.maximum(n - 1, 1)), 0.0)
    return Spread(bias=bias, error=np.sqrt(variance))


def _class_groups(sample: Sample) -> dict[str, Floats]:
    """How many groups each class's rate rests on (C)."""
    predicted = sample.probabilities.argmax(axis=1)
    true_pairs = np.stack([sample.labels, sample.groups])
    said_pairs = np.stack([predicted, sample.groups])
    pairs = {
        "precision": said_pairs,
        "recall": true_pairs,
        "f1": np.concatenate([true_pairs, said_pairs], axis=1),
    }
    classes = sample.probabilities.shape[1]
    return {
        name: np.bincount(np.unique(each, axis=1)[0], minlength=classes).astype(np.float64)
        for name, each in pairs.items()
    }
