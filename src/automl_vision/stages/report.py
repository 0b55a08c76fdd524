"""Stage `report`: the model with its test figures, the predictions, the tables and the report, written to the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from automl_vision import run_dir
from automl_vision.bundle import save_bundle
from automl_vision.data.preparation import Prepared
from automl_vision.data.store import SealedRowError
from automl_vision.errors import AutomlVisionError
from automl_vision.files import write_json, write_text
from automl_vision.report.gallery import Gallery
from automl_vision.report.html import render_html
from automl_vision.report.label_errors import suspects_csv
from automl_vision.report.plots import draw_plots
from automl_vision.report.report import ReportInputs, build_report
from automl_vision.report.sections import (
    backbones_section,
    care_section,
    data_section,
    head_section,
    selection_section,
    trials_section,
)
from automl_vision.report.shift import test_figures
from automl_vision.runtime import environment
from automl_vision.search.samplers import export_study, importances
from automl_vision.search.search import Search
from automl_vision.search.turns import Turns
from automl_vision.stages.checks import DataChecks
from automl_vision.stages.context import RunContext
from automl_vision.stages.costs import Measured
from automl_vision.stages.costs_section import costs_section, kept_for_export
from automl_vision.stages.finish import Finished
from automl_vision.stages.gallery import make_gallery
from automl_vision.stages.rendering import card_of_run
from automl_vision.stages.reserve import report_seconds
from automl_vision.stages.search import Searched
from automl_vision.stages.test import Looked

#: Writing the study for optuna-dashboard takes about this long; it is left out when less is left of the budget.
STUDY_SECONDS = 3.0
#: Of the seconds of the report, what is kept for writing it once all figures are drawn; pictures of mistakes may have
#: the rest. A caution and not measured.
WRITING_SHARE = 0.2


def write_report(
    context: RunContext,
    prepared: Prepared,
    searched: Searched,
    finished: Finished,
    looked: Looked,
    impact: Mapping[str, Any] | None,
    measured: Measured,
    checks: DataChecks,
) -> dict[str, Any]:
    """Write everything a finished run leaves; gives the content of report.json."""
    folder = context.run.path
    known = _inputs(context, prepared, searched, finished, looked)
    costs = costs_section(context, searched, finished, measured)
    report = build_report(
        replace(known, impact=impact, costs=costs, label_check=checks.labels, shortcuts=checks.shortcuts)
    )
    provenance = {**finished.bundle.provenance, "test": test_figures(report["test"]), "looks": looked.looks}
    save_bundle(replace(finished.bundle, provenance=provenance), folder / run_dir.MODEL)
    for name, predictions in looked.by_set.items():
        predictions.to_csv(folder / run_dir.predictions_file(name))
    _write_trials(context, searched.search)
    if checks.suspects is not None:
        write_text(folder / run_dir.LABEL_SUSPECTS, suspects_csv(checks.suspects))
    plots = draw_plots(report)
    report["seconds"] = context.seconds_by_stage()
    trials = searched.search.trials
    reserve = report_seconds(context, prepared, trials) * WRITING_SHARE
    gallery = _gallery(context, lambda: make_gallery(context, prepared, finished, looked, reserve=reserve))
    write_json(folder / run_dir.GALLERY, gallery.to_dict(), indent=None)
    write_text(folder / run_dir.REPORT_HTML, render_html(report, plots, gallery))
    write_text(folder / run_dir.MODEL_CARD, card_of_run(report))
    write_json(folder / run_dir.REPORT_JSON, report)
    searched.runner.files.prune(
        searched.search.trials,
        context.settings.output.kept_checkpoints,
        also=finished.choice.weights | kept_for_export(searched, measured),
    )
    searched.runner.files.sweep()  # a worker that was killed, and whose trial another one ended
    context.run.note_spent(context.clock.elapsed)
    return report


def _gallery(context: RunContext, make: Callable[[], Gallery]) -> Gallery:
    """Pictures of mistakes; where making them fails that is said, and the report is written without."""
    try:
        return make()
    except (SealedRowError, AutomlVisionError):
        raise
    except Exception as error:  # noqa: BLE001 - networks of any kind are looked into, and the test set was opened
        trouble = f"{type(error).__name__}: {error}"
        context.note(f"There are no pictures of mistakes: {trouble}", warning=True)
        return Gallery(0, (), (), trouble=trouble)


def _inputs(
    context: RunContext, prepared: Prepared, searched: Searched, finished: Finished, looked: Looked
) -> ReportInputs:
    about = context.run.about
    return ReportInputs(
        name=context.run.path.name,
        created=run_dir.now(),
        test=looked.test,
        validation=looked.val,
        objective=searched.runner.objective,
        augmented_validation=looked.augmented_val,
        baselines=looked.baselines,
        seed=context.settings.machine.seed,
        data=data_section(prepared, context.data) | {key: about[key] for key in ("found", "drawn", "resize")},
        looks=tuple(looked.looks),
        stop_reason=searched.stop_reason,
        budget_seconds=None if math.isinf(context.clock.budget) else context.clock.budget,
        seconds=context.seconds_by_stage(),
        trials=trials_section(searched.search.trials)
        | {
            "sampler": searched.search.task.sampler,
            **({"one_recipe": True} if searched.search.task.one_recipe else {}),
            "importance": importances(searched.search.space, searched.search.trials),
        },
        care=care_section(prepared, context.settings.data.lineage, context.settings.data.max_samples),
        head=head_section(searched.search.trials),
        backbones=backbones_section(searched.search, finished.trial) if isinstance(searched.search, Turns) else None,
        selection=_selection(searched, finished, context.settings.machine.seed),
        finish={
            "steps": [step.to_dict() for step in finished.improved.steps],
            "refit": finished.refit.to_dict() if finished.refit else None,
        },
        model=_model_section(finished),
        environment={
            **environment(searched.runner.runtime),
            "data_fingerprint": context.data_fingerprint,
            "seed": context.settings.machine.seed,
        },
        troubles=tuple(context.troubles),
    )


def _selection(searched: Searched, finished: Finished, seed: int) -> dict[str, Any]:
    """Every model that validation compared is a candidate: trials, and what the finish made of the chosen one."""
    predicted = searched.chooser.predicted(finished.choice.entered)
    trials = [predicted[trial.number] for trial in finished.choice.entered]
    improved = finished.improved
    return selection_section(
        finished.choice, [*trials, *improved.candidates, improved.draft.predicted], searched.chooser.judge, seed
    )


def _model_section(finished: Finished) -> dict[str, Any]:
    recipe = finished.trial.recipe
    return {
        "file": run_dir.MODEL,
        "trial": finished.trial.number,
        "backbone": recipe.backbone,
        "kind": recipe.kind,
        "head": recipe.head,
        "resolution": recipe.resolution,
        "parameters": finished.ensemble.parameters,
        "temperature": finished.bundle.temperature,
        "networks": [
            {"backbone": each.backbone, "resolution": each.preprocessing.size, "flip": each.flip, "share": each.share}
            for each in finished.bundle.networks
        ],
        "class_bias": list(finished.bundle.class_bias),
        "recipe": recipe.to_dict(),
    }


def _write_trials(context: RunContext, search: Search | Turns) -> None:
    keys = ("number", "origin", "kind", "state", "epochs", "score", "seconds")
    rows = trials_section(search.trials)["table"]
    table = pd.DataFrame([{key: row[key] for key in keys} | row["hyperparameters"] for row in rows])
    write_text(context.run.path / run_dir.TRIALS_CSV, table.to_csv(index=False, lineterminator="\n"))
    if context.clock.remaining > STUDY_SECONDS:
        study = context.run.path / run_dir.STUDY
        export_study(study, search.space, search.trials, name=context.run.path.name)
