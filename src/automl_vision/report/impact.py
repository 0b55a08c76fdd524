"""What copies on both sides of a split add to a figure: one recipe, the same images, two ways to deal them.

The recipe is a linear probe with one fixed penalty on frozen features, so that nothing is chosen and nothing but the
deal differs. Both ways are a cross-validation over the same images in as many folds, so that both train on about as
many: the naive one deals files, as tools do that do not know of copies; the clean one deals whole groups and judges
originals only. The clean figure is no figure of the final model, and the test set has no part in either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_vision.metrics import METRICS
from automl_vision.models.features import OutOfTime
from automl_vision.models.probe import deal_folds, fit_probe
from automl_vision.report.intervals import RESAMPLES, Sample, group_weights, metric_intervals
from automl_vision.report.warnings import percent, points

FOLDS = 5
#: The penalty of both probes; the middle of those that the search tries, on a logarithmic scale.
STRENGTH = 0.1

Impact = dict[str, Any]


@dataclass(frozen=True)
class Dealt:
    """Images that are dealt in two ways.

    Attributes:
        features: (n, D) of a frozen network.
        labels: (n) class indices below `num_classes`.
        groups: (n) what shows the same thing has the same number.
        originals: (n) True where the clean way may judge: images that could have been test images.
        num_classes: C >= 2.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    originals: NDArray[np.bool_]
    num_classes: int


def measure_impact(dealt: Dealt, metric: str, seed: int, should_stop: Callable[[], bool] | None = None) -> Impact:
    """The same probe on both deals, with 95 % intervals over groups.

    The interval of the difference resamples groups for both figures at once: they are about the same images. It
    holds the chance of which images there are, and not that of the deal into folds.

    Args:
        dealt: images of at least two groups.
        metric: a name of `METRICS` that labels of at least one class define.
        seed: of the deals and the resamples.
        should_stop: asked every few iterations; ends the measurement.

    Raises:
        OutOfTime: `should_stop` said so; half a measurement would compare probes that are not alike.
        ValueError: fewer than two groups, or no original among them.
    """
    if not dealt.originals.any():
        raise ValueError("the clean split judges originals, and there are none")
    files = np.arange(len(dealt.labels))
    everything = np.ones(len(dealt.labels), dtype=np.bool_)
    naive = _out_of_fold(dealt, files, seed, should_stop)
    clean = _out_of_fold(dealt, dealt.groups, seed, should_stop)
    samples = {"naive": _sample(dealt, naive, everything), "clean": _sample(dealt, clean, dealt.originals)}
    return {
        "metric": metric,
        **{name: _figure(sample, metric, seed) for name, sample in samples.items()},
        "difference": _difference(dealt, naive, clean, metric, seed),
        "images": len(files),
        "groups": len(np.unique(dealt.groups)),
        "judged": {name: len(sample.labels) for name, sample in samples.items()},
        "trained_on": {
            "naive": _training_images(dealt, files, everything, seed),
            "clean": _training_images(dealt, dealt.groups, dealt.originals, seed),
        },
        "folds": FOLDS,
    }


def impact_line(impact: Mapping[str, Any]) -> str:
    """One line for a terminal: both figures with their intervals and what the copies add."""
    if not impact["measured"]:
        return f"What copies on both sides of a split would add was not measured: {impact['reason']}."
    naive, clean = (f"{name} split {_bracketed(impact[name])}" for name in ("naive", "clean"))
    difference = impact["difference"]
    what = f"{impact['what']} on both sides add {_bracketed(difference)}"
    if not difference["beyond_interval"]:
        what = f"the difference of {_bracketed(difference)} is no more than chance"
    return f"{naive[0].upper()}{naive[1:]}, {clean}: {what} of {METRICS[impact['metric']].words}, for one linear probe."


def impact_sentences(impact: Mapping[str, Any]) -> tuple[str, ...]:
    """What was measured and what it means, for the page."""
    if not impact["measured"]:
        return (impact_line(impact),)
    words, difference = METRICS[impact["metric"]].words, impact["difference"]
    naive, clean = (f"{percent(impact[name]['value'])} ({_range(impact[name])})" for name in ("naive", "clean"))
    adds = (
        f"{impact['what']} on both sides of a split add {points(difference['value'])} points "
        f"({_range(difference)}) to such a figure"
        if difference["beyond_interval"]
        else f"the difference of {points(difference['value'])} points ({_range(difference)}) is no more than chance"
    )
    return (
        f"One linear probe ({impact['recipe']}) was trained twice on the same {impact['images']:,} training and "
        f"validation images: where files are dealt at random, as most tools do, its {words} seems to be {naive}; where "
        f"groups stay together and only originals are judged, it is {clean}.",
        f"That is, {adds}; it is a measurement of the split and not of the model of this run, and no test image was "
        "read for it.",
    )


def _out_of_fold(
    dealt: Dealt, together: NDArray[np.int64], seed: int, should_stop: Callable[[], bool] | None
) -> NDArray[np.float64]:
    """(n, C) probabilities from probes that did not see the row, nor any other with its number in `together`."""
    probe = fit_probe(
        dealt.features,
        dealt.labels,
        together,
        dealt.num_classes,
        strengths=(STRENGTH,),
        folds=FOLDS,
        seed=seed,
        should_stop=should_stop,
    )
    if should_stop and should_stop():
        raise OutOfTime("a probe was not trained to its end")
    return probe.out_of_fold.astype(np.float64)


def _sample(dealt: Dealt, probabilities: NDArray[np.float64], judged: NDArray[np.bool_]) -> Sample:
    return Sample(dealt.labels[judged], probabilities[judged], dealt.groups[judged])


def _figure(sample: Sample, metric: str, seed: int) -> dict[str, float | None]:
    value = METRICS[metric].function(sample.labels, sample.probabilities)
    low, high = metric_intervals([metric], sample, seed=seed)[metric]
    return {"value": value, "low": low, "high": high}


def _difference(
    dealt: Dealt, naive: NDArray[np.float64], clean: NDArray[np.float64], metric: str, seed: int
) -> dict[str, float | bool]:
    """Naive minus clean, with the percentiles of resampled groups."""
    judged, figure = dealt.originals, METRICS[metric].weighted

    def differences(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        of_clean = figure(dealt.labels[judged], clean[judged], weights[:, judged])
        return np.asarray(figure(dealt.labels, naive, weights) - of_clean, dtype=np.float64)

    value = float(differences(np.ones((1, len(dealt.labels))))[0])
    drawn = np.concatenate([differences(weights) for weights in group_weights(dealt.groups, RESAMPLES, seed)])
    low, high = np.nanpercentile(drawn, [2.5, 97.5]).tolist()
    low, high = min(low, value), max(high, value)
    return {"value": value, "low": low, "high": high, "beyond_interval": bool(low > 0 or high < 0)}


def _training_images(dealt: Dealt, together: NDArray[np.int64], judged: NDArray[np.bool_], seed: int) -> float:
    """Images that the probe of a judged row was trained on, on average."""
    fold = deal_folds(dealt.labels, together, FOLDS, seed)
    others = len(fold) - np.bincount(fold)
    return float(others[fold[judged]].mean())


def _bracketed(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def _range(figure: Mapping[str, float]) -> str:
    return f"95 % interval {points(figure['low'])} to {points(figure['high'])}"
