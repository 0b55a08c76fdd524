"""What the report says of the data and of the trials, as plain types."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_vision.data.preparation import Prepared
from automl_vision.errors import IMAGE_FAULTS
from automl_vision.report.optimism import corrected_for_choice
from automl_vision.search.choice import Choice
from automl_vision.search.judge import Judge
from automl_vision.search.trial import Trial, best_trial
from automl_vision.search.turns import Turns


def data_section(prepared: Prepared, data: Path) -> dict[str, Any]:
    """What the report says of the data: counts by set and class, and the findings."""
    manifest, lineage, dealt = prepared.manifest, prepared.audit.lineage, prepared.split
    classes = len(manifest.class_names)
    sets = {name: dealt.rows(name) for name in ("train", "val", "test", "aside", "quarantine")}
    return {
        "source": str(data),
        "images": len(manifest),
        "class_counts": {
            name: np.bincount(manifest.labels[rows], minlength=classes).tolist() for name, rows in sets.items()
        },
        "quarantined": len(sets["quarantine"]),
        "aside": len(sets["aside"]),
        "copies": int((lineage.role == "copy").sum()),
        "unsure": int((lineage.role == "unsure").sum()),
        "groups": len(np.unique(lineage.group)),
        "conflicts": int(prepared.audit.label_conflict.sum()),
        "eligible": int(dealt.eligible.sum()),
        "leaks": len(dealt.leaks),
        "dropped_classes": list(prepared.dropped_classes),
        "test_digest": test_digest(prepared),
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "path": manifest.paths[finding.row] if finding.row >= 0 else "",
                "detail": finding.message,
                "fix": finding.fix,
            }
            for finding in prepared.audit.findings
        ],
    }


def care_section(prepared: Prepared, lineage: str, max_samples: int | None = None) -> dict[str, Any]:
    """How the sets were kept apart, counted in the sets themselves.

    Returns:
        `lineage`, `max_samples`: the settings; `compared`: whether pictures were laid over each other, and `uncompared`
        how many pairs that look alike were not, for want of time; `shared_groups`: groups with
        images both in the test set and in training or validation, and `chosen_on_groups`: both in validation and
        training; `test_copies`: copies among the test images; `unnamed_faults`: files in quarantine that no finding
        names.
    """
    audit, dealt, group = prepared.audit, prepared.split, prepared.audit.lineage.group
    test, val, train = (dealt.rows(name) for name in ("test", "val", "train"))
    seen = np.concatenate([train, val, dealt.augmented_val])
    named = {finding.row for finding in audit.findings if finding.kind in IMAGE_FAULTS}
    return {
        "lineage": lineage,
        "max_samples": max_samples,
        "uncompared": prepared.facts.compared.unchecked if prepared.facts.compared else 0,
        "compared": prepared.facts.compared is not None,
        "shared_groups": len(np.intersect1d(group[test], group[seen])),
        "chosen_on_groups": len(np.intersect1d(group[val], group[train])),
        "test_copies": int((audit.lineage.role[test] == "copy").sum()),
        "unnamed_faults": len(set(dealt.rows("quarantine").tolist()) - named),
    }


def test_digest(prepared: Prepared) -> str:
    """blake2b-128 over content and label of the test images, in no order; hex: equal for the same test set anywhere."""
    names, files = prepared.manifest.class_names, prepared.facts.table["file_digest"].to_numpy(dtype=object)
    rows = prepared.split.rows("test")
    lines = sorted(f"{files[row]} {names[prepared.manifest.labels[row]]}" for row in rows)
    return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


test_digest.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it


def trials_section(trials: list[Trial]) -> dict[str, Any]:
    """Counts by state, and one row per trial."""
    states = [trial.state for trial in trials]
    return {
        "total": len(trials),
        **{state: states.count(state) for state in ("complete", "stopped", "paused", "failed")},
        "symmetries": next((each.notes["symmetries"] for each in trials if "symmetries" in each.notes), None),
        "table": [_trial_row(trial) for trial in trials],
    }


def backbones_section(turns: Turns, winner: Trial) -> dict[str, Any]:
    """Backbones side by side, best first: what each reached on validation in the same time.

    Only the winner was tested; the others' test figures would cost the test set its worth.
    """
    table = [_backbone_row(turns, name, winner) for name in turns.task.backbones]
    table.sort(key=lambda row: (row["winner"], row["score"] is not None, row["score"] or 0.0), reverse=True)
    return {"seconds_each": turns.shares.seconds, "table": table}


def _backbone_row(turns: Turns, name: str, winner: Trial) -> dict[str, Any]:
    own = [trial for trial in turns.trials if trial.recipe.backbone == name]
    best = best_trial(turns.task.candidates(own))
    return {
        "backbone": name,
        "score": best.score if best else None,
        "kind": best.recipe.kind if best else None,
        "trials": len(own),
        "failed": sum(trial.state == "failed" for trial in own),
        "seconds": turns.shares.spent().get(name, 0.0),
        "stop_reason": turns.reasons.get(name, "interrupted"),
        "winner": name == winner.recipe.backbone,
    }


def head_section(trials: list[Trial]) -> dict[str, Any] | None:
    """What came of trying another head than the linear one; None where none was tried."""
    tried = [trial for trial in trials if "head_search" in trial.notes]
    if not tried:
        return None
    trial = tried[-1]
    about = {"kind": trial.origin, "trial": trial.number, "backbone": trial.recipe.backbone, "seconds": trial.seconds}
    return {**about, **trial.notes["head_search"]}


def _micro_batch(trial: Trial) -> dict[str, Any]:
    """Images at once, where memory had no room for the batch of the recipe."""
    return {key: value for key, value in trial.notes.items() if key == "micro_batch"}


def selection_section(
    choice: Choice, predicted: Sequence[NDArray[np.int64]], judge: Judge, seed: int
) -> dict[str, Any]:
    """How the trial was chosen, and the figure corrected for that.

    Args:
        choice: the trial.
        predicted: (N_val) what each candidate says of validation, the simplest first and the model last.
        judge: the validation images.
        seed: of the resamples.
    """
    *candidates, model = predicted
    found = corrected_for_choice(
        judge.objective, judge.labels, judge.groups, np.stack(candidates), judge.num_classes, seed=seed
    )
    return {**choice.to_dict(), "objective": judge.objective, "naive": judge.score(model), **found}


#: What a row of the table of trials says of its settings, by kind.
_SETTINGS: dict[str, Callable[[Trial], dict[str, Any]]] = {
    "finetune": lambda trial: trial.recipe.to_dict() | _micro_batch(trial),
    "probe": lambda trial: {key: value for key, value in trial.notes.items() if key != "symmetries"},
    "head": lambda trial: {"head": trial.notes.get("head_search", {}).get("candidate", "")},
}


def _trial_row(trial: Trial) -> dict[str, Any]:
    recipe = trial.recipe
    return {
        "number": trial.number,
        "origin": trial.origin,
        "kind": recipe.kind,
        "backbone": recipe.backbone,
        "resolution": recipe.resolution,
        "epochs": trial.epochs_done,
        "score": trial.score,
        "loss": trial.loss,
        "seconds": trial.seconds,
        "state": trial.state,
        "error": trial.error,
        "hyperparameters": _SETTINGS[recipe.kind](trial),
        "curve": [
            {key: getattr(epoch, key) for key in ("epoch", "score", "train_loss", "val_loss")} for epoch in trial.epochs
        ],
    }
