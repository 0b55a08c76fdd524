"""Several finished runs beside each other: a pure function of what they left.

Runs that were tested on the same images are compared in pairs, both scored on each image: McNemar's exact test of
accuracy (Psychometrika 1947; where images come in groups, the sign test over groups), Newcombe's interval of its size
(Statistics in Medicine 1998) or, in groups and for other figures, the paired bootstrap over whole groups, and Holm's
correction for the number of pairs (Scandinavian Journal of Statistics 1979). Runs with other test images only share a
table: their figures say nothing of each other beyond their intervals.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_vision.metrics import (
    MACRO_PRECISION,
    METRICS,
    Metric,
    Tally,
    accuracy_of,
    macro_f1_of,
    macro_precision_of,
    tally,
)
from automl_vision.report.baseline_figures import Baseline, folded
from automl_vision.report.intervals import (
    RESAMPLES,
    Floats,
    Ints,
    Sample,
    group_weights,
    interval_from_resamples,
    paired_interval,
    paired_proportions,
    sign_test,
)
from automl_vision.report.predictions import Predictions

FORMAT = 1

#: The figures of the table, and how each follows from counts per class.
COMPARED: dict[str, Metric] = {
    "accuracy": METRICS["accuracy"],
    "macro_precision": MACRO_PRECISION,
    "macro_f1": METRICS["macro_f1"],
}
_RATES: dict[str, Callable[[Tally], Floats]] = {
    "accuracy": accuracy_of,
    "macro_precision": macro_precision_of,
    "macro_f1": macro_f1_of,
}

#: p-values below this, after correction, count as a difference.
SIGNIFICANCE = 0.05

Section = dict[str, Any]


@dataclass(frozen=True)
class FinishedRun:
    """What a finished run left.

    Attributes:
        name: of the run; path: of its folder, as it was given.
        source: the folder or table of its images; equal for runs on the same data.
        test_digest: of its test images (`report.sections.test_digest`); empty where an earlier version made the run.
        test: predictions of its model on them.
        figures: `accuracy` and `macro_f1` as report.json has them: {value, low, high}.
        looks: entries of its ledger.
        seed: of its resamples.
        backbone: of its model.
        interrupted: whether the user ended it early.
    """

    name: str
    path: str
    source: str
    test_digest: str
    test: Predictions
    figures: Mapping[str, Mapping[str, float | None]]
    looks: int
    seed: int
    backbone: str
    interrupted: bool


def build_comparison(runs: Sequence[FinishedRun], baseline: Baseline | None = None) -> Section:
    """The comparison as plain JSON types; equal runs give equal comparisons.

    Returns:
        `format`; `runs`: one entry each with its figures; `test_sets`: runs that were tested on the same images, with
        `pairs`; `baseline`: null, or what was read; `notes`: what to know, in sentences.
    """
    names = _telling([run.name for run in runs], [run.path for run in runs])
    sources = list(dict.fromkeys(run.source for run in runs))
    titles = dict(zip(sources, _telling([data_set_name(each) for each in sources], sources), strict=True))
    sets = _test_sets(runs)
    number = {place: at for at, places in enumerate(sets, start=1) for place in places}
    rows: list[Section] = [
        {
            "run": names[place],
            "path": run.path,
            "data_set": titles[run.source],
            "test_set": number[place],
            "images": len(run.test),
            "classes": len(run.test.class_names),
            "backbone": run.backbone,
            "looks": run.looks,
            **run.figures,
            "macro_precision": macro_precision(run.test, run.seed),
        }
        for place, run in enumerate(runs)
    ]
    for row, run in zip(rows, runs, strict=True):
        row["baseline"] = _beside(row, baseline.find(*_names_of(row, run)), baseline) if baseline else None
    test_sets = [
        _test_set(at, [runs[i] for i in places], [rows[i] for i in places]) for at, places in enumerate(sets, 1)
    ]
    return {
        "format": FORMAT,
        "runs": rows,
        "test_sets": test_sets,
        "baseline": _baseline_section(rows, baseline) if baseline else None,
        "notes": _notes(runs, rows, test_sets) + (_baseline_notes(rows, baseline) if baseline else []),
    }


def data_set_name(source: str) -> str:
    """What people call a data set: the folder, or the table without its ending."""
    name = source.replace("\\", "/").rstrip("/").rpartition("/")[2]
    stem, _, ending = name.rpartition(".")
    return stem if stem and ending.lower() in ("csv", "tsv", "parquet") else name


def macro_precision(predictions: Predictions, seed: int) -> Section:
    """{value, low, high} of the mean precision, with the interval that macro F1 has in the report."""
    sample = Sample(predictions.labels, predictions.probabilities, predictions.groups)
    value = MACRO_PRECISION.function(sample.labels, sample.probabilities)
    if value is None:
        return {"value": None, "low": None, "high": None}
    drawn = _resampled(
        predictions.labels, predictions.predicted, predictions.groups, len(predictions.class_names), seed
    )
    low, high = interval_from_resamples(MACRO_PRECISION, value, drawn["macro_precision"], sample, 0.95)
    return {"value": value, "low": low, "high": high}


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm 1979), in the same order, each in [0, 1] and none below itself."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


# --- test sets ------------------------------------------------------------------------------------------------------


def _test_sets(runs: Sequence[FinishedRun]) -> list[list[int]]:
    """Places of the runs that were tested on the same images, in the order of the runs."""
    sets: dict[str, list[int]] = {}
    for place, run in enumerate(runs):
        sets.setdefault(run.test_digest or f"run {place}", []).append(place)
    return list(sets.values())


def _test_set(number: int, runs: Sequence[FinishedRun], rows: Sequence[Section]) -> Section:
    why_not = _why_not_paired(runs)
    return {
        "number": number,
        "data_set": rows[0]["data_set"],
        "images": len(runs[0].test),
        "runs": [row["run"] for row in rows],
        "looks": sum(run.looks for run in runs),
        "unpaired": why_not,
        "groups": None if why_not else len(np.unique(_joint_groups(runs))),
        "pairs": [] if why_not else _pairs(runs, [row["run"] for row in rows]),
    }


def _why_not_paired(runs: Sequence[FinishedRun]) -> str:
    """Why images of the runs cannot be laid beside each other; empty where they can."""
    first = _truth(runs[0].test)
    for run in runs[1:]:
        if sorted(run.test.paths) != sorted(runs[0].test.paths):
            return "the same images have other paths"
        if _truth(run.test) != first:
            return "the same images have other labels"
    return ""


def _truth(test: Predictions) -> dict[str, str]:
    return {path: test.class_names[label] for path, label in zip(test.paths, test.labels.tolist(), strict=True)}


@dataclass(frozen=True)
class _Aligned:
    """What each of K runs says of the same N images, in the same order and with the same C classes.

    Attributes:
        labels: (N), said: (K, N), groups: (N).
        classes: C.
    """

    labels: Ints
    said: Ints
    groups: Ints
    classes: int

    def sample(self, run: int) -> Sample:
        """One run's answers as certain probabilities, which the tests on right and wrong alone need."""
        return Sample(self.labels, self.certain(run), self.groups)

    def certain(self, run: int) -> Floats:
        """(N, C) one where the run says so, else zero."""
        return np.asarray(np.eye(self.classes)[self.said[run]])


def _aligned(runs: Sequence[FinishedRun]) -> _Aligned:
    names = sorted({name for run in runs for name in run.test.class_names})
    number = {name: place for place, name in enumerate(names)}
    order = [np.argsort(np.array(run.test.paths, dtype=object)) for run in runs]
    own = [np.array([number[name] for name in run.test.class_names], dtype=np.int64) for run in runs]
    return _Aligned(
        labels=own[0][runs[0].test.labels[order[0]]],
        said=np.stack([own[k][run.test.predicted[order[k]]] for k, run in enumerate(runs)]),
        groups=_joint_groups(runs),
        classes=len(names),
    )


def _joint_groups(runs: Sequence[FinishedRun]) -> Ints:
    """(N) by sorted path: images that any of the runs holds for one group are one, so that none is counted twice."""
    joint: Ints | None = None
    for run in runs:
        order = np.argsort(np.array(run.test.paths, dtype=object))
        groups = np.unique(run.test.groups[order], return_inverse=True)[1].astype(np.int64)
        joint = groups if joint is None else _joined(joint, groups)
    assert joint is not None  # noqa: S101 - a test set has a run
    return joint


def _joined(first: Ints, second: Ints) -> Ints:
    """The finest partition that both partitions (N) of the same rows refine."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes = int(first.max(initial=-1)) + 1
    size = nodes + int(second.max(initial=-1)) + 1
    links = coo_array((np.ones(len(first)), (first, nodes + second)), shape=(size, size))
    return np.asarray(connected_components(links, directed=False)[1][first], dtype=np.int64)


# --- pairs ----------------------------------------------------------------------------------------------------------


def _pairs(runs: Sequence[FinishedRun], names: Sequence[str]) -> list[Section]:
    if len(runs) < 2:
        return []
    aligned = _aligned(runs)
    ones = np.ones((1, len(aligned.labels)))
    values = [_rates(aligned.labels, said, aligned.classes, ones) for said in aligned.said]
    # One seed for all: the same groups are drawn for each run, which makes the differences paired.
    drawn = [_resampled(aligned.labels, said, aligned.groups, aligned.classes, 0) for said in aligned.said]
    pairs = [
        {
            "first": names[a],
            "second": names[b],
            **{name: _difference(name, values[a], values[b], drawn[a], drawn[b]) for name in COMPARED},
            **_right(aligned, a, b),
            "p_value": sign_test(aligned.sample(a), aligned.certain(b)),
        }
        for a, b in combinations(range(len(runs)), 2)
    ]
    for pair, corrected in zip(pairs, holm([pair["p_value"] for pair in pairs]), strict=True):
        pair |= {"p_holm": corrected, "distinguishable": corrected < SIGNIFICANCE}
    return pairs


def _right(aligned: _Aligned, a: int, b: int) -> Section:
    """How many images one of the two alone has right; where images are independent, the interval that follows."""
    first, second = aligned.said[a] == aligned.labels, aligned.said[b] == aligned.labels
    counts = [int(each.sum()) for each in (first & second, first & ~second, ~first & second, ~first & ~second)]
    only = {"only_first_right": counts[1], "only_second_right": counts[2]}
    if not aligned.sample(a).independent:
        return only
    low, high = paired_proportions(*counts)
    return {**only, "accuracy": {"value": (counts[1] - counts[2]) / len(first), "low": low, "high": high}}


def _difference(
    name: str,
    first: Mapping[str, Floats],
    second: Mapping[str, Floats],
    first_drawn: Mapping[str, Floats],
    second_drawn: Mapping[str, Floats],
) -> Section:
    """The interval is null where no resample tells the two apart: that says nothing of how far chance reaches."""
    value, drawn = float(first[name][0] - second[name][0]), first_drawn[name] - second_drawn[name]
    if np.nanstd(drawn) < 1e-12:
        return {"value": value, "low": None, "high": None}
    low, high = paired_interval(value, drawn)
    return {"value": value, "low": low, "high": high}


def _resampled(labels: Ints, said: Ints, groups: Ints, classes: int, seed: int) -> dict[str, Floats]:
    """(RESAMPLES) each of `COMPARED` on resamples of whole groups."""
    blocks = [_rates(labels, said, classes, weights) for weights in group_weights(groups, RESAMPLES, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in COMPARED}


def _rates(labels: Ints, said: Ints, classes: int, weights: NDArray[np.float64]) -> dict[str, Floats]:
    counts = tally(labels, said, classes, weights)
    return {name: rate(counts) for name, rate in _RATES.items()}


# --- the baseline ---------------------------------------------------------------------------------------------------


def _beside(row: Section, found: str | None, baseline: Baseline) -> Section | None:
    """The run minus the baseline, whose own chance is not known: it counts as exact."""
    if found is None:
        return None
    given = baseline.figures[found]
    differences = {
        name: {
            "value": value,
            "difference": _minus(row[name]["value"], value),
            "low": _minus(row[name]["low"], value),
            "high": _minus(row[name]["high"], value),
        }
        for name, value in given.items()
    }
    return {"data_set": found, **{name: differences.get(name) for name in COMPARED}}


def _names_of(row: Section, run: FinishedRun) -> tuple[str, ...]:
    """Names under which a baseline may have the data set of a run, the best first."""
    return row["data_set"], data_set_name(run.source), row["run"], run.name


def _minus(ours: float | None, theirs: float) -> float | None:
    return None if ours is None else ours - theirs


def _baseline_section(rows: Sequence[Section], baseline: Baseline) -> Section:
    used = {row["baseline"]["data_set"] for row in rows if row["baseline"]}
    return {
        "file": baseline.file,
        "scale": baseline.scale,
        "without_run": [name for name in baseline.figures if name not in used],
        "without_baseline": list(dict.fromkeys(row["data_set"] for row in rows if not row["baseline"])),
    }


def _baseline_notes(rows: Sequence[Section], baseline: Baseline) -> list[str]:
    section = _baseline_section(rows, baseline)
    notes = [
        "The figures of the baseline are taken as they are given: on which images they were measured, and how far "
        "chance reaches in them, is not known here. The intervals of the differences hold the chance of the runs alone."
    ]
    if section["without_run"]:
        ours = sorted({name for row in rows for name in (row["data_set"], row["run"])})
        near = [_nearest(name, ours) for name in section["without_run"]]
        named = [f"{name}{close}" for name, close in zip(section["without_run"], near, strict=True)]
        notes.append(f"No run is of these data sets of the baseline: {', '.join(named)}.")
    if section["without_baseline"]:
        notes.append(f"The baseline has no line for {', '.join(section['without_baseline'])}.")
    if baseline.passed_over:
        notes.append(f"Columns of the baseline that hold nothing known: {', '.join(baseline.passed_over)}.")
    return notes


def _nearest(name: str, ours: Sequence[str]) -> str:
    known = {folded(each): each for each in ours}
    close = difflib.get_close_matches(folded(name), list(known), n=1)
    return f" (did you mean {known[close[0]]}?)" if close else ""


# --- what to know ---------------------------------------------------------------------------------------------------


def _notes(runs: Sequence[FinishedRun], rows: Sequence[Section], test_sets: Sequence[Section]) -> list[str]:
    notes = [note for each in test_sets for note in _notes_of_set(each)]
    sets_of = Counter(row["data_set"] for row in {row["test_set"]: row for row in rows}.values())
    notes += [
        f"The runs on {name} were tested on {count} different sets of images (another split, seed or content): "
        "pairs are formed within each of them only."
        for name, count in sets_of.items()
        if count > 1
    ]
    undigested = [row["run"] for row, run in zip(rows, runs, strict=True) if not run.test_digest]
    if undigested and len(runs) > 1:
        notes.append(
            f"The report of {', '.join(undigested)} does not say which images were tested (an earlier version made "
            "it), so that it is in no pair."
        )
    stopped = [row["run"] for row, run in zip(rows, runs, strict=True) if run.interrupted]
    return notes + ([f"Ended early by the user: {', '.join(stopped)}."] if stopped else [])


def _notes_of_set(each: Section) -> list[str]:
    if each["unpaired"]:
        return [f"{' and '.join(each['runs'])} cannot be compared image by image: {each['unpaired']}."]
    if each["looks"] < 2:
        return []
    tested = f"The {each['images']:,} test images of {each['data_set']} were looked at {each['looks']} times"
    if len(each["runs"]) < 2:
        return [f"{tested}. Choices made after a look make their figure too good."]
    return [
        f"{tested} by these {len(each['runs'])} runs. Who takes the best run by this table has chosen with the test "
        "set: its figure is then too good, and only new images tell by how much."
    ]


def _telling(names: Sequence[str], longer: Sequence[str]) -> list[str]:
    """The names, each longer where two are the same."""
    counts = Counter(names)
    return [long if counts[name] > 1 or not name else name for name, long in zip(names, longer, strict=True)]
