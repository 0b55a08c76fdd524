"""What the report says of costs: one row per network, one point per trial, and the model that is shipped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from automl_vision import run_dir
from automl_vision.models.costs import BATCH, MEGA, PASSES, count_all, excess_words
from automl_vision.search.front import Point, best_of_forms, pareto_front
from automl_vision.search.trial import Trial
from automl_vision.stages.context import RunContext
from automl_vision.stages.costs import Measured, forms_of, size_mb
from automl_vision.stages.limits import form_of

if TYPE_CHECKING:
    from automl_vision.stages.finish import Finished
    from automl_vision.stages.search import Searched


def costs_section(context: RunContext, searched: Searched, finished: Finished, measured: Measured) -> dict[str, Any]:
    """The section `costs` of report.json, plain types."""
    meter, runtime = measured.meter, searched.runner.runtime
    points = points_of(searched.candidates, measured)
    front = front_of(searched.candidates, measured)
    by_number = {trial.number: trial for trial in searched.candidates}
    shipped = _shipped(context, finished, measured)
    return {
        "measured": bool(measured.by_form),
        "detail": measured.detail,
        "device": runtime.device.type,
        "precision": runtime.precision,
        "threads": runtime.threads,
        "passes": PASSES,
        "batch": BATCH,
        "limits": meter.room.limits.to_dict(),
        "shipped": shipped,
        "networks": [_network(trial, searched, measured) for trial in best_of_forms(searched.candidates)],
        "front": sorted(front),
        "trials": [_point(point, by_number[point.trial], front, finished) for point in points],
    }


def points_of(trials: Iterable[Trial], measured: Measured) -> list[Point]:
    """The scored trials whose network was timed."""
    room, timings = measured.meter.room, measured.meter.timings
    return [
        Point(trial.number, trial.score, timings[form,].p50_ms, size_mb(room, form))
        for trial, form in ((each, form_of(each.recipe)) for each in trials)
        if trial.score is not None and form in measured.by_form and (form,) in timings
    ]


def front_of(trials: Iterable[Trial], measured: Measured) -> frozenset[int]:
    """Numbers of the trials on the Pareto front: of networks that cost the same, only the best trial can be on it."""
    return frozenset(point.trial for point in pareto_front(points_of(best_of_forms(trials), measured)))


def kept_for_export(searched: Searched, measured: Measured) -> frozenset[int]:
    """Trials whose weights stay when the run is over: those on the front, or the best of each network without times."""
    front = front_of(searched.candidates, measured)
    return front or frozenset(trial.number for trial in best_of_forms(searched.candidates))


def _network(trial: Trial, searched: Searched, measured: Measured) -> dict[str, Any]:
    """One network by the best of its trials."""
    form = form_of(trial.recipe)
    counted = measured.meter.room.counted(form)
    same = [each for each in searched.search.trials if form_of(each.recipe) == form]
    return {
        "backbone": form.backbone,
        "resolution": form.resolution,
        "head": form.head,
        "trial": trial.number,
        "score": trial.score,
        "parameters": counted.parameters,
        "gmacs": counted.macs / 1e9,
        "size_mb": counted.file_bytes / MEGA,
        "on": {device: cost.to_dict() for device, cost in measured.by_form.get(form, {}).items()},
        "training": training_costs(same, searched.runner.runtime.threads),
    }


def training_costs(trials: Iterable[Trial], threads: int) -> dict[str, float | None]:
    """What fine-tunes of one network took: peak of memory in bytes, and the share of its threads' time that was used.

    None where there was no fine-tune, or nobody could tell.
    """
    tuned = [trial for trial in trials if trial.recipe.kind == "finetune"]
    epochs = [(epoch, trial) for trial in tuned for epoch in trial.epochs if epoch.cpu_seconds is not None]
    # Where several trials ran at a time, each had its share of the threads.
    wall = sum(epoch.seconds * float(trial.notes.get("share", 1.0)) for epoch, trial in epochs)
    busy = sum(epoch.cpu_seconds or 0.0 for epoch, _ in epochs)
    return {
        "peak_bytes": max((trial.peak_bytes for trial in tuned), default=0) or None,
        "cpu_utilisation": busy / wall / threads if wall else None,
    }


def _point(point: Point, trial: Trial, front: frozenset[int], finished: Finished) -> dict[str, Any]:
    return {
        "trial": point.trial,
        "kind": trial.recipe.kind,
        "backbone": trial.recipe.backbone,
        "resolution": trial.recipe.resolution,
        "score": point.score,
        "latency_ms": point.latency_ms,
        "size_mb": point.size_mb,
        "front": point.trial in front,
        "shipped": point.trial == finished.trial.number,
    }


def _shipped(context: RunContext, finished: Finished, measured: Measured) -> dict[str, Any]:
    """The whole model: all its networks and views, and its file as it is on disk."""
    meter, forms = measured.meter, forms_of(finished.bundle.networks)
    counted = count_all(forms, meter.room.num_classes)
    counted = replace(counted, file_bytes=(context.run.path / run_dir.MODEL).stat().st_size)
    timing = meter.timings.get(forms)
    excess = meter.room.limits.excess(counted, timing.p50_ms if timing else None)
    return {
        "networks": len(forms),
        "passes_per_image": sum(1 + form.flip for form in forms),
        "parameters": counted.parameters,
        "gmacs": counted.macs / 1e9,
        "size_mb": counted.file_bytes / MEGA,
        "latency": timing.to_dict() if timing else None,
        "excess": excess_words(excess),
    }
