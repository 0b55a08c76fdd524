"""The content of `report.json`: a pure function of what a run measured.

Figures on test and validation images follow from the saved predictions, the seed and the temperature alone, so `verify`
can recompute them to the last bit. Nothing here draws, writes or reads a clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_vision import __version__
from automl_vision.calibration import apply_temperature
from automl_vision.metrics import CALIBRATION_BINS, METRICS, confidence_bins, confusion, ratio, tally
from automl_vision.report.abstention import abstention
from automl_vision.report.checklist import checklist
from automl_vision.report.intervals import (
    Sample,
    class_intervals,
    compare,
    difference_interval,
    metric_intervals,
)
from automl_vision.report.predictions import Predictions
from automl_vision.report.warnings import find_warnings

FORMAT = 1

#: Classes up to which the whole confusion matrix is written out; above, `confused` lists the worst pairs.
MATRIX_CLASSES = 1000

#: Pairs of classes that `confused` lists at most.
CONFUSED_PAIRS = 50

#: Metrics of the table of baselines.
BASELINE_METRICS = ("accuracy", "macro_f1")

#: Sections that follow from saved predictions.
FOLLOWING = ("test", "validation", "augmented_validation", "calibration", "abstention", "gap", "baselines")

Section = dict[str, Any]


@dataclass(frozen=True)
class ReportInputs:
    """What a finished run knows. The mappings are plain JSON types and pass into the report as they are.

    Attributes:
        name: name of the run.
        created: when, ISO 8601.
        test: predictions of the shipped model on the test set.
        validation: the same model on the validation set.
        objective: a name of `METRICS`: what validation maximised.
        augmented_validation: the model on copies of validation originals; None without any.
        impact: what a naive split would have pretended, as `report.impact.measure_impact` says it, or why that was
            not measured; None where nobody asked.
        costs: what the networks cost, as `stages.costs_section.costs_section` says it; None where nobody measured.
        label_check: images whose label looks wrong, as `stages.checks.check_data` says it, or why they were not looked
            for; None in a report of an earlier version.
        shortcuts: what `report.shortcuts.find_shortcuts` says; None likewise.
        care: records of how the sets were kept apart, as `report.sections.care_section` says it; None likewise.
        head: what came of trying another head than the linear one, as `report.sections.head_section` says it; None
            where none was tried.
        backbones: backbones side by side, as `report.sections.backbones_section` says it; None where they shared the
            time.
        selection: how the trial was chosen (`trial`, `reason`, `left_out`), the `naive` figure of the model, and what
            `optimism.corrected_for_choice` gives; None where that is not known.
        finish: `steps` that were tried on the trial, each as `stages.improve.Step.to_dict` says it, and `refit`; None
            where that is not known.
        baselines: name -> probabilities (N_test, C) of other classifiers on the same test rows, for example
            "linear probe"; the majority class is added here.
        seed: of the resamples.
        data: `class_counts` {"train", "val", "test": (C) images}, and what is known of `images`,
            `quarantined`, `copies`, `groups`, `conflicts`, `aside`, `leaks` (counts) and `findings` (list of
            {kind, severity, path, detail, fix}).
        looks: one entry {when, command, images, ...} per time these test rows were evaluated, this one
            included.
        stop_reason: why the search ended, one phrase.
        budget_seconds: None without a budget.
        seconds: by stage.
        trials: counts (`total`, `complete`, `stopped`, `failed`) and `table`, a list of {number, origin,
            kind, backbone, resolution, epochs, score, seconds, finished, state, hyperparameters, curve};
            `sampler` and `importance` (setting -> share) say what proposed them and what decided;
            `curve` is a list of {epoch, score, train_loss, val_loss}, `finished` the seconds since the start.
        model: file, backbone, parameters, temperature and the like.
        environment: versions, machine, commands, fingerprints.
        troubles: sentences about what went wrong beside the run, such as a tracker that failed.
    """

    name: str
    created: str
    test: Predictions
    validation: Predictions
    objective: str
    augmented_validation: Predictions | None = None
    impact: Mapping[str, Any] | None = None
    costs: Mapping[str, Any] | None = None
    label_check: Mapping[str, Any] | None = None
    shortcuts: Mapping[str, Any] | None = None
    care: Mapping[str, Any] | None = None
    head: Mapping[str, Any] | None = None
    backbones: Mapping[str, Any] | None = None
    selection: Mapping[str, Any] | None = None
    finish: Mapping[str, Any] | None = None
    baselines: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    seed: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)
    looks: tuple[Mapping[str, Any], ...] = ()
    stop_reason: str = ""
    budget_seconds: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    trials: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    troubles: tuple[str, ...] = ()


def build_report(inputs: ReportInputs) -> dict[str, Any]:
    """The report as plain JSON types; equal inputs give equal reports."""
    test = test_section(inputs.test, inputs.seed)
    validation = metrics_section(inputs.validation, inputs.seed)
    augmented = inputs.augmented_validation
    report: dict[str, Any] = {
        "format": FORMAT,
        "name": inputs.name,
        "created": inputs.created,
        "seed": inputs.seed,
        "objective": inputs.objective,
        "test": test,
        "validation": validation,
        "augmented_validation": metrics_section(augmented, inputs.seed) if augmented else None,
        "impact": dict(inputs.impact) if inputs.impact else None,
        "costs": dict(inputs.costs) if inputs.costs else None,
        "label_check": dict(inputs.label_check) if inputs.label_check else None,
        "shortcuts": dict(inputs.shortcuts) if inputs.shortcuts else None,
        "care": dict(inputs.care) if inputs.care else None,
        "head": dict(inputs.head) if inputs.head else None,
        "backbones": dict(inputs.backbones) if inputs.backbones else None,
        "selection": dict(inputs.selection) if inputs.selection else None,
        "finish": dict(inputs.finish) if inputs.finish else None,
        "calibration": calibration_section(inputs.validation, inputs.test, inputs.model.get("temperature", 1.0)),
        "abstention": abstention(inputs.validation, inputs.test),
        "gap": gap(inputs.objective, validation, test),
        "baselines": _baselines(inputs, test),
        "data": _data(inputs),
        "looks": [dict(look) for look in inputs.looks],
        "stop_reason": inputs.stop_reason,
        "budget_seconds": inputs.budget_seconds,
        "seconds": dict(inputs.seconds),
        "trials": {"table": [], **inputs.trials},
        "model": dict(inputs.model),
        "environment": dict(inputs.environment),
        "troubles": list(inputs.troubles),
    }
    return _judged(report)


def _judged(report: dict[str, Any]) -> dict[str, Any]:
    """The report with what follows from all of it."""
    return report | {"warnings": find_warnings(report), "checklist": checklist(report)}


def with_ledger(report: Mapping[str, Any], looks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The report with every look of the ledger, where there were more since it was written."""
    if len(looks) <= len(report["looks"]):
        return dict(report)
    return _judged({**report, "looks": [dict(look) for look in looks]})


def metrics_section(predictions: Predictions, seed: int) -> Section:
    """`n`, and every metric as {value, low, high} with its 95 % interval (None: undefined on these rows)."""
    sample = _sample(predictions)
    names = [name for name in METRICS if name != "binary_f1" or len(predictions.class_names) == 2]
    intervals = metric_intervals(names, sample, seed=seed)
    figures = {
        name: figure(METRICS[name].function(sample.labels, sample.probabilities), intervals.get(name, (math.nan,) * 2))
        for name in names
    }
    return {"n": len(predictions), "groups": len(np.unique(predictions.groups)), **figures}


def test_section(predictions: Predictions, seed: int) -> Section:
    """Everything under `test`, from the predictions alone."""
    matrix_fits = len(predictions.class_names) <= MATRIX_CLASSES
    return metrics_section(predictions, seed) | {
        "classes": list(predictions.class_names),
        "per_class": _per_class(predictions, seed),
        "confusion": _matrix(predictions).tolist() if matrix_fits else None,
        "confused": _confused(predictions),
        "calibration": _calibration(predictions),
    }


test_section.__test__ = False  # type: ignore[attr-defined]  # the name is the contract; pytest must not collect it


def verify(
    report: Mapping[str, Any],
    test: Predictions,
    validation: Predictions | None = None,
    augmented_validation: Predictions | None = None,
) -> list[str]:
    """Recompute what follows from the saved predictions; one line per figure that differs by as much as one bit.

    With `validation` that is `FOLLOWING`, without the linear probe, whose predictions are not saved. Warnings and
    checklist are drawn again from the report, where this version wrote it: another one has other words. What reports of
    other versions lack is passed over.
    """
    fresh: dict[str, Any] = {"test": test_section(test, int(report["seed"]))}
    if validation is not None:
        fresh |= _following(report, test, validation, augmented_validation)
    whole = validation is not None and is_of_this_version(report)
    told = [key for key in fresh if whole or key == "test" or report.get(key)]
    lines = [line for key in told for line in _compared(report, fresh, key)]
    if not whole:
        return lines
    drawn = _judged({**report, **{key: fresh[key] for key in told}})
    return lines + [line for key in ("warnings", "checklist") for line in _compared(report, drawn, key)]


def is_of_this_version(report: Mapping[str, Any]) -> bool:
    """Whether this version says that it wrote the report, so that its warnings and checklist can be drawn again."""
    return bool(report.get("environment", {}).get("automl-vision") == __version__)


def _compared(report: Mapping[str, Any], fresh: Mapping[str, Any], key: str) -> list[str]:
    return _differences(key, report.get(key), fresh[key])


def _following(
    report: Mapping[str, Any], test: Predictions, validation: Predictions, augmented: Predictions | None
) -> dict[str, Any]:
    """What follows from the predictions beside `test`, as `build_report` has it."""
    seed, objective = int(report["seed"]), report["objective"]
    ours, theirs = metrics_section(validation, seed), test_section(test, seed)
    inputs = ReportInputs("", "", test, validation, objective, seed=seed, data=report["data"])
    known = {row["name"]: row for row in _baselines(inputs, theirs)}
    told = {row["name"]: row for row in report["baselines"]}
    return {
        "validation": ours,
        "augmented_validation": metrics_section(augmented, seed) if augmented is not None else None,
        "calibration": calibration_section(validation, test, report["model"].get("temperature", 1.0)),
        "abstention": abstention(validation, test),
        "gap": gap(objective, ours, theirs),
        "baselines": [known.get(row["name"], row) for row in report["baselines"]]
        + [row for name, row in known.items() if name not in told],
    }


def calibration_section(validation: Predictions, test: Predictions, temperature: float) -> Section:
    """ECE and log-loss before and after the temperature, which was fitted on validation: there it flatters itself."""
    return {
        "temperature": temperature,
        "validation": _before_and_after(validation, temperature),
        "test": _before_and_after(test, temperature),
    }


def _before_and_after(predictions: Predictions, temperature: float) -> Section:
    # Dividing by the inverse undoes a division by the temperature.
    logs = np.log(np.clip(predictions.probabilities, np.finfo(np.float64).tiny, None))
    said = {"before": apply_temperature(logs, 1 / temperature), "after": predictions.probabilities}
    return {
        when: {name: METRICS[name].function(predictions.labels, chances) for name in ("ece", "log_loss")}
        for when, chances in said.items()
    }


def gap(objective: str, validation: Section, test: Section) -> Section:
    """Validation minus test, with the 95 % interval of that difference.

    `beyond_interval` is True where the interval leaves out 0: chance alone does not explain the difference.
    """
    empty = {
        "metric": objective,
        "validation": None,
        "test": None,
        "difference": None,
        "low": None,
        "high": None,
    }
    ours, theirs = validation[objective], test[objective]
    if ours["low"] is None or theirs["low"] is None:
        return empty | {"beyond_interval": False}
    low, high = difference_interval(_triple(ours), _triple(theirs))
    return {
        "metric": objective,
        "validation": ours["value"],
        "test": theirs["value"],
        "difference": ours["value"] - theirs["value"],
        "low": low,
        "high": high,
        "beyond_interval": bool(low > 0 or high < 0),
    }


def figure(value: float | None, interval: tuple[float, float]) -> dict[str, float | None]:
    """{value, low, high}; None where there is no number."""
    low, high = interval
    return {
        "value": value,
        "low": None if value is None or math.isnan(low) else low,
        "high": None if value is None or math.isnan(high) else high,
    }


def _triple(of: Mapping[str, float]) -> tuple[float, float, float]:
    return of["value"], of["low"], of["high"]


def _sample(predictions: Predictions) -> Sample:
    return Sample(predictions.labels, predictions.probabilities, predictions.groups)


def _matrix(predictions: Predictions) -> NDArray[np.int64]:
    return confusion(predictions.labels, predictions.predicted, len(predictions.class_names))


def _per_class(predictions: Predictions, seed: int) -> list[Section]:
    sample = _sample(predictions)
    classes = len(predictions.class_names)
    counts = tally(sample.labels, predictions.predicted, classes, np.ones((1, len(predictions))))
    values = {
        "precision": ratio(counts.hits, counts.predicted)[0],
        "recall": ratio(counts.hits, counts.support)[0],
        "f1": ratio(2 * counts.hits, counts.support + counts.predicted)[0],
    }
    bounds = class_intervals(sample, seed=seed)
    return [
        {
            "class": name,
            **{
                each: figure(float(values[each][c]), (float(bounds[each][0][c]), float(bounds[each][1][c])))
                for each in values
            },
            "support": int(counts.support[0, c]),
        }
        for c, name in enumerate(predictions.class_names)
    ]


def _confused(predictions: Predictions) -> list[Section]:
    """The pairs of classes that are mistaken most often: true, predicted, count, share of the true class."""
    labels, said, names = predictions.labels, predictions.predicted, predictions.class_names
    wrong = labels != said
    pairs, counts = np.unique(np.stack([labels[wrong], said[wrong]]), axis=1, return_counts=True)
    support = np.bincount(labels, minlength=len(names))
    worst = np.argsort(-counts, kind="stable")[:CONFUSED_PAIRS]
    return [
        {
            "true": names[pairs[0, i]],
            "predicted": names[pairs[1, i]],
            "count": int(counts[i]),
            "share": float(counts[i] / support[pairs[0, i]]),
        }
        for i in worst
    ]


def _calibration(predictions: Predictions) -> list[Section]:
    """Confidence bins that hold images: their edges, images, mean confidence and accuracy."""
    confidence = predictions.probabilities.max(axis=1)
    right = (predictions.predicted == predictions.labels).astype(np.float64)
    index = confidence_bins(confidence)
    n, sure, hits = (
        np.bincount(index, weights, CALIBRATION_BINS) for weights in (np.ones(len(index)), confidence, right)
    )
    return [
        {
            "low": m / CALIBRATION_BINS,
            "high": (m + 1) / CALIBRATION_BINS,
            "n": int(n[m]),
            "confidence": float(sure[m] / n[m]),
            "accuracy": float(hits[m] / n[m]),
        }
        for m in np.flatnonzero(n).tolist()
    ]


def _baselines(inputs: ReportInputs, test: Section) -> list[Section]:
    test_predictions = inputs.test
    others = {"majority class": _majority(inputs)} | dict(inputs.baselines)
    winner = {"name": "this model", **{name: test[name] for name in BASELINE_METRICS}, "gain": None}
    return [_baseline(name, test_predictions, chances, inputs) for name, chances in others.items()] + [winner]


def _baseline(name: str, test: Predictions, probabilities: NDArray[np.float64], inputs: ReportInputs) -> Section:
    sample = Sample(test.labels, np.asarray(probabilities, dtype=np.float64), test.groups)
    intervals = metric_intervals(BASELINE_METRICS, sample, seed=inputs.seed)
    return {
        "name": name,
        **{
            metric: figure(
                METRICS[metric].function(sample.labels, sample.probabilities),
                intervals.get(metric, (math.nan, math.nan)),
            )
            for metric in BASELINE_METRICS
        },
        "gain": _gain(inputs, sample.probabilities),
    }


def _gain(inputs: ReportInputs, other: NDArray[np.float64]) -> Section | None:
    """What the winner has over a baseline, paired on the same images."""
    sample = _sample(inputs.test)
    if METRICS[inputs.objective].function(sample.labels, sample.probabilities) is None:
        return None
    found = compare(inputs.objective, sample, other, seed=inputs.seed)
    # On accuracy the exact test has the last word: it holds with few images too.
    exact = inputs.objective == "accuracy"
    return {
        "metric": inputs.objective,
        "value": found.difference,
        "low": found.low,
        "high": found.high,
        "p_value": found.p_value,
        "distinguishable": found.p_value < 0.05 if exact else bool(found.low > 0 or found.high < 0),
    }


def _majority(inputs: ReportInputs) -> NDArray[np.float64]:
    """Class frequencies of the training set (of validation where those are not known) for every test row."""
    classes = len(inputs.test.class_names)
    known = inputs.data.get("class_counts", {}).get("train")
    counts = np.bincount(inputs.validation.labels, minlength=classes) if known is None else np.asarray(known)
    return np.tile(counts / max(1, counts.sum()), (len(inputs.test), 1)).astype(np.float64)


def _data(inputs: ReportInputs) -> Section:
    data = dict(inputs.data)
    train = data.get("class_counts", {}).get("train")
    if train and "imbalance" not in data:
        data["imbalance"] = max(train) / min(train) if min(train) else None
    return data


def _differences(where: str, said: Any, fresh: Any) -> list[str]:
    walk = _WALKS.get(type(fresh))
    if walk and type(said) is type(fresh):
        return walk(where, said, fresh)
    return [] if said == fresh else [f"{where}: the report says {said!r}, the predictions give {fresh!r}"]


def _in_dicts(where: str, said: Section, fresh: Section) -> list[str]:
    keys = list(dict.fromkeys([*fresh, *said]))
    return [line for key in keys for line in _differences(f"{where}.{key}", said.get(key), fresh.get(key))]


def _in_lists(where: str, said: list[Any], fresh: list[Any]) -> list[str]:
    if len(said) != len(fresh):
        return [f"{where}: the report has {len(said)} entries, the predictions give {len(fresh)}"]
    pairs = enumerate(zip(said, fresh, strict=True))
    return [line for i, (ours, theirs) in pairs for line in _differences(f"{where}[{i}]", ours, theirs)]


_WALKS: dict[type, Callable[[str, Any, Any], list[str]]] = {dict: _in_dicts, list: _in_lists}
