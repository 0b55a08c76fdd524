"""Stage `finish`: the best trial, calibrated, as the model that will be shipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from automl_vision import run_dir
from automl_vision.bundle import Bundle
from automl_vision.calibration import apply_temperature, fit_temperature
from automl_vision.data.preparation import Prepared
from automl_vision.errors import AutomlVisionError, BudgetExhausted, Interrupted
from automl_vision.models.classifier import Classifier, placed
from automl_vision.search.choice import Choice
from automl_vision.search.run_trial import TrialRunner
from automl_vision.search.trial import Trial
from automl_vision.search.trial_files import Result
from automl_vision.stages.context import RunContext

if TYPE_CHECKING:
    from automl_vision.stages.search import Searched


@dataclass(frozen=True)
class Finished:
    """The winner of a search.

    Attributes:
        trial: the winning trial.
        bundle: as it will be shipped, without the test figures.
        net: its network on the runtime's device.
        validation: (N_val, C) calibrated probabilities of the validation rows.
    """

    trial: Trial
    bundle: Bundle
    net: Classifier
    validation: NDArray[np.float64]


def finish(context: RunContext, prepared: Prepared, searched: Searched) -> Finished:
    """Calibrate the best trial and build its network.

    Raises:
        BudgetExhausted, Interrupted: no trial was validated.
    """
    runner = searched.runner
    chosen = _chosen(searched)
    if chosen is None:
        raise _no_model(context, searched)
    choice, result = chosen
    winner = choice.trial
    bundle = bundle_of(winner, result, runner, prepared, context)
    calibrated = apply_temperature(log(result.probabilities), bundle.temperature)
    return Finished(winner, bundle, placed(bundle.classifier(), runner.runtime.device), calibrated)


def _chosen(searched: Searched) -> tuple[Choice, Result] | None:
    """The model and its weights; a trial whose weights cannot be read costs itself, not the run."""
    trials = searched.search.trials
    while (choice := searched.chooser.choose(trials)) is not None:
        result = searched.runner.files.load_result(choice.trial.number)
        if result is not None:
            return choice, result
        trials = [trial for trial in trials if trial.number != choice.trial.number]
    return None


def bundle_of(trial: Trial, result: Result, runner: TrialRunner, prepared: Prepared, context: RunContext) -> Bundle:
    """The model of a trial at its best epoch, with its temperature fitted on validation, and every look so far."""
    val_labels = prepared.labels(prepared.split.rows("val"))
    return Bundle(
        backbone=trial.recipe.backbone,
        head=trial.recipe.head,
        class_names=prepared.manifest.class_names,
        preprocessing=runner.preprocessing(trial.recipe),
        temperature=fit_temperature(log(result.probabilities), val_labels),
        state_dict=result.weights,
        fingerprint=prepared.fingerprint if context.settings.output.fingerprint else None,
        provenance={
            "created": run_dir.now(),
            "data_fingerprint": prepared.manifest.fingerprint,
            "trial": trial.number,
            "recipe": trial.recipe.to_dict(),
            "objective": runner.objective,
            "validation_score": trial.score,
            "seed": context.settings.machine.seed,
            "looks": context.run.looks,
        },
    )


def log(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """(N, C) log-probabilities, finite."""
    logs: NDArray[np.float64] = np.log(np.clip(probabilities.astype(np.float64), 1e-30, None))
    return logs


def _no_model(context: RunContext, searched: Searched) -> AutomlVisionError:
    if searched.stop_reason == "interrupted":
        path = str(context.run.path)
        return Interrupted("stopped before there was a model", value=path, fix=context.how_to_resume)
    errors = sorted({trial.error for trial in searched.search.trials if trial.error})
    return BudgetExhausted(
        "the budget ended before one usable model",
        value="; ".join([f"{context.clock.elapsed:.0f} s used", *errors]),
        fix="give a longer --budget, fewer images with --max-samples, or a smaller --resolutions",
    )
