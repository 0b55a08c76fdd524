"""What every tracker does. All calls come from one thread, in this order: start, trial ..., finish, close."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from automl_vision.search.trial import EpochRecord, Trial


@dataclass(frozen=True)
class Subject:
    """What is tracked.

    Attributes:
        path: the run folder, absolute.
        settings: dotted name -> value of every setting.
        memory: what the tracker kept of an earlier session of this run; what it puts in is kept for the next.
    """

    path: Path
    settings: Mapping[str, Any]
    memory: dict[str, Any]

    @property
    def name(self) -> str:
        """What the run is called."""
        return self.path.name


class Tracker(Protocol):
    """Sends a search somewhere. Any error that it raises ends the tracking, and nothing else."""

    def start(self, subject: Subject) -> str:
        """Begin, or go on with what an earlier session began; where it can be looked at, in one sentence."""

    def trial(self, trial: Trial, epochs: Sequence[EpochRecord]) -> None:
        """A trial as it is now, and those of its epochs that were not sent before."""

    def finish(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """The final figures, and the files that tell of the run."""

    def close(self, *, failed: bool) -> None:
        """Let go of everything. Called once, also where nothing was finished."""


def scores(epoch: EpochRecord) -> dict[str, float]:
    """What is sent of an epoch."""
    known = {
        "score": epoch.score,
        "val_loss": epoch.val_loss,
        "train_loss": epoch.train_loss,
        "learning_rate": epoch.learning_rate,
    }
    return {name: float(value) for name, value in known.items() if value is not None}


def trial_name(trial: Trial) -> str:
    """What a trial is called everywhere: its number, so that names sort."""
    return f"trial-{trial.number:03d}"


def recipe_values(trial: Trial) -> dict[str, str | float | bool]:
    """The recipe and where it came from, as values that trackers show."""
    return {"origin": trial.origin, **{name: plain(value) for name, value in trial.recipe.to_dict().items()}}


def plain(value: Any) -> str | float | bool:
    """A setting as a number, a truth value or a text."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def figures_of(report: Mapping[str, Any]) -> dict[str, float]:
    """What report.json says of the model in single numbers: "test/accuracy", "validation/macro_f1" ..."""
    found = {
        f"{part}/{name}": figure["value"]
        for part in ("test", "validation", "augmented_validation")
        for name, figure in (report.get(part) or {}).items()
        if isinstance(figure, dict) and isinstance(figure.get("value"), int | float)
    }
    return {**{name: float(value) for name, value in found.items()}, "trials": float(report["trials"]["total"])}
