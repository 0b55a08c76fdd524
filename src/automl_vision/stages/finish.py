"""Stage `finish`: the chosen trial, improved where that pays and calibrated, as the model that will be shipped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from automl_vision import run_dir
from automl_vision.bundle import Bundle, Network
from automl_vision.calibration import fit_temperature, logarithm
from automl_vision.data.preparation import Prepared
from automl_vision.errors import AutomlVisionError, BudgetExhausted, Interrupted
from automl_vision.models.ensemble import Ensemble
from automl_vision.search.choice import Choice
from automl_vision.search.run_trial import TrialRunner
from automl_vision.search.trial import Trial
from automl_vision.search.trial_files import Result
from automl_vision.stages.context import RunContext
from automl_vision.stages.improve import Bench, Draft, Improved, improve
from automl_vision.stages.refit import Refit, refit

if TYPE_CHECKING:
    from automl_vision.stages.costs import CostMeter
    from automl_vision.stages.search import Searched


@dataclass(frozen=True)
class Finished:
    """The winner of a search.

    Attributes:
        trial: the winning trial.
        bundle: as it will be shipped, without the test figures.
        ensemble: its networks on the runtime's device.
        validated: the same before it was refitted: what figures on validation images, and on copies of them, are of.
        validation: (N_val, C) calibrated probabilities of the validation rows, by the model before it was refitted.
        choice: how the trial was chosen.
        improved: what was tried on it.
        refit: what came of training it once more; None where that was not to be.
    """

    trial: Trial
    bundle: Bundle
    ensemble: Ensemble
    validated: Ensemble
    validation: NDArray[np.float64]
    choice: Choice
    improved: Improved
    refit: Refit | None


def finish(context: RunContext, prepared: Prepared, searched: Searched, meter: CostMeter | None = None) -> Finished:
    """Choose a trial, improve it where that pays and keeps to the limits, calibrate it, and build its networks.

    Raises:
        BudgetExhausted, Interrupted: no trial was validated.
    """
    runner = searched.runner
    chosen = _chosen(searched)
    if chosen is None:
        raise _no_model(context, searched)
    choice, result = chosen
    bench = Bench(context, prepared, searched, choice, result, meter)
    improved = improve(bench)
    draft = improved.draft
    bundle = _bundle(draft, choice.trial, runner, prepared, context)
    ensemble = validated = bundle.ensemble(runner.runtime)
    once_more = refit(bench, improved)
    if once_more is not None and once_more.weights is not None:
        provenance = {**bundle.provenance, "refitted": True}
        bundle = replace(bundle, state_dict=once_more.weights, provenance=provenance)
        ensemble = bundle.ensemble(runner.runtime)
    return Finished(
        trial=choice.trial,
        bundle=bundle,
        ensemble=ensemble,
        validated=validated,
        validation=bundle.probabilities(draft.votes),
        choice=choice,
        improved=improved,
        refit=once_more,
    )


def _chosen(searched: Searched) -> tuple[Choice, Result] | None:
    """The model and its weights; a trial whose weights cannot be read costs itself, not the run."""
    trials = searched.candidates
    while (choice := searched.chooser.choose(trials)) is not None:
        result = searched.runner.files.load_result(choice.trial.number)
        if result is not None:
            return choice, result
        trials = [trial for trial in trials if trial.number != choice.trial.number]
    return None


def bundle_of(trial: Trial, result: Result, runner: TrialRunner, prepared: Prepared, context: RunContext) -> Bundle:
    """The model of a trial at its best epoch, with its temperature fitted on validation, and every look so far."""
    recipe = trial.recipe
    network = Network(recipe.backbone, recipe.head, runner.preprocessing(recipe), result.weights)
    draft = Draft((network,), logarithm(result.probabilities))
    return _bundle(draft, trial, runner, prepared, context)


def _bundle(draft: Draft, trial: Trial, runner: TrialRunner, prepared: Prepared, context: RunContext) -> Bundle:
    val_labels = prepared.labels(prepared.split.rows("val"))
    first, *others = draft.networks
    return Bundle(
        **vars(first),
        others=tuple(others),
        class_bias=draft.class_bias,
        class_names=prepared.manifest.class_names,
        temperature=fit_temperature(draft.scores, val_labels),
        fingerprint=prepared.fingerprint if context.settings.output.fingerprint else None,
        provenance={
            "created": run_dir.now(),
            "data_fingerprint": context.data_fingerprint,
            "trial": trial.number,
            "recipe": trial.recipe.to_dict(),
            "objective": runner.objective,
            "validation_score": trial.score,
            "seed": context.settings.machine.seed,
            "looks": context.run.looks,
        },
    )


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
