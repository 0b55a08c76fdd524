"""Any trial of a finished run whose weights were kept, as a model file of its own.

It is calibrated on the validation images like the model that was shipped, from what the run wrote down of them: neither
images nor a GPU are needed. The test set is not opened, so it has no test figure, and says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from automl_vision import run_dir
from automl_vision.bundle import Bundle, load_bundle, save_bundle
from automl_vision.calibration import fit_temperature, logarithm
from automl_vision.data.preprocess import Preprocessing
from automl_vision.errors import RunError, UsageError
from automl_vision.exporting.export import Exported, Order, export
from automl_vision.files import write_text
from automl_vision.models.backbones import backbone, statistics
from automl_vision.report.predictions import Predictions
from automl_vision.report.untested_card import untested_card
from automl_vision.search.trial import Trial
from automl_vision.search.trial_files import Result, TrialFiles


@dataclass(frozen=True)
class TrialModel:
    """A trial as a model file.

    Attributes:
        path: the file.
        card: its model card.
        bytes: of the file.
        objective, score, images: its figure on validation, and on how many images.
    """

    path: Path
    card: Path
    bytes: int
    objective: str
    score: float
    images: int


def write_trial_model(run: Path, number: int, out: Path | None = None, *, force: bool = False) -> TrialModel:
    """Write `model-trial-N.pt` and its model card `model-trial-N.pt.md`.

    Args:
        run: folder of a finished run.
        number: of a trial.
        out: the file; beside the run's own model by default.
        force: replace what is there.

    Raises:
        RunError: the run is not finished, or the trial is unknown or without weights.
        UsageError: there is something at the place already, or it cannot be written.
    """
    path = out or run / f"model-trial-{number}.pt"
    card = path.with_name(f"{path.name}.md")
    for place in (path, card):
        if os.path.lexists(place) and not (force and place.is_file() and not _is_shipped(place, run)):
            raise UsageError(
                "there is something at this place already", value=str(place), fix="use --force, or another --out"
            )
    bundle = trial_bundle(run, number)
    try:
        with run_dir.held(path.parent):
            save_bundle(bundle, path)
            write_text(card, untested_card(bundle, path.name))
    except OSError as error:
        value = f"{path} ({error.strerror or error})"
        raise UsageError("the output cannot be written", value=value, fix="choose another --out") from None
    about = bundle.provenance
    return TrialModel(
        path, card, path.stat().st_size, about["objective"], about["validation_score"], about["validation_images"]
    )


def export_trial(order: Order, number: int, tell: Callable[[str], None] = lambda _: None) -> Exported:
    """Export a trial in another format, as `export` does with a model file.

    Args:
        order: what to write; its model is the `model.pt` of the run.
        number: of a trial.
        tell: told what is being done.

    Raises:
        RunError: as for `trial_bundle`.
        UsageError, ModelFileError, AutomlVisionError: as for `export`.
    """
    run, place = order.model.parent, order.place
    out = order.out or place.with_name(f"{place.stem}-trial-{number}{place.suffix}")
    if _is_shipped(out, run):
        raise UsageError(
            "this would replace the model of the run or its card", value=str(out), fix="choose another --out"
        )
    # It has to lie in the run folder, where the images are found that it is checked with, and under no name that is
    # swept by whoever opens the run meanwhile.
    unfinished = run / f".model-trial-{number}.{os.getpid()}.pt"
    bundle = trial_bundle(run, number)
    try:
        try:
            with run_dir.held(run):
                save_bundle(bundle, unfinished)
        except OSError as error:
            raise run_dir.cannot_write(run, error) from None
        return export(replace(order, model=unfinished, out=out), tell)
    finally:
        unfinished.unlink(missing_ok=True)


def trial_bundle(run: Path, number: int) -> Bundle:
    """The model of a trial at its best epoch, its temperature fitted on the validation images of the run.

    Raises:
        RunError: the run is not finished, or the trial is unknown or without weights.
        ModelFileError: the model of the run is damaged.
        DataError: its validation predictions are damaged.
    """
    said = run / run_dir.predictions_file("val")
    if not (run / run_dir.MODEL).is_file() or not said.is_file():
        raise RunError("there is no finished run in this folder", value=str(run), fix="give the folder of a run")
    trial, result = _kept(run, number)
    shipped, val = load_bundle(run / run_dir.MODEL), Predictions.from_csv(said)
    if shipped.class_names != val.class_names or len(val) != len(result.probabilities):
        raise RunError(
            "what the trial said of validation is not of these validation images",
            value=f"{len(result.probabilities)} answers, {len(val)} images in {said.name}",
            fix="restore the run folder from a copy",
        )
    recipe, seen = trial.recipe, shipped.preprocessing  # all networks of a run see images in the same way
    mean, std = statistics(backbone(recipe.backbone))
    looks = run_dir.read_looks(run)
    return Bundle(
        backbone=recipe.backbone,
        head=recipe.head,
        class_names=shipped.class_names,
        preprocessing=Preprocessing(recipe.resolution, mean, std, resize=seen.resize, decode_side=seen.decode_side),
        temperature=fit_temperature(logarithm(result.probabilities), val.labels),
        state_dict=result.weights,
        fingerprint=shipped.fingerprint,
        provenance={
            "created": run_dir.now(),
            "run": run.resolve().name,
            "data_fingerprint": shipped.provenance.get("data_fingerprint"),
            "trial": trial.number,
            "recipe": recipe.to_dict(),
            "objective": shipped.provenance.get("objective"),
            "validation_score": trial.score,
            "validation_images": len(val),
            "seed": shipped.provenance.get("seed"),
            "tested": False,
            "looks": looks,
        },
    )


def _kept(run: Path, number: int) -> tuple[Trial, Result]:
    """The record and the weights of a trial."""
    files = TrialFiles(run_dir.trials_place(run))
    trial, result = files.record(number), files.load_result(number)
    if trial is not None and trial.score is not None and result is not None:
        return trial, result
    here = ", ".join(str(each) for each in files.with_weights())
    what = "there is no such trial" if trial is None else "the weights of this trial were not kept"
    raise RunError(what, value=f"trial {number}", fix=f"choose one whose weights are here: {here or 'none is'}")


def _is_shipped(place: Path, run: Path) -> bool:
    return place.resolve() in {(run / name).resolve() for name in (run_dir.MODEL, run_dir.MODEL_CARD)}
