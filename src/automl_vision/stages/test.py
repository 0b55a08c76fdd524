"""Stage `test`: the one look at the test set, written to the ledger before it is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_vision import run_dir
from automl_vision.bundle import Bundle, save_bundle
from automl_vision.data.preparation import Prepared
from automl_vision.models.ensemble import Ensemble
from automl_vision.report.predictions import Predictions
from automl_vision.stages.context import RunContext
from automl_vision.stages.finish import Finished, bundle_of
from automl_vision.stages.improve import stored_votes
from automl_vision.stages.search import Searched


@dataclass(frozen=True)
class Looked:
    """What the winner says of each set, and what simpler models say of the test set.

    Attributes:
        test: predictions of the winner.
        val: the same, before the winner was trained on these images too (`refit`).
        augmented_val: of the copies of validation originals, by the model of `val`; None where there are none.
        baselines: name -> (N_test, C) probabilities.
        looks: the ledger, this look included.
    """

    test: Predictions
    val: Predictions
    augmented_val: Predictions | None
    baselines: dict[str, NDArray[np.float64]]
    looks: list[dict[str, Any]]

    @property
    def by_set(self) -> dict[str, Predictions]:
        """The predictions that are written to files, by set."""
        sets = {"test": self.test, "val": self.val, "augmented_val": self.augmented_val}
        return {name: predictions for name, predictions in sets.items() if predictions is not None}


def look(context: RunContext, prepared: Prepared, searched: Searched, finished: Finished) -> Looked:
    """Open the test set."""
    test, val = prepared.split.rows("test"), prepared.split.rows("val")
    augmented = prepared.split.augmented_val
    context.run.put_report_aside()
    looks = context.run.record_look(_reason(searched.stop_reason, len(context.run.looks)), len(test))
    if len(looks) > 1:
        context.note(f"This is look {len(looks)} at the test set; the report lists every look.", warning=True)
    bundle = with_looks(finished.bundle, looks)
    save_bundle(bundle, context.run.path / run_dir.MODEL)  # also before it is opened: a file that is copied tells
    prepared = prepared.open_test(looks)

    def predicted(rows: NDArray[np.int64], ensemble: Ensemble) -> Predictions:
        return _predictions(prepared, rows, bundle.probabilities(stored_votes(ensemble, prepared.store, rows)))

    return Looked(
        test=predicted(test, finished.ensemble),
        val=_predictions(prepared, val, finished.validation),
        augmented_val=predicted(augmented, finished.validated) if len(augmented) else None,
        baselines=_baselines(context, prepared, searched, finished),
        looks=looks,
    )


def with_looks(bundle: Bundle, looks: Sequence[Mapping[str, Any]]) -> Bundle:
    """The same model, with the ledger in its provenance."""
    return replace(bundle, provenance={**bundle.provenance, "looks": list(looks)})


def _predictions(prepared: Prepared, rows: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Predictions:
    return Predictions(
        paths=tuple(prepared.manifest.paths[row] for row in rows),
        labels=prepared.labels(rows),
        groups=prepared.groups(rows),
        probabilities=probabilities,
        class_names=prepared.manifest.class_names,
    )


def _baselines(
    context: RunContext, prepared: Prepared, searched: Searched, finished: Finished
) -> dict[str, NDArray[np.float64]]:
    """What two much simpler models say of the test rows: always the largest class, and the best linear probe."""
    runner, test = searched.runner, prepared.split.rows("test")
    counts = np.bincount(runner.data.train_labels.numpy(), minlength=runner.data.num_classes)
    baselines = {"majority class": np.tile(counts / counts.sum(), (len(test), 1))}
    best = runner.files.best(trial for trial in searched.search.trials if trial.recipe.kind == "probe")
    if best is not None and best[0].number != finished.trial.number:
        bundle = bundle_of(*best, runner, prepared, context)
        votes = stored_votes(bundle.ensemble(runner.runtime), prepared.store, test)
        baselines["linear probe"] = bundle.probabilities(votes)
    return baselines


def _reason(stop_reason: str, looks_before: int) -> str:
    which = "final evaluation" if stop_reason != "interrupted" else "evaluation of an interrupted run"
    return f"{which}, after {looks_before} earlier" if looks_before else which
